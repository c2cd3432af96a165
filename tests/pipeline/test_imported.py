"""Recordings into the pipeline: frames as they are, once, on from where they broke off, and never on top."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.capture.wal import framed
from omi_edge.clock import DrivenClock
from omi_edge.config import Config
from omi_edge.domain import SAMPLE_RATE, AudioChunk, Codec, Withholding
from omi_edge.errors import AudioError, BadInput, NotFound
from omi_edge.events import Bus
from omi_edge.opus import Encoder
from omi_edge.pipeline.spine import Spine
from omi_edge.store import audio, devices, notices, recordings, sources, withheld
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.vectors import VectorIndex
from tests.helpers import START_US, drive
from tests.pipeline.test_spine import ScriptedEngines

SHORT = Path(__file__).parents[1] / "recordings" / "short.ogg"
SECOND = 1_000_000
ADDRESS = "C0:FF:EE:00:00:01"
DIGEST = b"digest"


@pytest.fixture(scope="module")
def pcm() -> bytes:
    samples = np.concatenate(list(Recording(SHORT)))
    return samples[: len(samples) // 320 * 320].tobytes()


@pytest.fixture(scope="module", params=[Codec.OPUS_10MS, Codec.OPUS_20MS])
def codec(request: pytest.FixtureRequest) -> Codec:
    found: Codec = request.param
    return found


@pytest.fixture(scope="module")
def packets(pcm: bytes, codec: Codec) -> list[bytes]:
    encoder = Encoder(codec)
    size = codec.frame_us * SAMPLE_RATE // SECOND
    return [encoder.encode(frame) for frame in np.frombuffer(pcm, np.int16).reshape(-1, size)]


class Door:
    """A spine that is not started: what is taken in stays as it was stored."""

    def __init__(self, db: Database, clock: DrivenClock) -> None:
        self.db = db
        self.clock = clock
        self.spine = Spine(db, clock, Bus(), Config(), ScriptedEngines(), VectorIndex(), "UTC")

    async def begin(
        self, codec: Codec, *, digest: bytes | None = DIGEST, device: str | None = None, again: bool = False
    ) -> str:
        return await self.spine.begin_recording(
            "talk", START_US, True, None, codec=codec, digest=digest, device=device, again=again
        )

    async def take(self, recording_id: str, packets: list[bytes], *, breaks: bool = False) -> None:
        async def body() -> AsyncIterator[bytes]:
            whole = b"".join(map(framed, packets))
            for at in range(0, len(whole), 1000):
                yield whole[at : at + 1000]
            if breaks:
                raise AudioError("it broke off. Send it again.")

        await drive(self.clock, self.spine.take_recording(recording_id, body(), framed=True))

    async def chunks(self, source_id: str) -> list[AudioChunk]:
        return await self.db.read(lambda conn: audio.between(conn, source_id, 0, 1 << 61))

    async def spans(self, source_id: str) -> list[tuple[int, int]]:
        statement = (
            "SELECT start_us, end_us FROM segments WHERE source_n = (SELECT n FROM sources WHERE id = ?)"
            " ORDER BY start_us"
        )

        def read(conn: Connection) -> list[tuple[int, int]]:
            return [tuple(row) for row in conn.execute(statement, (source_id,))]

        return await self.db.read(read)


@pytest.fixture
async def door(db: Database, clock: DrivenClock) -> AsyncIterator[Door]:
    door = Door(db, clock)
    yield door
    await drive(clock, door.spine.stop())


def are_in_place(chunks: list[AudioChunk], packets: list[bytes]) -> None:
    """What is stored is what was sent, where it belongs, and nothing lies on anything."""
    assert chunks
    for chunk in chunks:
        first = (chunk.start_us - START_US) // chunk.codec.frame_us
        assert list(chunk.packets) == packets[first : first + len(chunk.packets)]
    assert all(one.end_us <= next.start_us for one, next in pairwise(chunks))


async def test_frames_are_kept_as_they_are(door: Door, packets: list[bytes], codec: Codec) -> None:
    source_id = await door.begin(codec)
    await door.take(source_id, packets)
    chunks = await door.chunks(source_id)
    are_in_place(chunks, packets)
    assert {chunk.codec for chunk in chunks} == {codec}
    assert await door.spans(source_id)
    row = await door.db.read(lambda conn: recordings.get(conn, source_id))
    assert (row.complete, row.left_out_us) == (True, 0)
    assert row.end_us == START_US + len(packets) * codec.frame_us
    with pytest.raises(BadInput, match="already"):
        await door.begin(codec)
    other = await door.begin(codec, again=True)
    assert other != source_id


async def test_what_broke_off_goes_on_and_is_there_once(door: Door, packets: list[bytes], codec: Codec) -> None:
    whole_id = await door.begin(codec, digest=None)
    await door.take(whole_id, packets)
    expected = await door.spans(whole_id)
    source_id = await door.begin(codec)
    with pytest.raises(BadInput, match="moment"):
        await door.begin(codec)
    with pytest.raises(AudioError):
        await door.take(source_id, packets[: len(packets) // 2], breaks=True)
    row = await door.db.read(lambda conn: recordings.get(conn, source_id))
    assert not row.complete
    assert [notice.subject_ids for notice in await door.db.read(notices.active)] == [(source_id,)]
    assert await door.begin(codec) == source_id
    await door.take(source_id, packets)
    chunks = await door.chunks(source_id)
    are_in_place(chunks, packets)
    kept = sum(len(packet) for chunk in chunks for packet in chunk.packets)
    source = await door.db.read(lambda conn: sources.get(conn, source_id))
    assert (source.audio_bytes, source.ended_us is None) == (kept, False)
    assert (await door.db.read(lambda conn: recordings.get(conn, source_id))).complete
    assert await door.db.read(notices.active) == []
    spans = await door.spans(source_id)
    assert all(one[1] <= next[0] for one, next in pairwise(spans))
    assert spans[-1][1] == pytest.approx(expected[-1][1], abs=SECOND)
    assert sum(end - start for start, end in spans) == pytest.approx(sum(e - s for s, e in expected), abs=2 * SECOND)
    with pytest.raises(BadInput, match="already"):
        await door.begin(codec)


async def test_after_a_kill_what_had_no_segment_is_taken_anew(door: Door, packets: list[bytes], codec: Codec) -> None:
    source_id = await door.begin(codec)
    # as a kill leaves it: audio whose segment was still open
    left = AudioChunk(source_id, START_US + SECOND, codec, tuple(packets[: SECOND // codec.frame_us]))
    await door.db.write(lambda conn: audio.put(conn, left))
    spine = Spine(door.db, door.clock, Bus(), Config(), ScriptedEngines(), VectorIndex(), "UTC")
    await spine.start()
    await drive(door.clock, spine.stop())
    assert await door.begin(codec) == source_id
    await door.take(source_id, packets)
    are_in_place(await door.chunks(source_id), packets)


async def test_nothing_is_stored_on_top_of_what_a_pendant_has(door: Door, packets: list[bytes], codec: Codec) -> None:
    there_us = START_US + 2 * SECOND

    def prepare(conn: Connection) -> None:
        devices.remember(conn, address=ADDRESS, name="grey", own_name="Omi", now_us=START_US)
        sources.add(
            conn, id="src_grey", kind="pendant", name="grey", device_id=ADDRESS, client_id=None, codec=codec,
            created_us=START_US,
        )  # fmt: skip
        audio.put(conn, AudioChunk("src_grey", there_us, codec, (b"\xb8there",) * (SECOND // codec.frame_us)))
        withheld.begin(conn, Withholding.MUTED, now_us=START_US, until_us=None, by="uid:1")
        withheld.end(conn, at_us=START_US + SECOND)

    await door.db.write(prepare)
    with pytest.raises(NotFound, match="devices"):
        await door.begin(codec, device="blue")
    recording_id = await door.begin(codec, device="GREY")
    await door.take(recording_id, packets)
    row = await door.db.read(lambda conn: recordings.get(conn, recording_id))
    assert (row.source_id, row.complete, row.left_out_us) == ("src_grey", True, 2 * SECOND)
    chunks = await door.chunks("src_grey")
    [there] = [chunk for chunk in chunks if chunk.start_us == there_us]
    assert set(there.packets) == {b"\xb8there"}
    chunks.remove(there)
    are_in_place(chunks, packets)
    assert all(chunk.end_us <= there_us or chunk.start_us >= there.end_us for chunk in chunks)
    assert min(chunk.start_us for chunk in chunks) >= START_US + SECOND  # nothing of what was muted
    assert (await door.db.read(lambda conn: sources.get(conn, "src_grey"))).ended_us is None
    assert await door.db.read(lambda conn: conn.execute("SELECT count(*) FROM gaps").fetchone()[0]) == 0
    with pytest.raises(BadInput, match="src_grey already"):
        await door.begin(codec)


async def test_a_pendant_that_was_never_heard_gets_its_source(door: Door, packets: list[bytes], codec: Codec) -> None:
    await door.db.write(
        lambda conn: devices.remember(conn, address=ADDRESS, name="grey", own_name="Omi", now_us=START_US)
    )
    recording_id = await door.begin(codec, device=ADDRESS.lower())
    await door.take(recording_id, packets)
    source = await door.db.read(lambda conn: sources.for_device(conn, ADDRESS))
    assert source is not None
    assert (source.kind, source.first_us is not None) == ("pendant", True)


@pytest.mark.parametrize("tail", [b"\xff" * 8, b"\x50\0\0\0half"])
async def test_a_body_that_is_no_frames_is_not_whole(door: Door, packets: list[bytes], tail: bytes) -> None:
    source_id = await door.begin(Codec.OPUS_20MS)

    async def body() -> AsyncIterator[bytes]:
        yield framed(packets[0])
        yield tail

    with pytest.raises(AudioError):
        await drive(door.clock, door.spine.take_recording(source_id, body(), framed=True))
    row = await door.db.read(lambda conn: recordings.get(conn, source_id))
    assert (row.complete, row.end_us) == (False, START_US + Codec.OPUS_20MS.frame_us)
