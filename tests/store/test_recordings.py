"""Recordings: known again by a keyed digest, taken up where they broke off, never on top of what is there."""

from __future__ import annotations

import msgspec
import pytest

from omi_edge.domain import AudioChunk, ChunkKind, Codec, SpeechSegment
from omi_edge.errors import NotFound
from omi_edge.store import audio, recordings, segments, settings, sources
from omi_edge.store.connection import Connection
from omi_edge.store.recordings import RecordingRow
from tests.helpers import START_US
from tests.store.filling import SOURCES, add_conversation, add_source

SECOND = 1_000_000


def begin(conn: Connection, id: str, source_id: str | None = None, digest: bytes | None = b"x") -> RecordingRow:
    if source_id is None:
        sources.add(
            conn, id=id, kind="file", name=id, device_id=None, client_id=None, codec=21, created_us=START_US,
            first_us=START_US,
        )  # fmt: skip
    return recordings.add(
        conn, id=id, source_id=source_id or id, name=id, digest=digest, codec=Codec.OPUS_20MS, start_us=START_US,
        now_us=START_US,
    )  # fmt: skip


def end(conn: Connection, id: str, seconds: float, *, complete: bool) -> RecordingRow:
    end_us = START_US + round(seconds * SECOND)
    return recordings.end(conn, id, end_us=end_us, left_out_us=0, complete=complete, now_us=START_US + 1)


def put(conn: Connection, source_id: str, at: float, kind: ChunkKind = ChunkKind.HEARD) -> None:
    chunk = AudioChunk(source_id, START_US + round(at * SECOND), Codec.OPUS_20MS, (b"\xb8abc",) * 100, kind)
    audio.put(conn, chunk)


def test_a_digest_is_of_this_vault_alone(conn: Connection) -> None:
    first = recordings.keyed(conn, b"content")
    assert recordings.keyed(conn, b"content") == first != recordings.keyed(conn, b"other")
    settings.put(conn, "recordings.key", "00" * 32)  # as another vault has another key
    assert recordings.keyed(conn, b"content") != first


def test_the_whole_one_is_known_before_one_that_broke_off(conn: Connection) -> None:
    assert recordings.known(conn, b"x") is None
    begin(conn, "src_half")
    end(conn, "src_half", 3, complete=False)
    found = recordings.known(conn, b"x")
    assert found is not None
    assert (found.id, found.complete, found.own_source, found.source_kind) == ("src_half", False, True, "file")
    begin(conn, "src_whole")
    end(conn, "src_whole", 9, complete=True)
    begin(conn, "src_late")
    found = recordings.known(conn, b"x")
    assert found is not None
    assert found.id == "src_whole"
    with pytest.raises(NotFound):
        recordings.get(conn, "src_nowhere")


def test_one_that_goes_on_is_open_again_with_its_source(conn: Connection) -> None:
    begin(conn, "src_half")
    assert [row.id for row in recordings.unfinished(conn)] == ["src_half"]
    end(conn, "src_half", 3, complete=False)
    assert recordings.unfinished(conn) == []
    assert sources.get(conn, "src_half").ended_us is not None
    recordings.reopen(conn, "src_half")
    assert [row.id for row in recordings.unfinished(conn)] == ["src_half"]
    assert sources.get(conn, "src_half").ended_us is None


def test_what_has_no_whole_segment_is_taken_anew(conn: Connection) -> None:
    row = begin(conn, "src_half")
    for at, kind in ((0.0, ChunkKind.HEARD), (2.0, ChunkKind.HEARD), (4.0, ChunkKind.SILENCE), (6.0, ChunkKind.HEARD)):
        put(conn, "src_half", at, kind)
    before = sources.get(conn, "src_half")
    segments.put(conn, SpeechSegment("seg_1", "src_half", START_US, START_US + 2_510_000, SECOND))
    from_us = recordings.rewind(conn, row)
    assert from_us == START_US + 2_500_000  # the frame that holds the end
    left = audio.between(conn, "src_half", START_US, START_US + 60 * SECOND)
    assert [(chunk.start_us - START_US, chunk.end_us - START_US) for chunk in left] == [
        (0, 2 * SECOND),
        (2 * SECOND, 2_500_000),
    ]
    assert before.audio_bytes == 4 * 400
    assert sources.get(conn, "src_half").audio_bytes == 125 * 4 == sum(len(p) for c in left for p in c.packets)
    assert recordings.rewind(conn, row) == from_us


def test_one_without_a_segment_begins_anew(conn: Connection) -> None:
    row = begin(conn, "src_half")
    put(conn, "src_half", 0.0)
    assert recordings.rewind(conn, row) == START_US
    assert audio.between(conn, "src_half", START_US, START_US + 60 * SECOND) == []


def test_what_a_source_holds_is_told_in_stretches(conn: Connection) -> None:
    add_source(conn)
    for at in (0.0, 2.0, 5.0, 20.0):
        put(conn, SOURCES[0], at)
    spans = recordings.taken_spans(conn, SOURCES[0], START_US + SECOND, START_US + 10 * SECOND)
    assert spans == [(START_US, START_US + 4 * SECOND), (START_US + 5 * SECOND, START_US + 7 * SECOND)]


def test_progress_in_a_pendants_source_is_that_of_the_recording(conn: Connection) -> None:
    add_source(conn)
    begin(conn, "rec_1", SOURCES[0])
    row = end(conn, "rec_1", 60, complete=True)
    assert not row.own_source
    assert sources.get(conn, SOURCES[0]).ended_us is None  # the pendant goes on
    for n, at in enumerate((-10, 10, 70)):
        at_us = START_US + at * SECOND
        segments.put(conn, SpeechSegment(f"seg_{n}", SOURCES[0], at_us, at_us + SECOND, SECOND))
    assert recordings.progress(conn, row) == (1, 0, [])
    add_conversation(conn, "con_1", SOURCES[0], START_US + 10 * SECOND)
    left, failed, found = recordings.progress(conn, msgspec.structs.replace(row, end_us=START_US + 3600 * SECOND))
    assert (left, failed, found) == (3, 0, ["con_1"])  # two segments, and a conversation that is not done
