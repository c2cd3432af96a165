"""Chunks of audio and the counters of their sources."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.domain import AudioChunk, ChunkKind, Codec
from omi_edge.errors import NotFound
from omi_edge.store import audio, sources
from omi_edge.store.connection import Connection
from tests.helpers import START_US
from tests.store.filling import PACKET, SECOND, SOURCES, add_source, chunk, undone

SIZE = 99 * len(PACKET)
"""Bytes of a chunk's packets: one of its hundred frames is lost."""


@pytest.fixture
def conn(conn: Connection) -> Connection:
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    return conn


def test_a_chunk_comes_back_as_it_was_with_its_id(conn: Connection) -> None:
    given_chunk = AudioChunk(SOURCES[0], START_US, Codec.OPUS_10MS, (b"a", b"", b"\0\xff"), ChunkKind.SILENCE)
    put = audio.put(conn, given_chunk)
    assert put.id > 0
    assert audio.between(conn, SOURCES[0], START_US, START_US + 1) == [put]
    assert (put.packets, put.codec, put.kind, put.lost) == (given_chunk.packets, Codec.OPUS_10MS, ChunkKind.SILENCE, 1)


def test_ids_are_never_used_again(conn: Connection) -> None:
    first = audio.put(conn, chunk(SOURCES[0], START_US, ChunkKind.SILENCE))
    assert audio.drop_silence(conn, START_US + 1) == (1, SIZE)
    assert audio.put(conn, chunk(SOURCES[0], START_US)).id > first.id


def test_a_chunk_of_an_unknown_source_is_refused(conn: Connection) -> None:
    with pytest.raises(NotFound):
        audio.put(conn, chunk("src_other", START_US))
    with pytest.raises(NotFound):
        audio.between(conn, "src_other", 0, 1)


def test_silence_and_other_sources_can_be_left_out(conn: Connection) -> None:
    heard = audio.put(conn, chunk(SOURCES[0], START_US))
    quiet = audio.put(conn, chunk(SOURCES[0], START_US + 2 * SECOND, ChunkKind.SILENCE))
    audio.put(conn, chunk(SOURCES[1], START_US))
    whole = (START_US, START_US + 10 * SECOND)
    assert audio.between(conn, SOURCES[0], *whole) == [heard, quiet]
    assert audio.between(conn, SOURCES[0], *whole, silence=False) == [heard]


spans = st.tuples(st.integers(0, 20_000), st.integers(1, 100))
"""Start in milliseconds, and frames of 20 ms."""


@given(st.lists(spans, max_size=12), st.integers(0, 20_000), st.integers(0, 5_000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_span_finds_every_chunk_that_reaches_into_it_in_order_of_time(
    conn: Connection, placed: list[tuple[int, int]], start_ms: int, length_ms: int
) -> None:
    start_us, end_us = start_ms * 1000, (start_ms + length_ms) * 1000
    with undone(conn):
        put = [
            audio.put(conn, AudioChunk(SOURCES[0], at * 1000, Codec.OPUS_20MS, (b"x",) * frames))
            for at, frames in placed
        ]
        found = audio.between(conn, SOURCES[0], start_us, end_us)
        wanted = [one for one in put if one.start_us < end_us and one.end_us > start_us]
    assert sorted(found, key=lambda one: one.id) == wanted
    assert [one.start_us for one in found] == sorted(one.start_us for one in wanted)


@pytest.mark.parametrize(("start_us", "end_us"), [(-5, 1), (0, 1), (SECOND, SECOND + 1), (2 * SECOND - 1, 9 * SECOND)])
def test_the_longest_chunk_is_found_by_any_part_of_it(conn: Connection, start_us: int, end_us: int) -> None:
    put = audio.put(conn, chunk(SOURCES[0], START_US))
    assert put.duration_us == audio.LONGEST_US
    assert audio.between(conn, SOURCES[0], START_US + start_us, START_US + end_us) == [put]
    assert audio.between(conn, SOURCES[0], START_US + 2 * SECOND, START_US + 3 * SECOND) == []
    assert audio.between(conn, SOURCES[0], START_US - SECOND, START_US) == []


def test_totals_follow_from_what_was_stored_and_dropped(conn: Connection) -> None:
    for n in range(6):
        audio.put(
            conn, chunk(SOURCES[n % 2], START_US + n * 2 * SECOND, ChunkKind.SILENCE if n % 3 else ChunkKind.HEARD)
        )
    sources.advance(conn, SOURCES[0], heard_until_us=START_US, lost_frames=7, dropped_bytes=11, dropped_us=13)
    assert audio.totals(conn) == {
        "bytes": 6 * SIZE, "heard_bytes": 2 * SIZE, "silence_bytes": 4 * SIZE, "dropped_bytes": 11, "lost_frames": 7
    }  # fmt: skip
    assert audio.drop_silence(conn, START_US + 100 * SECOND) == (4, 4 * SIZE)
    assert audio.totals(conn) == {
        "bytes": 2 * SIZE, "heard_bytes": 2 * SIZE, "silence_bytes": 0, "dropped_bytes": 4 * SIZE + 11, "lost_frames": 7
    }  # fmt: skip
    rows = [sources.get(conn, source_id) for source_id in SOURCES]
    assert [row.audio_bytes for row in rows] == [SIZE, SIZE]
    assert sum(row.dropped_us for row in rows) == 4 * 2 * SECOND + 13


def test_dropping_goes_from_the_oldest_in_bounded_steps_and_leaves_what_was_heard(conn: Connection) -> None:
    for n in range(5):
        audio.put(conn, chunk(SOURCES[0], START_US + n * 2 * SECOND, ChunkKind.SILENCE))
    audio.put(conn, chunk(SOURCES[0], START_US - 2 * SECOND))
    assert audio.drop_silence(conn, START_US + 8 * SECOND, limit=3) == (3, 3 * SIZE)
    assert audio.drop_silence(conn, START_US + 8 * SECOND, limit=3) == (1, SIZE)
    assert audio.drop_silence(conn, START_US + 8 * SECOND, limit=3) == (0, 0)
    left = audio.between(conn, SOURCES[0], 0, 1 << 60)
    assert [one.start_us - START_US for one in left] == [-2 * SECOND, 8 * SECOND]


def test_totals_of_an_empty_vault_are_nothing(conn: Connection) -> None:
    assert set(audio.totals(conn).values()) == {0}


# --- sources ------------------------------------------------------------------------------------------------------


def test_a_source_knows_how_far_it_was_heard(conn: Connection) -> None:
    row = sources.get(conn, SOURCES[0])
    assert (row.kind, row.heard_until_us, row.first_us, row.ended_us, row.time_known) == (
        "pendant",
        None,
        None,
        None,
        True,
    )
    audio.put(conn, chunk(SOURCES[0], START_US + 5))
    audio.put(conn, chunk(SOURCES[0], START_US))  # late audio is older
    sources.advance(conn, SOURCES[0], heard_until_us=50, lost_frames=2)
    sources.advance(conn, SOURCES[0], heard_until_us=40, lost_frames=3)
    sources.set_ended(conn, SOURCES[0], 60)
    row = sources.get(conn, SOURCES[0])
    assert (row.first_us, row.heard_until_us, row.lost_frames, row.ended_us) == (START_US, 50, 5, 60)


def test_sources_are_found_by_device_and_listed_newest_first(conn: Connection) -> None:
    found = sources.for_device(conn, "AA:BB")
    assert found is not None
    assert found.id == SOURCES[0]
    assert sources.for_device(conn, "CC:DD") is None
    assert [row.id for row in sources.list_all(conn)] == [SOURCES[1], SOURCES[0]]
    with pytest.raises(NotFound):
        sources.get(conn, "src_other")
