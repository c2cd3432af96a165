"""A virtual pendant as unmodified bleak sees one: a small ``org.bluez`` on a private D-Bus.

Only what bleak calls is there. The order of signals matters, and bleak says nothing when it is wrong: Connected before
the reply to Connect, the GATT objects before ServicesResolved, and at the end ServicesResolved before Connected.
"""

# no postponed annotations here: dbus-fast reads them as D-Bus signatures and takes a postponed None for none at all

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Annotated, Self

from dbus_fast import DBusError, PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusBytes, DBusDict, DBusInt16, DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from omi_edge import gatt
from omi_edge.clock import SystemClock
from omi_edge.virtual.bus import ADDRESS_VARIABLE
from omi_edge.virtual.pendant import Pendant

Strings = Annotated[list[str], DBusSignature("as")]
READ = PropertyAccess.READ
ADAPTER = "/org/bluez/hci0"
ADVERTISING_SECONDS = 0.1
"""How often a pendant advertises (dossier §2.1)."""
RESOLVE_SECONDS = 0.05
"""From the connection to the services being known."""
SEND_BUFFER_BYTES = 4 * 1024 * 1024
"""dbus-fast ends its own connection when the socket's send buffer is full: room for minutes of notifications."""
RSSI = -60
_REAL = SystemClock()
"""What bleak waits for on its side of the bus happens in real time, whatever the simulation's clock does."""


class BluezAdapter:
    """hci0 with ``pendant`` in range, on the bus that the environment names, while the context lasts."""

    def __init__(self, pendant: Pendant) -> None:
        self._pendant = pendant
        self._bus: MessageBus | None = None
        self._adapter: _Adapter | None = None

    async def __aenter__(self) -> Self:
        self._bus = await MessageBus(bus_address=os.environ[ADDRESS_VARIABLE], negotiate_unix_fd=True).connect()
        if self._bus._sock is not None:
            with contextlib.suppress(OSError):
                self._bus._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._adapter = _Adapter(self._bus, self._pendant)
        self._bus.export(ADAPTER, self._adapter)
        await self._bus.request_name("org.bluez")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._bus is not None
        assert self._adapter is not None
        self._adapter.close()
        self._bus.disconnect()


class _Adapter(ServiceInterface):
    def __init__(self, bus: MessageBus, pendant: Pendant) -> None:
        super().__init__("org.bluez.Adapter1")
        self._bus = bus
        self._pendant = pendant
        self._device: _Device | None = None
        self._advertising: asyncio.Task[None] | None = None

    @dbus_property(READ, "Roles")
    def roles(self) -> Strings:
        return ["central"]

    @dbus_property(READ, "Powered")
    def powered(self) -> DBusBool:
        return True

    @dbus_property(READ, "Address")
    def address(self) -> DBusStr:
        return "00:00:5E:00:53:01"

    @dbus_method("SetDiscoveryFilter")
    def set_discovery_filter(self, properties: DBusDict) -> None:
        pass

    @dbus_method("StartDiscovery")
    def start_discovery(self) -> None:
        if self._advertising is None:
            self._advertising = asyncio.create_task(self._advertise())

    @dbus_method("StopDiscovery")
    def stop_discovery(self) -> None:
        if self._advertising is not None:
            self._advertising.cancel()
            self._advertising = None

    @dbus_method("RemoveDevice")
    def remove_device(self, path: DBusObjectPath) -> None:
        if self._device is not None and self._device.path == path:
            self._device.close()
            self._device = None

    def close(self) -> None:
        self.stop_discovery()
        if self._device is not None:
            self._device.close()

    async def _advertise(self) -> None:
        while True:
            if not self._pendant.connected:  # a pendant that is connected does not advertise (dossier §2.1)
                if self._device is None:
                    self._device = _Device(self._bus, self._pendant)
                self._device.seen()
            await _REAL.sleep(ADVERTISING_SECONDS)


class _Device(ServiceInterface):
    def __init__(self, bus: MessageBus, pendant: Pendant) -> None:
        super().__init__("org.bluez.Device1")
        self.path = f"{ADAPTER}/dev_{pendant.profile.device.address.replace(':', '_')}"
        self._bus = bus
        self._pendant = pendant
        self._is_connected = False
        self._resolved = False
        self._exported: list[tuple[str, ServiceInterface]] = []
        self._life: asyncio.Task[None] | None = None
        bus.export(self.path, self)

    @dbus_property(READ, "Address")
    def address(self) -> DBusStr:
        return self._pendant.profile.device.address

    @dbus_property(READ, "AddressType")
    def address_type(self) -> DBusStr:
        return "random"

    @dbus_property(READ, "Name")
    def device_name(self) -> DBusStr:
        return self._pendant.profile.device.name

    @dbus_property(READ, "Alias")
    def alias(self) -> DBusStr:
        return self._pendant.profile.device.name

    @dbus_property(READ, "Adapter")
    def adapter(self) -> DBusObjectPath:
        return ADAPTER

    @dbus_property(READ, "UUIDs")
    def uuids(self) -> Strings:
        return [gatt.AUDIO_SERVICE]

    @dbus_property(READ, "RSSI")
    def rssi(self) -> DBusInt16:
        return RSSI

    @dbus_property(READ, "Connected")
    def connected(self) -> DBusBool:
        return self._is_connected

    @dbus_property(READ, "Paired")
    def paired(self) -> DBusBool:
        return False

    @dbus_property(READ, "ServicesResolved")
    def services_resolved(self) -> DBusBool:
        return self._resolved

    @dbus_property(READ, "Trusted")
    def trusted(self) -> DBusBool:
        return False

    @dbus_method("Connect")
    def connect(self) -> None:
        if self._is_connected:
            return
        if self._pendant.connected:
            raise DBusError("org.bluez.Error.Failed", "le-connection-abort-by-local")
        self._is_connected = True
        self.emit_properties_changed({"Connected": True})
        self._life = asyncio.create_task(self._live(self._pendant.connect()))

    @dbus_method("Disconnect")
    def disconnect(self) -> None:
        self._pendant.disconnect()

    def seen(self) -> None:
        self.emit_properties_changed({"RSSI": RSSI})

    def close(self) -> None:
        self._pendant.disconnect()
        if self._life is not None:
            self._life.cancel()
        self._forget_services()
        self._bus.unexport(self.path, self)

    async def _live(self, ended: asyncio.Future[str]) -> None:
        await asyncio.wait([ended], timeout=RESOLVE_SECONDS)
        if not ended.done():
            self._show_services()
            self._resolved = True
            self.emit_properties_changed({"ServicesResolved": True})
            await asyncio.shield(ended)
        self._resolved = False
        self.emit_properties_changed({"ServicesResolved": False})
        self._is_connected = False
        self.emit_properties_changed({"Connected": False})
        self._forget_services()

    def _show_services(self) -> None:
        handle = 0x10
        for uuid, characteristics in services(self._pendant):
            service = f"{self.path}/service{handle:04x}"
            self._export(service, _Service(uuid, self.path))
            for characteristic, flags, read in characteristics:
                handle += 2
                path = f"{service}/char{handle:04x}"
                self._export(path, _Characteristic(characteristic, service, flags, read, self._pendant))
            handle += 0x10

    def _export(self, path: str, interface: ServiceInterface) -> None:
        self._bus.export(path, interface)
        self._exported.append((path, interface))

    def _forget_services(self) -> None:
        while self._exported:
            path, interface = self._exported.pop()
            self._bus.unexport(path, interface)


class _Service(ServiceInterface):
    def __init__(self, uuid: str, device: str) -> None:
        super().__init__("org.bluez.GattService1")
        self._uuid = uuid
        self._device = device

    @dbus_property(READ, "UUID")
    def uuid(self) -> DBusStr:
        return self._uuid

    @dbus_property(READ, "Device")
    def device(self) -> DBusObjectPath:
        return self._device

    @dbus_property(READ, "Primary")
    def primary(self) -> DBusBool:
        return True


class _Characteristic(ServiceInterface):
    def __init__(self, uuid: str, service: str, flags: list[str], read: Callable[[], bytes], pendant: Pendant) -> None:
        super().__init__("org.bluez.GattCharacteristic1")
        self._uuid = uuid
        self._service = service
        self._flags = flags
        self._read = read
        self._pendant = pendant

    @dbus_property(READ, "UUID")
    def uuid(self) -> DBusStr:
        return self._uuid

    @dbus_property(READ, "Service")
    def service(self) -> DBusObjectPath:
        return self._service

    @dbus_property(READ, "Flags")
    def flags(self) -> Strings:
        return self._flags

    @dbus_property(READ, "Value")
    def value(self) -> DBusBytes:
        return b""

    @dbus_method("ReadValue")
    def read_value(self, options: DBusDict) -> DBusBytes:
        if not self._pendant.connected:
            raise DBusError("org.bluez.Error.Failed", "Not connected")
        return self._read()

    @dbus_method("StartNotify")
    def start_notify(self) -> None:
        if not self._pendant.connected:
            raise DBusError("org.bluez.Error.Failed", "Not connected")
        if self._uuid == gatt.AUDIO_DATA:
            self._pendant.subscribe(self._notify)

    @dbus_method("StopNotify")
    def stop_notify(self) -> None:
        if self._uuid == gatt.AUDIO_DATA:
            self._pendant.unsubscribe()

    def _notify(self, value: bytes) -> None:
        self.emit_properties_changed({"Value": value})


def services(pendant: Pendant) -> list[tuple[str, list[tuple[str, list[str], Callable[[], bytes]]]]]:
    """Return the GATT table (dossier §3): service, then characteristic, flags and what a read gives."""
    device = pendant.profile.device
    return [
        (
            gatt.AUDIO_SERVICE,
            [
                (gatt.AUDIO_DATA, ["read", "notify"], lambda: b""),
                (gatt.AUDIO_CODEC, ["read"], lambda: bytes([int(pendant.profile.codec)])),
            ],
        ),
        (gatt.BATTERY_SERVICE, [(gatt.BATTERY_LEVEL, ["read", "notify"], lambda: bytes([pendant.battery]))]),
        (
            gatt.DEVICE_INFORMATION_SERVICE,
            [
                (gatt.MODEL_NUMBER, ["read"], lambda: device.model.encode()),
                (gatt.FIRMWARE_REVISION, ["read"], lambda: device.firmware.encode()),
                (gatt.HARDWARE_REVISION, ["read"], lambda: device.hardware.encode()),
                (gatt.MANUFACTURER_NAME, ["read"], lambda: device.manufacturer.encode()),
            ],
        ),
    ]
