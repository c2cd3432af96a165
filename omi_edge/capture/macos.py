"""What a Mac tells beside what bleak does: CoreBluetooth says nothing of bonds and reasons, and pairs by itself."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from omi_edge import gatt
from omi_edge.capture.bleerrors import limited, silent_host
from omi_edge.capture.connection import Connection
from omi_edge.clock import Clock


class MacHost:
    """Conforms to ``host.Host``."""

    can_pair = False

    def __init__(self, clock: Clock, adapter: str = "") -> None:
        self._clock = clock
        del adapter  # a Mac has one

    async def check(self) -> None:
        """See Radio."""
        await self._adapter()

    async def connected(self, address: str) -> Any:
        """Return bleak's BLEDevice of a pendant that macOS holds a link to already, else None."""
        adapter = await self._adapter()
        async with limited(self._clock, "looking for a link that is up", late=silent_host()):
            devices = await adapter.get_connected_devices([gatt.AUDIO_SERVICE])
        return next((device for device in devices if device.address.upper() == address.upper()), None)

    async def watch(self, device: Any, connection: Connection) -> None:
        """Do nothing: macOS tells no reasons, and no bond."""

    def unwatch(self, connection: Connection) -> None:
        """Do nothing."""

    async def refresh(self, connection: Connection) -> None:
        """Do nothing."""

    def trust(self, addresses: Iterable[str]) -> None:
        """Do nothing: macOS asks the person in front of it."""

    @contextlib.contextmanager
    def pairing(self, address: str) -> Iterator[None]:
        """Do nothing."""
        yield

    async def close(self) -> None:
        """Do nothing."""

    async def _adapter(self) -> Any:
        """Bleak's adapter; it waits until CoreBluetooth says that it may be used, and raises when it may not."""
        bleak = importlib.import_module("bleak")
        async with limited(self._clock, "asking macOS for Bluetooth", late=silent_host()):
            return await bleak.BleakAdapter.get()
