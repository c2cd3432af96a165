"""The simulated pendant: what the protocol dossier §10 says of timing, ids and MTU, and the faults it can be given."""

import asyncio
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.virtual.pendant import BLOCK_SAMPLES, CV1_3_0_21, LATE_START_SECONDS, Faults, Pendant
from tests.helpers import START_US

Arrivals = list[tuple[int, bytes]]


def sound(seconds: float, *, block: int = 4096) -> Iterator[npt.NDArray[np.int16]]:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    beats = (times * 7 % 1 < 0.3) * 12_000 * np.sin(2 * np.pi * 300 * times)  # each onset makes a large packet
    samples = (beats + np.random.default_rng(3).normal(0, 300, len(times))).astype(np.int16)
    for start in range(0, len(samples), block):
        yield samples[start : start + block]


def ids(arrivals: Arrivals) -> list[int]:
    return [int.from_bytes(value[:2], "little") for _, value in arrivals]


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


def listen(pendant: Pendant, clock: DrivenClock) -> Arrivals:
    arrivals: Arrivals = []
    pendant.connect()
    pendant.subscribe(lambda value: arrivals.append((clock.boot_us(), value)))
    return arrivals


async def played(pendant: Pendant, clock: DrivenClock, seconds: float) -> None:
    task = asyncio.create_task(pendant.play(sound(seconds)))
    await clock.advance(seconds + 0.2)
    assert task.done()
    assert await task == pytest.approx(seconds)


async def streaming(clock: DrivenClock, **options: object) -> tuple[Pendant, Arrivals]:
    pendant = Pendant(clock, **options)  # type: ignore[arg-type]
    arrivals = listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    assert pendant.streaming
    return pendant, arrivals


async def test_five_frames_come_at_once_every_hundred_milliseconds(clock: DrivenClock) -> None:
    pendant, arrivals = await streaming(clock)
    start_us = clock.boot_us()
    await played(pendant, clock, 2.0)
    expected = [start_us + burst * 100_000 for burst in range(1, 21) for _ in range(5)]
    assert [at_us for at_us, _ in arrivals] == expected
    assert ids(arrivals) == list(range(100))
    assert {value[2:4] for _, value in arrivals} == {b"\x00\xb8"}
    assert pendant.sent == 100
    assert pendant.heard_seconds == pytest.approx(2.0)


async def test_no_audio_within_the_first_moments_of_a_connection(clock: DrivenClock) -> None:
    pendant = Pendant(clock)
    arrivals = listen(pendant, clock)
    connected_us = clock.boot_us()
    await played(pendant, clock, 2.0)
    assert arrivals[0][0] == connected_us + 1_300_000
    assert ids(arrivals)[0] == 0  # nothing was numbered before
    assert pendant.unheard == 60


async def test_waiting_for_the_stream(clock: DrivenClock) -> None:
    pendant = Pendant(clock)
    waiting = asyncio.create_task(pendant.wait_streaming())
    await clock.advance(5)
    assert not waiting.done()
    listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS + 0.1)
    assert waiting.done()


async def test_unsubscribed_audio_is_thrown_away_and_ids_go_on_across_connections(clock: DrivenClock) -> None:
    pendant, first = await streaming(clock, first_id=65_500)
    await played(pendant, clock, 1.0)
    pendant.disconnect()
    await played(pendant, clock, 1.0)
    pendant.connect()
    await clock.advance(LATE_START_SECONDS)
    await played(pendant, clock, 1.0)
    assert pendant.unheard == 100
    second = listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    await played(pendant, clock, 1.0)
    assert ids(first) == [(65_500 + n) % 65_536 for n in range(50)]
    assert ids(second) == [(65_550 + n) % 65_536 for n in range(50)]


async def test_the_connection_tells_why_it_ended(clock: DrivenClock) -> None:
    pendant = Pendant(clock)
    ended = pendant.connect()
    assert pendant.connected
    pendant.disconnect("supervision timeout")
    pendant.disconnect("again")
    assert await ended == "supervision timeout"
    assert not pendant.connected


@pytest.mark.parametrize(("mtu", "arrive"), [(23, 0), (99, 0), (185, 50), (498, 50)])
async def test_mtu(clock: DrivenClock, mtu: int, arrive: int) -> None:
    pendant = Pendant(clock, mtu=mtu)
    arrivals = listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    await played(pendant, clock, 1.0)
    assert len(arrivals) == arrive


async def test_a_cv1_loses_the_frames_that_do_not_fit_and_their_ids(clock: DrivenClock) -> None:
    wide, whole = await streaming(clock)
    tight, arrivals = await streaming(clock, mtu=100)
    await asyncio.gather(wide.play(sound(2.0)), tight.play(sound(2.0)), clock.advance(2.1))
    assert arrivals == [(at_us, value) for at_us, value in whole if len(value) <= 97]
    assert 0 < len(arrivals) < len(whole) == 100


async def test_a_pendant_that_heeds_the_att_header_sends_fragments(clock: DrivenClock) -> None:
    careful = msgspec.structs.replace(CV1_3_0_21, ignores_att_header=False)
    pendant, arrivals = await streaming(clock, profile=careful, mtu=100)
    reference, whole = await streaming(clock)
    await asyncio.gather(pendant.play(sound(2.0)), reference.play(sound(2.0)), clock.advance(2.1))
    assert max(len(value) for _, value in arrivals) <= 97
    frames: list[bytes] = []
    for _, value in arrivals:
        if value[2] == 0:
            frames.append(value[3:])
        else:
            frames[-1] += value[3:]
    assert frames == [value[3:] for _, value in whole]
    assert {value[2] for _, value in arrivals} == {0, 1}
    assert ids(arrivals) == list(range(len(arrivals)))


async def test_the_last_block_is_filled_up_and_playing_can_be_cut_short(clock: DrivenClock) -> None:
    pendant, arrivals = await streaming(clock)
    task = asyncio.create_task(pendant.play([np.full(BLOCK_SAMPLES + 1, 50, np.int16)]))
    await clock.advance(1)
    assert await task == pytest.approx(0.2)
    assert len(arrivals) == 10
    task = asyncio.create_task(pendant.play(sound(60), seconds=1.0))
    await clock.advance(1)
    assert await task == pytest.approx(1.0)
    assert pendant.heard_seconds == pytest.approx(1.2)


class TestFaults:
    async def test_a_loss_consumes_its_id(self, clock: DrivenClock) -> None:
        pendant, arrivals = await streaming(clock, faults=Faults(lose_every=10))
        await played(pendant, clock, 2.0)
        assert sorted(set(range(100)) - set(ids(arrivals))) == list(range(9, 100, 10))

    async def test_a_drop_leaves_no_gap(self, clock: DrivenClock) -> None:
        pendant, arrivals = await streaming(clock, faults=Faults(seed=4, drop=0.3))
        await played(pendant, clock, 2.0)
        assert 40 < len(arrivals) < 95
        assert ids(arrivals) == list(range(len(arrivals)))

    async def test_a_duplicate_is_the_same_value_again(self, clock: DrivenClock) -> None:
        pendant, arrivals = await streaming(clock, faults=Faults(seed=4, duplicate=1.0))
        await played(pendant, clock, 0.5)
        assert ids(arrivals) == [number for number in range(25) for _ in range(2)]
        assert arrivals[0::2] == arrivals[1::2]

    async def test_the_same_seed_makes_the_same_faults(self, clock: DrivenClock) -> None:
        runs = []
        for seed in (7, 7, 8):
            pendant, arrivals = await streaming(clock, faults=Faults(seed=seed, lose=0.2, duplicate=0.1))
            await played(pendant, clock, 2.0)
            runs.append([value for _, value in arrivals])
        assert runs[0] == runs[1] != runs[2]

    async def test_the_link_breaks_at_its_time(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock, faults=Faults(cut_after=(0.5, 1.5)))
        ended = pendant.connect()
        arrivals: Arrivals = []
        await clock.advance(LATE_START_SECONDS)
        pendant.subscribe(lambda value: arrivals.append((clock.boot_us(), value)))
        await played(pendant, clock, 1.0)
        assert await ended == "supervision timeout"
        assert len(arrivals) == 25
        again = pendant.connect()
        await played(pendant, clock, 1.0)
        assert await again == "supervision timeout"
