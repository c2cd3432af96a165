"""The one clock: nothing else in omi-edge reads time or sleeps.

``SystemClock`` is the machine's. ``DrivenClock`` stands still until somebody calls ``advance``; then it jumps from
timer to timer, and waits before each jump until nobody holds it. So a simulated hour takes as long as its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import heapq
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

_BOOT_CLOCK = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC
"""Counts suspend on both systems (clock_gettime(2) of Linux and of macOS)."""


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Make sure that the callback does not run; harmless when it has run."""


class Clock(Protocol):
    """What the appliance may know about time.

    ``boot_id``, ``boot_us``, ``utc_us``, ``work_us`` and ``hold`` may be called from any thread.
    """

    def boot_id(self) -> str:
        """Name of the boot that ``boot_us`` counts from; empty where the system does not tell."""

    def boot_us(self) -> int:
        """Microseconds since boot, suspend included; never goes back."""

    def utc_us(self) -> int:
        """Microseconds since 1970 UTC; may step."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Run ``callback`` on the event loop after ``seconds``."""

    def work_us(self) -> int:
        """Machine time in microseconds, for measuring our own computation; not driven."""

    def time_limit(self, seconds: float) -> contextlib.AbstractAsyncContextManager[object]:
        """Limit foreign work (an engine, a library call) in machine time; raises TimeoutError."""

    def hold(self) -> Callable[[], None]:
        """Say that work is in flight: a driven clock does not move before the returned function has been called."""


class _MachineTime:
    """What both clocks share: computation is measured in machine time."""

    def work_us(self) -> int:
        return time.perf_counter_ns() // 1000

    @contextlib.asynccontextmanager
    async def time_limit(self, seconds: float) -> AsyncIterator[None]:
        async with asyncio.timeout(seconds):
            yield


class SystemClock(_MachineTime):
    """The machine's own time."""

    def boot_id(self) -> str:
        """See Clock."""
        return _boot_id()

    def boot_us(self) -> int:
        """See Clock."""
        return time.clock_gettime_ns(_BOOT_CLOCK) // 1000

    def utc_us(self) -> int:
        """See Clock."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """See Clock."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def hold(self) -> Callable[[], None]:
        """See Clock; real time waits for nobody."""
        return _nothing


class DrivenClock(_MachineTime):
    """A clock that is moved by ``advance`` alone."""

    def __init__(self, utc_us: int, *, boot_us: int = 1_000_000_000, boot_id: str = "driven") -> None:
        self._boot_id = boot_id
        self._boot_us = boot_us
        self._utc_minus_boot_us = utc_us - boot_us
        self._timers: list[tuple[int, int, _DrivenTimer]] = []
        self._order = itertools.count()
        self._held = 0
        self._lock = threading.Lock()
        self._released: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._advancing = asyncio.Lock()

    def boot_id(self) -> str:
        """See Clock."""
        return self._boot_id

    def boot_us(self) -> int:
        """See Clock."""
        return self._boot_us

    def utc_us(self) -> int:
        """See Clock."""
        return self._boot_us + self._utc_minus_boot_us

    def step_utc(self, seconds: float) -> None:
        """Step the wall clock, as NTP or a person does; boot time goes on undisturbed."""
        self._utc_minus_boot_us += round(seconds * 1e6)

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: _resolve(done))
        try:
            await done
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """See Clock."""
        timer = _DrivenTimer(callback)
        heapq.heappush(self._timers, (self._boot_us + max(0, round(seconds * 1e6)), next(self._order), timer))
        return timer

    def hold(self) -> Callable[[], None]:
        """See Clock."""
        with self._lock:
            self._held += 1
        return self._release_once()

    async def settle(self) -> None:
        """Wait until nobody holds the clock and every task that could run has run."""
        self._loop = asyncio.get_running_loop()
        quiet = 0
        while quiet < 10:  # a woken task may wake others: several empty turns of the loop in a row mean quiet
            with self._lock:
                held = self._held
                self._released = asyncio.Event() if held else None
                released = self._released
            if released is not None:
                await released.wait()
                quiet = 0
            else:
                await asyncio.sleep(0)
                quiet += 1

    async def advance(self, seconds: float, *, pace: float | None = None) -> None:
        """Move time by ``seconds``, timer by timer, settling before each jump.

        ``pace`` limits it to that many times real time.
        """
        async with self._advancing:
            end_us = self._boot_us + round(seconds * 1e6)
            while True:
                await self.settle()
                due_us = self._next_due_us()
                target_us = end_us if due_us is None or due_us > end_us else due_us
                if pace is not None and target_us > self._boot_us:
                    await asyncio.sleep((target_us - self._boot_us) / 1e6 / pace)
                    # something may have happened in between that wants an earlier timer
                    due_us = self._next_due_us()
                    target_us = min(target_us, due_us) if due_us is not None else target_us
                self._boot_us = max(self._boot_us, target_us)
                if due_us is None or due_us > end_us:
                    return
                self._fire_due()

    async def run_real(self) -> None:
        """Follow real time until cancelled."""
        while True:
            await self.advance(0.1, pace=1.0)

    def _next_due_us(self) -> int | None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _fire_due(self) -> None:
        while (due_us := self._next_due_us()) is not None and due_us <= self._boot_us:
            heapq.heappop(self._timers)[2].fire()

    def _release_once(self) -> Callable[[], None]:
        released = False

        def release() -> None:
            nonlocal released
            with self._lock:
                if released:
                    return
                released = True
                self._held -= 1
                waiting = self._released if self._held == 0 else None
            if waiting is not None and self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop may be closed while a thread lets go
                    self._loop.call_soon_threadsafe(waiting.set)

        return release


class _DrivenTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._callback()


@contextlib.contextmanager
def held(clock: Clock) -> Iterator[None]:
    """Hold ``clock`` for the length of a block."""
    release = clock.hold()
    try:
        yield
    finally:
        release()


@functools.cache
def _boot_id() -> str:
    """Return the kernel's own name of this boot: random(4) of Linux, sysctl(3) of macOS."""
    with contextlib.suppress(OSError, ValueError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    try:
        buffer = ctypes.create_string_buffer(64)
        size = ctypes.c_size_t(len(buffer))
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0)
    except (OSError, AttributeError):
        return ""
    return "" if failed else buffer.value.decode("ascii", "replace")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _nothing() -> None:
    pass
