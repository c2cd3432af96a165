"""What a pendant stored while it was away comes home: complete, once, in its place, and nothing that was withheld."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omi_edge.capture.blocks import unpack
from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import AudioChunk, FetchState, LedgerState, Withholding
from omi_edge.errors import DiskFull
from omi_edge.opus import Decoder, Samples
from omi_edge.pipeline import recovery
from omi_edge.pipeline.intake import commit_heard
from omi_edge.store import audio, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.offline import RunRow, RunState
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.pendant import Pendant
from tests.helpers import drive
from tests.scripted import register
from tests.test_devices import BASE, World, gaps_of, notices_of
from tests.test_ledger_day import book

EVER_US = 1 << 62
FAST = Faults(storage_speed=0)


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


@pytest.fixture
def world(folder: Path, clock: DrivenClock) -> World:
    return World(folder, clock, msgspec.structs.replace(BASE, audio=AudioConfig(keep_silence=864_000)))


async def chunks_of(daemon: Daemon, pendant: Pendant) -> list[AudioChunk]:
    def work(conn: Connection) -> list[AudioChunk]:
        source = sources.for_device(conn, pendant.address)
        assert source is not None
        return audio.between(conn, source.id, 0, EVER_US)

    return await daemon.db.read(work)


async def runs_of(daemon: Daemon, pendant: Pendant) -> list[RunRow]:
    def work(conn: Connection) -> list[RunRow]:
        source = sources.for_device(conn, pendant.address)
        assert source is not None
        return offline.latest(conn, source.id, 1000)[::-1]

    return await daemon.db.read(work)


PROFILES = [
    "cv1-3.0.21", "cv1-3.0.18", "devkit2-2.0.10",
    *(pytest.param(name, marks=pytest.mark.full) for name in ("cv1-custody", "cv1-3.0.16", "cv1-3.0.15")),
]  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_walk_comes_home_in_its_place(world: World, profile: str) -> None:
    pendant = world.pendant(profile, faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 20)
        left_us = world.clock.boot_us()
        pendant.go_away(60)
        await world.hear(pendant, 90)
        await world.hear(pendant, 30)
        chunks = await chunks_of(daemon, pendant)
        runs = await runs_of(daemon, pendant)
        found = await book(daemon, pendant)
        waiting = await daemon.db.read(lambda conn: offline.waiting_bytes(conn, runs[0].source_id))
        gaps = await gaps_of(daemon)
    stored = [t for t in pendant.storage.record if t.fate in (StoredFate.FREED, StoredFate.SELF_FREED)]
    seconds = sum(t.end_us - t.start_us for t in stored) / 1e6
    assert seconds > 55
    assert [run.state for run in runs] == [RunState.HEARD] * len(runs)
    assert waiting == 0
    assert found.seconds(LedgerState.RECOVERED) == pytest.approx(seconds, abs=0.1)
    true_start, true_end = stored[0].start_us, stored[-1].end_us
    assert found.inside(true_start, true_end, LedgerState.RECOVERED) == pytest.approx(
        seconds, abs=1.5
    )  # clocks of whole seconds
    there = {packet for chunk in chunks for packet in chunk.packets}
    frames = [frame for block in pendant.storage.blocks for frame in block_frames(block.raw)]
    assert len(frames) == round(seconds * 1e6 / chunks[0].codec.frame_us)
    assert all(frame in there for frame in frames)
    assert left_us < true_end
    assert sum(gap.end_us - gap.start_us for gap in gaps) / 1e6 < 12, gaps
    ends = [(chunk.start_us, chunk.end_us) for chunk in chunks]
    assert all(a[1] <= b[0] + 20_000 for a, b in itertools.pairwise(ends)), ends


def block_frames(raw: bytes) -> tuple[bytes, ...]:
    return unpack(raw)[0]


async def frames_there(daemon: Daemon, pendant: Pendant) -> set[bytes]:
    return {packet for chunk in await chunks_of(daemon, pendant) for packet in chunk.packets}


def frames_between(pendant: Pendant, start_us: int, end_us: int) -> list[bytes]:
    """Stored frames that the microphone heard inside [start, end), boot time."""
    return [
        frame
        for block in pendant.storage.blocks
        for frame, span in zip(block_frames(block.raw), block.spans, strict=True)
        if start_us <= span[0] and span[1] <= end_us
    ]


@pytest.mark.parametrize(("kind", "profile"), [
    (Withholding.MUTED, "cv1-3.0.21"), (Withholding.OFF_RECORD, "cv1-3.0.18"),
    pytest.param(Withholding.MUTED, "cv1-3.0.18", marks=pytest.mark.full),
    pytest.param(Withholding.OFF_RECORD, "cv1-3.0.21", marks=pytest.mark.full),
])  # fmt: skip
async def test_what_was_withheld_is_freed_there_and_never_decoded_here(
    world: World, profile: str, kind: Withholding, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = Decoder.decode

    def noted(self: Decoder, packet: bytes) -> Samples:
        decoded.append(packet)
        return decode(self, packet)

    monkeypatch.setattr(Decoder, "decode", noted)
    pendant = world.pendant(profile, faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away(90)
        await world.hear(pendant, 30)
        muted_us = world.clock.boot_us()
        await daemon.withhold(kind, None, "test")
        await world.hear(pendant, 20)
        await daemon.resume("test")
        spoken_us = world.clock.boot_us()
        await world.hear(pendant, 80)
        there = await frames_there(daemon, pendant)
        found = await book(daemon, pendant)
        (run,) = await runs_of(daemon, pendant)
        waiting = await daemon.db.read(lambda conn: offline.waiting_bytes(conn, run.source_id))
    withheld = frames_between(pendant, muted_us, spoken_us)
    assert len(withheld) > 900
    assert not there & set(withheld)
    assert not set(decoded) & set(withheld)
    assert {b.fate for b in pendant.storage.blocks} <= {StoredFate.FREED, StoredFate.SELF_FREED}
    assert waiting == 0
    assert 20 < run.left_out_us / 1e6 < 26
    for outside in (
        frames_between(pendant, 0, muted_us - 4_000_000),
        frames_between(pendant, spoken_us + 4_000_000, EVER_US),
    ):
        assert set(outside) <= there
    state = LedgerState.MUTED if kind is Withholding.MUTED else LedgerState.OFF_RECORD
    assert found.inside(muted_us, spoken_us, state) == pytest.approx(20, abs=0.1)


async def test_a_recording_of_unknown_time_that_may_have_been_withheld_waits_for_the_owner(world: World) -> None:
    """A development kit tells no times at all; an absence with a mute inside, which it did not record as a whole."""
    pendant = world.pendant("devkit2-2.0.10", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away(90)
        await world.hear(pendant, 10)
        pendant.power_off(15)
        await world.hear(pendant, 20)
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        await daemon.resume("test")
        await world.hear(pendant, 80)
        (run,) = await runs_of(daemon, pendant)
        assert run.state is RunState.HELD
        stored = set(frames_between(pendant, 0, EVER_US))
        assert len(stored) > 6000
        assert not stored & await frames_there(daemon, pendant)
        await daemon.db.write(lambda conn: offline.decide(conn, run.id, wanted=True))
        daemon.spine.recovery.poke()
        await world.clock.advance(60)
        assert stored <= await frames_there(daemon, pendant)
        (run,) = await runs_of(daemon, pendant)
        assert (run.state, run.left_out_us) == (RunState.HEARD, 0)
        assert await daemon.db.read(lambda conn: offline.waiting_bytes(conn, run.source_id)) == 0


async def test_a_held_recording_that_is_not_wanted_is_let_go_of_undecoded(world: World) -> None:
    pendant = world.pendant("cv1-3.0.15", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away(60)
        await world.hear(pendant, 5)
        pendant.power_off(10)
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        await daemon.resume("test")
        await world.hear(pendant, 60)
        (run,) = await runs_of(daemon, pendant)
        assert run.state is RunState.HELD
        await daemon.db.write(lambda conn: offline.decide(conn, run.id, wanted=False))
        daemon.spine.recovery.poke()
        await world.clock.advance(5)
        assert await daemon.db.read(lambda conn: offline.waiting_bytes(conn, run.source_id)) == 0
        assert not set(frames_between(pendant, 0, EVER_US)) & await frames_there(daemon, pendant)


@pytest.mark.parametrize("after", [3, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 7))])
async def test_a_full_disk_in_the_middle_of_hearing_leaves_everything_there_once(
    world: World, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a piece wrote is undone, and it is heard again from where the file says."""
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after:
            raise DiskFull("full")
        return commit_heard(*arguments)

    monkeypatch.setattr(recovery, "commit_heard", failing)
    pendant = world.pendant(faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away(100)
        await world.hear(pendant, 150)
        packets = [packet for chunk in await chunks_of(daemon, pendant) for packet in chunk.packets]
        (run,) = await runs_of(daemon, pendant)
    stored = frames_between(pendant, 0, EVER_US)
    assert calls > 7
    assert run.state is RunState.HEARD
    assert [packet for packet in packets if packet in set(stored)] == stored


@pytest.mark.full
async def test_hearing_goes_on_where_it_was_when_the_daemon_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    def failing(*arguments: Any) -> Any:
        if next(calls) > 12:
            raise DiskFull("full")
        return commit_heard(*arguments)

    monkeypatch.setattr(recovery, "commit_heard", failing)
    pendant = world.pendant(faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away(100)
        await world.hear(pendant, 125)
        (run,) = await runs_of(daemon, pendant)
        assert run.state is RunState.PLACED
        assert 0 < run.heard < run.frames
    monkeypatch.undo()
    async with world.daemon() as daemon:
        await world.hear(pendant, 20)
        packets = [packet for chunk in await chunks_of(daemon, pendant) for packet in chunk.packets]
        runs = await runs_of(daemon, pendant)
    stored = frames_between(pendant, 0, EVER_US)
    assert [run.state for run in runs] == [RunState.HEARD] * len(runs)
    assert [packet for packet in packets if packet in set(stored)] == stored


@pytest.mark.parametrize(
    "profile", ["cv1-custody", *(pytest.param(n, marks=pytest.mark.full) for n in ("devkit2-2.0.10", "cv1-3.0.15"))]
)
async def test_two_absences_that_are_fetched_together_lie_where_they_were(world: World, profile: str) -> None:
    """The first connection fetches a part; the rest comes with what was stored after it."""
    pendant = world.pendant(profile, faults=Faults(storage_speed=2, unset_clock=False), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 20)
        pendant.go_away(30)
        await world.hear(pendant, 37)
        pendant.go_away(25)
        await world.hear(pendant, 60 if "devkit" not in profile else 120)
        await world.clock.advance(5)
        found = await book(daemon, pendant)
        runs = await runs_of(daemon, pendant)
        packets = [packet for chunk in await chunks_of(daemon, pendant) for packet in chunk.packets]
    stored = [t for t in pendant.storage.record if t.fate in (StoredFate.FREED, StoredFate.SELF_FREED)]
    assert len(stored) == 2
    assert {run.state for run in runs} == {RunState.HEARD}
    for true in stored:
        seconds = (true.end_us - true.start_us) / 1e6
        assert found.inside(true.start_us, true.end_us, LedgerState.RECOVERED) == pytest.approx(seconds, abs=2.5)
    frames = frames_between(pendant, 0, EVER_US)
    assert sorted(packet for packet in packets if packet in set(frames)) == sorted(frames)


async def test_a_storage_that_is_nearly_full_is_told_until_it_is_fetched(world: World) -> None:
    pendant = world.pendant(faults=Faults(ring_records=360, storage_speed=1), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        pendant.go_away(38)
        told = set()
        for _ in range(50):
            await world.hear(pendant, 1)
            told |= set(await notices_of(daemon))
        assert "pendant-storage-full" in told
        await world.hear(pendant, 40)
        assert "pendant-storage-full" not in await notices_of(daemon)


async def test_what_the_ring_overwrote_is_told_and_accounted_for(world: World) -> None:
    pendant = world.pendant(faults=Faults(ring_records=360, storage_speed=0), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 10)
        pendant.go_away(90)
        await world.hear(pendant, 120)
        found = await book(daemon, pendant)
        source_id = (await runs_of(daemon, pendant))[0].source_id
        losses = await daemon.db.read(lambda conn: offline.losses(conn, source_id))
        told = await notices_of(daemon)
    overwritten = [b for b in pendant.storage.blocks if b.fate is StoredFate.OVERWRITTEN]
    seconds = sum(span[1] - span[0] for block in overwritten for span in block.spans) / 1e6
    assert sum(loss.records for loss in losses) == len(overwritten) > 300
    assert found.seconds(LedgerState.LOST) == pytest.approx(seconds, abs=1.0)
    assert "stored-audio-lost" in told


@pytest.mark.full
async def test_a_storage_that_cannot_be_read_is_told_and_tried_again(world: World) -> None:
    pendant = world.pendant(faults=Faults(storage_speed=0, storage_not_ready=100), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        pendant.go_away(20)
        await world.hear(pendant, 90)
        assert "stored-audio-waits" in await notices_of(daemon)
        await world.hear(pendant, 120)
        assert "stored-audio-waits" not in await notices_of(daemon)
        assert {run.state for run in await runs_of(daemon, pendant)} == {RunState.HEARD}


async def test_what_was_fetched_of_a_pendant_that_is_forgotten_is_heard_all_the_same(world: World) -> None:
    """Half of a file came; nobody will free it there, nor fetch the rest."""
    pendant = world.pendant("cv1-3.0.15", faults=Faults(storage_speed=1))
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 10)
        pendant.go_away(60)
        await world.hear(pendant, 60)
        source_id = (await chunks_of(daemon, pendant))[0].source_id
        waiting = 0
        for _ in range(60):
            await world.hear(pendant, 1)
            waiting = await daemon.db.read(lambda conn: offline.waiting_bytes(conn, source_id))
            if waiting > 40_000:
                break
        assert waiting > 40_000
        await drive(world.clock, daemon.forget_device(pendant.address))
        await world.clock.advance(30)
        assert await daemon.db.read(lambda conn: offline.waiting_bytes(conn, source_id)) == 0
        (run,) = await runs_of(daemon, pendant)
        assert run.state is RunState.HEARD


async def test_a_run_that_grows_after_it_was_heard_goes_on_with_its_next_frame(world: World) -> None:
    """A file that is being recorded is read in parts, and the record in which hearing ended is gone by then."""
    pendant = world.pendant("cv1-3.0.18", faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        cut_after_each(pendant, 40, times=3)
        pendant.go_away(40)
        await world.hear(pendant, 60)
        await world.hear(pendant, 20)
        packets = [packet for chunk in await chunks_of(daemon, pendant) for packet in chunk.packets]
    stored = frames_between(pendant, 0, EVER_US)
    assert [packet for packet in packets if packet in set(stored)] == stored


def cut_after_each(pendant: Pendant, count: int, *, times: int) -> None:
    """Cut the link each time when so many notifications of stored audio were sent."""
    sent = itertools.count(1)

    def leaves() -> None:
        if pendant.storage.sending and (number := next(sent)) % count == 0 and number <= count * times:
            pendant.cut()

    pendant.on_sent = leaves


async def test_a_full_disk_at_the_connection_keeps_nothing_from_being_fetched_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pendant = world.pendant(faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)

        def full(*_: object, **__: object) -> None:
            raise DiskFull("full")

        with monkeypatch.context() as patch:
            patch.setattr(offline, "begin_reading", full)
            pendant.go_away(15)
            await world.hear(pendant, 25)
            assert daemon.devices.fetching(pendant.address).state is FetchState.WAITING
        await world.clock.advance(60)
        assert daemon.devices.fetching(pendant.address).state is FetchState.DONE
        assert set(frames_between(pendant, 0, EVER_US)) <= await frames_there(daemon, pendant)


async def test_what_cannot_be_heard_of_one_pendant_keeps_no_other_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect of ours, in what one pendant stored: nothing of it is let go of, and the rest goes on."""
    good, bad = world.pendant(faults=FAST), world.pendant("cv1-3.0.18", faults=FAST)
    hear = recovery.Recovery._hear
    async with world.daemon() as daemon:
        await world.paired(daemon, bad)
        await world.paired(daemon, good)
        await world.hear(bad, 5)
        source_id = (await chunks_of(daemon, bad))[0].source_id

        async def failing(self: recovery.Recovery, run: RunRow, fetching: bool) -> bool:
            if run.source_id == source_id:
                raise ZeroDivisionError
            return await hear(self, run, fetching)

        monkeypatch.setattr(recovery.Recovery, "_hear", failing)
        for pendant in (bad, good):
            pendant.go_away(20)
            await world.hear(pendant, 40)
        assert {run.state for run in await runs_of(daemon, good)} == {RunState.HEARD}
        assert await daemon.db.read(lambda conn: offline.waiting_bytes(conn, source_id)) > 0
        monkeypatch.undo()
        register()
        await world.clock.advance(700)
        assert await daemon.db.read(lambda conn: offline.waiting_bytes(conn, source_id)) == 0
    assert "stored audio cannot be heard" in caplog.text


async def test_of_an_absence_that_is_filled_exactly_the_muted_part_alone_is_left_out(world: World) -> None:
    """No clock said when it was recorded, and yet it can have been at no other time."""
    pendant = world.pendant("devkit2-2.0.10", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away(90)
        await world.hear(pendant, 30)
        muted_us = world.clock.boot_us()
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        await daemon.resume("test")
        spoken_us = world.clock.boot_us()
        await world.hear(pendant, 80)
        (run,) = await runs_of(daemon, pendant)
        there = await frames_there(daemon, pendant)
    assert (run.state, run.guessed) == (RunState.HEARD, False)
    assert not there & set(frames_between(pendant, muted_us, spoken_us))
    for outside in (
        frames_between(pendant, 0, muted_us - 8_000_000),
        frames_between(pendant, spoken_us + 8_000_000, EVER_US),
    ):
        assert set(outside) <= there


@pytest.mark.full
async def test_a_pendant_that_is_forgotten_and_paired_again_tells_its_file_in_one_piece(world: World) -> None:
    """The first part is heard when it is forgotten: behind it there is room for the rest."""
    pendant = world.pendant("cv1-3.0.15", faults=Faults(storage_speed=1))
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 10)
        pendant.go_away(60)
        await world.hear(pendant, 80)
        await drive(world.clock, daemon.forget_device(pendant.address))
        await world.clock.advance(30)
        await world.paired(daemon, pendant)
        await world.hear(pendant, 60)
        chunks = await chunks_of(daemon, pendant)
        found = await book(daemon, pendant)
    frames = frames_between(pendant, 0, EVER_US)
    packets = [packet for chunk in chunks for packet in chunk.packets if packet in set(frames)]
    assert packets == frames
    stored = [t for t in pendant.storage.record if t.fate is StoredFate.FREED]
    seconds = sum(t.end_us - t.start_us for t in stored) / 1e6
    within = sum(found.inside(t.start_us, t.end_us, LedgerState.RECOVERED) for t in stored[:1])
    assert within == pytest.approx((stored[0].end_us - stored[0].start_us) / 1e6, abs=8.0)
    assert found.seconds(LedgerState.RECOVERED) == pytest.approx(seconds, abs=1.0)


async def test_a_loss_is_never_dated_before_the_absence_that_it_belongs_to(world: World) -> None:
    """Records of silence hold far more than those of speech: what lost ones lasted is an estimate."""
    pendant = world.pendant(faults=Faults(ring_records=72, storage_speed=0), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 30)
        away_us = world.clock.boot_us()
        pendant.go_away(40)
        await world.hear(pendant, 25)
        await world.hear(pendant, 12, level=1)
        await world.hear(pendant, 20)
        found = await book(daemon, pendant)
    assert found.inside(0, away_us - 1_000_000, LedgerState.LOST) == 0
    assert found.seconds(LedgerState.LOST) > 5
