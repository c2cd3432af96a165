"""GattService1 and GattCharacteristic1 of the simulated BlueZ, with its names for what a pendant refuses."""

# no postponed annotations here: dbus-fast reads them as D-Bus signatures and takes a postponed None for none at all

from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol, TypeVar

from dbus_fast import DBusError, PropertyAccess
from dbus_fast.annotations import DBusBool, DBusBytes, DBusDict, DBusObjectPath, DBusSignature, DBusStr, DBusUInt16
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from omi_edge.virtual.attributes import NEEDS_SECURITY, AttError, Characteristic
from omi_edge.virtual.connection import Connection, Gone

Strings = Annotated[list[str], DBusSignature("as")]
READ = PropertyAccess.READ
T = TypeVar("T")
_REFUSALS = {
    0x02: ("NotPermitted", "Read not permitted"),
    0x03: ("NotPermitted", "Write not permitted"),
    0x05: ("NotPermitted", "Not paired"),
    0x06: ("NotSupported", "Operation is not supported"),
    0x07: ("InvalidArguments", "Invalid offset"),
    0x08: ("NotAuthorized", "Operation Not Authorized"),
    0x0C: ("NotPermitted", "Not paired"),
    0x0D: ("InvalidArguments", "Invalid Length"),
    0x0F: ("NotPermitted", "Not paired"),
}
"""BlueZ's names for ATT errors (create_gatt_dbus_error in its src/gatt-client.c)."""


def refusal(error: AttError) -> DBusError:
    """Return the error that BlueZ makes of an ATT error."""
    name, text = _REFUSALS.get(error.code, ("Failed", f"Operation failed with ATT error: 0x{error.code:02x}"))
    return DBusError(f"org.bluez.Error.{name}", text)


class Holder(Protocol):
    """What a characteristic needs of its device."""

    @property
    def connection(self) -> Connection:
        """The connection. Raises DBusError when there is none."""

    @property
    def raises_security(self) -> bool:
        """Whether a refusal of an open link makes the stack pair by itself."""

    async def answering(self) -> None:
        """Wait while calls hang."""

    async def bond(self) -> bool:
        """Pair."""


class Service1(ServiceInterface):
    """One service."""

    def __init__(self, uuid: str, device: str) -> None:
        super().__init__("org.bluez.GattService1")
        self._uuid = uuid
        self._device = device

    @dbus_property(READ, "UUID")
    def uuid(self) -> DBusStr:
        """In full, lower case."""
        return self._uuid

    @dbus_property(READ, "Device")
    def device(self) -> DBusObjectPath:
        """Path of its device."""
        return self._device

    @dbus_property(READ, "Primary")
    def primary(self) -> DBusBool:
        """Always."""
        return True


class Characteristic1(ServiceInterface):
    """One characteristic of the connection that ``holder`` has."""

    def __init__(self, characteristic: Characteristic, service: str, holder: Holder) -> None:
        super().__init__("org.bluez.GattCharacteristic1")
        self._characteristic = characteristic
        self._service = service
        self._holder = holder
        self._notifying = False

    @dbus_property(READ, "UUID")
    def uuid(self) -> DBusStr:
        """In full, lower case."""
        return self._characteristic.uuid

    @dbus_property(READ, "Service")
    def service(self) -> DBusObjectPath:
        """Path of its service."""
        return self._service

    @dbus_property(READ, "Flags")
    def flags(self) -> Strings:
        """What it allows."""
        return sorted(self._characteristic.properties)

    @dbus_property(READ, "MTU")
    def mtu(self) -> DBusUInt16:
        """ATT MTU of the connection."""
        return self._holder.connection.mtu

    @dbus_property(READ, "Notifying")
    def notifying(self) -> DBusBool:
        """Whether somebody subscribed."""
        return self._notifying

    @dbus_property(READ, "Value")
    def value(self) -> DBusBytes:
        """Nothing is cached."""
        return b""

    @dbus_method("ReadValue")
    async def read_value(self, options: DBusDict) -> DBusBytes:
        """Read."""
        return await self._asked(lambda link: link.read(self._characteristic.uuid))

    @dbus_method("WriteValue")
    async def write_value(self, value: DBusBytes, options: DBusDict) -> None:
        """Write with response, or without one."""
        kind = options["type"].value if "type" in options else "request"
        if ("write" if kind == "request" else "write-without-response") not in self._characteristic.properties:
            raise DBusError("org.bluez.Error.NotSupported", "Operation is not supported")
        await self._asked(lambda link: link.write(self._characteristic.uuid, bytes(value)))

    @dbus_method("StartNotify")
    async def start_notify(self) -> None:
        """Subscribe."""
        if "notify" not in self._characteristic.properties:
            raise DBusError("org.bluez.Error.NotSupported", "Operation is not supported")
        await self._asked(lambda link: link.subscribe(self._characteristic.uuid, self._notify))
        self._notifying = True

    @dbus_method("StopNotify")
    async def stop_notify(self) -> None:
        """Unsubscribe."""
        await self._holder.answering()
        if not self._notifying:
            raise DBusError("org.bluez.Error.Failed", "No notify session started")
        self._holder.connection.unsubscribe(self._characteristic.uuid)
        self._notifying = False

    def _notify(self, value: bytes) -> None:
        self.emit_properties_changed({"Value": value})

    async def _asked(self, call: Callable[[Connection], Awaitable[T]]) -> T:
        await self._holder.answering()
        try:
            try:
                return await call(self._holder.connection)
            except AttError as error:
                if error.code not in NEEDS_SECURITY or not self._holder.raises_security:
                    raise
                if not await self._holder.bond():
                    raise
                return await call(self._holder.connection)
        except AttError as error:
            raise refusal(error) from None
        except Gone:
            raise DBusError("org.bluez.Error.Failed", "Not connected") from None
