"""Recordings that were taken in: into which source, how far, and by which content they are known again.

The digest that is kept is HMAC-SHA256 with a key of this vault's own over the SHA-256 of the content: it is of no use
for finding out whether a certain recording is in a vault.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

import msgspec

from omi_edge.domain import AudioChunk, Codec
from omi_edge.errors import NotFound
from omi_edge.store import audio, settings, sources
from omi_edge.store.connection import Connection

_KEY = "recordings.key"
_KEY_BYTES = 32
"""As long as the digest, as RFC 2104 §3 recommends."""
_COLUMNS = (
    "r.id, s.id, s.kind, s.time_known, r.name, r.digest, r.codec, r.start_us, r.end_us, r.left_out_us, r.created_us,"
    " r.ended_us, r.complete"
)
_FROM = "recordings r JOIN sources s ON s.n = r.source_n"
LIST_LIMIT = 1000


class RecordingRow(msgspec.Struct, frozen=True):
    """One recording, as it was taken in once."""

    id: str
    """That of its source where it has one of its own."""
    source_id: str
    source_kind: str
    time_known: bool
    name: str
    digest: bytes | None
    """Keyed; None when the sender did not tell one."""
    codec: Codec
    start_us: int
    end_us: int | None
    """Just after the last frame that was taken, of those that were left out too; None before the first."""
    left_out_us: int
    """How much of it was not stored, because its source has audio of that time already or the owner withheld it."""
    created_us: int
    ended_us: int | None
    """When it ended or broke off; None while it is taken."""
    complete: bool

    @property
    def own_source(self) -> bool:
        """Whether its source holds nothing else."""
        return self.id == self.source_id


def keyed(conn: Connection, content: bytes) -> bytes:
    """Return what is kept of a content's SHA-256. Makes the key at the first call: for the writer alone."""
    key = settings.get(conn, _KEY)
    if key is None:
        key = secrets.token_hex(_KEY_BYTES)
        settings.put(conn, _KEY, key)
    return hmac.new(bytes.fromhex(key), content, hashlib.sha256).digest()


def add(
    conn: Connection,
    *,
    id: str,
    source_id: str,
    name: str,
    digest: bytes | None,
    codec: Codec,
    start_us: int,
    now_us: int,
) -> RecordingRow:
    """Note a recording that is to be taken."""
    conn.execute(
        "INSERT INTO recordings (id, source_n, name, digest, codec, start_us, created_us) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (id, sources.number(conn, source_id), name, digest, int(codec), start_us, now_us),
    )
    return get(conn, id)


def get(conn: Connection, recording_id: str) -> RecordingRow:
    """Return a recording. Raises NotFound."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM {_FROM} WHERE r.id = ?", (recording_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such recording.")
    return _row(row)


def known(conn: Connection, digest: bytes) -> RecordingRow | None:
    """Return the recording of this content: one that is whole, else the one that was begun last; None for none."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE r.digest = ? ORDER BY r.complete DESC, r.n DESC LIMIT 1", (digest,)
    ).fetchone()
    return _row(row) if row is not None else None


def reopen(conn: Connection, recording_id: str) -> RecordingRow:
    """Go on with a recording that had broken off."""
    conn.execute("UPDATE recordings SET ended_us = NULL WHERE id = ?", (recording_id,))
    row = get(conn, recording_id)
    if row.own_source:
        conn.execute("UPDATE sources SET ended_us = NULL WHERE id = ?", (row.source_id,))
    return row


def end(
    conn: Connection, recording_id: str, *, end_us: int | None, left_out_us: int, complete: bool, now_us: int
) -> RecordingRow:
    """Note that nothing more comes, and whether that was all of it."""
    conn.execute(
        "UPDATE recordings SET end_us = coalesce(?, end_us), left_out_us = left_out_us + ?, complete = ?, ended_us = ?"
        " WHERE id = ?",
        (end_us, left_out_us, int(complete), now_us, recording_id),
    )
    row = get(conn, recording_id)
    if row.own_source:
        sources.set_ended(conn, row.source_id, now_us)
    return row


def unfinished(conn: Connection) -> list[RecordingRow]:
    """Return the recordings whose end was never noted: the program was killed while it took them in."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM {_FROM} WHERE r.ended_us IS NULL ORDER BY r.n LIMIT {LIST_LIMIT}")
    return [_row(row) for row in rows]


def rewind(conn: Connection, recording: RecordingRow) -> int:
    """Throw away what a source of its own holds after its last whole segment; return where to go on, in UTC.

    A kill leaves audio behind whose segment was still open: it is taken anew, so that it is neither there twice nor
    without words.
    """
    source_n = sources.number(conn, recording.source_id)
    last_us = conn.execute("SELECT max(end_us) FROM segments WHERE source_n = ?", (source_n,)).fetchone()[0]
    frame_us = recording.codec.frame_us
    from_us = recording.start_us + max(0, (last_us or 0) - recording.start_us) // frame_us * frame_us
    for chunk in audio.between(conn, recording.source_id, from_us, 1 << 62):
        _take_back(conn, source_n, chunk)
        kept = chunk.packets[: max(0, from_us - chunk.start_us) // chunk.codec.frame_us]
        if kept:
            audio.put(conn, msgspec.structs.replace(chunk, packets=kept, id=0))
    return from_us


def heard_until_us(conn: Connection, recording: RecordingRow) -> int:
    """Return how far a source of its own was heard."""
    return sources.get(conn, recording.source_id).heard_until_us or recording.start_us


def taken_spans(conn: Connection, source_id: str, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """Return the stretches of [start_us, end_us) of which a source holds audio, in order, joined where they touch."""
    rows = conn.execute(
        "SELECT start_us, start_us + duration_us FROM audio_chunks WHERE source_n = ? AND start_us > ?"
        " AND start_us < ? AND start_us + duration_us > ? ORDER BY start_us",
        (sources.number(conn, source_id), start_us - audio.LONGEST_US, end_us, start_us),
    )
    spans: list[tuple[int, int]] = []
    for begin, finish in rows:
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], finish))
        else:
            spans.append((begin, finish))
    return spans


def progress(conn: Connection, recording: RecordingRow) -> tuple[int, int, list[str]]:
    """Return how many jobs of a recording in a shared source are left, how many failed, and its conversations.

    A conversation that goes on after the recording's end is not waited for.
    """
    source_n = sources.number(conn, recording.source_id)
    end_us = recording.end_us or recording.start_us
    left = conn.execute(
        "SELECT count(*) FROM segments WHERE source_n = ? AND outcome = 'pending' AND start_us >= ? AND start_us < ?",
        (source_n, recording.start_us, end_us),
    ).fetchone()[0]
    found = conn.execute(
        "SELECT id, state, ended_us FROM conversations WHERE source_n = ? AND started_us < ? AND ended_us > ?"
        f" ORDER BY started_us, n LIMIT {LIST_LIMIT}",
        (source_n, end_us, recording.start_us),
    ).fetchall()
    failed = 0
    for conversation_id, state, ended_us in found:
        left += state != "completed" and ended_us <= end_us
        failed += conn.execute(
            "SELECT count(*) FROM jobs WHERE stage IN ('diarize', 'assemble', 'extract', 'embed') AND subject_id = ?"
            " AND state = 'failed'",
            (conversation_id,),
        ).fetchone()[0]
    return left, failed, [row[0] for row in found]


def _take_back(conn: Connection, source_n: int, chunk: AudioChunk) -> None:
    size = sum(map(len, chunk.packets))
    conn.execute("DELETE FROM audio_chunks WHERE id = ?", (chunk.id,))
    conn.execute(
        "UPDATE sources SET audio_bytes = audio_bytes - ?, silence_bytes = silence_bytes - ? WHERE n = ?",
        (size, size if chunk.kind.value == "silence" else 0, source_n),
    )


def _row(row: tuple[Any, ...]) -> RecordingRow:
    return msgspec.convert(dict(zip(RecordingRow.__struct_fields__, row, strict=True)), RecordingRow, strict=False)
