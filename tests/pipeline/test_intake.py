"""From notifications to durable chunks, also when the disk is full, frames lie in pieces or the pendant is silent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.domain import AudioChunk, Codec, Notification, SpeechSegment, Stage
from omi_edge.listen.gate import SpeechGate
from omi_edge.pipeline import intake as intake_module
from omi_edge.pipeline.hearing import Heard, Hearing, LiveAudio, Missing
from omi_edge.pipeline.intake import SILENT_SECONDS, Intake, Stored
from omi_edge.store import audio, jobs, segments, sources
from omi_edge.store.database import Database
from tests.helpers import START_US
from tests.pipeline.test_hearing import LoudnessVad, sound

SOURCE = "src_test"
EVER_US = 1 << 62


class Ward:
    """One intake with everything it tells."""

    def __init__(self, db: Database, clock: DrivenClock, thread: ThreadPoolExecutor, codec: Codec) -> None:
        self.db = db
        self.clock = clock
        self.stored: list[Stored] = []
        self.live: list[LiveAudio] = []
        self.gaps: list[Missing] = []
        self.disk: list[bool] = []
        count = itertools.count()
        hearing = Hearing(
            SOURCE, codec, lambda: SpeechGate(LoudnessVad()), lambda _: f"seg_{next(count)}", live=True
        )  # fmt: skip
        self.intake = Intake(
            SOURCE, hearing, codec, db=db, clock=clock, thread=thread, on_stored=self.stored.append,
            on_live=self.live.append, on_missing=self._missing, on_disk=self._disk,
        )  # fmt: skip
        self._number = 0

    async def _missing(self, missing: Missing) -> None:
        self.gaps.append(missing)

    async def _disk(self, full: bool) -> None:
        self.disk.append(full)

    def put(self, packets: list[bytes]) -> None:
        """Notify at once."""
        for packet in packets:
            value = (self._number & 0xFFFF).to_bytes(2, "little") + b"\0" + packet
            self.intake.notify(Notification(value, self.clock.boot_us()))
            self._number += 1

    async def send(self, packets: list[bytes]) -> None:
        """As a pendant: bursts of five, each packet one notification."""
        for first in range(0, len(packets), 5):
            await self.clock.advance(0.1)
            self.put(packets[first : first + 5])
        await self.clock.settle()

    async def chunks(self) -> list[AudioChunk]:
        return await self.db.read(lambda conn: audio.between(conn, SOURCE, 0, EVER_US))

    async def packets(self) -> list[bytes]:
        return [packet for chunk in await self.chunks() for packet in chunk.packets]


@pytest.fixture
async def ward(db: Database, clock: DrivenClock) -> AsyncIterator[Ward]:
    await db.write(
        lambda conn: sources.add(
            conn, id=SOURCE, kind="pendant", name="Omi", device_id="dev", client_id=None, codec=Codec.OPUS_20MS,
            created_us=START_US,
        )
    )  # fmt: skip
    with ThreadPoolExecutor(1) as thread:
        ward = Ward(db, clock, thread, Codec.OPUS_20MS)
        yield ward
        await ward.intake.close()


def _contains(whole: list[bytes], part: list[bytes]) -> bool:
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


async def test_what_is_told_is_durable_and_the_segment_has_its_job(ward: Ward) -> None:
    packets = sound((3, 5), (4, 3000), (6, 5))
    await ward.send(packets)
    await ward.intake.finish()
    told = [one.chunk for one in ward.stored if one.chunk is not None]
    kept = await ward.chunks()
    assert [chunk.packets for chunk in told] == [chunk.packets for chunk in kept]
    assert all(chunk.duration_us <= 2_000_000 for chunk in kept)
    assert _contains(packets, await ward.packets())
    (segment,) = [segment for one in ward.stored for segment in one.segments]
    assert (await ward.db.read(lambda conn: segments.get(conn, segment.id))).segment == segment
    due = await ward.db.read(lambda conn: jobs.due(conn, ward.clock.utc_us(), (Stage.TRANSCRIBE,)))
    assert [job.subject_id for job in due] == [segment.id]
    assert abs(kept[0].start_us - (START_US + 1_000_000)) < 400_000


async def test_a_full_disk_is_told_and_nothing_is_lost(ward: Ward) -> None:
    noise = sound((40, 3000))
    await ward.send(noise[:500])
    await ward.db.write(lambda conn: conn.execute("PRAGMA max_page_count = 1").fetchone())  # no page more than it has
    await ward.send(noise[500:])
    assert ward.disk == [True]
    held_back = len(await ward.packets())
    assert held_back < len(noise) - 500
    await ward.db.write(lambda conn: conn.execute("PRAGMA max_page_count = 1073741823").fetchone())
    await ward.clock.advance(intake_module.RETRY_SECONDS + 1)
    await ward.intake.finish()
    assert ward.disk == [True, False]
    assert await ward.packets() == noise
    spans = [(chunk.start_us, chunk.end_us) for chunk in await ward.chunks()]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))


async def test_what_waits_for_the_disk_is_bounded_and_counted(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "WAITING_LIMIT", 10)
    for number in range(25):
        ward.intake.notify(Notification(number.to_bytes(2, "little") + b"\0\xb8xx", ward.clock.boot_us()))
    assert ward.intake.overflowed == 15


async def test_a_pendant_that_falls_silent_leaves_nothing_open(ward: Ward) -> None:
    await ward.send(sound((2, 3000)))
    assert not [segment for one in ward.stored for segment in one.segments]
    assert ward.intake.speaking
    await ward.clock.advance(intake_module.SILENT_SECONDS + 0.1)
    assert len([segment for one in ward.stored for segment in one.segments]) == 1
    assert not ward.intake.speaking


async def test_a_frame_in_pieces_bears_the_time_of_its_first_piece(ward: Ward) -> None:
    """The last frame of a fragmenting pendant is whole only when the run ends: it is kept all the same."""
    packets = sound((3, 3000))
    number = 0
    for index, packet in enumerate(packets):
        half = len(packet) // 2
        if index % 5 == 0:
            await ward.clock.advance(0.1)
        for part, piece in enumerate((packet[:half], packet[half:])):
            value = number.to_bytes(2, "little") + bytes([part]) + piece
            ward.intake.notify(Notification(value, ward.clock.boot_us()))
            number += 1
    await ward.clock.settle()
    await ward.intake.finish()
    kept = await ward.packets()
    assert kept[-1] == packets[-1]
    # what the first frame lacked was only known with the second: one frame in two halves, not five of them lost
    assert len(kept) >= len(packets) - 1


async def test_a_recording_keeps_its_last_half_frame(ward: Ward) -> None:
    pcm = np.random.default_rng(0).normal(0, 3000, 16_000 * 2 + 100).astype(np.int16).tobytes()

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(pcm), 7001):
            yield pcm[first : first + 7001]

    seconds = await ward.intake.take_pcm(pieces(), START_US)
    await ward.intake.finish()
    assert seconds == pytest.approx(2 + 100 / 16_000)
    chunks = await ward.chunks()
    assert sum(len(chunk.packets) for chunk in chunks) == 101
    assert chunks[0].start_us == START_US


async def test_segments_are_told_after_their_audio(ward: Ward) -> None:
    await ward.send(sound((2, 3000), (4, 5), (2, 3000), (4, 5)))
    await ward.intake.finish()
    stored_until_us = 0
    found: list[SpeechSegment] = []
    for one in ward.stored:
        if one.chunk is not None:
            stored_until_us = one.chunk.end_us
        found += one.segments
        assert all(segment.end_us <= stored_until_us for segment in one.segments)
    assert len(found) == 2


async def test_what_comes_while_a_run_is_being_ended_is_not_left_waiting(
    ward: Ward, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = sound((2, 3000))
    await ward.send(packets[:50])
    going, run = asyncio.Event(), ward.intake._run

    async def slow(work: Callable[..., list[Heard]], *arguments: object) -> None:
        if work == ward.intake._hear_out:
            await going.wait()
        await run(work, *arguments)

    monkeypatch.setattr(ward.intake, "_run", slow)
    await clock.advance(SILENT_SECONDS + 1)
    ward.put(packets[50:])
    await clock.advance(1)
    going.set()
    await clock.advance(1)
    monkeypatch.undo()
    await clock.advance(SILENT_SECONDS + 1)
    assert len(await ward.packets()) == 100
