"""What is said to BlueZ and heard from it beside bleak: the agent, and signals that are none."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("BlueZ is Linux's", allow_module_level=True)

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from omi_edge.capture import bluez
from omi_edge.capture.bleerrors import limited
from omi_edge.capture.bluez import AGENT_PATH, BluezHost
from omi_edge.capture.connection import Connection
from omi_edge.capture.host import Host
from omi_edge.clock import DrivenClock, SystemClock
from omi_edge.errors import LinkUnavailable, NoAdapter, NoBluetoothService
from omi_edge.virtual import bus
from omi_edge.virtual.bluez import BluezAdapter
from omi_edge.virtual.pendant import Pendant

pytestmark = pytest.mark.skipif(
    not bus.available() and os.environ.get("CI") != "true", reason="apt install dbus-daemon"
)
TRUSTED = "C0:FF:EE:00:30:21"
STRANGER = "C0:FF:EE:00:66:66"


def path(address: str) -> str:
    return f"/org/bluez/hci0/dev_{address.replace(':', '_')}"


@pytest.fixture
async def private_bus() -> AsyncIterator[None]:
    async with bus.PrivateBus(SystemClock()):
        yield


@pytest.fixture
async def host(private_bus: None) -> AsyncIterator[BluezHost]:
    made = BluezHost(SystemClock())
    yield made
    await made.close()


@pytest.fixture
async def caller(private_bus: None) -> AsyncIterator[MessageBus]:
    made = await MessageBus(bus_type=BusType.SYSTEM).connect()
    yield made
    made.disconnect()
    await made.wait_for_disconnect()  # type: ignore[no-untyped-call]


class Manager:
    """The agent manager and one device of a BlueZ that answers whatever it is asked."""

    def __init__(self, calls: list[str], agent: dict[str, str]) -> None:
        self.calls = calls
        self.agent = agent
        self.connection: MessageBus | None = None
        self.silent = False
        self.error = ""
        self.objects: dict[str, Any] = {path(TRUSTED): {bluez.DEVICE: {"Paired": Variant("b", False)}}}

    async def start(self) -> None:
        self.connection = await MessageBus(bus_type=BusType.SYSTEM).connect()
        self.connection.add_message_handler(self.answer)
        await self.connection.request_name(bluez.SERVICE)

    async def stop(self) -> None:
        assert self.connection is not None
        self.connection.disconnect()
        await self.connection.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        self.calls.append(message.member or "")
        if self.silent:
            return True
        if self.error:
            return Message.new_error(message, self.error, "no")
        if message.member == "RegisterAgent":
            self.agent["owner"], self.agent["capability"] = message.sender or "", message.body[1]
        if message.member == "UnregisterAgent":
            self.agent.clear()
        if message.member == "GetManagedObjects":
            return Message.new_method_return(message, "a{oa{sa{sv}}}", [self.objects])
        if message.member == "GetAll":
            return Message.new_method_return(message, "a{sv}", [self.objects[message.path or ""][bluez.DEVICE]])
        return Message.new_method_return(message)

    async def signal(self, where: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        assert self.connection is not None
        await self.connection.send(Message.new_signal(where, interface, member, signature, body))


async def arrived(host: BluezHost) -> None:
    """Wait until the host has handled what was sent to it before: the bus keeps the order."""
    with contextlib.suppress(NoAdapter):
        await host.check()


@pytest.fixture
async def manager(private_bus: None) -> AsyncIterator[Manager]:
    made = Manager([], {})
    await made.start()
    yield made
    await made.stop()


def device(address: str = TRUSTED) -> Any:
    return SimpleNamespace(details={"path": path(address)})


async def asked(caller: MessageBus, owner: str, member: str, signature: str, body: list[Any]) -> str:
    """Ask the agent; return the error's name, or an empty text when it agreed."""
    reply = await caller.call(Message(owner, AGENT_PATH, "org.bluez.Agent1", member, signature=signature, body=body))
    assert reply is not None
    return reply.error_name or ""


def conforms(host: BluezHost) -> Host:
    """For mypy."""
    return host


async def test_the_agent_lets_in_whom_we_remember_or_pair_with(
    host: BluezHost, manager: Manager, caller: MessageBus
) -> None:
    await host.watch(device(), Connection())
    assert manager.calls.count("RegisterAgent") == manager.calls.count("RequestDefaultAgent") == 1
    assert manager.agent["capability"] == "NoInputNoOutput"
    owner = manager.agent["owner"]

    async def decision(address: str) -> str:
        return await asked(caller, owner, "RequestAuthorization", "o", [path(address)])

    rejected = "org.bluez.Error.Rejected"
    assert await decision(TRUSTED) == rejected
    host.trust([TRUSTED.lower()])
    assert await decision(TRUSTED) == ""
    assert await decision(STRANGER) == rejected
    with host.pairing(STRANGER), host.pairing(STRANGER):
        assert await decision(STRANGER) == ""
    assert await decision(STRANGER) == rejected
    assert await asked(caller, owner, "RequestConfirmation", "ou", [path(TRUSTED), 7]) == ""
    assert await asked(caller, owner, "RequestConfirmation", "ou", [path(STRANGER), 7]) == rejected
    host.trust([])
    assert await decision(TRUSTED) == rejected


async def test_the_agent_types_and_reads_nothing(host: BluezHost, manager: Manager, caller: MessageBus) -> None:
    host.trust([TRUSTED])
    await host.watch(device(), Connection())
    for member, signature, body in (
        ("RequestPinCode", "o", [path(TRUSTED)]),
        ("RequestPasskey", "o", [path(TRUSTED)]),
        ("DisplayPinCode", "os", [path(TRUSTED), "0000"]),
        ("AuthorizeService", "os", [path(TRUSTED), "1124"]),
    ):
        assert await asked(caller, manager.agent["owner"], member, signature, body) == "org.bluez.Error.Rejected"
    assert await asked(caller, manager.agent["owner"], "DisplayPasskey", "ouq", [path(TRUSTED), 1, 0]) == ""
    for member in ("Cancel", "Release"):
        assert await asked(caller, manager.agent["owner"], member, "", []) == ""


async def test_the_agent_is_offered_to_each_life_of_the_service_once_and_taken_back(
    host: BluezHost, manager: Manager
) -> None:
    await host.watch(device(), Connection())
    await host.watch(device(), Connection())
    assert manager.calls.count("RegisterAgent") == 1
    await manager.stop()
    await manager.start()
    await arrived(host)
    await host.watch(device(), Connection())
    assert manager.calls.count("RegisterAgent") == 2
    await host.close()
    assert manager.calls.count("UnregisterAgent") == 1
    assert not manager.agent


async def test_a_service_that_wants_no_agent_is_used_all_the_same(private_bus: None, clock: DrivenClock) -> None:
    host, manager = BluezHost(clock), Manager([], {})
    await manager.start()
    manager.objects[path(TRUSTED)][bluez.DEVICE]["Bonded"] = Variant("b", True)
    original = manager.answer
    manager.connection.remove_message_handler(original)  # type: ignore[union-attr]

    def answer(message: Message) -> Message | bool | None:
        if message.interface == bluez.AGENT_MANAGER:
            return Message.new_error(message, "org.bluez.Error.AlreadyExists", "")
        return original(message)

    manager.connection.add_message_handler(answer)  # type: ignore[union-attr]
    connection = Connection()
    await host.watch(device(), connection)
    assert connection.security == "bonded"
    await host.close()
    await manager.stop()


async def test_only_the_service_is_believed(host: BluezHost, manager: Manager, caller: MessageBus) -> None:
    connection = Connection()
    await host.watch(device(), connection)
    assert manager.agent["owner"]
    for member, signature, body in (
        ("InterfacesRemoved", "oas", [path(TRUSTED), [bluez.DEVICE]]),
        ("PropertiesChanged", "sa{sv}as", [bluez.ADAPTER, {"Powered": Variant("b", False)}, []]),
        ("NameOwnerChanged", "sss", [bluez.SERVICE, ":1.1", ""]),
    ):
        where = "/org/bluez/hci0"
        forged = Message.new_signal(where, "org.freedesktop.DBus.Properties", member, signature, body)
        forged.destination = manager.agent["owner"]
        await caller.send(forged)
    await caller.call(Message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId"))
    await arrived(host)
    assert not connection.over
    await manager.signal(
        "/org/bluez/hci0", bluez.PROPERTIES, "PropertiesChanged", "sa{sv}as",
        [bluez.ADAPTER, {"Powered": Variant("b", False)}, []],
    )  # fmt: skip
    await arrived(host)
    assert connection.over


async def test_signals_reach_the_connection_that_they_mean(host: BluezHost, manager: Manager) -> None:
    manager.objects[path(STRANGER)] = manager.objects[path(TRUSTED)]
    ours, other = Connection(), Connection()
    await host.watch(device(), ours)
    await host.watch(device(STRANGER), other)
    await manager.signal(
        path(TRUSTED), bluez.PROPERTIES, "PropertiesChanged", "sa{sv}as",
        [bluez.DEVICE, {"Paired": Variant("b", True), "RSSI": Variant("n", -1)}, []],
    )  # fmt: skip
    await arrived(host)
    assert (ours.security, other.security) == ("bonded", "open")
    await manager.signal("/", bluez.OBJECTS, "InterfacesRemoved", "oas", [path(TRUSTED), [bluez.DEVICE]])
    await arrived(host)
    assert (ours.over, other.over) == (True, False)
    # another adapter, whose name begins with this one's
    await manager.signal("/", bluez.OBJECTS, "InterfacesRemoved", "oas", ["/org/bluez/hci", [bluez.ADAPTER]])
    await arrived(host)
    assert not other.over
    await manager.signal("/", bluez.OBJECTS, "InterfacesRemoved", "oas", ["/org/bluez/hci0", [bluez.ADAPTER]])
    await arrived(host)
    assert other.over


async def test_a_service_that_never_answers(host: BluezHost, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bluez, "limited", partial(limited, seconds=0.1))
    manager.silent = True
    for act in (host.check(), host.connected(TRUSTED), host.watch(device(), Connection())):
        with pytest.raises(LinkUnavailable, match="does not answer"):
            await act
    manager.silent = False
    with pytest.raises(NoAdapter):
        await host.check()


@pytest.mark.parametrize(
    ("adapters", "wanted", "fits"),
    [
        ({"hci0": (True, ["central"])}, "", True),
        ({"hci0": (False, ["central"]), "hci1": (True, ["central", "peripheral"])}, "", True),
        ({"hci0": (True, [])}, "", False),
        ({"hci0": (False, ["central"]), "hci1": (True, ["central"])}, "hci0", False),
        ({}, "", False),
    ],
)
async def test_which_adapter_will_do(
    private_bus: None, manager: Manager, adapters: dict[str, tuple[bool, list[str]]], wanted: str, fits: bool
) -> None:
    manager.objects = {
        f"/org/bluez/{name}": {bluez.ADAPTER: {"Powered": Variant("b", on), "Roles": Variant("as", roles)}}
        for name, (on, roles) in adapters.items()
    }
    host = BluezHost(SystemClock(), wanted)
    if fits:
        await host.check()
    else:
        with pytest.raises(LinkUnavailable):
            await host.check()
    await host.close()


async def test_no_permission_is_named(host: BluezHost, manager: Manager) -> None:
    manager.error = "org.freedesktop.DBus.Error.AccessDenied"
    with pytest.raises(LinkUnavailable, match="usermod -aG bluetooth"):
        await host.check()


async def test_closing_twice_and_using_it_again(host: BluezHost, clock: DrivenClock) -> None:
    await host.close()
    with pytest.raises(NoBluetoothService):
        await host.check()
    await host.close()
    pendant = Pendant(clock)
    async with BluezAdapter(pendant):
        await host.check()
        assert await host.connected(pendant.address) is None
    pendant.close()
