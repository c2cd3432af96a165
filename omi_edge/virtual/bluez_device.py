"""Device1 of the simulated BlueZ: one pendant as one central's stack holds it.

The order of signals matters, and bleak says nothing when it is wrong: Connected before the reply to Connect, the GATT
objects before ServicesResolved, and at the end ServicesResolved, then Disconnected, then Connected.
"""

# no postponed annotations here: dbus-fast reads them as D-Bus signatures and takes a postponed None for none at all

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from dbus_fast import DBusError, PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusInt16, DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

from omi_edge import gatt
from omi_edge.clock import SystemClock
from omi_edge.domain import Ending
from omi_edge.virtual.bluez_gatt import Characteristic1, Service1
from omi_edge.virtual.connection import Connection, Gone
from omi_edge.virtual.pendant import Pendant

Strings = Annotated[list[str], DBusSignature("as")]
READ = PropertyAccess.READ
RESOLVE_SECONDS = 0.05
"""From the connection to the services being known."""
ATTEMPT_SECONDS = 20.0
"""How long the kernel tries to connect to a device that does not advertise (HCI_LE_CONN_TIMEOUT of Linux)."""
POLL_SECONDS = 0.1
_REAL = SystemClock()
_REASONS = {
    Ending.TIMEOUT: ("Timeout", "Connection timeout"),
    Ending.REMOTE: ("Remote", "Connection terminated by remote user"),
    Ending.LOCAL: ("Local", "Connection terminated by local host"),
    Ending.RADIO: ("Local", "Connection terminated by local host"),
    Ending.AUTHENTICATION: ("Authentication", "Connection terminated due to authentication failure"),
}
"""What Device1.Disconnected says (org.bluez.Device(5))."""
NOT_READY = DBusError("org.bluez.Error.NotReady", "Resource Not Ready")
ABORTED = "le-connection-abort-by-local"


class Stack:
    """What the devices of one adapter share."""

    def __init__(
        self,
        bus: MessageBus,
        adapter: str,
        address: str,
        bonds: dict[str, int],
        trusted: set[str],
        authorize: Callable[[str], Awaitable[bool]],
        answering: Callable[[], Awaitable[None]],
        *,
        tells_reasons: bool,
        raises_security: bool,
    ) -> None:
        self.bus = bus
        self.adapter = adapter
        self.address = address
        self.bonds = bonds
        self.trusted = trusted
        self.authorize = authorize
        self.answering = answering
        self.tells_reasons = tells_reasons
        self.raises_security = raises_security
        self.powered = True


class Device(ServiceInterface):
    """Device1 of ``pendant``."""

    def __init__(self, stack: Stack, pendant: Pendant) -> None:
        super().__init__("org.bluez.Device1")
        self.path = f"{stack.adapter}/dev_{pendant.address.upper().replace(':', '_')}"
        self.pendant = pendant
        self._stack = stack
        self._connection: Connection | None = None
        self._resolved = False
        self._gone = False
        self._attempt: asyncio.Task[None] | None = None
        self._pairing: asyncio.Task[bool] | None = None
        self._life: asyncio.Task[None] | None = None
        self._shown: list[tuple[str, ServiceInterface]] = []

    @dbus_property(READ, "Address")
    def address(self) -> DBusStr:
        """Bluetooth address."""
        return self.pendant.address.upper()

    @dbus_property(READ, "AddressType")
    def address_type(self) -> DBusStr:
        """A static random one."""
        return "random"

    @dbus_property(READ, "Name")
    def device_name(self) -> DBusStr:
        """As advertised; whole once somebody is connected."""
        return self.pendant.advertised_name if self._connection is None else self.pendant.board.name

    @dbus_property(READ, "Alias")
    def alias(self) -> DBusStr:
        """The same."""
        return self.pendant.advertised_name if self._connection is None else self.pendant.board.name

    @dbus_property(READ, "Adapter")
    def adapter(self) -> DBusObjectPath:
        """Path of the adapter."""
        return self._stack.adapter

    @dbus_property(READ, "UUIDs")
    def uuids(self) -> Strings:
        """Services in advertisement and scan response (dossier §2.1)."""
        dfu = [gatt.LEGACY_DFU_SERVICE] if self.pendant.profile.legacy_dfu else []
        return [gatt.AUDIO_SERVICE, gatt.DEVICE_INFORMATION_SERVICE, *dfu]

    @dbus_property(READ, "RSSI")
    def rssi(self) -> DBusInt16:
        """In dBm."""
        return self.pendant.rssi

    @dbus_property(READ, "Connected")
    def connected(self) -> DBusBool:
        """Whether there is a connection."""
        return self._connection is not None

    @dbus_property(READ, "Paired")
    def paired(self) -> DBusBool:
        """Whether this side has a key."""
        return self.pendant.address in self._stack.bonds

    @dbus_property(READ, "Bonded")
    def bonded(self) -> DBusBool:
        """Whether this side keeps it."""
        return self.pendant.address in self._stack.bonds

    @dbus_property(READ, "ServicesResolved")
    def services_resolved(self) -> DBusBool:
        """Whether the GATT objects are there."""
        return self._resolved

    @dbus_property(PropertyAccess.READWRITE, "Trusted")
    def trusted(self) -> DBusBool:
        """Whether it may connect by itself."""
        return self.pendant.address in self._stack.trusted

    @trusted.setter  # type: ignore[no-redef]
    def trusted(self, on: DBusBool) -> None:
        """See above."""
        if on:
            self._stack.trusted.add(self.pendant.address)
        else:
            self._stack.trusted.discard(self.pendant.address)
        self.emit_properties_changed({"Trusted": on})

    @dbus_signal("Disconnected")
    def disconnected(self, reason: str, message: str) -> Annotated[tuple[str, str], DBusSignature("ss")]:
        """Say why a connection ended."""
        return reason, message

    @dbus_method("Connect")
    async def connect(self) -> None:
        """Connect; wait for a device that does not advertise."""
        await self._stack.answering()
        await self._connected(DBusError("org.bluez.Error.Failed", ABORTED))

    @dbus_method("Disconnect")
    async def disconnect(self) -> None:
        """Disconnect, or give up connecting."""
        await self._stack.answering()
        if self._attempt is not None:
            self._attempt.cancel()
        elif self._connection is None:
            raise DBusError("org.bluez.Error.NotConnected", "Not Connected")
        self.lose(Ending.LOCAL)

    @dbus_method("Pair")
    async def pair(self) -> None:
        """Connect where there is no connection, and bond, if the agent consents."""
        await self._stack.answering()
        if self.pendant.address in self._stack.bonds:
            raise DBusError("org.bluez.Error.AlreadyExists", "Already Exists")
        if self._pairing is not None:
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        failed = DBusError("org.bluez.Error.ConnectionAttemptFailed", "Page Timeout")
        await self._connected(failed)
        try:
            bonded = await self.bond()
        except asyncio.CancelledError:
            raise DBusError("org.bluez.Error.AuthenticationCanceled", "Authentication Canceled") from None
        except Gone:
            raise failed from None
        if not bonded:
            raise DBusError("org.bluez.Error.AuthenticationFailed", "Authentication Failed")

    @dbus_method("CancelPairing")
    def cancel_pairing(self) -> None:
        """Give up pairing."""
        if self._pairing is None:
            raise DBusError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        self._pairing.cancel()

    @property
    def connection(self) -> Connection:
        """The connection. Raises DBusError when there is none."""
        if self._connection is None or not self._connection.alive:
            raise DBusError("org.bluez.Error.Failed", "Not connected")
        return self._connection

    @property
    def raises_security(self) -> bool:
        """Whether a refusal of an open link makes the stack pair by itself."""
        return self._stack.raises_security

    async def answering(self) -> None:
        """Wait while calls hang."""
        await self._stack.answering()

    def show(self) -> None:
        """Put it on the bus."""
        self._stack.bus.export(self.path, self)

    def seen(self) -> None:
        """Be seen advertising."""
        self.emit_properties_changed({"RSSI": self.pendant.rssi})

    def lose(self, ending: Ending) -> None:
        """End the connection, if there is one."""
        if self._connection is not None:
            self._connection.end(ending)

    def remove(self, ending: Ending) -> None:
        """Take it from the bus; that says nothing of the connection's end (bleak does not notice it either)."""
        self._gone = True
        self.lose(ending)
        self._hide_services()
        self._stack.bus.unexport(self.path, self)

    async def abandon(self) -> None:
        """Let go of it when there is no bus any more."""
        self._gone = True
        self.lose(Ending.RADIO)
        for task in (self._attempt, self._pairing):
            if task is not None:
                task.cancel()
        if self._life is not None:
            await asyncio.wait([self._life])

    async def bond(self) -> bool:
        """Ask the agent, pair, and keep the key; False when somebody refuses. Raises Gone."""
        if self._pairing is None:
            self._pairing = asyncio.get_running_loop().create_task(self._bond())
        pairing = self._pairing
        try:
            return await pairing
        finally:
            if self._pairing is pairing:
                self._pairing = None

    async def _bond(self) -> bool:
        if not await self._stack.authorize(self.path):
            return False
        key = await self.connection.pair()
        if key is None:
            return False
        self._stack.bonds[self.pendant.address] = key
        self.emit_properties_changed({"Paired": True, "Bonded": True})
        return True

    async def _connected(self, failed: DBusError) -> None:
        """Have a connection. Raises ``failed`` when there will be none."""
        if not self._stack.powered:
            raise NOT_READY
        if self._connection is not None:
            return
        if self._attempt is not None:
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        self._attempt = asyncio.get_running_loop().create_task(self._wait_advertising())
        try:
            await self._attempt
        except (asyncio.CancelledError, TimeoutError):
            raise failed from None
        finally:
            self._attempt = None
        self._connection = self.pendant.connect(self._stack.address)
        self.emit_properties_changed({"Connected": True})
        self._life = asyncio.get_running_loop().create_task(self._live(self._connection))

    async def _wait_advertising(self) -> None:
        # in real time, as the kernel does, whatever the pendant's clock is
        async with _REAL.time_limit(ATTEMPT_SECONDS):
            while not self.pendant.advertising:
                await _REAL.sleep(POLL_SECONDS)

    async def _live(self, connection: Connection) -> None:
        asking: asyncio.Task[bool] | None = None
        try:
            if (key := self._stack.bonds.get(self.pendant.address)) is not None:
                await connection.encrypt(key)
            elif connection.wants_security:
                asking = asyncio.get_running_loop().create_task(self._answer_security_request())
            await asyncio.wait([connection.ended], timeout=RESOLVE_SECONDS)
            if connection.alive and not self._gone:
                self._show_services()
                self._resolved = True
                self.emit_properties_changed({"ServicesResolved": True})
        except Gone:
            pass
        ending = await asyncio.shield(connection.ended)
        if asking is not None:
            asking.cancel()
        self._over(ending)

    async def _answer_security_request(self) -> bool:
        try:
            return await self.bond()
        except (Gone, DBusError):
            return False

    def _over(self, ending: Ending) -> None:
        self._connection = None
        if self._gone:
            return
        if self._resolved:
            self._resolved = False
            self.emit_properties_changed({"ServicesResolved": False})
        if self._stack.tells_reasons:
            reason, message = _REASONS.get(ending, ("Unknown", "Unspecified"))
            self.disconnected(f"org.bluez.Reason.{reason}", message)
        self.emit_properties_changed({"Connected": False})
        self._hide_services()

    def _show_services(self) -> None:
        handle = 0x10
        for uuid, characteristics in self.pendant.services.items():
            service = f"{self.path}/service{handle:04x}"
            self._export(service, Service1(uuid, self.path))
            for characteristic in characteristics:
                handle += 2
                self._export(f"{service}/char{handle:04x}", Characteristic1(characteristic, service, self))
            handle += 0x10

    def _export(self, path: str, interface: ServiceInterface) -> None:
        self._stack.bus.export(path, interface)
        self._shown.append((path, interface))

    def _hide_services(self) -> None:
        while self._shown:
            self._stack.bus.unexport(*self._shown.pop())
