"""What feeds the ledger: frames that are heard, holes, mutes, restarts, crashes, a suspended machine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from omi_edge.capture.absence import Witness
from omi_edge.clock import DrivenClock
from omi_edge.domain import Cause, Codec, Frame, LedgerState, Withholding
from omi_edge.errors import DiskFull
from omi_edge.events import Bus
from omi_edge.listen.gate import SpeechGate
from omi_edge.pipeline.gaps import Gaps
from omi_edge.pipeline.hearing import ChunkReady, Heard, Hearing, Missing, Stretch
from omi_edge.pipeline.ledger import Ledger
from omi_edge.store import ledger, sources, withheld
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Span
from tests.helpers import PASSPHRASE, START_US
from tests.pipeline.test_hearing import LoudnessVad, sound
from tests.scripted import register
from tests.test_devices import World

S = 1_000_000
SOURCE = "src_test"
FRAME_US = Codec.OPUS_20MS.frame_us


@pytest.fixture
async def book(db: Database, clock: DrivenClock) -> Ledger:
    await db.write(lambda conn: sources.add(
        conn, id=SOURCE, kind="pendant", name="Omi", device_id="d", client_id=None, codec=Codec.OPUS_20MS,
        created_us=START_US,
    ))  # fmt: skip
    return Ledger(db, clock)


@pytest.fixture
def scripted() -> None:
    register()


async def withhold(db: Database, book: Ledger, clock: DrivenClock, since: int, until: int) -> None:
    """Note a mute between two moments, in seconds from now."""

    def work(conn: Connection) -> None:
        ledger_us = book.at_us(conn, clock.boot_us() + since * S)
        withheld.begin(
            conn, Withholding.MUTED, now_us=clock.utc_us() + since * S, until_us=None, by="t", ledger_us=ledger_us
        )
        row = withheld.end(conn, at_us=clock.utc_us() + until * S)
        assert row is not None
        ledger.write_all(conn, Span(ledger_us, ledger_us + (until - since) * S, LedgerState.MUTED))

    await db.write(work)


async def spans(db: Database, book: Ledger) -> list[tuple[str, float]]:
    def read(conn: Connection) -> list[Span]:
        return ledger.account(conn, SOURCE, 0, 1 << 62, book.moment())

    return [(span.state.value, span.length_us / S) for span in await db.read(read)]


def hearing() -> Hearing:
    return Hearing(SOURCE, Codec.OPUS_20MS, lambda: SpeechGate(LoudnessVad()), lambda _: "seg_1", live=False)


def stretches(heard: list[Heard]) -> list[Stretch]:
    return [stretch for item in heard if isinstance(item, ChunkReady) for stretch in item.stretches]


def fed(ear: Hearing, packets: list[bytes], start_us: int, *, utc_us: int = START_US) -> list[Heard]:
    frames = [
        (Frame(packet, start_us + (n + 1) * FRAME_US), utc_us + (n + 1) * FRAME_US) for n, packet in enumerate(packets)
    ]
    return ear.feed(frames)


# --- frame by frame ---------------------------------------------------------------------------------------------------


def test_each_frame_is_speech_or_silence_and_none_is_counted_twice() -> None:
    ear = hearing()
    packets = sound((10, 0), (4, 8000), (10, 0))
    found = stretches(fed(ear, packets, 100 * S) + ear.finish())
    assert found[0].start_us == 100 * S
    assert found[-1].end_us == 124 * S
    assert all(a.end_us == b.start_us for a, b in itertools.pairwise(found))
    speech = sum(stretch.end_us - stretch.start_us for stretch in found if stretch.speech) / S
    assert speech == pytest.approx(8, abs=0.2)  # and two seconds around it
    assert sum(stretch.lost_us for stretch in found) == 0


def test_what_was_concealed_is_lost_inside_its_stretch() -> None:
    ear = hearing()
    packets = sound((6, 8000))
    found = fed(ear, packets[:100], 100 * S)
    later = [
        (Frame(packet, 102 * S + (n + 6) * FRAME_US, 5 if n == 0 else 0), START_US + 2 * S + (n + 6) * FRAME_US)
        for n, packet in enumerate(packets[105:])
    ]
    told = stretches(found + ear.feed(later) + ear.finish())
    assert sum(stretch.lost_us for stretch in told) == 5 * FRAME_US
    assert sum(stretch.losses for stretch in told) == 1
    assert told[-1].end_us == 106 * S


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_step_of_the_wall_clock_is_no_hole(step: int) -> None:
    ear = hearing()
    packets = sound((4, 8000))
    before = fed(ear, packets, 100 * S)
    after = fed(ear, packets, 104 * S, utc_us=START_US + (4 + step) * S)
    assert not [item for item in before + after if isinstance(item, Missing)]
    found = stretches(before + after + ear.finish())
    assert (found[0].start_us, found[-1].end_us) == (100 * S, 108 * S)


def test_a_hole_in_which_the_wall_clock_was_stepped_has_its_true_length() -> None:
    ear = hearing()
    packets = sound((4, 8000))
    fed(ear, packets, 100 * S)
    heard = fed(ear, packets, 114 * S, utc_us=START_US + (14 + 3600) * S)
    (hole,) = [item for item in heard if isinstance(item, Missing)]
    assert (hole.start_boot_us, hole.end_boot_us) == (104 * S, 114 * S)
    assert (hole.end_us - hole.start_us, hole.end_us) == (10 * S, START_US + (14 + 3600) * S)


def test_a_recording_has_no_stretches() -> None:
    ear = hearing()
    frames = [(Frame(packet, 0), START_US + n * FRAME_US) for n, packet in enumerate(sound((4, 8000)))]
    assert stretches(ear.feed(frames) + ear.finish()) == []


# --- into the file ----------------------------------------------------------------------------------------------------


async def test_a_hole_keeps_its_causes_and_is_certain_only_with_one(db: Database, book: Ledger) -> None:
    def work(conn: Connection) -> None:
        boot_us = book.moment().boot_us
        book.heard(conn, SOURCE, [Stretch(boot_us - 60 * S, boot_us - 50 * S, True)])
        book.missing(conn, SOURCE, boot_us - 50 * S, boot_us - 30 * S, (Cause.OUT_OF_RANGE, Cause.DISCONNECTED))
        book.missing(conn, SOURCE, boot_us - 30 * S, boot_us - 20 * S, (Cause.PENDANT_OFF,))
        book.missing(conn, SOURCE, boot_us - 20 * S, boot_us - 10 * S, (Cause.UNKNOWN,))
        book.heard(conn, SOURCE, [Stretch(boot_us - 10 * S, boot_us, False)])

    await db.write(work)
    found = await db.read(lambda conn: ledger.account(conn, SOURCE, 0, 1 << 62, book.moment()))
    assert [(span.state, span.causes, span.length_us // S) for span in found] == [
        (LedgerState.SPEECH, (), 10),
        (LedgerState.UNKNOWN, (Cause.OUT_OF_RANGE, Cause.DISCONNECTED), 20),
        (LedgerState.PENDANT_OFF, (), 10),
        (LedgerState.UNKNOWN, (), 10),
        (LedgerState.SILENCE, (), 10),
    ]


async def test_a_hole_with_a_mute_in_it_is_entered_piece_by_piece(
    db: Database, book: Ledger, clock: DrivenClock
) -> None:
    utc_us, boot_us = clock.utc_us(), clock.boot_us()

    def mute(conn: Connection) -> None:
        book.heard(conn, SOURCE, [Stretch(boot_us - 70 * S, boot_us - 60 * S, True)])

    await db.write(mute)
    await withhold(db, book, clock, -40, -20)
    hole = Missing(utc_us - 60 * S, utc_us, boot_us, 0, None, False, 0, boot_us - 60 * S)
    await Gaps(db, clock, Bus(), book).settle(SOURCE, hole, Codec.OPUS_20MS, Witness())
    assert await spans(db, book) == [("speech", 10), ("lost", 20), ("muted", 20), ("lost", 20)]


async def test_a_hole_that_a_stepped_clock_calls_by_the_time_of_a_mute_is_not_muted(
    db: Database, book: Ledger, clock: DrivenClock
) -> None:
    boot_us = clock.boot_us()
    await db.write(lambda conn: book.heard(conn, SOURCE, [Stretch(boot_us - 70 * S, boot_us - 60 * S, True)]))
    await withhold(db, book, clock, -60, -40)
    await clock.advance(100)
    clock.step_utc(-120)
    utc_us, boot_us = clock.utc_us(), clock.boot_us()
    await db.write(lambda conn: book.heard(conn, SOURCE, [Stretch(boot_us - 70 * S, boot_us - 60 * S, True)]))
    hole = Missing(utc_us - 60 * S, utc_us, boot_us, 0, None, False, 0, boot_us - 60 * S)
    found = await Gaps(db, clock, Bus(), book).settle(SOURCE, hole, Codec.OPUS_20MS, Witness())
    assert [(gap.causes, (gap.end_us - gap.start_us) / S) for gap in found] == [((Cause.LOST,), 60)]
    assert [state for state, _ in await spans(db, book)].count("muted") == 1


async def test_signs_of_life_are_rare_and_none_is_given_while_something_is_heard(
    db: Database, book: Ledger, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    live = ledger.live

    def counted(conn: Any, at_us: int, *, listening: bool) -> None:
        given.append(at_us)
        live(conn, at_us, listening=listening)

    monkeypatch.setattr(ledger, "live", counted)
    await book.start()
    await clock.advance(3600)
    assert len(given) == 1 + 3600 * S // ledger.LIFE_US
    given.clear()
    for _ in range(30):
        boot_us = clock.boot_us()
        await db.write(lambda conn, at=boot_us: book.heard(conn, SOURCE, [Stretch(at - 60 * S, at, False)]))  # type: ignore[misc]
        await clock.advance(60)
    assert given == []
    await book.stop()
    await book.stop()
    assert len(given) == 1


async def test_a_machine_that_was_suspended_heard_nothing(db: Database, book: Ledger, clock: DrivenClock) -> None:
    await book.start()
    await db.write(lambda conn: book.seen(conn, SOURCE))
    await clock.advance(10)
    clock._boot_us += 8 * 3600 * S  # timers stand still, the boot clock does not
    await clock.advance(600)
    await book.stop()
    found = dict(await spans(db, book))
    assert found["daemon_down"] == pytest.approx(8 * 3600, abs=ledger.LIFE_US / S)


@pytest.mark.usefixtures("scripted")
async def test_without_a_sign_of_life_a_crash_is_known_to_when_something_was_last_heard(
    folder: Path, clock: DrivenClock
) -> None:
    world = World(folder, clock)
    pendant = world.pendant()
    daemon_of = world.daemon()
    daemon = await daemon_of.__aenter__()
    await world.paired(daemon, pendant)
    await world.hear(pendant, 30)
    await clock.advance(5)
    crashed_us = clock.utc_us()
    # as a crash leaves it: nothing is told to the file any more
    book = daemon.spine.ledger
    assert book._beating is not None
    book._beating.cancel()
    book._beating = None
    await daemon_of.__aexit__(None, None, None)
    await clock.advance(1000)
    db = Database.open(folder, PASSPHRASE, clock)
    again = Ledger(db, clock)
    await again.start()

    def read(conn: Connection) -> list[Span]:
        (source_id,) = ledger.known_sources(conn)
        return ledger.account(conn, source_id, 0, 1 << 62, again.moment())

    last = (await db.read(read))[-1]
    assert last.state is LedgerState.DAEMON_DOWN
    assert 0 <= crashed_us - last.start_us <= 10 * S
    assert last.end_us == clock.utc_us()
    await again.stop()
    await db.close()


@pytest.mark.usefixtures("scripted")
async def test_a_command_without_a_daemon_listens_to_nothing(folder: Path, clock: DrivenClock) -> None:
    world = World(folder, clock)
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 10)
        await clock.advance(5)
    await clock.advance(100)
    async with world.daemon(listen=False) as daemon:
        await clock.advance(60)
        await daemon.withhold(Withholding.MUTED, None, "test")
        await clock.advance(30)
        await daemon.resume("test")
        await clock.advance(10)
    async with world.daemon() as daemon:

        def read(conn: Connection) -> list[Span]:
            (source_id,) = ledger.known_sources(conn)
            return ledger.account(conn, source_id, 0, 1 << 62, daemon.spine.ledger.moment())

        found = await daemon.db.read(read)
    states = [(span.state.value, round(span.length_us / S)) for span in found[-3:]]
    assert states == [("daemon_down", 160), ("muted", 30), ("daemon_down", 10)]


@pytest.mark.usefixtures("scripted")
async def test_a_mute_that_is_written_down_late_began_when_it_began(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(folder, clock)
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 10)

        def full(*_: object, **__: object) -> None:
            raise DiskFull("no space.")

        with monkeypatch.context() as patch:
            patch.setattr(withheld, "begin", full)
            await daemon.withhold(Withholding.MUTED, None, "test")
            await world.hear(pendant, 20)
        await clock.advance(10)
        await daemon.withhold(Withholding.OFF_RECORD, None, "test")
        await clock.advance(15)
        await daemon.resume("test")

        def read(conn: Connection) -> list[Span]:
            (source_id,) = ledger.known_sources(conn)
            return ledger.account(conn, source_id, 0, 1 << 62, daemon.spine.ledger.moment())

        found = await daemon.db.read(read)
    states = [(span.state.value, round(span.length_us / S)) for span in found[-2:]]
    assert states == [("muted", 30), ("off_record", 15)]


@pytest.mark.usefixtures("scripted")
async def test_a_forgotten_pendants_account_ends(folder: Path, clock: DrivenClock) -> None:
    world = World(folder, clock)
    pendant = world.pendant()
    async with world.daemon() as daemon:
        row = await world.paired(daemon, pendant)
        await world.hear(pendant, 10)
        await daemon.forget_device(row.address)
        ended_us = clock.utc_us()
        await clock.advance(500)

        def read(conn: Connection) -> list[Span]:
            (source_id,) = ledger.known_sources(conn)
            return ledger.account(conn, source_id, 0, 1 << 62, daemon.spine.ledger.moment())

        assert (await daemon.db.read(read))[-1].end_us == ended_us
