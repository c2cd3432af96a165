"""The bus: replay, bounds, independence of listeners."""

from __future__ import annotations

import asyncio

import pytest

from omi_edge.events import Bus


async def test_a_listener_gets_what_comes_after_it() -> None:
    bus = Bus()
    bus.publish("segment", 1, text="before")
    with bus.subscribe() as subscription:
        waiting = asyncio.create_task(subscription.get())
        await asyncio.sleep(0)
        bus.publish("segment", 2, text="after")
        event = await waiting
    assert (event.number, event.kind, event.at_us, event.data) == (2, "segment", 2, {"text": "after"})


async def test_replay_after_a_number_leaves_partial_texts_out() -> None:
    bus = Bus()
    for kind in ("segment", "partial", "task", "gap"):
        bus.publish(kind, 0)
    with bus.subscribe(after=1) as subscription:
        assert [(await subscription.get()).number for _ in range(2)] == [3, 4]
    assert bus.last_number == 4


async def test_replay_is_bounded() -> None:
    bus = Bus(keep=3)
    for _ in range(10):
        bus.publish("job", 0)
    with bus.subscribe(after=0) as subscription:
        assert [(await subscription.get()).number for _ in range(3)] == [8, 9, 10]


async def test_a_slow_listener_loses_the_oldest_and_holds_nobody_up() -> None:
    bus = Bus()
    with bus.subscribe(limit=2) as slow, bus.subscribe() as quick:
        for _ in range(5):
            bus.publish("job", 0)
        assert slow.dropped == 3
        assert [(await slow.get()).number for _ in range(2)] == [4, 5]
        assert [(await quick.get()).number for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_a_listener_that_left_gets_nothing() -> None:
    bus = Bus()
    with bus.subscribe(limit=1) as subscription:
        pass
    bus.publish("job", 0)
    bus.publish("job", 0)
    assert subscription.dropped == 0


def test_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="gossip"):
        Bus().publish("gossip", 0)
