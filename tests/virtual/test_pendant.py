"""The simulated pendant: what the protocol dossier §10 says of timing, ids and MTU, and the faults it can be given."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from omi_edge import gatt
from omi_edge.clock import DrivenClock
from omi_edge.domain import SAMPLE_RATE, Codec, Ending
from omi_edge.opus import Decoder
from omi_edge.virtual.attributes import AttError
from omi_edge.virtual.connection import Connection, Gone
from omi_edge.virtual.faults import Act, Fate, Faults, Timed
from omi_edge.virtual.microphone import BLOCK_SAMPLES
from omi_edge.virtual.pendant import LATE_START_SECONDS, SUPERVISION_SECONDS, Pendant
from omi_edge.virtual.profiles import CV1_3_0_21, DEVKIT2_2_0_10, FRIEND
from tests.helpers import START_US

Arrivals = list[tuple[int, bytes]]


def sound(seconds: float, *, block: int = 4096) -> Iterator[npt.NDArray[np.int16]]:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    beats = (times * 7 % 1 < 0.3) * 12_000 * np.sin(2 * np.pi * 300 * times)  # each onset makes a large packet
    samples = (beats + np.random.default_rng(3).normal(0, 300, len(times))).astype(np.int16)
    for start in range(0, len(samples), block):
        yield samples[start : start + block]


def silence(seconds: float) -> Iterator[npt.NDArray[np.int16]]:
    yield np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def ids(arrivals: Arrivals) -> list[int]:
    return [int.from_bytes(value[:2], "little") for _, value in arrivals]


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


async def listen(pendant: Pendant, clock: DrivenClock, uuid: str = gatt.AUDIO_DATA) -> tuple[Connection, Arrivals]:
    arrivals: Arrivals = []
    link = pendant.connect()
    await link.subscribe(uuid, lambda value: arrivals.append((clock.boot_us(), value)))
    return link, arrivals


async def played(pendant: Pendant, clock: DrivenClock, seconds: float) -> None:
    task = asyncio.create_task(pendant.play(sound(seconds)))
    await clock.advance(seconds + 0.2)
    assert task.done()
    assert await task == pytest.approx(seconds)


async def streaming(clock: DrivenClock, **options: object) -> tuple[Pendant, Arrivals]:
    pendant = Pendant(clock, **options)  # type: ignore[arg-type]
    _, arrivals = await listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    assert pendant.streaming
    return pendant, arrivals


def fates(pendant: Pendant) -> list[tuple[str, float]]:
    return [(str(truth.fate), (truth.end_us - truth.start_us) / 1e6) for truth in pendant.record]


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
    assert fates(pendant) == [("delivered", 2.0)]


async def test_a_devkit_sends_ten(clock: DrivenClock) -> None:
    pendant, arrivals = await streaming(clock, profile=DEVKIT2_2_0_10)
    await played(pendant, clock, 0.5)
    assert [len(list(group)) for _, group in itertools.groupby(at_us for at_us, _ in arrivals)] == [10] * 5
    assert {value[2:4] for _, value in arrivals} == {b"\x00\xb0"}


async def test_no_audio_within_the_first_moments_of_a_connection(clock: DrivenClock) -> None:
    pendant = Pendant(clock)
    _, arrivals = await listen(pendant, clock)
    connected_us = clock.boot_us()
    await played(pendant, clock, 2.0)
    assert arrivals[0][0] == connected_us + 1_300_000
    assert ids(arrivals)[0] == 0  # nothing was numbered before
    assert pendant.unheard == 60
    assert fates(pendant) == [("unsubscribed", 1.2), ("delivered", 0.8)]


async def test_waiting_for_the_stream(clock: DrivenClock) -> None:
    pendant = Pendant(clock)
    waiting = asyncio.create_task(pendant.wait_streaming())
    await clock.advance(5)
    assert not waiting.done()
    await listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS + 0.1)
    assert waiting.done()


async def test_unsubscribed_audio_is_thrown_away_and_ids_go_on_across_connections(clock: DrivenClock) -> None:
    pendant, first = await streaming(clock, first_id=65_500)
    await played(pendant, clock, 1.0)
    pendant.disconnect()
    await played(pendant, clock, 1.0)
    link = pendant.connect()
    await clock.advance(LATE_START_SECONDS)
    await played(pendant, clock, 1.0)
    assert pendant.unheard == 100
    link.end()
    _, second = await listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    await played(pendant, clock, 1.0)
    assert ids(first) == [(65_500 + n) % 65_536 for n in range(50)]
    assert ids(second) == [(65_550 + n) % 65_536 for n in range(50)]
    assert [fate for fate, _ in fates(pendant)] == ["delivered", "unconnected", "unsubscribed", "delivered"]


@pytest.mark.parametrize(("mtu", "arrive"), [(23, 0), (99, 0), (185, 50), (498, 50)])
async def test_mtu(clock: DrivenClock, mtu: int, arrive: int) -> None:
    pendant = Pendant(clock, mtu=mtu)
    link, arrivals = await listen(pendant, clock)
    assert link.mtu == mtu
    await clock.advance(LATE_START_SECONDS)
    await played(pendant, clock, 1.0)
    assert len(arrivals) == arrive
    assert fates(pendant) == [("delivered" if arrive else "unsubscribed", 1.0)]


async def test_a_cv1_loses_the_frames_that_do_not_fit_and_their_ids(clock: DrivenClock) -> None:
    wide, whole = await streaming(clock)
    tight, arrivals = await streaming(clock, mtu=100)
    await asyncio.gather(wide.play(sound(2.0)), tight.play(sound(2.0)), clock.advance(2.1))
    assert arrivals == [(at_us, value) for at_us, value in whole if len(value) <= 97]
    assert 0 < len(arrivals) < len(whole) == 100
    lost = sum(truth.end_us - truth.start_us for truth in tight.record if truth.fate is Fate.LOST)
    assert lost == (100 - len(arrivals)) * 20_000


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


async def test_a_devkit_goes_by_the_data_length(clock: DrivenClock) -> None:
    old_dongle, nothing = await listen_to(clock, Pendant(clock, DEVKIT2_2_0_10, data_length=27))
    await played(old_dongle, clock, 0.5)
    assert nothing == []
    pcm, arrivals = await streaming(clock, profile=FRIEND, codec=Codec.PCM16)
    await played(pcm, clock, 0.1)
    assert [(value[2], len(value)) for _, value in arrivals] == [(0, 251), (1, 75)] * 10  # dossier §5.2


async def listen_to(clock: DrivenClock, pendant: Pendant) -> tuple[Pendant, Arrivals]:
    _, arrivals = await listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    return pendant, arrivals


@pytest.mark.parametrize("codec", [Codec.PCM8, Codec.PCM16, Codec.MULAW8, Codec.MULAW16])
async def test_legacy_codecs_are_what_the_decoder_reads(clock: DrivenClock, codec: Codec) -> None:
    pendant, arrivals = await streaming(clock, profile=FRIEND, codec=codec)
    tone = (8000 * np.sin(2 * np.pi * 300 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.int16)
    await asyncio.gather(pendant.play([tone]), clock.advance(1.1))
    frames: list[bytes] = []
    for _, value in arrivals:
        if value[2] == 0:
            frames.append(value[3:])
        else:
            frames[-1] += value[3:]
    decoder = Decoder(codec)
    heard = np.concatenate([decoder.decode(frame) for frame in frames])
    assert decoder.bad == 0
    assert len(heard) == len(tone)
    error = np.sqrt(np.mean((heard.astype(float) - tone) ** 2))
    assert error < 1000  # an eighth of the tone: 8 bits, and half a sample of delay where the rate is halved


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


async def test_packets_that_were_encoded_before(clock: DrivenClock) -> None:
    pendant, arrivals = await streaming(clock, faults=Faults(lose_every=10))
    packets = [bytes([0xB8, number]) for number in range(20)]
    await asyncio.gather(pendant.play_packets(packets), clock.advance(0.5))
    assert [value[3:] for _, value in arrivals] == [*packets[:9], *packets[10:19]]


async def test_each_notification_is_told_before_it_leaves(clock: DrivenClock) -> None:
    pendant, arrivals = await streaming(clock)
    told: list[int] = []
    pendant.on_sent = lambda: told.append(len(arrivals))
    await played(pendant, clock, 0.2)
    assert told == list(range(10))


class TestMicrophoneSleep:
    async def test_it_sleeps_after_ten_quiet_seconds_and_wakes_by_sound(self, clock: DrivenClock) -> None:
        pendant, arrivals = await streaming(clock)
        await asyncio.gather(pendant.play(silence(15)), clock.advance(15.1))
        assert len(arrivals) == 500
        await played(pendant, clock, 3)
        assert ids(arrivals) == list(range(500 + 110))  # no gap in the ids
        assert fates(pendant) == [
            ("delivered", 10.0), ("asleep", 5.0), ("asleep", 0.8), ("delivered", 2.2),
        ]  # fmt: skip

    async def test_it_can_be_turned_off_and_older_firmware_has_none(self, clock: DrivenClock) -> None:
        for options in ({"mic_sleep": False}, {"profile": DEVKIT2_2_0_10}):
            pendant, _ = await streaming(clock, **options)
            await asyncio.gather(pendant.play(silence(15)), clock.advance(15.1))
            assert fates(pendant) == [("delivered", 15.0)]

    async def test_what_is_just_loud_enough_keeps_it_awake(self, clock: DrivenClock) -> None:
        pendant, _ = await streaming(clock)
        hum = np.tile(np.array([250, -250], np.int16), SAMPLE_RATE * 6)
        await asyncio.gather(pendant.play([hum]), clock.advance(12.1))
        assert [fate for fate, _ in fates(pendant)] == ["delivered"]
        whisper = np.tile(np.array([249, -249], np.int16), SAMPLE_RATE * 6)
        await asyncio.gather(pendant.play([whisper]), clock.advance(12.1))
        assert fates(pendant)[-1] == ("asleep", 2.0)

    async def test_the_battery_is_told_all_the_same(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock)
        _, levels = await listen(pendant, clock, gatt.BATTERY_LEVEL)
        await asyncio.gather(pendant.play(silence(31)), clock.advance(31))
        assert levels == [(levels[0][0] + 5_000_000 * n, bytes([pendant.battery])) for n in range(6)]


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
        dropped = sum(truth.end_us - truth.start_us for truth in pendant.record if truth.fate is Fate.DROPPED)
        assert dropped == (100 - len(arrivals)) * 20_000

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

    @pytest.mark.parametrize(("profile", "frames"), [(CV1_3_0_21, 64), (DEVKIT2_2_0_10, 32)])
    async def test_a_stall_fills_the_queue_and_ends_in_a_burst(
        self, clock: DrivenClock, profile: object, frames: int
    ) -> None:
        pendant, arrivals = await streaming(clock, profile=profile)
        pendant.stall(2.05)
        stalled_us = clock.boot_us()
        await played(pendant, clock, 3.0)
        assert len([at_us for at_us, _ in arrivals if at_us == stalled_us + 2_050_000]) == frames
        assert ids(arrivals) == list(range(len(arrivals)))  # nothing of it shows in the ids
        queued = frames * pendant.profile.codec.frame_us / 1e6
        assert [fate for fate, _ in fates(pendant)] == ["delivered", "dropped", "delivered"]
        assert [seconds for _, seconds in fates(pendant)] == pytest.approx([queued, 2.0 - queued, 1.0])

    async def test_out_of_range_says_nothing_for_the_supervision_timeout(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock)
        link, arrivals = await listen(pendant, clock)
        await link.subscribe(gatt.BATTERY_LEVEL, lambda value: arrivals.append((clock.boot_us(), value)))
        await clock.advance(2)
        pendant.go_away(30)
        reading = asyncio.create_task(link.read(gatt.AUDIO_CODEC))
        playing = asyncio.create_task(pendant.play(sound(40)))
        await clock.advance(SUPERVISION_SECONDS - 0.01)
        assert link.alive
        assert not reading.done()
        await clock.advance(0.02)
        assert link.ended.result() is Ending.TIMEOUT
        assert isinstance(reading.exception(), Gone)
        assert arrivals == []
        assert not pendant.advertising
        assert not await waited(clock, pendant, 25.0)
        assert await waited(clock, pendant, 5.0)
        _, again = await listen(pendant, clock)
        await clock.advance(15)
        assert playing.done()
        assert ids(again)[0] == 0
        assert [fate for fate, _ in fates(pendant)] == ["away", "delivered"]

    async def test_back_in_range_in_time_is_a_stall(self, clock: DrivenClock) -> None:
        pendant, arrivals = await streaming(clock)
        pendant.go_away(1.0)
        await played(pendant, clock, 10.0)
        assert len(arrivals) == 500
        assert ids(arrivals) == list(range(500))

    @pytest.mark.parametrize(
        ("happen", "ending", "fate"),
        [
            (lambda pendant: pendant.cut(), Ending.TIMEOUT, "cut"),
            (lambda pendant: pendant.end(), Ending.REMOTE, "cut"),
            (lambda pendant: pendant.hold(10), Ending.TIMEOUT, "held"),
            (lambda pendant: pendant.power_off(10), Ending.REMOTE, "off"),
            (lambda pendant: pendant.disconnect(), Ending.LOCAL, "unconnected"),
        ],
    )
    async def test_ends(self, clock: DrivenClock, happen: Callable[[Pendant], None], ending: Ending, fate: str) -> None:
        pendant = Pendant(clock)
        told: list[Ending] = []
        pendant.on_ended = told.append
        link, _ = await listen(pendant, clock)
        await clock.advance(2)
        happen(pendant)
        assert link.ended.result() is ending
        assert told == [ending]
        assert pendant.advertising == (fate in ("cut", "unconnected"))
        await played(pendant, clock, 5.0)
        assert fates(pendant) == [(fate, 5.0)]
        await clock.advance(5.1)
        assert pendant.advertising
        with pytest.raises(Gone):
            await link.read(gatt.AUDIO_CODEC)

    async def test_another_central_that_listens_lets_the_ids_go_on(self, clock: DrivenClock) -> None:
        pendant, arrivals = await streaming(clock)
        await played(pendant, clock, 1.0)
        pendant.hold(consuming=True)
        assert pendant.connected
        await played(pendant, clock, 2.0)
        pendant.let_go()
        _, again = await listen_to(clock, pendant)
        await played(pendant, clock, 1.0)
        assert ids(arrivals)[-1] == 49
        assert ids(again)[0] == 150

    async def test_a_crash_restarts_ids_and_the_clock(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock, first_id=500)
        link, arrivals = await listen(pendant, clock)
        written = START_US // 1_000_000 + 7
        await link.write(gatt.TIME_SET, written.to_bytes(4, "little"))
        await clock.advance(100)
        assert pendant.clock.now() == written + 100
        pendant.reboot()
        assert pendant.clock.now() == written
        await clock.advance(SUPERVISION_SECONDS)
        assert link.ended.result() is Ending.TIMEOUT
        assert pendant.advertising
        _, again = await listen_to(clock, pendant)
        await played(pendant, clock, 1.0)
        assert (arrivals, ids(again)[0]) == ([], 0)
        before = pendant.clock.now()
        pendant.reboot(clock_back_seconds=3600)
        assert pendant.clock.now() == (before or 0) - 3600

    async def test_an_empty_battery_ends_without_a_word(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock)
        link, _ = await listen(pendant, clock)
        pendant.power_off(graceful=False)
        assert link.alive
        await clock.advance(SUPERVISION_SECONDS)
        assert link.ended.result() is Ending.TIMEOUT
        assert not pendant.advertising
        pendant.power_on()
        assert pendant.advertising

    @pytest.mark.parametrize(("deadly", "alive"), [(True, False), (False, True)])
    async def test_a_tap_may_switch_it_off(self, clock: DrivenClock, deadly: bool, alive: bool) -> None:
        pendant = Pendant(clock, faults=Faults(tap_power_off=deadly))
        link, presses = await listen(pendant, clock, gatt.BUTTON)
        pendant.press(2)
        pendant.press()
        assert [value[0] for _, value in presses] == [2, 1]
        assert link.alive == alive

    async def test_the_clock_drifts_or_is_not_set(self, clock: DrivenClock) -> None:
        fast = Pendant(clock, faults=Faults(drift_ppm=50))
        unset = Pendant(clock, faults=Faults(unset_clock=True))
        await clock.advance(100_000)
        assert fast.clock.now() == pytest.approx(START_US / 1e6 + 100_005, abs=1e-3)
        assert unset.clock.now() is None
        assert await unset.connect().read(gatt.TIME_GET) == bytes(4)

    async def test_bonds(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock, faults=Faults(stale_bond=True, security_request=True))
        link = pendant.connect("here")
        assert link.wants_security
        key = await link.pair()
        assert key is not None
        assert link.encrypted
        link.end()
        stale = pendant.connect("here")  # forgotten when the connection ended
        with pytest.raises(Gone):
            await stale.encrypt(key)
        assert stale.ended.result() is Ending.AUTHENTICATION
        renewed = pendant.connect("here")
        key = await renewed.pair()
        assert key is not None
        renewed.end()
        bonded = pendant.connect("here")
        await bonded.encrypt(key)
        assert bonded.encrypted

    async def test_content_only_for_encrypted_links(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock, faults=Faults(insufficient_encryption=True))
        link = pendant.connect("here")
        for open_to_all in (gatt.BATTERY_LEVEL, gatt.FEATURES, gatt.FIRMWARE_REVISION):
            assert await link.read(open_to_all)
        for call in (
            link.read(gatt.AUDIO_CODEC),
            link.write(gatt.HAPTIC, b"\x01"),
            link.subscribe(gatt.AUDIO_DATA, lambda _: None),
        ):
            with pytest.raises(AttError) as caught:
                await call
            assert caught.value.code == 0x0F
        assert pendant.board.buzzes == []
        await link.pair()
        assert await link.read(gatt.AUDIO_CODEC) == b"\x15"

    async def test_acts_at_their_times(self, clock: DrivenClock) -> None:
        timed = (Timed(Act.CUT, 5), Timed(Act.AWAY, 10, 20), Timed(Act.HELD, 40, 5), Timed(Act.OFF, 50))
        pendant = Pendant(clock, faults=Faults(timed=timed))
        link = pendant.connect()
        seen = []
        for _ in range(6):
            await clock.advance(10.5)
            seen.append(pendant.advertising)
        assert link.ended.result() is Ending.TIMEOUT
        assert seen == [False, False, True, False, False, False]
        pendant.close()

    async def test_the_link_breaks_when_so_much_was_heard(self, clock: DrivenClock) -> None:
        pendant = Pendant(clock, faults=Faults(cut_after=(0.5, 1.5)))
        for count in (1, 2):
            link, _ = await listen_to_link(clock, pendant)
            await played(pendant, clock, 1.0)
            assert link.ended.result() is Ending.TIMEOUT, count


async def listen_to_link(clock: DrivenClock, pendant: Pendant) -> tuple[Connection, Arrivals]:
    found = await listen(pendant, clock)
    await clock.advance(LATE_START_SECONDS)
    return found


async def waited(clock: DrivenClock, pendant: Pendant, seconds: float) -> bool:
    waiting = asyncio.create_task(pendant.wait_advertising(seconds))
    await clock.advance(seconds)
    return await waiting
