"""The in-process radio: what a client may expect of any radio, and what can be made to go wrong with this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from omi_edge import gatt
from omi_edge.capture.link import Link, Radio
from omi_edge.clock import DrivenClock
from omi_edge.domain import Ending, Security, Sighting
from omi_edge.errors import (
    AttRefused,
    BadPeripheral,
    BluetoothOff,
    BondLost,
    LinkLost,
    LinkUnavailable,
    NoAdapter,
    NoBluetoothPermission,
    NoBluetoothService,
    NotEncrypted,
    PairingFailed,
    PendantAbsent,
)
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.loopback import SCAN_SECONDS, SEEN_SECONDS, LoopbackLink, LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_18, DEVKIT2_2_0_10
from tests.helpers import START_US, drive


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


@pytest.fixture
def pendant(clock: DrivenClock) -> Pendant:
    return Pendant(clock)


@pytest.fixture
def radio(clock: DrivenClock, pendant: Pendant) -> LoopbackRadio:
    return LoopbackRadio(clock, [pendant])


@pytest.fixture
async def link(radio: LoopbackRadio, pendant: Pendant, clock: DrivenClock) -> AsyncIterator[LoopbackLink]:
    made = radio.link(pendant.address)
    await drive(clock, made.connect())
    yield made
    await radio.close()


def bonded(link: LoopbackLink) -> bool:
    return link.security is Security.BONDED


def nothing(value: bytes) -> None:
    pass


async def test_it_is_a_radio_with_links(radio: LoopbackRadio, link: LoopbackLink, pendant: Pendant) -> None:
    as_radio: Radio = radio
    as_link: Link = link
    assert as_radio.transport == "in-process link"
    assert as_radio.can_pair
    await as_radio.check()
    assert as_link.address == pendant.address
    assert as_link.security is Security.OPEN
    assert await as_link.read(gatt.AUDIO_CODEC) == b"\x15"
    await as_link.write(gatt.HAPTIC, b"\x01")
    assert pendant.board.buzzes == [1]
    assert as_link.offers(gatt.AUDIO_DATA)
    assert not as_link.offers(gatt.DEVICE_NAME)


async def test_a_scan_sees_who_advertises(clock: DrivenClock) -> None:
    near, far = Pendant(clock), Pendant(clock, DEVKIT2_2_0_10)
    held, away = Pendant(clock, address="C0:FF:EE:00:00:01"), Pendant(clock, address="C0:FF:EE:00:00:02")
    near.rssi, far.rssi = -80, -40
    held.hold()
    away.go_away()
    radio = LoopbackRadio(clock, [near, far, held, away])
    started_us = clock.boot_us()
    seen: list[Sighting] = []
    scanning = asyncio.create_task(radio.scan(4.0, seen.append))
    await clock.advance(SEEN_SECONDS)
    assert {sighting.address for sighting in seen} == {near.address, far.address}
    await clock.advance(3.8)
    assert not scanning.done()
    await clock.advance(0.1)
    assert [(one.address, one.name, one.rssi) for one in scanning.result()] == [
        (far.address, "Omi DevK", -40), (near.address, "Omi", -80),
    ]  # fmt: skip
    assert clock.boot_us() - started_us == 4_000_000


async def test_connecting_takes_a_moment_and_an_absent_pendant_the_whole_scan(
    radio: LoopbackRadio, pendant: Pendant, clock: DrivenClock
) -> None:
    link = radio.link(pendant.address)
    connecting = asyncio.create_task(link.connect())
    await clock.advance(SEEN_SECONDS)
    assert connecting.result().boot_us == clock.boot_us()
    assert connecting.result().name == "Omi"
    for absent in (radio.link(pendant.address), radio.link("C0:FF:EE:00:00:00")):
        connecting = asyncio.create_task(absent.connect())
        await clock.advance(SCAN_SECONDS - 0.01)
        assert not connecting.done()
        await clock.advance(0.01)
        assert isinstance(connecting.exception(), PendantAbsent)
    await absent.close()
    assert pendant.connected  # it was not the other one's to close


async def test_a_pendant_that_comes_back_is_found_at_once(
    radio: LoopbackRadio, pendant: Pendant, clock: DrivenClock
) -> None:
    pendant.go_away(5)
    connecting = asyncio.create_task(radio.link(pendant.address).connect())
    await clock.advance(4.99)
    assert not connecting.done()
    await clock.advance(0.01)
    assert connecting.result().address == pendant.address


@pytest.mark.parametrize(
    "call",
    [
        lambda link: link.subscribe(gatt.AUDIO_DATA, nothing),
        lambda link: link.read(gatt.AUDIO_CODEC),
        lambda link: link.write(gatt.HAPTIC, b"\x01"),
        lambda link: link.pair(),
    ],
)
async def test_nothing_works_without_a_connection(
    radio: LoopbackRadio, pendant: Pendant, clock: DrivenClock, call: Callable[[LoopbackLink], Awaitable[object]]
) -> None:
    link = radio.link(pendant.address)
    for _ in range(2):  # before the connection, then after it
        with pytest.raises(LinkLost):
            await call(link)
        await drive(clock, link.connect())
        pendant.end()
    assert not link.offers(gatt.AUDIO_DATA)


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        (lambda radio, pendant: pendant.cut(), Ending.TIMEOUT),
        (lambda radio, pendant: pendant.end(), Ending.REMOTE),
        (lambda radio, pendant: radio.power(False), Ending.RADIO),
        (lambda radio, pendant: radio.adapter(False), Ending.RADIO),
        (lambda radio, pendant: radio.service(False), Ending.RADIO),
    ],
)
async def test_the_ending_is_told_to_who_waits_and_to_who_asks_later(
    radio: LoopbackRadio, pendant: Pendant, link: LoopbackLink,
    end: Callable[[LoopbackRadio, Pendant], None], ending: Ending,
) -> None:  # fmt: skip
    waiting = asyncio.create_task(link.wait_disconnected())
    given_up = asyncio.create_task(link.wait_disconnected())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert pendant.connected  # giving up waiting does not end it
    end(radio, pendant)
    assert await waiting is ending
    assert await link.wait_disconnected() is ending
    await link.close()
    assert await link.wait_disconnected() is ending


async def test_closing(link: LoopbackLink, pendant: Pendant) -> None:
    await link.close()
    await link.close()
    assert await link.wait_disconnected() is Ending.LOCAL
    assert not pendant.connected


async def test_a_link_that_never_was_has_no_ending(radio: LoopbackRadio, pendant: Pendant) -> None:
    with pytest.raises(LinkLost):
        await radio.link(pendant.address).wait_disconnected()


async def test_a_read_out_of_range_is_lost_with_the_link(
    link: LoopbackLink, pendant: Pendant, clock: DrivenClock
) -> None:
    pendant.go_away()
    reading = asyncio.create_task(link.read(gatt.AUDIO_CODEC))
    await clock.advance(3.9)
    assert not reading.done()
    await clock.advance(0.2)
    assert isinstance(reading.exception(), LinkLost)


async def test_refusals(link: LoopbackLink) -> None:
    with pytest.raises(AttRefused) as caught:
        await link.write(gatt.LED_DIM_RATIO, b"")
    assert caught.value.code == 0x0D
    with pytest.raises(BadPeripheral):
        await link.read(gatt.DEVICE_NAME)


async def test_a_radio_that_hangs(radio: LoopbackRadio, link: LoopbackLink, clock: DrivenClock) -> None:
    radio.hanging = True
    reading = asyncio.create_task(link.read(gatt.AUDIO_CODEC))
    await clock.advance(4.9)
    assert not reading.done()
    await clock.advance(0.2)
    assert isinstance(reading.exception(), LinkLost)


@pytest.mark.parametrize(
    ("switch", "error"),
    [
        (LoopbackRadio.power, BluetoothOff),
        (LoopbackRadio.service, NoBluetoothService),
        (LoopbackRadio.adapter, NoAdapter),
        (LoopbackRadio.permission, NoBluetoothPermission),
    ],
)
async def test_a_machine_without_bluetooth(
    radio: LoopbackRadio, pendant: Pendant, clock: DrivenClock,
    switch: Callable[[LoopbackRadio, bool], None], error: type[LinkUnavailable],
) -> None:  # fmt: skip
    switch(radio, False)
    for call in (radio.check, lambda: radio.scan(1), radio.link(pendant.address).connect):
        with pytest.raises(error):
            await call()
    switch(radio, True)
    scanning = asyncio.create_task(radio.scan(5))
    await clock.advance(1)
    switch(radio, False)
    await clock.advance(5)
    assert isinstance(scanning.exception(), error)
    switch(radio, True)
    await drive(clock, radio.link(pendant.address).connect())


class TestPairing:
    async def test_only_with_who_is_trusted(self, radio: LoopbackRadio, link: LoopbackLink, pendant: Pendant) -> None:
        with pytest.raises(PairingFailed):
            await link.pair()
        radio.trust([pendant.address])
        await link.pair()
        assert bonded(link)
        assert list(pendant.bonds.values()) == list(radio.bonds.values())

    async def test_a_bond_encrypts_the_next_connection_until_it_is_removed(
        self, radio: LoopbackRadio, link: LoopbackLink, pendant: Pendant, clock: DrivenClock
    ) -> None:
        radio.trust([pendant.address])
        await link.pair()
        await link.close()
        assert not bonded(link)
        await drive(clock, link.connect())
        assert bonded(link)
        await link.unpair()
        assert await link.wait_disconnected() is Ending.LOCAL
        await drive(clock, link.connect())
        assert not bonded(link)
        await link.unpair()  # harmless without one
        assert pendant.bonds  # its own side it keeps

    async def test_a_bond_that_the_pendant_forgot(
        self, radio: LoopbackRadio, link: LoopbackLink, pendant: Pendant, clock: DrivenClock
    ) -> None:
        radio.trust([pendant.address])
        await link.pair()
        await link.close()
        pendant.forget_bonds()
        with pytest.raises(BondLost):
            await drive(clock, link.connect())
        assert await link.wait_disconnected() is Ending.AUTHENTICATION
        await link.unpair()
        await drive(clock, link.connect())
        await link.pair()
        assert bonded(link)

    async def test_where_a_program_cannot_pair(self, pendant: Pendant, clock: DrivenClock) -> None:
        radio = LoopbackRadio(clock, [pendant], can_pair=False)
        link = radio.link(pendant.address)
        await drive(clock, link.connect())
        for call in (link.pair, link.unpair):
            with pytest.raises(PairingFailed, match="system"):
                await call()
        assert pendant.connected

    @pytest.mark.parametrize("trusted", [True, False])
    async def test_a_pendant_that_asks(self, clock: DrivenClock, trusted: bool) -> None:
        pendant = Pendant(clock, CV1_3_0_18)
        radio = LoopbackRadio(clock, [pendant])
        radio.trust([pendant.address] if trusted else [])
        link = radio.link(pendant.address)
        await drive(clock, link.connect())
        assert bonded(link) == trusted

    async def test_a_pendant_that_insists(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock, faults=Faults(insufficient_encryption=True))
        radio = LoopbackRadio(clock, [pendant])
        radio.trust([pendant.address])
        link = radio.link(pendant.address)
        await drive(clock, link.connect())
        for call in (link.read(gatt.AUDIO_CODEC), link.subscribe(gatt.AUDIO_DATA, nothing)):
            with pytest.raises(NotEncrypted):
                await call
        await link.pair()
        assert await link.read(gatt.AUDIO_CODEC) == b"\x15"
