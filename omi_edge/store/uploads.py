"""Recordings that were sent in for a conversation: each a source of its own beside the one it was heard through.

An upload is stored as it comes, still encoded, in pieces of one length. Once its audio is in its source the pieces are
removed. Deleting a conversation deletes its uploads, and each of these its source (a trigger).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from omi_edge.domain import Codec, Utterance
from omi_edge.errors import NotFound
from omi_edge.ids import new_id
from omi_edge.store import conversations, sources, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.segments import SegmentRow

PIECE_BYTES = 256 * 1024
"""Every piece but the last is so long: one transaction each, and the most that is read at once. A choice."""
CODEC = Codec.OPUS_20MS
"""Its audio is kept as a recording's is."""
KIND = "upload"
"""Of its source."""
_COLUMNS = "u.n, u.id, c.id, s.id, u.state, u.size, u.start_us, u.covers_from_us, u.covers_to_us, u.created_us"
_SELECT = (
    f"SELECT {_COLUMNS} FROM uploads u JOIN conversations c ON c.n = u.conversation_n"
    " JOIN sources s ON s.n = u.source_n"
)


class UploadRow(msgspec.Struct, frozen=True):
    """One recording that was sent in."""

    n: int
    id: str
    conversation_id: str
    source_id: str
    state: str
    """receiving, stored (whole, still encoded) or heard (its audio is in its source)."""
    size: int
    """Bytes that came."""
    start_us: int
    """Where on the timeline it lies."""
    covers_from_us: int
    """The time that it speaks for: what was heard then by the conversation's own source is not shown beside it,"""
    covers_to_us: int
    """to just before here."""
    created_us: int


def begin(
    conn: Connection, conversation_id: str, *, name: str, start_us: int | None, client_id: str | None, now_us: int
) -> UploadRow:
    """Register a recording to come. Without ``start_us`` it begins with its conversation, and speaks for all of it."""
    row = conversations.get(conn, conversation_id)
    at_us = row.started_us if start_us is None else start_us
    source = sources.add(
        conn, id=new_id("src", now_us), kind=KIND, name=name, device_id=None, client_id=client_id, codec=CODEC,
        created_us=now_us, time_known=start_us is not None, first_us=at_us,
    )  # fmt: skip
    covered = (row.started_us, row.ended_us) if start_us is None else (at_us, at_us)
    upload_id = new_id("upl", now_us)
    conn.execute(
        "INSERT INTO uploads (id, conversation_n, source_n, state, start_us, covers_from_us, covers_to_us, created_us)"
        " VALUES (?, ?, ?, 'receiving', ?, ?, ?, ?)",
        (
            upload_id, conversations.number(conn, conversation_id), sources.number(conn, source.id), at_us, *covered,
            now_us,
        ),
    )  # fmt: skip
    return get(conn, upload_id)


def get(conn: Connection, upload_id: str) -> UploadRow:
    """Return an upload. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE u.id = ?", (upload_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such upload.")
    return UploadRow(*row)


def put_piece(conn: Connection, row: UploadRow, data: bytes) -> None:
    """Store what comes next. All but the last are PIECE_BYTES long. Raises NotFound when its conversation is gone."""
    if not conn.execute("UPDATE uploads SET size = size + ? WHERE n = ?", (len(data), row.n)).rowcount:
        raise NotFound("the conversation that it was sent in for is gone.")
    conn.execute(
        "INSERT INTO upload_pieces (upload_n, at, raw) SELECT n, size - ?, ? FROM uploads WHERE n = ?",
        (len(data), data, row.n),
    )


def stored(conn: Connection, row: UploadRow) -> None:
    """Note that all of it came."""
    conn.execute("UPDATE uploads SET state = 'stored' WHERE n = ?", (row.n,))


def read(conn: Connection, row: UploadRow, offset: int, size: int) -> bytes:
    """Return up to ``size`` of its bytes from ``offset``, within one piece; none behind the end."""
    at = offset // PIECE_BYTES * PIECE_BYTES
    found = conn.execute("SELECT raw FROM upload_pieces WHERE upload_n = ? AND at = ?", (row.n, at)).fetchone()
    return b"" if found is None else bytes(found[0][offset - at : offset - at + size])


def begin_to_hear(conn: Connection, row: UploadRow) -> None:
    """Throw away what was made of it before, when that was broken off."""
    source_n = sources.number(conn, row.source_id)
    conn.execute("DELETE FROM segments WHERE source_n = ?", (source_n,))
    conn.execute("DELETE FROM audio_chunks WHERE source_n = ?", (source_n,))
    conn.execute(
        "UPDATE sources SET audio_bytes = 0, silence_bytes = 0, dropped_bytes = 0, dropped_us = 0,"
        " heard_until_us = NULL WHERE n = ?",
        (source_n,),
    )


def heard(conn: Connection, row: UploadRow, end_us: int, now_us: int) -> None:
    """Note that all of its audio, which ends at ``end_us``, is in its source; what came is needed no more."""
    conn.execute("UPDATE uploads SET state = 'heard', covers_to_us = max(covers_to_us, ?) WHERE n = ?", (end_us, row.n))
    conn.execute("DELETE FROM upload_pieces WHERE upload_n = ?", (row.n,))
    sources.set_ended(conn, row.source_id, now_us)


def receiving(conn: Connection, conversation_id: str) -> str | None:
    """Return the upload that is coming for a conversation."""
    row = conn.execute(
        "SELECT id FROM uploads WHERE conversation_n = ? AND state = 'receiving'",
        (conversations.number(conn, conversation_id),),
    ).fetchone()
    return None if row is None else str(row[0])


def latest(conn: Connection, conversation_id: str) -> UploadRow | None:
    """Return what was last sent in for a conversation and is whole."""
    row = conn.execute(
        f"{_SELECT} WHERE u.conversation_n = ? AND u.state <> 'receiving' ORDER BY u.n DESC LIMIT 1",
        (conversations.number(conn, conversation_id),),
    ).fetchone()
    return None if row is None else UploadRow(*row)


def of_version(conn: Connection, version_id: str) -> UploadRow | None:
    """Return the upload whose words a version of a transcript shows; None for one of the conversation's own audio."""
    row = conn.execute(
        f"{_SELECT} WHERE u.n = (SELECT upload_n FROM transcript_versions WHERE id = ?)", (version_id,)
    ).fetchone()
    return None if row is None else UploadRow(*row)


def spoken(conn: Connection, row: UploadRow) -> list[SegmentRow]:
    """Return its speech, in order of time. It belongs to no conversation of its own."""
    rows = conn.execute(
        "SELECT id, start_us, end_us, speech_us, outcome, reason, engine FROM segments WHERE source_n = ?"
        " ORDER BY start_us",
        (sources.number(conn, row.source_id),),
    )
    return [
        msgspec.convert(
            {
                "segment": {"id": one[0], "source_id": row.source_id, "start_us": one[1], "end_us": one[2],
                            "speech_us": one[3]},
                "outcome": one[4], "reason": one[5], "engine": one[6], "conversation_id": None,
            },
            SegmentRow,
        )
        for one in rows
    ]  # fmt: skip


def beside(conn: Connection, version_id: str) -> dict[str, list[Utterance]]:
    """Return what is shown with a recording's version before and after the time that it speaks for, by segment.

    That is what its base says there, and what was heard live of segments that came later. A segment that reaches into
    that time is left out whole.
    """
    row = of_version(conn, version_id)
    if row is None:
        return {}
    live_id = transcripts.live_version(conn, row.conversation_id)
    base_id = transcripts.version(conn, row.conversation_id, version_id).base_id or live_id
    its_own = {one.segment.id for one in spoken(conn, row)}
    shown = _by_segment(transcripts.utterances(conn, row.conversation_id, base_id))
    found = {
        segment_id: parts
        for segment_id, parts in shown.items()
        if segment_id not in its_own and not _within(parts, (row.covers_from_us, row.covers_to_us))
    }
    covered = [(one.covers_from_us, one.covers_to_us) for one in (row, *_below(conn, row.conversation_id, base_id))]
    late = {
        segment_id: parts
        for segment_id, parts in _by_segment(transcripts.utterances(conn, row.conversation_id, live_id)).items()
        if segment_id not in shown and not any(_within(parts, stretch) for stretch in covered)
    }
    return found | late


def of_source(conn: Connection, conversation_id: str, source_id: str) -> UploadRow | None:
    """Return the recording of a conversation whose audio is in a source; None for any other."""
    row = conn.execute(
        f"{_SELECT} WHERE u.conversation_n = ? AND s.id = ?",
        (conversations.number(conn, conversation_id), source_id),
    ).fetchone()
    return None if row is None else UploadRow(*row)


def said_in(conn: Connection, utterance_id: str) -> str | None:
    """Return the source of the recording in which an utterance was said; None where it was the conversation's own."""
    row = conn.execute(
        "SELECT s.id FROM utterances t JOIN segments g ON g.id = t.segment_id JOIN sources s ON s.n = g.source_n"
        " WHERE t.id = ? AND s.kind = ?",
        (utterance_id, KIND),
    ).fetchone()
    return None if row is None else str(row[0])


def _below(conn: Connection, conversation_id: str, base_id: str) -> list[UploadRow]:
    """Return the recordings whose words a version shows, and those below them: each speaks for its own time."""
    found: list[UploadRow] = []
    at: str | None = base_id
    while at is not None:
        words_id = transcripts.lineage(conn, conversation_id, at)[-1]
        upload = of_version(conn, words_id)
        if upload is None:
            break
        found.append(upload)
        at = transcripts.version(conn, conversation_id, words_id).base_id
    return found


def _by_segment(said: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    found: dict[str, list[Utterance]] = {}
    for one in said:
        found.setdefault(one.segment_id, []).append(one)
    return found


def _within(parts: Sequence[Utterance], covered: tuple[int, int]) -> bool:
    """Say whether what was said in a segment reaches into a stretch of time."""
    return max(one.end_us for one in parts) > covered[0] and parts[0].start_us < covered[1]


def remove(conn: Connection, upload_id: str) -> None:
    """Remove what came, its audio and its source; one that a version of a transcript was made of stays."""
    conn.execute(
        "DELETE FROM uploads WHERE id = ? AND NOT EXISTS"
        " (SELECT 1 FROM transcript_versions v WHERE v.upload_n = uploads.n)",
        (upload_id,),
    )


def sweep(conn: Connection) -> int:
    """Remove what of uploads came before a crash; return of how many."""
    return int(conn.execute("DELETE FROM uploads WHERE state = 'receiving'").rowcount)
