"""Conversations: consecutive speech of one source, and what was understood of it."""

from __future__ import annotations

import msgspec

from omi_edge.domain import ConversationState
from omi_edge.errors import NotFound
from omi_edge.ids import new_id
from omi_edge.store import sources
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Clauses, Filters, Page, check_limit, encode_cursor

_SELECT = (
    "SELECT c.id, o.id, o.name, o.kind, o.device_id, o.client_id, c.state, c.started_us, c.ended_us, c.created_us,"
    " c.finished_us, c.closed_by, c.title, c.overview, c.category, c.emoji, c.extractor, c.version_id, c.n"
    " FROM conversations c JOIN sources o ON o.n = c.source_n"
)


class ConversationRow(msgspec.Struct, frozen=True):
    """One conversation."""

    id: str
    source_id: str
    source_name: str
    source_kind: str
    device_id: str | None
    client_id: str | None
    state: ConversationState
    started_us: int
    ended_us: int
    created_us: int
    finished_us: int | None
    closed_by: str | None
    """silence, hand or length; None while open."""
    title: str
    overview: str
    category: str
    emoji: str
    extractor: str
    version_id: str | None
    """Active version of the transcript."""


def create(
    conn: Connection, *, id: str, source_id: str, started_us: int, ended_us: int, now_us: int
) -> ConversationRow:
    """Begin a conversation, with an empty live version of its transcript."""
    version_id = new_id("ver", now_us)
    cursor = conn.execute(
        "INSERT INTO conversations (id, source_n, state, started_us, ended_us, created_us, version_id)"
        " VALUES (?, ?, 'open', ?, ?, ?, ?)",
        (id, sources.number(conn, source_id), started_us, ended_us, now_us, version_id),
    )
    conn.execute(
        "INSERT INTO transcript_versions (id, conversation_n, kind, engine, created_us) VALUES (?, ?, 'live', '', ?)",
        (version_id, cursor.lastrowid, now_us),
    )
    return get(conn, id)


def get(conn: Connection, conversation_id: str) -> ConversationRow:
    """Return a conversation. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE c.id = ?", (conversation_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such conversation.")
    return _row(row)


def number(conn: Connection, conversation_id: str) -> int:
    """Return the conversation's number inside the file. Raises NotFound."""
    row = conn.execute("SELECT n FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such conversation.")
    return int(row[0])


def near(conn: Connection, source_id: str, start_us: int, end_us: int, silence_us: int) -> list[ConversationRow]:
    """Return the conversations of a source that lie within ``silence_us`` of [start_us, end_us].

    Looks at the last few that began before the end: conversations of one source hardly overlap.
    """
    rows = conn.execute(
        f"{_SELECT} WHERE c.source_n = ? AND c.started_us <= ? ORDER BY c.started_us DESC, c.n DESC LIMIT 20",
        (sources.number(conn, source_id), end_us + silence_us),
    )
    return [found for found in map(_row, rows) if found.ended_us + silence_us >= start_us]


def extend(conn: Connection, conversation_id: str, start_us: int, end_us: int) -> None:
    """Make a conversation reach over [start_us, end_us] as well."""
    conn.execute(
        "UPDATE conversations SET started_us = min(started_us, ?), ended_us = max(ended_us, ?) WHERE id = ?",
        (start_us, end_us, conversation_id),
    )


def open_ones(conn: Connection) -> list[ConversationRow]:
    """Return the conversations that have not ended."""
    rows = conn.execute(f"{_SELECT} WHERE c.state <> 'completed' AND c.state = 'open'")
    return [_row(row) for row in rows]


def set_state(
    conn: Connection,
    conversation_id: str,
    state: ConversationState,
    *,
    closed_by: str | None = None,
    finished_us: int | None = None,
) -> None:
    """Note where a conversation stands."""
    conn.execute(
        "UPDATE conversations SET state = ?, closed_by = ?, finished_us = ? WHERE id = ?",
        (state.value, closed_by, finished_us, conversation_id),
    )


def set_understanding(
    conn: Connection, conversation_id: str, *, title: str, overview: str, category: str, emoji: str, extractor: str
) -> None:
    """Note what was understood."""
    conn.execute(
        "UPDATE conversations SET title = ?, overview = ?, category = ?, emoji = ?, extractor = ? WHERE id = ?",
        (title, overview, category, emoji, extractor, conversation_id),
    )


def listing(
    conn: Connection, *, filters: Filters = Filters(), limit: int = 50, cursor: str | None = None  # noqa: B008 frozen
) -> Page[ConversationRow]:  # fmt: skip
    """Return a page of conversations, the newest first. Raises BadInput for a cursor or limit that cannot be."""
    check_limit(limit)
    clauses = Clauses()
    clauses.add_source("c.source_n", filters)
    clauses.add_times("c.started_us", filters)
    clauses.add_cursor("c.started_us, c.n", cursor)
    if filters.conversation is not None:
        clauses.add("c.id = ?", filters.conversation)
    if filters.speaker is not None:
        clauses.add(
            "EXISTS (SELECT 1 FROM transcript_versions v JOIN utterances u ON u.version_n = v.n"
            " WHERE v.id = c.version_id AND u.speaker = ?)",
            filters.speaker,
        )
    rows = conn.execute(
        f"{_SELECT} {clauses.where()} ORDER BY c.started_us DESC, c.n DESC LIMIT ?", (*clauses.values, limit + 1)
    ).fetchall()
    items = [_row(row) for row in rows[:limit]]
    more = encode_cursor(items[-1].started_us, rows[limit - 1][-1]) if len(rows) > limit else None
    return Page(items, more)


def ids_between(conn: Connection, since_us: int, until_us: int) -> list[str]:
    """Return the conversations that are complete and began in [since_us, until_us), the oldest first."""
    rows = conn.execute(
        "SELECT id FROM conversations WHERE started_us >= ? AND started_us < ? AND state = 'completed'"
        " ORDER BY started_us, n",
        (since_us, until_us),
    )
    return [row[0] for row in rows]


def ids_of_source(conn: Connection, source_id: str) -> list[tuple[str, str]]:
    """Return id and state of a source's newest thousand conversations, in order of time."""
    rows = conn.execute(
        "SELECT id, state FROM conversations WHERE source_n = ? ORDER BY started_us DESC, n DESC LIMIT 1000",
        (sources.number(conn, source_id),),
    ).fetchall()
    return [(row[0], row[1]) for row in reversed(rows)]


def _row(row: tuple[object, ...]) -> ConversationRow:
    return msgspec.convert(dict(zip(ConversationRow.__struct_fields__, row[:-1], strict=True)), ConversationRow)
