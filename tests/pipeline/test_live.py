"""Text while a person speaks: one segment at a time, and never in the way of the stored text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.engine import NO_HINTS, HeardWord, Hints, Recognition
from omi_edge.errors import EngineTransient
from omi_edge.events import Bus
from omi_edge.pipeline import live as live_module
from omi_edge.pipeline.engines import PartialHeard
from omi_edge.pipeline.hearing import LiveAudio
from omi_edge.pipeline.live import LiveTranscriber
from tests.helpers import START_US
from tests.pipeline.test_spine import ScriptedEngines

SECOND = bytes(32_000)


class Listening(ScriptedEngines):
    """Tells a word for each second it has heard, when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.may.set()
        self.error: Exception | None = None
        self.blocks: list[int] = []

    async def recognize_live(
        self, blocks: AsyncIterator[bytes], partial: PartialHeard, hints: Hints = NO_HINTS
    ) -> Recognition:
        seconds = 0
        async for block in blocks:
            await self.may.wait()
            if self.error is not None:
                raise self.error
            self.blocks.append(len(block) // len(SECOND))
            seconds += len(block) // len(SECOND)
            partial(" ".join(["word"] * seconds))
        return Recognition(tuple(HeardWord("word", n, n + 1, 0.9) for n in range(seconds)), "scripted")


class Room:
    def __init__(self, clock: DrivenClock) -> None:
        self.engines = Listening()
        self.bus = Bus()
        self.behind = False
        self.live = LiveTranscriber(self.engines, self.bus, clock, lambda: self.behind)

    def speak(self, segment_id: str, *, seconds: int = 1, first: bool = False, last: bool = False) -> None:
        self.live.offer("src", LiveAudio(segment_id, START_US, SECOND * seconds, first=first, last=last))


@pytest.fixture
async def room(clock: DrivenClock) -> AsyncIterator[Room]:
    made = Room(clock)
    yield made
    await made.live.close()


async def settled(room: Room) -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_partial_text_grows_and_the_result_is_the_same_pass(room: Room) -> None:
    with room.bus.subscribe() as events:
        room.speak("seg_1", first=True)
        await settled(room)
        room.speak("seg_1")
        await settled(room)
        room.speak("seg_1", seconds=0, last=True)
        result = await room.live.result("seg_1")
        told = [(await events.get()).data for _ in range(events.waiting)]
    assert result is not None
    assert len(result.words) == 2
    assert [one["text"] for one in told] == ["word", "word word"]
    assert {(one["segment_id"], one["source_id"], one["start_us"]) for one in told} == {("seg_1", "src", START_US)}
    assert await room.live.result("seg_1") is None  # once


async def test_while_one_is_heard_another_is_left_to_its_job(room: Room) -> None:
    room.speak("seg_1", first=True)
    room.speak("seg_2", first=True)
    room.speak("seg_2", last=True)
    room.speak("seg_1", last=True)
    assert await room.live.result("seg_2") is None
    result = await room.live.result("seg_1")
    assert result is not None
    assert len(result.words) == 2


async def test_with_work_left_over_nothing_is_heard_live(room: Room) -> None:
    room.behind = True
    room.speak("seg_1", first=True, last=True)
    assert await room.live.result("seg_1") is None


async def test_an_engine_that_fails_leaves_the_segment_to_its_job(room: Room) -> None:
    room.engines.error = EngineTransient("x")
    room.speak("seg_1", first=True, last=True)
    assert await room.live.result("seg_1") is None
    room.engines.error = None
    room.speak("seg_2", first=True, last=True)
    assert await room.live.result("seg_2") is not None


async def test_who_is_behind_gets_larger_blocks(room: Room) -> None:
    room.engines.may.clear()
    room.speak("seg_1", first=True)
    await settled(room)
    for _ in range(5):
        room.speak("seg_1")
    room.speak("seg_1", seconds=0, last=True)
    room.engines.may.set()
    result = await room.live.result("seg_1")
    assert result is not None
    assert len(result.words) == 6
    assert room.engines.blocks == [1, 5]


async def test_who_is_too_far_behind_is_given_up(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "BLOCKS_LIMIT", 3)
    room.engines.may.clear()
    room.speak("seg_1", first=True)
    await settled(room)
    for _ in range(5):
        room.speak("seg_1")
    room.speak("seg_1", last=True)
    room.engines.may.set()
    assert await room.live.result("seg_1") is None


async def test_a_segment_whose_end_never_came_does_not_keep_its_job_waiting(room: Room) -> None:
    room.speak("seg_1", first=True)
    await settled(room)
    assert await room.live.result("seg_1") is None
