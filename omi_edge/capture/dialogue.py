"""One storage command at a time over a link, and what comes back (dossier §6.5: answers do not name their question)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from omi_edge import gatt
from omi_edge.capture.link import Link
from omi_edge.clock import Clock
from omi_edge.errors import BadPeripheral, LinkLost, OmiEdgeError

ANSWER_SECONDS = 5.0
"""For an answer, and for data to come or to go on: what Omi's app waits (dossier §6.5)."""
QUIET_SECONDS = 0.5
"""After STOP: what was queued before still arrives (dossier §6.5, as Omi's app)."""
FLOOD_BYTES = 2_000_000
FLOOD_VALUES = 40_000
"""More than three times what one bounded READ brings, in notifications of the smallest MTU: nobody asked for it."""


class Dialogue:
    """Subscribes to the storage's control for the length of an ``async with``."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self.clock = clock
        self._link = link
        self._values: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._ended: asyncio.Task[object] | None = None
        self._open = False
        self._flooded = False

    async def __aenter__(self) -> Dialogue:
        self._open = True
        await self._link.subscribe(gatt.STORAGE_CONTROL, self._on_value)
        self._ended = asyncio.create_task(self._link.wait_disconnected())
        self._ended.add_done_callback(lambda _: self._stir())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self._values.clear()
        if self._ended is not None:
            self._ended.cancel()
            await asyncio.gather(self._ended, return_exceptions=True)

    async def write(self, command: bytes) -> None:
        """Send a command. Raises as Link.write."""
        await self._link.write(gatt.STORAGE_CONTROL, command)

    async def status(self) -> bytes:
        """Read the storage's status. Raises as Link.read."""
        return await self._link.read(gatt.STORAGE_STATUS)

    async def next(self, seconds: float) -> bytes | None:
        """Return the next notification, None when none comes within ``seconds``.

        What arrived before the link's end is still returned. Raises LinkLost, and BadPeripheral for a flood.
        """
        if self._flooded:
            raise BadPeripheral("the pendant sends more than was asked of its storage. Switch it off and on.")
        if not self._values and seconds > 0 and not self._over:
            self._wake = asyncio.get_running_loop().create_future()
            timer = self.clock.call_later(seconds, self._stir)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None
        if self._values:
            return self.take()
        if self._over:
            raise LinkLost("the link to the pendant ended while stored audio was fetched; it goes on next time.")
        return None

    def take(self) -> bytes | None:
        """Return a notification that is there already."""
        if not self._values:
            return None
        value = self._values.popleft()
        self._waiting_bytes -= len(value)
        return value

    async def hush(self, stop: bytes, late: Callable[[bytes], object] = lambda _: None) -> None:
        """Send STOP and wait until all is quiet; ``late`` is given what still came. Raises as ``write``, ``next``."""
        await self.write(stop)
        until_us = self.clock.boot_us() + round(QUIET_SECONDS * 1e6)
        for _ in range(FLOOD_VALUES):
            value = await self.next((until_us - self.clock.boot_us()) / 1e6)
            if value is not None:
                late(value)
            elif self.clock.boot_us() >= until_us:
                return
        raise BadPeripheral("the pendant's storage does not stop sending. Switch it off and on.")

    async def break_off(self, stop: bytes) -> None:
        """Send STOP as the last thing; nothing more can be done when it fails."""
        with contextlib.suppress(OmiEdgeError):
            await self.write(stop)

    @property
    def _over(self) -> bool:
        return self._ended is None or self._ended.done()

    def _on_value(self, value: bytes) -> None:
        if not self._open:
            return
        if len(self._values) >= FLOOD_VALUES or self._waiting_bytes + len(value) > FLOOD_BYTES:
            self._flooded = True
            return
        self._values.append(value)
        self._waiting_bytes += len(value)
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
