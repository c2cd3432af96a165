"""Unmodified bleak, over a private D-Bus, against the virtual pendant."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("BlueZ is Linux's", allow_module_level=True)

from omi_edge.capture.ble import BleLink
from omi_edge.clock import DrivenClock
from omi_edge.domain import DeviceInfo
from omi_edge.errors import LinkLost, LinkUnavailable
from omi_edge.virtual import bus
from omi_edge.virtual.bluez import BluezAdapter
from omi_edge.virtual.escort import Escorted
from omi_edge.virtual.loopback import LoopbackLink
from omi_edge.virtual.pendant import CV1_3_0_21, Pendant

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not bus.available() and os.environ.get("CI") != "true", reason="apt install dbus-daemon"),
]


def speech(seconds: float) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int16]]]:
    rng = np.random.default_rng(3)
    for _ in range(round(seconds * 10)):
        yield rng.normal(0, 2000, 1600).astype(np.int16)


@pytest.fixture
async def pendant(clock: DrivenClock) -> AsyncIterator[Pendant]:
    made = Pendant(clock)
    async with bus.PrivateBus(clock), BluezAdapter(made):
        yield made


@pytest.fixture
async def link(clock: DrivenClock, pendant: Pendant) -> AsyncIterator[Escorted]:
    made = Escorted(BleLink(clock), pendant, clock)
    yield made
    await made.close()


async def heard(link: Escorted | LoopbackLink, pendant: Pendant, clock: DrivenClock) -> list[tuple[int, bytes]]:
    values: list[tuple[int, bytes]] = []
    await link.connect()
    await link.subscribe_audio(lambda value: values.append((clock.boot_us(), value)))
    assert await link.read_codec() == 21
    started_us = clock.boot_us()
    playing = asyncio.create_task(pendant.play(speech(4)))
    while not playing.done():
        await clock.advance(0.5)
    await clock.settle()
    return [(at - started_us, value) for at, value in values]


async def test_it_is_found_by_its_service_and_says_who_it_is(link: Escorted) -> None:
    info = await link.connect()
    device = CV1_3_0_21.device
    assert info == DeviceInfo(
        device.address, device.name, device.model, device.firmware, device.hardware, device.manufacturer
    )
    assert await link.battery() == 82


async def test_audio_comes_as_over_the_in_process_link_byte_for_byte_and_at_the_same_times(
    link: Escorted, pendant: Pendant, clock: DrivenClock
) -> None:
    over_the_bus = await heard(link, pendant, clock)
    alone_clock = DrivenClock(clock.utc_us())
    alone = Pendant(alone_clock)
    in_process = await heard(LoopbackLink(alone), alone, alone_clock)
    assert len(over_the_bus) > 100
    assert over_the_bus == in_process


async def test_a_lost_link_is_noticed_and_made_again(link: Escorted, pendant: Pendant) -> None:
    await link.connect()
    pendant.disconnect("supervision timeout")
    assert await link.wait_disconnected() == "the link was lost"
    with pytest.raises(LinkLost):
        await link.read_codec()
    await link.close()
    await link.connect()
    assert await link.read_codec() == 21


async def test_a_connected_pendant_cannot_be_found_by_another(
    link: Escorted, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omi_edge.capture.ble.SCAN_SECONDS", 0.5)
    await link.connect()
    with pytest.raises(LinkLost, match="in sight"):
        await BleLink(clock).connect()


async def test_only_the_pendant_that_was_named_is_taken(
    pendant: Pendant, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omi_edge.capture.ble.SCAN_SECONDS", 0.5)
    with pytest.raises(LinkLost, match="in sight"):
        await BleLink(clock, "C0:FF:EE:00:00:00").connect()
    right = BleLink(clock, pendant.profile.device.address.lower())
    assert (await right.connect()).address == pendant.profile.device.address
    await right.close()


async def test_a_machine_without_bluetooth_is_told(clock: DrivenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bus.PrivateBus(clock):
        with pytest.raises(LinkUnavailable, match="bluetoothd"):
            await BleLink(clock).connect()
