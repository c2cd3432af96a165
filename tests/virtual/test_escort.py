"""A radio whose stack takes its time, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from omi_edge import gatt
from omi_edge.capture.link import Link, Radio
from omi_edge.clock import DrivenClock
from omi_edge.domain import Ending, Security, Sighting
from omi_edge.errors import PendantAbsent
from omi_edge.virtual.escort import SCAN_SECONDS, EscortedRadio
from omi_edge.virtual.loopback import LoopbackLink, LoopbackRadio
from omi_edge.virtual.pendant import LATE_START_SECONDS, Pendant
from tests.helpers import START_US, drive


async def turns() -> None:
    """Take longer than a clock that nobody holds would wait."""
    for _ in range(50):
        await asyncio.sleep(0)


class SlowLink:
    """A link over a stack that runs in real time: each call and each notification is late."""

    def __init__(self, inner: LoopbackLink, near: Pendant) -> None:
        self._inner = inner
        self._near = near
        self._late: set[asyncio.Task[None]] = set()
        self.address = inner.address

    @property
    def security(self) -> Security:
        return self._inner.security

    async def connect(self) -> Sighting:
        await turns()
        self._connection = self._near.connect("slow")
        self._inner._connection = self._connection
        return Sighting(self.address, "Omi", -60, 0)

    def offers(self, uuid: str) -> bool:
        return self._inner.offers(uuid)

    async def read(self, uuid: str) -> bytes:
        await turns()
        return await self._inner.read(uuid)

    async def write(self, uuid: str, value: bytes) -> None:
        await turns()
        await self._inner.write(uuid, value)

    async def subscribe(self, uuid: str, on_value: Callable[[bytes], None]) -> None:
        await turns()

        async def deliver(value: bytes) -> None:
            await turns()
            on_value(value)

        def sent(value: bytes) -> None:
            task = asyncio.get_running_loop().create_task(deliver(value))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

        await self._inner.subscribe(uuid, sent)

    async def pair(self) -> None:
        await turns()
        await self._inner.pair()

    async def unpair(self) -> None:
        await turns()
        await self._inner.unpair()

    async def wait_disconnected(self) -> Ending:
        ending = await self._inner.wait_disconnected()
        await turns()
        return ending

    async def close(self) -> None:
        await turns()
        await self._inner.close()


class SlowRadio(LoopbackRadio):
    def link(self, address: str) -> LoopbackLink:
        return SlowLink(super().link(address), self.pendants[address])  # type: ignore[return-value]


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


@pytest.fixture
def pendant(clock: DrivenClock) -> Pendant:
    return Pendant(clock, mic_sleep=False)


@pytest.fixture
def radio(clock: DrivenClock, pendant: Pendant) -> EscortedRadio:
    return EscortedRadio(SlowRadio(clock, [pendant]), [pendant], clock)


async def up(radio: EscortedRadio, pendant: Pendant, clock: DrivenClock) -> Link:
    link: Link = radio.link(pendant.address)
    await drive(clock, link.connect())
    return link


async def test_it_is_a_radio(radio: EscortedRadio) -> None:
    as_radio: Radio = radio
    assert "simulated" in as_radio.transport
    assert as_radio.can_pair


async def test_what_is_on_its_way_arrives_in_its_own_time(
    radio: EscortedRadio, pendant: Pendant, clock: DrivenClock
) -> None:
    link = await up(radio, pendant, clock)
    arrivals: list[tuple[int, bytes]] = []
    for uuid in (gatt.AUDIO_DATA, gatt.BATTERY_LEVEL):
        await link.subscribe(uuid, lambda value: arrivals.append((clock.boot_us(), value)))
    began_us = clock.boot_us()
    await clock.advance(LATE_START_SECONDS)
    await asyncio.gather(pendant.play([np.full(16_000 * 10, 3000, np.int16)]), clock.advance(10))
    audio = [at_us - began_us for at_us, value in arrivals if len(value) > 1]
    assert audio == [1_300_000 + 100_000 * burst for burst in range(1, 101) for _ in range(5)]
    assert [(at_us - began_us) // 100_000 for at_us, value in arrivals if len(value) == 1] == [50, 100]
    await link.close()


async def test_a_call_takes_no_time(radio: EscortedRadio, pendant: Pendant, clock: DrivenClock) -> None:
    link = await up(radio, pendant, clock)
    began_us = clock.boot_us()
    reading = asyncio.create_task(link.read(gatt.AUDIO_CODEC))
    done_us: list[int] = []
    reading.add_done_callback(lambda _: done_us.append(clock.boot_us()))
    await clock.advance(5)
    assert reading.result() == b"\x15"
    assert done_us == [began_us]


async def test_the_end_is_noticed_before_time_goes_on(
    radio: EscortedRadio, pendant: Pendant, clock: DrivenClock
) -> None:
    link = await up(radio, pendant, clock)
    await link.subscribe(gatt.AUDIO_DATA, lambda _: None)
    noticed: list[int] = []

    async def watch() -> None:
        assert await link.wait_disconnected() is Ending.TIMEOUT
        noticed.append(clock.boot_us())

    watching = asyncio.create_task(watch())
    await clock.advance(2)
    cut_us = clock.boot_us() + 1_000_000
    clock.call_later(1, pendant.cut)
    await clock.advance(10)
    await watching
    assert noticed == [cut_us]
    await link.close()


async def test_who_is_not_there_takes_simulated_time_alone(
    radio: EscortedRadio, pendant: Pendant, clock: DrivenClock
) -> None:
    pendant.go_away(15)
    began_us = clock.boot_us()
    with pytest.raises(PendantAbsent):
        await drive(clock, radio.link(pendant.address).connect(), step=0.01)
    assert clock.boot_us() - began_us == pytest.approx(SCAN_SECONDS * 1e6, abs=20_000)
    await up(radio, pendant, clock)
    assert clock.boot_us() - began_us == pytest.approx(15e6, abs=200_000)


async def test_a_read_out_of_range_does_not_stop_time(
    radio: EscortedRadio, pendant: Pendant, clock: DrivenClock
) -> None:
    link = await up(radio, pendant, clock)
    pendant.go_away(60)
    reading = asyncio.create_task(link.read(gatt.AUDIO_CODEC))
    await clock.advance(5)
    assert reading.exception() is not None
    await link.close()
