"""Unmodified bleak, over a private D-Bus, against the simulated BlueZ."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("BlueZ is Linux's", allow_module_level=True)

from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakDBusError,
    BleakError,
    BleakGATTProtocolError,
)
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from omi_edge import gatt
from omi_edge.capture.ble import BleRadio
from omi_edge.capture.link import Radio
from omi_edge.clock import DrivenClock, SystemClock
from omi_edge.virtual import bus
from omi_edge.virtual.bluez import BluezAdapter
from omi_edge.virtual.escort import EscortedRadio
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_18, DEVKIT2_2_0_10
from tests.helpers import START_US, drive
from tests.virtual.storing import fill

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not bus.available() and os.environ.get("CI") != "true", reason="apt install dbus-daemon"),
]
AGENT = "/agent"


class World:
    """A pendant, its adapter, and what went over the bus."""

    def __init__(self, adapter: BluezAdapter, spy: MessageBus) -> None:
        self.adapter = adapter
        self.pendant: Pendant = adapter.pendants[0]
        self.signals: list[tuple[str, object]] = []
        self.asked: list[str] = []
        self.consents = True
        self._spy = spy
        spy.add_message_handler(self._saw)

    async def watch(self) -> None:
        await self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s",
                        ["type='signal',path_namespace='/org/bluez'"])  # fmt: skip

    async def call(
        self, to: str, path: str, interface: str, member: str, signature: str = "", body: object = ()
    ) -> Message:
        reply = await self._spy.call(
            Message(destination=to, path=path, interface=interface, member=member, signature=signature, body=list(body))  # type: ignore[call-overload]
        )
        assert reply is not None
        return reply

    async def manager(self, member: str, *body: str) -> str:
        """Call the agent manager; return the name of the error, or nothing."""
        reply = await self.call("org.bluez", "/org/bluez", "org.bluez.AgentManager1", member, "os"[: len(body)], body)
        return reply.error_name or ""

    async def offer_agent(self) -> None:
        assert await self.manager("RegisterAgent", AGENT, "NoInputNoOutput") == ""
        assert await self.manager("RequestDefaultAgent", AGENT) == ""

    async def find(self) -> BLEDevice:
        async with SystemClock().time_limit(10):
            while True:
                with contextlib.suppress(BleakBluetoothNotAvailableError):  # bleak may not know yet that there is one
                    if found := await BleakScanner.find_device_by_address(self.pendant.address, timeout=5):
                        return found
                await SystemClock().sleep(0.01)

    def _saw(self, message: Message) -> Message | None:
        if message.member == "RequestAuthorization":
            self.asked.append(message.body[0])
            if self.consents:
                return Message.new_method_return(message)
            return Message.new_error(message, "org.bluez.Error.Rejected", "no")
        if message.message_type is MessageType.SIGNAL and message.path and "/dev_" in message.path:
            if message.member == "Disconnected":
                self.signals.append(("Disconnected", message.body[0]))
            elif message.member == "PropertiesChanged":
                self.signals += [(name, value.value) for name, value in message.body[1].items() if name != "RSSI"]
        return None


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = SystemClock()
    made = getattr(request, "param", lambda clock: [Pendant(clock)])(clock)
    async with bus.PrivateBus(clock), BluezAdapter(*made) as adapter:
        spy = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        found = World(adapter, spy)
        await found.watch()
        yield found
        spy.disconnect()
        for pendant in made:
            pendant.close()


def pendants(*makers: Callable[[SystemClock], Pendant]) -> Callable[[SystemClock], list[Pendant]]:
    return lambda clock: [make(clock) for make in makers]


class Peer:
    """A bleak client that notes when it is told of the end."""

    def __init__(self, device: BLEDevice, **options: object) -> None:
        self.ended = asyncio.Event()
        self.client = BleakClient(device, disconnected_callback=lambda _: self.ended.set(), timeout=5, **options)  # type: ignore[arg-type]


async def connected(world: World) -> Peer:
    peer = Peer(await world.find())
    await peer.client.connect()
    return peer


async def soon(done: asyncio.Event) -> None:
    async with SystemClock().time_limit(5):
        await done.wait()


async def comes_to(kind: type[BleakError], call: Callable[[], Awaitable[object]]) -> None:
    """Call until it fails as expected: bleak learns of the machine's state by signals that take their time."""
    async with SystemClock().time_limit(5):
        while True:
            try:
                await call()
            except kind:
                return
            except BleakError:
                await SystemClock().sleep(0.01)


def named(caught: pytest.ExceptionInfo[BleakDBusError]) -> str:
    return caught.value.dbus_error.removeprefix("org.bluez.Error.")


async def test_it_offers_what_the_pendant_offers(world: World) -> None:
    peer = await connected(world)
    for uuid, characteristics in world.pendant.services.items():
        service = peer.client.services.get_service(uuid)
        assert service is not None
        assert {one.uuid: set(one.properties) for one in service.characteristics} == {
            one.uuid: set(one.properties) for one in characteristics
        }
    audio = peer.client.services.get_characteristic(gatt.AUDIO_DATA)
    assert audio is not None
    assert audio.max_write_without_response_size == 495
    assert await peer.client.read_gatt_char(gatt.AUDIO_CODEC) == b"\x15"
    assert await peer.client.read_gatt_char(gatt.FIRMWARE_REVISION) == b"3.0.21"
    await peer.client.write_gatt_char(gatt.HAPTIC, b"\x02", response=True)
    assert world.pendant.board.buzzes == [2]
    await peer.client.disconnect()
    assert peer.ended.is_set()
    assert not world.pendant.connected


async def test_notifications_arrive_in_order_and_none_is_missing(world: World) -> None:
    peer = await connected(world)
    got: list[bytes] = []
    whole = asyncio.Event()

    def take(_: object, value: bytearray) -> None:
        got.append(bytes(value))
        if len(got) == 20:
            whole.set()

    await peer.client.start_notify(gatt.AUDIO_DATA, take)
    await world.pendant.wait_streaming()
    await world.pendant.play([np.full(1600 * 4, 3000, np.int16)])
    await soon(whole)
    assert [int.from_bytes(value[:2], "little") for value in got] == list(range(20))
    await peer.client.stop_notify(gatt.AUDIO_DATA)
    await world.pendant.play([np.full(1600, 3000, np.int16)])
    assert world.pendant.sent == 20
    await peer.client.disconnect()


@pytest.mark.parametrize(
    ("uuid", "value", "code"), [(gatt.LED_DIM_RATIO, b"\x01\x02", 0x0D), (gatt.TIME_SET, b"\x01\x00\x00\x00", 0x0E)]
)
async def test_refusals_have_their_code(world: World, uuid: str, value: bytes, code: int) -> None:
    peer = await connected(world)
    with pytest.raises(BleakGATTProtocolError) as caught:
        await peer.client.write_gatt_char(uuid, value, response=True)
    assert int(caught.value.code) == code
    await peer.client.disconnect()


ENDS: list[tuple[str, Callable[[World, Peer], Awaitable[object] | None]]] = [
    ("Timeout", lambda world, _: world.pendant.cut()),
    ("Remote", lambda world, _: world.pendant.end()),
    ("Local", lambda _, peer: peer.client.disconnect()),
    ("Local", lambda world, _: world.adapter.power(False)),
]


@pytest.mark.parametrize(("reason", "end"), ENDS)
async def test_an_end_is_told_in_the_order_that_bleak_needs(
    world: World, reason: str, end: Callable[[World, Peer], Awaitable[object] | None]
) -> None:
    peer = await connected(world)
    world.signals.clear()
    if (ending := end(world, peer)) is not None:
        await ending
    await soon(peer.ended)
    await asyncio.sleep(0)
    await world.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.Peer", "Ping")  # signals before it have arrived
    assert world.signals == [
        ("ServicesResolved", False), ("Disconnected", f"org.bluez.Reason.{reason}"), ("Connected", False),
    ]  # fmt: skip
    assert not peer.client.is_connected
    assert not world.pendant.connected


async def test_an_older_stack_tells_no_reason() -> None:
    clock = SystemClock()
    pendant = Pendant(clock)
    async with bus.PrivateBus(clock), BluezAdapter(pendant, tells_reasons=False) as adapter:
        spy = await MessageBus(bus_type=BusType.SYSTEM).connect()
        world = World(adapter, spy)
        await world.watch()
        peer = await connected(world)
        pendant.cut()
        await soon(peer.ended)
        assert "Disconnected" not in dict(world.signals)
        spy.disconnect()


async def test_a_read_that_waits_when_the_link_drops_fails(world: World) -> None:
    peer = await connected(world)
    world.pendant.stall(60)
    reading = asyncio.create_task(peer.client.read_gatt_char(gatt.AUDIO_CODEC))
    await world.call("org.bluez", "/org/bluez/hci0", "org.freedesktop.DBus.Peer", "Ping")
    world.pendant.cut()
    with pytest.raises((BleakDBusError, BleakError)):
        await reading


@pytest.mark.parametrize(
    "world",
    [pendants(lambda clock: Pendant(clock), lambda clock: Pendant(clock, DEVKIT2_2_0_10))],
    indirect=True,
)
async def test_two_pendants_are_live_at_once(world: World) -> None:
    seen = {
        device.address: advertisement
        for device, advertisement in (await BleakScanner.discover(1.0, return_adv=True)).values()
    }
    first, second = world.adapter.pendants
    assert {address: one.local_name for address, one in seen.items()} == {
        first.address: "Omi", second.address: "Omi DevK",
    }  # fmt: skip
    assert all(gatt.AUDIO_SERVICE in one.service_uuids for one in seen.values())
    peers = []
    for pendant in (first, second):
        device = await BleakScanner.find_device_by_address(pendant.address, timeout=5)
        assert device is not None
        peer = Peer(device)
        await peer.client.connect()
        peers.append(peer)
    assert [await peer.client.read_gatt_char(gatt.AUDIO_CODEC) for peer in peers] == [b"\x15", b"\x14"]
    first.cut()
    await soon(peers[0].ended)
    assert await peers[1].client.read_gatt_char(gatt.AUDIO_CODEC) == b"\x14"
    await peers[1].client.disconnect()


async def heard(radio: Radio, pendant: Pendant, clock: DrivenClock) -> list[tuple[int, bytes]]:
    values: list[tuple[int, bytes]] = []
    link = radio.link(pendant.address)
    await drive(clock, link.connect())
    started_us = clock.boot_us()
    for uuid in (gatt.AUDIO_DATA, gatt.BATTERY_LEVEL):
        await link.subscribe(uuid, lambda value: values.append((clock.boot_us() - started_us, value)))
    noise = np.random.default_rng(3).normal(0, 2000, 16_000 * 8).astype(np.int16)
    playing = asyncio.create_task(pendant.play([noise]))
    await clock.advance(6)
    pendant.cut()
    ending = asyncio.create_task(link.wait_disconnected())
    await clock.advance(3)
    values.append((-1, str(ending.result()).encode()))
    assert playing.done()
    await radio.close()
    return values


async def test_audio_comes_as_over_the_in_process_link_byte_for_byte_and_at_the_same_times() -> None:
    runs = []
    for over_the_bus in (True, False):
        clock = DrivenClock(START_US)
        pendant = Pendant(clock, faults=Faults(seed=1, lose=0.05, duplicate=0.05))
        async with contextlib.AsyncExitStack() as stack:
            radio: Radio = LoopbackRadio(clock, [pendant])
            if over_the_bus:
                await stack.enter_async_context(bus.PrivateBus(clock))
                await stack.enter_async_context(BluezAdapter(pendant))
                radio = EscortedRadio(BleRadio(clock), [pendant], clock)
            runs.append(await heard(radio, pendant, clock))
        pendant.close()
    assert len(runs[0]) > 200
    assert runs[0] == runs[1]
    assert runs[0][-1] == (-1, b"timeout")


@pytest.mark.parametrize(
    "world", [pendants(lambda clock: Pendant(clock, faults=Faults(storage_speed=0, done_crc=True)))], indirect=True
)
async def test_what_is_stored_comes_whole_and_in_order(world: World) -> None:
    fill(world.pendant, 2000)
    expected = b"".join(block.record for block in world.pendant.storage.blocks)
    peer = await connected(world)
    values: list[bytes] = []
    over = asyncio.Event()

    def on_value(_: object, value: bytearray) -> None:
        values.append(bytes(value))
        if value[0] == 4:
            over.set()

    await peer.client.start_notify(gatt.STORAGE_CONTROL, on_value)
    assert (await peer.client.read_gatt_char(gatt.STORAGE_STATUS))[4:8] == (2000).to_bytes(4, "little")
    await peer.client.write_gatt_char(gatt.STORAGE_CONTROL, b"\x11" + bytes(8), response=True)
    async with SystemClock().time_limit(30):
        await over.wait()
    assert b"".join(value[1:] for value in values if value[0] == 3) == expected
    assert values[-1] == b"\x04\x00" + (2000).to_bytes(8, "big") + zlib.crc32(expected).to_bytes(4, "big")
    await peer.client.disconnect()


class TestPairing:
    async def test_nobody_to_ask_is_a_refusal(self, world: World) -> None:
        peer = await connected(world)
        with pytest.raises(BleakDBusError) as caught:
            await peer.client.pair()
        assert named(caught) == "AuthenticationFailed"
        assert await peer.client.read_gatt_char(gatt.AUDIO_CODEC) == b"\x15"
        assert not world.adapter.bonds
        await peer.client.disconnect()

    async def test_the_agent_is_asked_and_the_bond_encrypts_the_next_connection(self, world: World) -> None:
        await world.offer_agent()
        peer = await connected(world)
        await peer.client.pair()
        path = "/org/bluez/hci0/dev_" + world.pendant.address.replace(":", "_")
        assert world.asked == [path]
        assert ("Paired", True) in world.signals
        assert ("Bonded", True) in world.signals
        key = world.adapter.bonds[world.pendant.address]
        assert list(world.pendant.bonds.values()) == [key]
        await peer.client.disconnect()
        peer = await connected(world)
        assert world.pendant._connection is not None
        assert world.pendant._connection.encrypted
        assert world.asked == [path]
        await peer.client.pair()  # bleak knows that it is paired
        await peer.client.disconnect()

    async def test_an_agent_may_refuse_and_may_leave(self, world: World) -> None:
        await world.offer_agent()
        assert await world.manager("RegisterAgent", AGENT, "") == "org.bluez.Error.AlreadyExists"
        world.consents = False
        peer = await connected(world)
        with pytest.raises(BleakDBusError) as caught:
            await peer.client.pair()
        assert named(caught) == "AuthenticationFailed"
        assert await world.manager("UnregisterAgent", AGENT) == ""
        assert await world.manager("UnregisterAgent", AGENT) == "org.bluez.Error.DoesNotExist"
        assert await world.manager("RequestDefaultAgent", AGENT) == "org.bluez.Error.DoesNotExist"
        world.consents = True
        with pytest.raises(BleakDBusError):
            await peer.client.pair()
        assert len(world.asked) == 1
        await peer.client.disconnect()

    async def test_removing_the_device_removes_the_bond_and_says_nothing_of_the_connection(self, world: World) -> None:
        await world.offer_agent()
        peer = await connected(world)
        await peer.client.pair()
        await peer.client.unpair()
        assert not world.adapter.bonds
        assert not world.pendant.connected
        assert not peer.ended.is_set()
        assert world.pendant.bonds  # its own side it keeps
        again = await connected(world)
        await again.client.pair()
        assert len(world.asked) == 2
        await again.client.disconnect()

    async def test_a_bond_that_the_pendant_forgot_ends_the_connection_at_once(self, world: World) -> None:
        await world.offer_agent()
        peer = await connected(world)
        await peer.client.pair()
        await peer.client.disconnect()
        world.pendant.forget_bonds()
        world.signals.clear()
        stale = Peer(await world.find())
        with pytest.raises(BleakError):
            await stale.client.connect()
        assert ("Disconnected", "org.bluez.Reason.Authentication") in world.signals
        await stale.client.unpair()
        peer = await connected(world)
        await peer.client.pair()
        await peer.client.disconnect()

    @pytest.mark.parametrize("world", [pendants(lambda clock: Pendant(clock, CV1_3_0_18))], indirect=True)
    async def test_a_pendant_that_asks_for_a_bond_gets_one_when_there_is_an_agent(self, world: World) -> None:
        peer = await connected(world)
        await peer.client.read_gatt_char(gatt.AUDIO_CODEC)
        assert not world.adapter.bonds
        await peer.client.disconnect()
        await world.offer_agent()
        peer = await connected(world)
        await peer.client.read_gatt_char(gatt.AUDIO_CODEC)
        assert world.adapter.bonds
        await peer.client.disconnect()

    @pytest.mark.parametrize(
        "world",
        [pendants(lambda clock: Pendant(clock, faults=Faults(insufficient_encryption=True)))],
        indirect=True,
    )
    async def test_content_wants_encryption_and_the_stack_raises_it_by_itself(self, world: World) -> None:
        peer = await connected(world)
        assert await peer.client.read_gatt_char(gatt.FIRMWARE_REVISION) == b"3.0.21"
        for call in (
            lambda: peer.client.read_gatt_char(gatt.AUDIO_CODEC),
            lambda: peer.client.start_notify(gatt.AUDIO_DATA, lambda *_: None),
            lambda: peer.client.write_gatt_char(gatt.LED_DIM_RATIO, b"\x05", response=True),
        ):
            with pytest.raises(BleakDBusError, match="Not paired") as caught:
                await call()
            assert named(caught) == "NotPermitted"
        await world.offer_agent()
        assert await peer.client.read_gatt_char(gatt.AUDIO_CODEC) == b"\x15"
        assert world.adapter.bonds
        await peer.client.disconnect()


class TestTheMachine:
    async def test_bluetooth_off(self, world: World) -> None:
        device = await world.find()
        world.adapter.power(False)
        await comes_to(BleakBluetoothNotAvailableError, lambda: BleakScanner.discover(0.1))
        with pytest.raises(BleakDBusError) as caught:
            await Peer(device).client.connect()
        assert named(caught) == "NotReady"
        reply = await world.call(
            "org.bluez", "/org/bluez/hci0", "org.freedesktop.DBus.Properties", "Set", "ssv",
            ["org.bluez.Adapter1", "Powered", Variant("b", True)],
        )  # fmt: skip
        assert reply.error_name is None
        assert world.adapter.powered
        await (await connected(world)).client.disconnect()

    async def test_no_adapter(self, world: World) -> None:
        peer = await connected(world)
        world.adapter.adapter(False)
        assert not world.pendant.connected
        await comes_to(BleakBluetoothNotAvailableError, lambda: BleakScanner.discover(0.1))
        with pytest.raises(BleakError):
            await peer.client.read_gatt_char(gatt.AUDIO_CODEC)
        world.adapter.adapter(True)
        await (await connected(world)).client.disconnect()

    async def test_a_service_that_dies_says_nothing_and_a_new_one_knows_the_bonds(self, world: World) -> None:
        await world.offer_agent()
        peer = await connected(world)
        await peer.client.pair()
        await world.adapter.service(False)
        assert not world.pendant.connected
        assert peer.client.is_connected  # bleak does not notice
        with pytest.raises(BleakDBusError, match="ServiceUnknown"):
            await peer.client.read_gatt_char(gatt.AUDIO_CODEC)
        await world.adapter.service(True)
        again = await connected(world)
        assert world.pendant._connection is not None
        assert world.pendant._connection.encrypted
        await again.client.disconnect()

    async def test_calls_may_hang(self, world: World) -> None:
        peer = await connected(world)
        world.adapter.hang()
        reading = asyncio.create_task(peer.client.read_gatt_char(gatt.AUDIO_CODEC))
        await world.call("org.bluez", "/org/bluez/hci0", "org.freedesktop.DBus.Peer", "Ping")
        await world.call("org.bluez", "/org/bluez/hci0", "org.freedesktop.DBus.Peer", "Ping")
        assert not reading.done()
        world.adapter.hang(False)
        assert await reading == b"\x15"
        await peer.client.disconnect()

    async def test_one_scan_for_each_client(self, world: World) -> None:
        async with BleakScanner():
            with pytest.raises(BleakDBusError) as caught:
                async with BleakScanner():
                    pass
        assert named(caught) == "InProgress"

    async def test_a_device_that_was_removed_is_not_found(self, world: World) -> None:
        device = await world.find()
        await Peer(device).client.unpair()
        with pytest.raises(BleakError, match="not found"):
            await Peer(device).client.connect()
        await (await connected(world)).client.disconnect()
