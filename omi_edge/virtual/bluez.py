"""Virtual pendants as unmodified bleak sees them: a small ``org.bluez`` on the bus that the environment names.

Only what bleak and a pairing agent call is there. What can go wrong with a Bluetooth stack can be asked for: the
adapter switched off or unplugged, the service dead, calls that hang.
"""

# no postponed annotations here: dbus-fast reads them as D-Bus signatures and takes a postponed None for none at all

import asyncio
import contextlib
import os
import socket
from typing import Annotated, Self

from dbus_fast import (
    AuthError,
    DBusError,
    InvalidAddressError,
    Message,
    MessageType,
    NameFlag,
    PropertyAccess,
    RequestNameReply,
)
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusDict, DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from omi_edge.clock import SystemClock
from omi_edge.domain import Ending
from omi_edge.errors import LinkUnavailable
from omi_edge.virtual.bluez_device import Device, Stack
from omi_edge.virtual.bus import ADDRESS_VARIABLE
from omi_edge.virtual.pendant import Pendant

Strings = Annotated[list[str], DBusSignature("as")]
SERVICE = "org.bluez"
ROOT = "/org/bluez"
ADAPTER = "/org/bluez/hci0"
ADDRESS = "00:00:5E:00:53:01"
"""Of the adapter; from the block for documentation (RFC 7042 §2.1.2)."""
ADVERTISING_SECONDS = 0.1
"""How often a pendant advertises (dossier §2.1)."""
SEND_BUFFER_BYTES = 4 * 1024 * 1024
"""dbus-fast ends its own connection when the socket's send buffer is full: room for minutes of notifications."""
_REAL = SystemClock()
"""What bleak waits for on its side of the bus happens in real time, whatever the simulation's clock does."""


class BluezAdapter:
    """hci0 with ``pendants`` in range, while the context lasts; keeps this machine's side of the bonds.

    ``tells_reasons`` has it send Device1.Disconnected, which older BlueZ lacks. ``raises_security`` has it pair on its
    own when a pendant refuses an open link, as BlueZ does (its src/shared/att.c). Entering raises LinkUnavailable.
    """

    def __init__(self, *pendants: Pendant, tells_reasons: bool = True, raises_security: bool = True) -> None:
        self.pendants = pendants
        self.bonds: dict[str, int] = {}
        """This machine's keys, by the pendant's address."""
        self.trusted: set[str] = set()
        self.tells_reasons = tells_reasons
        self.raises_security = raises_security
        self.powered = True
        self._plugged = True
        self._answering = asyncio.Event()
        self._answering.set()
        self._service: _Service | None = None

    async def __aenter__(self) -> Self:
        await self.service(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang(False)
        await self.service(False)

    async def service(self, running: bool) -> None:
        """Start the service, or let it die: links end and nobody tells the clients."""
        if running and self._service is None:
            self._service = _Service(self)
            await self._service.start(plugged=self._plugged)
        elif not running and self._service is not None:
            service, self._service = self._service, None
            await service.stop()

    def power(self, on: bool) -> None:
        """Switch Bluetooth on or off."""
        self.powered = on
        if self._service is not None:
            self._service.powered(on)

    def adapter(self, present: bool) -> None:
        """Plug the adapter in or out."""
        self._plugged = present
        if self._service is not None:
            self._service.plug(present)

    def hang(self, hanging: bool = True) -> None:
        """Leave every call on devices and characteristics unanswered until told otherwise."""
        if hanging:
            self._answering.clear()
        else:
            self._answering.set()

    async def until_answering(self) -> None:
        """Wait while calls hang."""
        await self._answering.wait()


class _Service:
    """One life of the service, with a connection to the bus of its own."""

    def __init__(self, machine: BluezAdapter) -> None:
        self._machine = machine
        self._agents = _Agents()
        self._bus: MessageBus | None = None
        self._hci: _Hci | None = None

    async def start(self, *, plugged: bool) -> None:
        bus = await _joined(os.environ[ADDRESS_VARIABLE])
        self._bus = bus
        if bus._sock is not None:
            with contextlib.suppress(OSError):
                bus._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        bus.add_message_handler(self._agents.note_sender)
        bus.add_message_handler(self._unknown)
        self._agents.bus = bus
        bus.export(ROOT, self._agents)
        if plugged:
            self.plug(True)
        if await bus.request_name(SERVICE, NameFlag.DO_NOT_QUEUE) is not RequestNameReply.PRIMARY_OWNER:
            bus.disconnect()
            raise LinkUnavailable("a Bluetooth service runs on this bus already. Use a bus without one.")

    def _unknown(self, message: Message) -> Message | None:
        """Answer for objects that are not there as libdbus does; dbus-fast speaks of an unknown method."""
        path = message.path or ""
        if message.message_type is MessageType.METHOD_CALL and path.startswith(ADAPTER):
            assert self._bus is not None
            if path not in self._bus._path_exports:
                return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", "No such object.")
        return None

    async def stop(self) -> None:
        assert self._bus is not None
        self._bus.disconnect()  # first: a service that dies says nothing
        if self._hci is not None:
            await self._hci.close()

    def powered(self, on: bool) -> None:
        if self._hci is not None:
            self._hci.power(on)

    def plug(self, present: bool) -> None:
        assert self._bus is not None
        if present and self._hci is None:
            self._hci = _Hci(self._bus, self._machine, self._agents)
            self._bus.export(ADAPTER, self._hci)
            self._hci.restore()
        elif not present and self._hci is not None:
            hci, self._hci = self._hci, None
            hci.unplug()
            self._bus.unexport(ADAPTER, hci)


async def _joined(address: str) -> MessageBus:
    """Connect to the bus. Raises LinkUnavailable."""
    try:
        bus = MessageBus(bus_address=address, negotiate_unix_fd=True)
        with contextlib.ExitStack() as stack:
            stack.callback(bus.disconnect)  # dbus-fast wants it when connecting failed, too
            await bus.connect()
            stack.pop_all()
    except (OSError, EOFError, AuthError, InvalidAddressError) as error:
        raise LinkUnavailable(
            f"there is no D-Bus at this address ({type(error).__name__}). Is its daemon running?"
        ) from error
    return bus


class _Agents(ServiceInterface):
    """Who may be asked whether a pairing is wanted."""

    def __init__(self) -> None:
        super().__init__("org.bluez.AgentManager1")
        self.bus: MessageBus | None = None
        self.sender = ""
        """Who made the call that is being handled."""
        self._registered: dict[str, str] = {}
        self._default: str | None = None

    def note_sender(self, message: Message) -> None:
        # ServiceInterface does not tell its methods who calls; handlers of messages run right before them
        if message.message_type is MessageType.METHOD_CALL:
            self.sender = message.sender or ""

    @dbus_method("RegisterAgent")
    def register(self, agent: DBusObjectPath, capability: DBusStr) -> None:
        if self.sender in self._registered:
            raise DBusError("org.bluez.Error.AlreadyExists", "Already Exists")
        self._registered[self.sender] = agent

    @dbus_method("UnregisterAgent")
    def unregister(self, agent: DBusObjectPath) -> None:
        if self._registered.get(self.sender) != agent:
            raise DBusError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        del self._registered[self.sender]
        if self._default == self.sender:
            self._default = None

    @dbus_method("RequestDefaultAgent")
    def request_default(self, agent: DBusObjectPath) -> None:
        if self._registered.get(self.sender) != agent:
            raise DBusError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        self._default = self.sender

    async def authorize(self, device: str) -> bool:
        """Ask the default agent for its consent to pair without any number, as BlueZ does for Just Works."""
        if self._default is None or self.bus is None:
            return False
        reply = await self.bus.call(
            Message(
                destination=self._default, path=self._registered[self._default], interface="org.bluez.Agent1",
                member="RequestAuthorization", signature="o", body=[device],
            )
        )  # fmt: skip
        return reply is not None and reply.message_type is not MessageType.ERROR


class _Hci(ServiceInterface):
    """The adapter, and the devices that it has seen."""

    def __init__(self, bus: MessageBus, machine: BluezAdapter, agents: _Agents) -> None:
        super().__init__("org.bluez.Adapter1")
        self._machine = machine
        self._agents = agents
        self._devices: dict[str, Device] = {}
        self._scanners: set[str] = set()
        self._advertising: asyncio.Task[None] | None = None
        self._stack = Stack(
            bus, ADAPTER, ADDRESS, machine.bonds, machine.trusted, agents.authorize, machine.until_answering,
            tells_reasons=machine.tells_reasons, raises_security=machine.raises_security,
        )  # fmt: skip

    @dbus_property(PropertyAccess.READ, "Roles")
    def roles(self) -> Strings:
        return ["central"]

    @dbus_property(PropertyAccess.READ, "Address")
    def address(self) -> DBusStr:
        return ADDRESS

    @dbus_property(PropertyAccess.READ, "Discovering")
    def discovering(self) -> DBusBool:
        return bool(self._scanners)

    @dbus_property(PropertyAccess.READWRITE, "Powered")
    def powered(self) -> DBusBool:
        return self._machine.powered

    @powered.setter  # type: ignore[no-redef]
    def powered(self, on: DBusBool) -> None:
        self._machine.power(on)

    @dbus_method("SetDiscoveryFilter")
    def set_discovery_filter(self, properties: DBusDict) -> None:
        self._ready()

    @dbus_method("StartDiscovery")
    def start_discovery(self) -> None:
        self._ready()
        if self._agents.sender in self._scanners:
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        self._scanners.add(self._agents.sender)
        if self._advertising is None:
            self._advertising = asyncio.get_running_loop().create_task(self._advertise())

    @dbus_method("StopDiscovery")
    def stop_discovery(self) -> None:
        if self._agents.sender not in self._scanners:
            raise DBusError("org.bluez.Error.Failed", "No discovery started")
        self._scanners.discard(self._agents.sender)
        if not self._scanners:
            self._quiet()

    @dbus_method("RemoveDevice")
    def remove_device(self, path: DBusObjectPath) -> None:
        device = self._devices.pop(path, None)
        if device is None:
            raise DBusError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        self._machine.bonds.pop(device.pendant.address, None)
        self._machine.trusted.discard(device.pendant.address)
        device.remove(Ending.LOCAL)

    def restore(self) -> None:
        """Show the devices that a restarted service knows from its files: bonded ones."""
        for pendant in self._machine.pendants:
            if pendant.address in self._machine.bonds:
                self._add(pendant)

    def power(self, on: bool) -> None:
        if not on:
            self._scanners.clear()
            self._quiet()
            for device in self._devices.values():
                device.lose(Ending.RADIO)
        self._stack.powered = on
        self.emit_properties_changed({"Powered": on})

    def unplug(self) -> None:
        self._scanners.clear()
        self._quiet()
        for device in self._devices.values():
            device.remove(Ending.RADIO)
        self._devices.clear()

    async def close(self) -> None:
        """Let go without a word: the bus is gone."""
        self._quiet()
        for device in self._devices.values():
            await device.abandon()

    def _ready(self) -> None:
        if not self._machine.powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")

    def _quiet(self) -> None:
        if self._advertising is not None:
            self._advertising.cancel()
            self._advertising = None

    def _add(self, pendant: Pendant) -> Device:
        device = Device(self._stack, pendant)
        self._devices[device.path] = device
        device.show()
        return device

    async def _advertise(self) -> None:
        while True:
            for pendant in self._machine.pendants:
                if pendant.advertising:
                    known = (device for device in self._devices.values() if device.pendant is pendant)
                    (next(known, None) or self._add(pendant)).seen()
            await _REAL.sleep(ADVERTISING_SECONDS)
