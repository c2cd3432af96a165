"""The driven clock: order, holding, settling; and the machine's clock."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from omi_edge.clock import DrivenClock, SystemClock, held
from tests.helpers import START_US


async def test_timers_fire_in_order_at_their_own_times() -> None:
    clock = DrivenClock(START_US)
    fired: list[tuple[str, int]] = []

    def note(name: str) -> None:
        fired.append((name, clock.utc_us() - START_US))

    for name, seconds in (("late", 3.0), ("soon", 1.0), ("soon too", 1.0)):
        clock.call_later(seconds, functools.partial(note, name))
    await clock.advance(2.0)
    assert fired == [("soon", 1_000_000), ("soon too", 1_000_000)]
    await clock.advance(2.0)
    assert fired[-1] == ("late", 3_000_000)
    assert clock.utc_us() == START_US + 4_000_000


async def test_a_cancelled_timer_stays_silent() -> None:
    clock = DrivenClock(START_US)
    fired: list[int] = []
    timer = clock.call_later(1.0, lambda: fired.append(1))
    timer.cancel()
    await clock.advance(5.0)
    timer.cancel()
    assert fired == []


async def test_a_sleeper_that_sleeps_again_is_woken_at_each_time() -> None:
    clock = DrivenClock(START_US)
    seen: list[int] = []

    async def sleeper() -> None:
        for _ in range(3):
            await clock.sleep(1.5)
            seen.append(clock.utc_us() - START_US)

    task = asyncio.create_task(sleeper())
    await clock.advance(10.0)
    assert seen == [1_500_000, 3_000_000, 4_500_000]
    assert task.done()


async def test_time_stands_still_while_work_is_held_by_a_thread() -> None:
    clock = DrivenClock(START_US)
    let_go = threading.Event()
    seen: list[int] = []

    def work() -> None:
        let_go.wait(10)
        seen.append(clock.utc_us() - START_US)
        release()

    release = clock.hold()
    thread = threading.Thread(target=work)
    thread.start()
    advancing = asyncio.create_task(clock.advance(60.0))
    for _ in range(100):
        await asyncio.sleep(0)
    assert clock.utc_us() == START_US
    let_go.set()
    await advancing
    thread.join()
    assert seen == [0]
    assert clock.utc_us() == START_US + 60_000_000


async def test_letting_go_twice_counts_once() -> None:
    clock = DrivenClock(START_US)
    first, second = clock.hold(), clock.hold()
    first()
    first()
    settling = asyncio.create_task(clock.settle())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not settling.done()
    second()
    await settling


async def test_held_lets_go_after_an_error() -> None:
    clock = DrivenClock(START_US)
    with pytest.raises(RuntimeError), held(clock):
        raise RuntimeError
    await clock.settle()


async def test_a_step_of_the_wall_clock_leaves_timers_alone() -> None:
    clock = DrivenClock(START_US)
    fired: list[int] = []
    clock.call_later(2.0, lambda: fired.append(clock.boot_us()))
    began_us = clock.boot_us()
    clock.step_utc(-3600)
    assert clock.utc_us() == START_US - 3600 * 1_000_000
    await clock.advance(2.0)
    assert fired == [began_us + 2_000_000]


async def test_a_cancelled_sleep_leaves_no_timer() -> None:
    clock = DrivenClock(START_US)
    task = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(2.0)


async def test_foreign_work_is_limited_in_machine_time() -> None:
    clock = DrivenClock(START_US)
    with pytest.raises(TimeoutError):
        async with clock.time_limit(0.01):
            await asyncio.Event().wait()


async def test_the_machines_clock_goes_on() -> None:
    clock = SystemClock()
    boot_us, work_us = clock.boot_us(), clock.work_us()
    rung = asyncio.Event()
    clock.call_later(0.001, rung.set)
    await rung.wait()
    await clock.sleep(0)
    assert clock.boot_us() > boot_us
    assert clock.work_us() > work_us
    assert clock.utc_us() > START_US
    clock.hold()()
