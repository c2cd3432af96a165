"""A real link in simulated time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from omi_edge.clock import Clock, held
from omi_edge.domain import DeviceInfo
from omi_edge.virtual.pendant import Pendant


class Escorted:
    """Delegates to ``inner``, a real link to ``pendant`` over a real bus, and keeps simulated time from running ahead.

    A notification holds the clock from the moment the pendant sends it until ``inner`` delivers it; a call holds it
    until it returns. So a driven clock gives over the bus what it gives in process.
    """

    def __init__(self, inner: Any, pendant: Pendant, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._on_their_way: deque[Callable[[], None]] = deque()
        self._pendant = pendant
        pendant.on_sent = self._sent

    @property
    def transport(self) -> str:
        """What carries it."""
        return f"{self._inner.transport}, simulated: real bleak on a private D-Bus"

    async def connect(self) -> DeviceInfo:
        """See Link."""
        with held(self._clock):
            info: DeviceInfo = await self._inner.connect()
        return info

    async def subscribe_audio(self, on_value: Callable[[bytes], None]) -> None:
        """See Link."""

        def delivered(data: bytes) -> None:
            on_value(data)
            if self._on_their_way:
                self._on_their_way.popleft()()

        with held(self._clock):
            await self._inner.subscribe_audio(delivered)

    async def read_codec(self) -> int:
        """See Link."""
        with held(self._clock):
            return int(await self._inner.read_codec())

    async def battery(self) -> int | None:
        """See Link."""
        with held(self._clock):
            found: int | None = await self._inner.battery()
        return found

    async def wait_disconnected(self) -> str:
        """See Link."""
        reason = str(await self._inner.wait_disconnected())
        self._let_go()
        return reason

    async def close(self) -> None:
        """See Link."""
        with held(self._clock):
            await self._inner.close()
        self._let_go()

    def _sent(self) -> None:
        self._on_their_way.append(self._clock.hold())

    def _let_go(self) -> None:
        while self._on_their_way:
            self._on_their_way.popleft()()
