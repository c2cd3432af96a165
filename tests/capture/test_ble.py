"""The radio and its links: unmodified bleak, over a private D-Bus, against virtual pendants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("BlueZ is Linux's", allow_module_level=True)

from omi_edge import gatt
from omi_edge.capture import ble, bleerrors, search
from omi_edge.capture.ble import BleLink, BleRadio
from omi_edge.capture.bluez import BluezHost
from omi_edge.capture.link import Link, Radio
from omi_edge.clock import DrivenClock, SystemClock
from omi_edge.domain import Ending, Security
from omi_edge.errors import (
    AttRefused,
    BadPeripheral,
    BluetoothOff,
    BondLost,
    LinkLost,
    LinkUnavailable,
    NoAdapter,
    NoBluetoothService,
    NotEncrypted,
    PairingFailed,
    PendantAbsent,
)  # fmt: skip
from omi_edge.virtual import bus
from omi_edge.virtual.bluez import BluezAdapter
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import DEVKIT2_2_0_10

pytestmark = pytest.mark.skipif(
    not bus.available() and os.environ.get("CI") != "true", reason="apt install dbus-daemon"
)
NOBODY = "C0:FF:EE:00:00:00"
SOON = 5.0
"""What happens at once is waited for no longer than this."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SEARCH_SECONDS", 0.6)


@pytest.fixture
async def private_bus(clock: DrivenClock) -> AsyncIterator[None]:
    async with bus.PrivateBus(clock):
        yield


@pytest.fixture
async def pendant(clock: DrivenClock) -> AsyncIterator[Pendant]:
    made = Pendant(clock)
    yield made
    made.close()


@pytest.fixture
async def machine(private_bus: None, pendant: Pendant) -> AsyncIterator[BluezAdapter]:
    async with BluezAdapter(pendant) as made:
        yield made


@pytest.fixture
async def radio(machine: BluezAdapter, clock: DrivenClock) -> AsyncIterator[BleRadio]:
    made = BleRadio(clock)
    yield made
    await made.close()


@pytest.fixture
def link(radio: BleRadio, pendant: Pendant) -> BleLink:
    return radio.link(pendant.address)


def secured(link: BleLink) -> Security:
    return link.security


async def ended(link: BleLink) -> Ending:
    async with asyncio.timeout(SOON):
        return await link.wait_disconnected()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 the state of a simulator tells nobody that it changes
            await asyncio.sleep(0.01)


def conforms(radio: BleRadio) -> tuple[Radio, Link]:
    """For mypy."""
    return radio, radio.link(NOBODY)


async def test_a_scan_finds_pendants_by_their_service_strongest_first(private_bus: None, clock: DrivenClock) -> None:
    near, far = Pendant(clock), Pendant(clock, DEVKIT2_2_0_10)
    near.rssi, far.rssi = -40, -80
    radio = BleRadio(clock)
    seen: list[str] = []
    async with BluezAdapter(far, near):
        found = await radio.scan(0.5, lambda sighting: seen.append(sighting.address))
    assert [(sighting.address, sighting.name, sighting.rssi) for sighting in found] == [
        (near.address, "Omi", -40),
        (far.address, "Omi DevK", -80),
    ]
    assert set(seen) == {near.address, far.address}
    await radio.close()


async def test_reading_writing_and_notifications(link: BleLink, pendant: Pendant, clock: DrivenClock) -> None:
    sighting = await link.connect()
    assert (sighting.address, sighting.name) == (pendant.address, "Omi")
    assert link.offers(gatt.AUDIO_CODEC) and link.offers(gatt.AUDIO_CODEC.upper())
    assert not link.offers(gatt.SPEAKER)
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"
    await link.write(gatt.LED_DIM_RATIO, b"\x07")
    assert await link.read(gatt.LED_DIM_RATIO) == b"\x07"
    values: list[bytes] = []
    await link.subscribe(gatt.BUTTON, values.append)
    await clock.advance(2)
    pendant.press()
    await clock.advance(1)
    await eventually(lambda: values)
    assert all(type(value) is bytes for value in values)
    assert secured(link) is Security.OPEN


async def test_what_the_pendant_refuses_and_what_it_lacks(link: BleLink) -> None:
    with pytest.raises(LinkLost):
        await link.read(gatt.AUDIO_CODEC)
    await link.connect()
    with pytest.raises(AttRefused) as refused:
        await link.write(gatt.MIC_GAIN, b"")
    assert refused.value.code == bleerrors.INVALID_VALUE_LENGTH
    for act in (link.read(gatt.SPEAKER), link.write(gatt.SPEAKER, b""), link.subscribe(gatt.SPEAKER, print)):
        with pytest.raises(BadPeripheral):
            await act
    with pytest.raises(BadPeripheral):
        await link.subscribe(gatt.AUDIO_CODEC, print)


async def test_firmware_updates_are_out_of_reach(link: BleLink, pendant: Pendant) -> None:
    await link.connect()
    assert link.offers(gatt.SMP)
    with pytest.raises(AttRefused):
        await link.write(gatt.SMP.upper(), b"\x01")
    assert pendant.connected


async def test_an_absent_pendant(radio: BleRadio, pendant: Pendant) -> None:
    pendant.hold()
    for address in (NOBODY, pendant.address):
        with pytest.raises(PendantAbsent, match="held by a phone"):
            await radio.link(address).connect()


async def test_one_search_serves_all_and_stops_for_whoever_is_there(
    private_bus: None, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SEARCH_SECONDS", 3.0)
    one, two = Pendant(clock), Pendant(clock, DEVKIT2_2_0_10)
    async with BluezAdapter(one, two), asyncio.timeout(10):
        radio = BleRadio(clock)
        absent = asyncio.create_task(radio.link(NOBODY).connect())
        await eventually(radio.search._air.locked)
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(radio.link(one.address).connect(), radio.link(two.address.lower()).connect())
        assert asyncio.get_running_loop().time() - begun < 1.5, "the search for the absent one was waited for"
        assert [pendant.connected for pendant in (one, two)] == [True, True]
        with pytest.raises(PendantAbsent):
            await absent
        await radio.close()
        assert not [pendant for pendant in (one, two) if pendant.connected]


async def test_a_pendant_just_seen_is_connected_without_a_search(
    radio: BleRadio, link: BleLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    await radio.scan(0.3)
    scanners: list[object] = []
    monkeypatch.setattr("bleak.BleakScanner", lambda *_, **__: scanners.append(1))
    await link.connect()
    assert not scanners


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda pendant: pendant.cut(), Ending.TIMEOUT),
        (lambda pendant: pendant.end(), Ending.REMOTE),
    ],
)
async def test_how_a_link_ended(link: BleLink, pendant: Pendant, act: object, expected: Ending) -> None:
    assert callable(act)
    await link.connect()
    act(pendant)
    assert await ended(link) is expected
    assert await ended(link) is expected, "also when it is over already"
    with pytest.raises(LinkLost):
        await link.read(gatt.AUDIO_CODEC)
    await link.close()
    assert await ended(link) is expected
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_a_stack_that_gives_no_reasons(private_bus: None, pendant: Pendant, clock: DrivenClock) -> None:
    async with BluezAdapter(pendant, tells_reasons=False):
        radio = BleRadio(clock)
        link = radio.link(pendant.address)
        await link.connect()
        pendant.end()
        assert await ended(link) is Ending.UNKNOWN
        await radio.close()


async def test_closing_ends_it_here_and_there(link: BleLink, pendant: Pendant) -> None:
    await link.close()
    await link.connect()
    waiting = asyncio.create_task(ended(link))
    await asyncio.sleep(0)
    await link.close()
    assert await waiting is Ending.LOCAL
    await eventually(lambda: not pendant.connected)
    await link.close()


async def test_somebody_elses_disconnect_on_this_machine_is_local(
    link: BleLink, pendant: Pendant, clock: DrivenClock
) -> None:
    await link.connect()
    other = ble.BleRadio(clock)
    await other.link(pendant.address).connect()  # takes it over, as a second program could
    await other.close()
    assert await ended(link) is Ending.LOCAL


async def test_a_link_left_behind_by_a_crash_is_taken_over(machine: BluezAdapter, pendant: Pendant) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from omi_edge.capture.ble import BleRadio\nfrom omi_edge.clock import SystemClock\n"
        "async def main():\n"
        "    await BleRadio(SystemClock()).link(sys.argv[1]).connect()\n    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    crashing = await asyncio.create_subprocess_exec(sys.executable, "-c", code, pendant.address)
    assert await crashing.wait() == 9
    assert pendant.connected
    radio = BleRadio(SystemClock())
    sighting = await radio.link(pendant.address).connect()
    assert sighting.rssi is None
    assert await next(iter(radio.connected)).read(gatt.AUDIO_CODEC) == b"\x15"
    await radio.close()
    await eventually(lambda: not pendant.connected)


async def test_bluetooth_switched_off_and_on(radio: BleRadio, link: BleLink, machine: BluezAdapter) -> None:
    await radio.check()
    await link.connect()
    machine.power(False)
    assert await ended(link) is Ending.RADIO
    with pytest.raises(BluetoothOff, match="rfkill unblock"):
        await radio.check()
    with pytest.raises(BluetoothOff):
        await link.connect()
    with pytest.raises(BluetoothOff):
        await radio.scan(0.2)
    machine.power(True)
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_an_adapter_plugged_out_and_in(radio: BleRadio, link: BleLink, machine: BluezAdapter) -> None:
    await link.connect()
    machine.adapter(False)
    assert await ended(link) is Ending.RADIO
    with pytest.raises(NoAdapter):
        await radio.check()
    with pytest.raises(NoAdapter):
        await link.connect()
    machine.adapter(True)
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_the_service_dies_and_comes_back(radio: BleRadio, link: BleLink, machine: BluezAdapter) -> None:
    await link.connect()
    await machine.service(False)
    assert await ended(link) is Ending.RADIO
    for act in (radio.check(), link.connect(), radio.scan(0.2)):
        with pytest.raises(NoBluetoothService, match="systemctl"):
            await act
    await machine.service(True)
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_the_bus_itself_goes_and_comes_back(pendant: Pendant, clock: DrivenClock) -> None:
    radio = BleRadio(clock)
    link = radio.link(pendant.address)
    async with bus.PrivateBus(clock), BluezAdapter(pendant):
        await link.connect()
    assert await ended(link) is Ending.RADIO
    pendant.cut()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(bus.ADDRESS_VARIABLE, "unix:path=/nowhere/bus")
        for act in (radio.check(), link.connect(), radio.scan(0.2)):
            with pytest.raises(NoBluetoothService, match="D-Bus"):
                await act
    async with bus.PrivateBus(clock), BluezAdapter(pendant):
        await link.connect()
        assert await link.read(gatt.AUDIO_CODEC) == b"\x15"
        await radio.close()


async def test_a_pendant_that_the_stack_forgets_is_not_connected(link: BleLink, machine: BluezAdapter) -> None:
    await link.connect()
    other = BleRadio(SystemClock())
    await other.link(link.address).unpair()
    assert await ended(link) in (Ending.UNKNOWN, Ending.LOCAL)
    with pytest.raises(LinkLost):
        await link.read(gatt.AUDIO_CODEC)
    await link.connect()
    await other.close()


async def test_a_service_that_hangs_costs_one_time_limit_a_call(
    radio: BleRadio, link: BleLink, machine: BluezAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def hanging() -> Iterator[None]:
        """It hangs, and limits of machine time are short; only then, for this machine may be busy."""
        with monkeypatch.context() as patch:
            patch.setattr(ble, "CONNECT_SECONDS", 0.3)
            patch.setattr(ble, "CALL_SECONDS", 0.3)
            patch.setattr(ble, "limited", lambda clock, what, seconds=0.3: bleerrors.limited(clock, what, seconds))
            machine.hang()
            yield
            machine.hang(False)

    await link.connect()
    with hanging(), pytest.raises(LinkLost, match="too long"):
        await link.read(gatt.AUDIO_CODEC)
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"
    await link.close()
    with hanging(), pytest.raises(LinkLost, match="too long"):
        await link.connect()
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_a_scan_that_is_cancelled_at_once_leaves_nothing_on(
    radio: BleRadio, link: BleLink, machine: BluezAdapter
) -> None:
    scanning = asyncio.create_task(radio.scan(30))
    await asyncio.sleep(0)
    scanning.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await scanning
    assert len(await radio.scan(0.3)) == 1, "a search that was given up still runs, and keeps others out"
    await link.connect()


async def test_pairing_makes_the_next_links_encrypted(link: BleLink, machine: BluezAdapter, pendant: Pendant) -> None:
    await link.connect()
    await link.pair()
    assert secured(link) is Security.BONDED
    await link.pair()
    await link.close()
    await link.connect()
    assert secured(link) is Security.BONDED
    await link.unpair()
    assert await ended(link) is Ending.LOCAL
    assert not machine.bonds
    await link.unpair()
    await link.connect()
    assert secured(link) is Security.OPEN


async def test_unpairing_makes_earlier_sightings_worthless(radio: BleRadio, link: BleLink) -> None:
    await radio.scan(0.3)
    await link.unpair()  # BlueZ forgets the device along with the bond
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_a_pendant_that_asks_for_pairing_is_let_in_only_when_it_is_trusted(
    private_bus: None, clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    pendant = Pendant(clock, faults=Faults(security_request=True))
    async with BluezAdapter(pendant) as machine:
        radio = BleRadio(clock)
        link = radio.link(pendant.address)
        await link.connect()
        await eventually(lambda: "pairing refused" in caplog.text)
        assert secured(link) is Security.OPEN
        assert not machine.bonds
        await link.close()
        radio.trust([pendant.address.lower()])
        await link.connect()
        await eventually(lambda: secured(link) is Security.BONDED)
        await radio.close()


async def test_content_that_wants_encryption(private_bus: None, clock: DrivenClock) -> None:
    for code in (0x05, 0x0F):
        pendant = Pendant(clock, faults=Faults(insufficient_encryption=True, encryption_error=code))
        async with BluezAdapter(pendant):
            radio = BleRadio(clock)
            link = radio.link(pendant.address)
            await link.connect()
            with pytest.raises(NotEncrypted):
                await link.read(gatt.AUDIO_CODEC)
            with pytest.raises(NotEncrypted):
                await link.subscribe(gatt.AUDIO_DATA, print)
            await link.pair()
            assert await link.read(gatt.AUDIO_CODEC) == b"\x15"
            await radio.close()


async def test_a_bond_that_the_pendant_forgot(link: BleLink, machine: BluezAdapter, pendant: Pendant) -> None:
    await link.connect()
    await link.pair()
    await link.close()
    await eventually(lambda: not pendant.connected)
    pendant.forget_bonds()
    with pytest.raises(BondLost, match="pair again"):
        await link.connect()
    await link.unpair()
    await link.connect()
    await link.pair()
    assert secured(link) is Security.BONDED


async def test_pairing_that_fails(link: BleLink, pendant: Pendant, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LinkLost):
        await link.pair()
    await link.connect()
    monkeypatch.setattr(pendant, "accept_pairing", lambda _: None)
    with pytest.raises(PairingFailed, match="AuthenticationFailed"):
        await link.pair()
    assert secured(link) is Security.OPEN
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_a_named_adapter(machine: BluezAdapter, pendant: Pendant, clock: DrivenClock) -> None:
    right, wrong = BleRadio(clock, "hci0"), BleRadio(clock, "hci7")
    await right.check()
    await right.link(pendant.address).connect()
    await right.close()
    for act in (wrong.check(), wrong.scan(0.1), wrong.link(pendant.address).connect()):
        with pytest.raises(NoAdapter, match="hci7"):
            await act
    await wrong.close()


async def test_cancelling_passes_and_leaves_no_link(link: BleLink, pendant: Pendant, radio: BleRadio) -> None:
    await radio.scan(0.3)
    pendant.go_away()
    connecting = asyncio.create_task(link.connect())
    host = radio.host
    assert isinstance(host, BluezHost)
    await eventually(lambda: host._watched)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    pendant.come_back()
    await link.connect()
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"


async def test_thirty_rounds_leave_no_socket_and_no_task(machine: BluezAdapter, pendant: Pendant) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    before = (0, 0)
    for round_number in range(30):
        radio = BleRadio(SystemClock())
        link = radio.link(pendant.address)
        await link.connect()
        await link.subscribe(gatt.BATTERY_LEVEL, lambda _: None)
        if round_number % 3:
            (pendant.cut if round_number % 3 == 1 else pendant.end)()
            await ended(link)
        await radio.close()
        await eventually(lambda: not pendant.connected)
        if round_number == 2:  # what bleak keeps for a loop is there by now
            before = held()
    assert held() == before


async def test_a_machine_without_a_service(private_bus: None, clock: DrivenClock) -> None:
    radio = BleRadio(clock)
    for act in (radio.check(), radio.scan(0.1), radio.link(NOBODY).connect()):
        with pytest.raises(LinkUnavailable):
            await act
    await radio.close()
