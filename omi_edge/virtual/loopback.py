"""The in-process link: a virtual pendant behind the interface that a Bluetooth stack has elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from omi_edge.domain import DeviceInfo
from omi_edge.errors import LinkLost
from omi_edge.virtual.pendant import Pendant


class LoopbackLink:
    """Conforms to ``capture.link.Link``. Every call answers at once and delivers on the spot: nothing is in flight.

    So a driven clock never needs to wait for it.
    """

    def __init__(self, pendant: Pendant) -> None:
        self._pendant = pendant
        self._ended: asyncio.Future[str] | None = None

    @property
    def transport(self) -> str:
        """What carries it."""
        return "in-process link"

    async def connect(self) -> DeviceInfo:
        """Connect; LinkLost while another central holds the pendant."""
        if self._pendant.connected:
            raise LinkLost("another central holds the pendant's only link.")
        self._ended = self._pendant.connect()
        return self._pendant.profile.device

    async def subscribe_audio(self, on_value: Callable[[bytes], None]) -> None:
        """Have notifications handed over."""
        self._connected()
        self._pendant.subscribe(on_value)

    async def read_codec(self) -> int:
        """Return the codec id."""
        self._connected()
        return int(self._pendant.profile.codec)

    async def battery(self) -> int | None:
        """Return the charge in percent."""
        self._connected()
        return self._pendant.battery

    async def wait_disconnected(self) -> str:
        """Wait for the end of the connection; return the reason, also when it is over already."""
        if self._ended is None:
            raise LinkLost("the pendant is not connected.")
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Disconnect; harmless when there is no connection, or when it is another central's."""
        if self._ended is not None and not self._ended.done():
            self._pendant.disconnect()

    def _connected(self) -> asyncio.Future[str]:
        if self._ended is None or self._ended.done():
            raise LinkLost("the pendant is not connected.")
        return self._ended
