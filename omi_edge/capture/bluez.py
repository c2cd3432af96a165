"""What bleak lacks on Linux, said to and heard from BlueZ over a D-Bus connection of our own.

Bleak does not notice when bluetoothd dies or the adapter goes, tells no reason for the end of a link, registers no
pairing agent, and says of a bond only what it remembers. All of that is here; everything else stays bleak's.
"""

# no postponed annotations here: dbus-fast reads them as D-Bus signatures and takes a postponed None for none at all

import asyncio
import contextlib
import importlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from dbus_fast import BusType, DBusError, Message, MessageType, unpack_variants
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusObjectPath, DBusStr, DBusUInt16, DBusUInt32
from dbus_fast.service import ServiceInterface, dbus_method

from omi_edge.capture.bleerrors import bluetooth_off, dbus_error, limited, no_adapter, silent_host
from omi_edge.capture.connection import Connection
from omi_edge.clock import Clock
from omi_edge.domain import Ending
from omi_edge.errors import LinkError, LinkLost

log = logging.getLogger(__name__)

SERVICE = "org.bluez"
ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
AGENT_MANAGER = "org.bluez.AgentManager1"
BUS = "org.freedesktop.DBus"
OBJECTS = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
AGENT_PATH = "/omi_edge/agent"

REASONS = {
    "org.bluez.Reason.Timeout": Ending.TIMEOUT,
    "org.bluez.Reason.Remote": Ending.REMOTE,
    "org.bluez.Reason.Local": Ending.LOCAL,
    "org.bluez.Reason.Authentication": Ending.AUTHENTICATION,
    "org.bluez.Reason.Suspend": Ending.RADIO,
}
"""Of the signal Device1.Disconnected (org.bluez.Device(5)). A machine that goes to sleep takes its radio along."""
_RULES = (
    f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
    f"type='signal',sender='{SERVICE}',interface='{OBJECTS}',member='InterfacesRemoved'",
    f"type='signal',sender='{SERVICE}',interface='{DEVICE}',member='Disconnected'",
    # by interface: the values of characteristics change a hundred times a second, and are no matter of ours
    f"type='signal',sender='{SERVICE}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{ADAPTER}'",
    f"type='signal',sender='{SERVICE}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{DEVICE}'",
)


class BluezHost:
    """Conforms to ``host.Host``. Its connection to the bus is made at first use, and again when it was lost."""

    can_pair = True

    def __init__(self, clock: Clock, adapter: str = "") -> None:
        self._clock = clock
        self._adapter = adapter
        self._opening = asyncio.Lock()
        self._bus: MessageBus | None = None
        self._following: asyncio.Task[None] | None = None
        self._owner = ""
        """Unique name of bluetoothd on the bus; empty while it does not run."""
        self._watched: dict[Connection, str] = {}
        """Object path of each connection's device."""
        self._trusted: frozenset[str] = frozenset()
        self._pairing: Counter[str] = Counter()
        self._agent = PairingAgent(self._may_pair)
        self._agent_offered_to = ""

    async def check(self) -> None:
        """See Radio."""
        objects = await self._objects("asking BlueZ for an adapter")
        adapters = {path.rsplit("/", 1)[1]: found[ADAPTER] for path, found in objects.items() if ADAPTER in found}
        if self._adapter and self._adapter not in adapters:
            raise no_adapter(self._adapter, tuple(sorted(adapters)))
        able = [
            properties
            for name, properties in adapters.items()
            if self._adapter in ("", name) and "central" in properties.get("Roles", ["central"])
        ]
        if not able:
            raise no_adapter()
        if not any(properties.get("Powered") for properties in able):
            raise bluetooth_off()

    async def connected(self, address: str) -> Any:
        """Return bleak's BLEDevice of a pendant that BlueZ holds a link to already, else None.

        Somebody left it connected, most likely this program when it crashed; so it does not advertise.
        """
        for path, found in (await self._objects("looking for a link that is up")).items():
            device = found.get(DEVICE, {})
            ours = not self._adapter or f"/{self._adapter}/" in path
            if ours and device.get("Connected") and str(device.get("Address", "")).upper() == address.upper():
                kind = importlib.import_module("bleak.backends.device").BLEDevice
                return kind(device["Address"], device.get("Alias"), {"path": path, "props": device})
        return None

    async def watch(self, device: Any, connection: Connection) -> None:
        """Tell ``connection`` from now on why it ended, that it ended with the adapter or the service, and its bond."""
        async with limited(self._clock, "asking BlueZ for the bond", late=silent_host()):
            bus = await self._opened()
            await self._offer_agent(bus)
        self._watched[connection] = device.details["path"]
        await self.refresh(connection)

    def unwatch(self, connection: Connection) -> None:
        """Tell it no more; harmless when it was never watched."""
        self._watched.pop(connection, None)

    async def refresh(self, connection: Connection) -> None:
        """Ask BlueZ whether it has keys for a connection that is watched."""
        path = self._watched.get(connection)
        if path is None:
            return
        async with limited(self._clock, "asking BlueZ for the bond", late=silent_host()):
            reply = await _call(await self._opened(), SERVICE, path, PROPERTIES, "GetAll", "s", [DEVICE])
        connection.secured(_bonded(unpack_variants(reply.body[0])) or False)

    def trust(self, addresses: Iterable[str]) -> None:
        """See Radio."""
        self._trusted = frozenset(address.upper() for address in addresses)

    @contextlib.contextmanager
    def pairing(self, address: str) -> Iterator[None]:
        """Trust a pendant for as long as this side pairs with it."""
        key = address.upper()
        self._pairing[key] += 1
        try:
            yield
        finally:
            self._pairing[key] -= 1
            if not self._pairing[key]:
                del self._pairing[key]

    async def close(self) -> None:
        """Take the agent back and leave the bus; the next call would come again."""
        self._watched.clear()
        bus, self._bus = self._bus, None
        if bus is None:
            return
        if self._agent_offered_to and bus.connected:
            with contextlib.suppress(LinkError):  # bluetoothd forgets the agent of a program that is gone
                async with limited(self._clock, "taking the agent back"):
                    await _call(bus, SERVICE, "/org/bluez", AGENT_MANAGER, "UnregisterAgent", "o", [AGENT_PATH])
        await self._leave(bus)

    async def _objects(self, what: str) -> dict[str, dict[str, Any]]:
        """All that BlueZ knows now: object path, interface, properties."""
        async with limited(self._clock, what, late=silent_host()):
            reply = await _call(await self._opened(), SERVICE, "/", OBJECTS, "GetManagedObjects")
        return {path: unpack_variants(interfaces) for path, interfaces in reply.body[0].items()}

    async def _opened(self) -> MessageBus:
        async with self._opening:
            if self._bus is not None and self._bus.connected:
                return self._bus
            if self._bus is not None:
                await self._leave(self._bus)
            bus = MessageBus(bus_type=BusType.SYSTEM)  # at the address that bleak uses
            try:
                await bus.connect()
                bus.add_message_handler(self._on_message)
                for rule in _RULES:
                    await _call(bus, BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "s", [rule])
                found = await _owner(bus)
                self._owner = self._owner or found  # a signal may have told it meanwhile, and newer
            except BaseException:
                bus.disconnect()
                raise
            bus.export(AGENT_PATH, self._agent)
            self._bus = bus
            self._following = asyncio.create_task(self._follow(bus))
            return bus

    async def _follow(self, bus: MessageBus) -> None:
        with contextlib.suppress(Exception):  # what broke the bus does not matter; that it is gone does
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        self._owner = self._agent_offered_to = ""
        self._gone("/", Ending.RADIO)

    async def _leave(self, bus: MessageBus) -> None:
        bus.disconnect()
        following, self._following = self._following, None
        if following is not None:
            await following

    async def _offer_agent(self, bus: MessageBus) -> None:
        """Register the agent as the one that BlueZ asks; once for each life of bluetoothd."""
        if self._agent_offered_to and self._agent_offered_to == self._owner:
            return
        for member, signature, body in (
            ("RegisterAgent", "os", [AGENT_PATH, "NoInputNoOutput"]),
            ("RequestDefaultAgent", "o", [AGENT_PATH]),
        ):
            try:
                await _call(bus, SERVICE, "/org/bluez", AGENT_MANAGER, member, signature, body)
            except LinkLost as error:  # without it a pendant that asks for nothing can still be heard
                log.warning("no pairing agent", extra={"cause": str(error)})
        self._agent_offered_to = self._owner

    def _may_pair(self, device_path: str) -> bool:
        address = device_path.rpartition("/dev_")[2].replace("_", ":").upper()
        return address in self._trusted or address in self._pairing

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == BUS and message.member == "NameOwnerChanged" and message.body[0] == SERVICE:
            _, before, self._owner = message.body
            if before:
                self._gone("/", Ending.RADIO)
        elif message.sender == self._owner:  # any program may send a signal to any other
            handler = self._HANDLERS.get(message.member or "")
            if handler is not None:
                handler(self, message.path or "", message.body)

    def _on_disconnected(self, path: str, body: list[Any]) -> None:
        for connection in self._at(path):
            connection.reason(REASONS.get(body[0], Ending.UNKNOWN))

    def _on_removed(self, _: str, body: list[Any]) -> None:
        path, interfaces = body
        if ADAPTER in interfaces:
            self._gone(path + "/", Ending.RADIO)
        elif DEVICE in interfaces:
            for connection in self._at(path):
                connection.dropped()  # bleak does not notice; the adapter may follow

    def _on_changed(self, path: str, body: list[Any]) -> None:
        interface, changed = body[0], unpack_variants(body[1])
        if interface == ADAPTER and changed.get("Powered") is False:
            self._gone(path + "/", Ending.RADIO)
        elif interface == DEVICE and (bonded := _bonded(changed)) is not None:
            for connection in self._at(path):
                connection.secured(bonded)

    _HANDLERS: ClassVar[dict[str, Callable[["BluezHost", str, list[Any]], None]]] = {
        "Disconnected": _on_disconnected,
        "InterfacesRemoved": _on_removed,
        "PropertiesChanged": _on_changed,
    }

    def _at(self, path: str) -> list[Connection]:
        return [connection for connection, watched in self._watched.items() if watched == path]

    def _gone(self, below: str, ending: Ending) -> None:
        for connection, path in self._watched.items():
            if path.startswith(below):
                connection.end(ending)


class PairingAgent(ServiceInterface):
    """Says yes or no for a machine without keyboard and display (org.bluez.Agent(5), NoInputNoOutput)."""

    def __init__(self, may_pair: Callable[[str], bool]) -> None:
        super().__init__("org.bluez.Agent1")
        self._may_pair = may_pair

    @dbus_method("RequestAuthorization")
    def request_authorization(self, device: DBusObjectPath) -> None:
        """A device wants to pair without any proof, as a pendant does."""
        self._decide(device)

    @dbus_method("RequestConfirmation")
    def request_confirmation(self, device: DBusObjectPath, passkey: DBusUInt32) -> None:
        """The same with a number, which nobody here could compare."""
        self._decide(device)

    @dbus_method("AuthorizeService")
    def authorize_service(self, device: DBusObjectPath, uuid: DBusStr) -> None:
        """A device wants to use a service of this machine; a pendant never does."""
        raise _rejected()

    @dbus_method("RequestPinCode")
    def request_pin_code(self, device: DBusObjectPath) -> DBusStr:
        """There is nobody to type one."""
        raise _rejected()

    @dbus_method("RequestPasskey")
    def request_passkey(self, device: DBusObjectPath) -> DBusUInt32:
        """There is nobody to type one."""
        raise _rejected()

    @dbus_method("DisplayPinCode")
    def display_pin_code(self, device: DBusObjectPath, pin_code: DBusStr) -> None:
        """There is nobody to read one."""
        raise _rejected()

    @dbus_method("DisplayPasskey")
    def display_passkey(self, device: DBusObjectPath, passkey: DBusUInt32, entered: DBusUInt16) -> None:
        """There is nobody to read one; BlueZ wants no answer."""

    @dbus_method("Cancel")
    def cancel(self) -> None:
        """A question is no longer asked; all were answered at once."""

    @dbus_method("Release")
    def release(self) -> None:
        """Bluetoothd ends; its next life is offered the agent anew."""

    def _decide(self, device: str) -> None:
        if not self._may_pair(device):
            log.warning("pairing refused: the device is not one of the pendants that are remembered")
            raise _rejected()


def _rejected() -> DBusError:
    return DBusError("org.bluez.Error.Rejected", "only the pendants that omi-edge remembers may pair")


def _bonded(device: dict[str, Any]) -> bool | None:
    """Whether keys are stored; None when neither property is told. An older BlueZ has ``Paired`` alone."""
    bonded = device.get("Bonded", device.get("Paired"))
    return None if bonded is None else bool(bonded)


async def _owner(bus: MessageBus) -> str:
    """Return the unique name behind org.bluez, empty when there is none."""
    message = Message(BUS, "/org/freedesktop/DBus", BUS, "GetNameOwner", signature="s", body=[SERVICE])
    reply = await bus.call(message)
    return str(reply.body[0]) if reply is not None and reply.message_type is MessageType.METHOD_RETURN else ""


async def _call(
    bus: MessageBus, destination: str, path: str, interface: str, member: str, signature: str = "", body: Any = ()
) -> Message:
    """Call; raises the LinkError that an error reply stands for."""
    reply = await bus.call(Message(destination, path, interface, member, signature=signature, body=list(body)))
    if reply is None:
        raise EOFError
    if reply.message_type is MessageType.ERROR:
        raise dbus_error(reply.error_name or "", str(reply.body[0]) if reply.body else "", member)
    return reply
