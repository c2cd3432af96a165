"""Audio chunks: the pendant's own packets, at most two seconds a row."""

from __future__ import annotations

import msgspec

from omi_edge.domain import AudioChunk, ChunkKind, Codec
from omi_edge.store import sources
from omi_edge.store.connection import Connection

_KINDS = (ChunkKind.HEARD, ChunkKind.SILENCE)
LONGEST_US = 2_000_000
"""No chunk is longer, so one that reaches into a span begins at most this long before it."""


def put(conn: Connection, chunk: AudioChunk) -> AudioChunk:
    """Store a chunk and count its bytes; return it with its id."""
    size = sum(map(len, chunk.packets))
    silence = chunk.kind is ChunkKind.SILENCE
    source_n = sources.number(conn, chunk.source_id)
    cursor = conn.execute(
        "INSERT INTO audio_chunks (source_n, start_us, duration_us, codec, kind, lost, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            source_n,
            chunk.start_us,
            chunk.duration_us,
            int(chunk.codec),
            _KINDS.index(chunk.kind),
            chunk.lost,
            msgspec.msgpack.encode(chunk.packets),
        ),
    )
    conn.execute(
        "UPDATE sources SET audio_bytes = audio_bytes + ?, silence_bytes = silence_bytes + ?,"
        " first_us = min(coalesce(first_us, ?), ?) WHERE n = ?",
        (size, size if silence else 0, chunk.start_us, chunk.start_us, source_n),
    )
    return msgspec.structs.replace(chunk, id=int(cursor.lastrowid))


def between(conn: Connection, source_id: str, start_us: int, end_us: int, *, silence: bool = True) -> list[AudioChunk]:
    """Return every chunk that reaches into [start_us, end_us), in order of time."""
    rows = conn.execute(
        "SELECT c.id, c.start_us, c.codec, c.kind, c.data FROM audio_chunks c WHERE c.source_n = ? AND c.start_us > ?"
        " AND c.start_us < ? AND c.start_us + c.duration_us > ? ORDER BY c.start_us",
        (sources.number(conn, source_id), start_us - LONGEST_US, end_us, start_us),
    )
    return [
        AudioChunk(
            source_id, start, Codec(codec), msgspec.msgpack.decode(data, type=tuple[bytes, ...]), _KINDS[kind], number
        )
        for number, start, codec, kind, data in rows
        if silence or _KINDS[kind] is ChunkKind.HEARD
    ]


def kept_us(conn: Connection, source_id: str, start_us: int, end_us: int) -> int:
    """Return how much of [start_us, end_us) is stored."""
    row = conn.execute(
        "SELECT total(min(start_us + duration_us, ?) - max(start_us, ?)) FROM audio_chunks WHERE source_n = ?"
        " AND start_us > ? AND start_us < ? AND start_us + duration_us > ?",
        (end_us, start_us, sources.number(conn, source_id), start_us - LONGEST_US, end_us, start_us),
    ).fetchone()
    return int(row[0])


def drop_silence(conn: Connection, before_us: int, limit: int = 500) -> tuple[int, int]:
    """Delete chunks of silence that began before ``before_us``; return how many, and their bytes."""
    rows = conn.execute(
        "SELECT id, source_n, duration_us, data FROM audio_chunks WHERE kind = 1 AND start_us < ?"
        " ORDER BY start_us LIMIT ?",
        (before_us, limit),
    ).fetchall()
    freed = 0
    for number, source_n, duration_us, data in rows:
        size = sum(map(len, msgspec.msgpack.decode(data, type=tuple[bytes, ...])))
        freed += size
        conn.execute("DELETE FROM audio_chunks WHERE id = ?", (number,))
        conn.execute(
            "UPDATE sources SET audio_bytes = audio_bytes - ?, silence_bytes = silence_bytes - ?,"
            " dropped_bytes = dropped_bytes + ?, dropped_us = dropped_us + ? WHERE n = ?",
            (size, size, size, duration_us, source_n),
        )
    return len(rows), freed


def totals(conn: Connection) -> dict[str, int]:
    """Return bytes of packets by what became of them, and lost frames; from the counters of the sources."""
    row = conn.execute(
        "SELECT total(audio_bytes), total(silence_bytes), total(dropped_bytes), total(lost_frames) FROM sources"
    ).fetchone()
    stored, silence, dropped, lost = (int(value) for value in row)
    return {
        "bytes": stored,
        "heard_bytes": stored - silence,
        "silence_bytes": silence,
        "dropped_bytes": dropped,
        "lost_frames": lost,
    }
