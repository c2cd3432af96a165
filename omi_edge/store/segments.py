"""Speech segments: what was transcribed, and what became of each."""

from __future__ import annotations

import msgspec

from omi_edge.domain import Outcome, SpeechSegment
from omi_edge.errors import NotFound
from omi_edge.store import sources
from omi_edge.store.connection import Connection

_SELECT = (
    "SELECT s.id, o.id, s.start_us, s.end_us, s.speech_us, s.outcome, s.reason, s.engine, c.id FROM segments s"
    " JOIN sources o ON o.n = s.source_n LEFT JOIN conversations c ON c.n = s.conversation_n"
)


class SegmentRow(msgspec.Struct, frozen=True):
    """A segment and its outcome."""

    segment: SpeechSegment
    outcome: Outcome
    reason: str | None
    engine: str | None
    conversation_id: str | None


def put(conn: Connection, segment: SpeechSegment) -> None:
    """Store a segment that nobody has heard yet."""
    conn.execute(
        "INSERT INTO segments (id, source_n, start_us, end_us, speech_us, outcome) VALUES (?, ?, ?, ?, ?, 'pending')",
        (
            segment.id,
            sources.number(conn, segment.source_id),
            segment.start_us,
            segment.end_us,
            segment.speech_us,
        ),
    )


def get(conn: Connection, segment_id: str) -> SegmentRow:
    """Return a segment. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE s.id = ?", (segment_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such segment.")
    return _row(row)


def of_conversation(conn: Connection, conversation_id: str) -> list[SegmentRow]:
    """Return the segments of a conversation in order of time."""
    rows = conn.execute(
        f"{_SELECT} WHERE s.conversation_n = (SELECT n FROM conversations WHERE id = ?) ORDER BY s.start_us",
        (conversation_id,),
    )
    return [_row(row) for row in rows]


def settle(
    conn: Connection,
    segment_id: str,
    *,
    outcome: Outcome,
    reason: str | None,
    engine: str | None,
    conversation_id: str | None,
) -> None:
    """Note what became of a segment."""
    conn.execute(
        "UPDATE segments SET outcome = ?, reason = ?, engine = ?,"
        " conversation_n = (SELECT n FROM conversations WHERE id = ?) WHERE id = ?",
        (outcome.value, reason, engine, conversation_id, segment_id),
    )


def pending_before(conn: Connection, source_id: str, until_us: int) -> bool:
    """Say whether a segment of the source that starts before ``until_us`` still waits for its words."""
    row = conn.execute(
        "SELECT 1 FROM segments WHERE source_n = ? AND outcome = 'pending' AND start_us < ? LIMIT 1",
        (sources.number(conn, source_id), until_us),
    ).fetchone()
    return row is not None


def _row(row: tuple[object, ...]) -> SegmentRow:
    segment_id, source_id, start_us, end_us, speech_us, outcome, reason, engine, conversation_id = row
    return msgspec.convert(
        {
            "segment": {
                "id": segment_id, "source_id": source_id, "start_us": start_us, "end_us": end_us, "speech_us": speech_us
            },
            "outcome": outcome,
            "reason": reason,
            "engine": engine,
            "conversation_id": conversation_id,
        },
        SegmentRow,
    )  # fmt: skip
