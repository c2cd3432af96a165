"""A pendant over Bluetooth LE, with bleak: BlueZ on Linux, CoreBluetooth on macOS.

Every call has a time limit of its own, since a stack that hangs says nothing. Whatever bleak raises becomes LinkLost or
LinkUnavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from omi_edge import gatt
from omi_edge.clock import Clock
from omi_edge.domain import DeviceInfo
from omi_edge.errors import LinkLost, LinkUnavailable

SCAN_SECONDS = 10.0
"""A pendant advertises every 100 to 150 ms (dossier §2.1)."""
CONNECT_SECONDS = 20.0
CALL_SECONDS = 5.0
MACHINE_ERRORS = ("BleakBluetoothNotAvailableError", "FileNotFoundError", "ConnectionRefusedError", "PermissionError")
"""What says that this machine cannot use Bluetooth now: no adapter, switched off, no bus, no right to."""
DBUS_ERRORS = tuple(
    f"org.freedesktop.DBus.Error.{name}" for name in ("ServiceUnknown", "NameHasNoOwner", "AccessDenied")
)
"""The same, as the bus says it: no bluetoothd, or no right to speak to it."""


class BleLink:
    """Conforms to ``capture.link.Link``. Connects to ``address``, else to the first pendant that is seen."""

    def __init__(self, clock: Clock, address: str | None = None) -> None:
        self._clock = clock
        self._address = address
        self._client: Any = None
        self._ended: asyncio.Future[str] | None = None

    @property
    def transport(self) -> str:
        """What carries it."""
        return "Bluetooth LE"

    async def connect(self) -> DeviceInfo:
        """Scan by service, connect and read who answers."""
        bleak = importlib.import_module("bleak")
        async with self._limited("looking for a pendant", SCAN_SECONDS + CALL_SECONDS):
            device = await bleak.BleakScanner.find_device_by_filter(self._wanted, timeout=SCAN_SECONDS)
        if device is None:
            raise LinkLost("no pendant is in sight. Is it charged and near, and not connected to a phone?")
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ended = ended

        def on_disconnected(_: object) -> None:
            if not ended.done():
                ended.set_result("the link was lost")

        self._client = bleak.BleakClient(device, disconnected_callback=on_disconnected, timeout=CONNECT_SECONDS)
        async with self._limited("connecting", CONNECT_SECONDS + CALL_SECONDS):
            await self._client.connect()
        texts = [
            await self._text(uuid)
            for uuid in (gatt.MODEL_NUMBER, gatt.FIRMWARE_REVISION, gatt.HARDWARE_REVISION, gatt.MANUFACTURER_NAME)
        ]
        return DeviceInfo(device.address, device.name or "Omi", *texts)

    async def subscribe_audio(self, on_value: Callable[[bytes], None]) -> None:
        """Have notifications handed over."""
        client = self._connected()
        async with self._limited("subscribing to audio"):
            await client.start_notify(gatt.AUDIO_DATA, lambda _, data: on_value(bytes(data)))

    async def read_codec(self) -> int:
        """Return the codec id. Raises LinkLost for an empty value."""
        value = await self._read(gatt.AUDIO_CODEC)
        if not value:
            raise LinkLost("the pendant does not tell its codec.")
        return value[0]

    async def battery(self) -> int | None:
        """Return the charge in percent, None when the pendant does not tell."""
        value = await self._read(gatt.BATTERY_LEVEL)
        return value[0] if value and value[0] <= 100 else None

    async def wait_disconnected(self) -> str:
        """Wait for the end of the connection; return the reason, also when it is over already."""
        if self._ended is None:
            raise LinkLost("the pendant is not connected.")
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Disconnect; harmless when there is no connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(LinkLost, LinkUnavailable):  # it is given up in any case
                async with self._limited("disconnecting", CONNECT_SECONDS):
                    await client.disconnect()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result("closed by this side")

    def _wanted(self, device: Any, advertisement: Any) -> bool:
        # by service, never by name: owners rename their pendants (dossier §2.1)
        if gatt.AUDIO_SERVICE not in advertisement.service_uuids:
            return False
        return self._address is None or device.address.lower() == self._address.lower()

    async def _text(self, uuid: str) -> str:
        value = await self._read(uuid, missing=True)
        return value.decode("utf-8", "replace").strip("\0 ") if value else ""

    async def _read(self, uuid: str, *, missing: bool = False) -> bytes:
        client = self._connected()
        if missing and client.services.get_characteristic(uuid) is None:
            return b""
        async with self._limited("reading from the pendant"):
            return bytes(await client.read_gatt_char(uuid))

    def _connected(self) -> Any:
        if self._client is None or self._ended is None or self._ended.done():
            raise LinkLost("the pendant is not connected.")
        return self._client

    @contextlib.asynccontextmanager
    async def _limited(self, what: str, seconds: float = CALL_SECONDS) -> AsyncIterator[None]:
        """Give a call to bleak a time limit, and its errors a name of ours."""
        try:
            async with self._clock.time_limit(seconds):
                yield
        except TimeoutError as error:
            raise LinkLost(f"{what} took longer than {seconds:.0f} s and was given up.") from error
        except (LinkLost, LinkUnavailable):
            raise
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds & set(MACHINE_ERRORS) or getattr(error, "dbus_error", "") in DBUS_ERRORS:
                raise LinkUnavailable(
                    f"{what} failed: Bluetooth cannot be used on this machine now ({type(error).__name__}). Is it "
                    "switched on, and is bluetoothd running?"
                ) from error
            if "BleakError" in kinds or isinstance(error, (OSError, EOFError)):
                raise LinkLost(f"{what} failed: {type(error).__name__}.") from error
            raise
