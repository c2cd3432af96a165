"""Bookmarks: moments that the wearer marked. The conversation of one follows from its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from omi_edge.errors import NotFound
from omi_edge.ids import new_id
from omi_edge.store import sources
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Clauses, Filters, Page, check_limit, encode_cursor

_AFTER_US = 120_000_000
"""A mark belongs to the conversation that it follows within two minutes: the default of ``conversation.silence``."""
_SELECT = "SELECT b.id, o.id, b.at_us, b.actor, b.source_n, b.n FROM bookmarks b JOIN sources o ON o.n = b.source_n"


class BookmarkRow(msgspec.Struct, frozen=True):
    """One marked moment."""

    id: str
    source_id: str
    at_us: int
    by: str
    """Who set it: a caller of the API, or ``gesture``."""
    conversation_id: str | None
    """What was being said; None when nothing was."""


def add(conn: Connection, *, source_id: str, at_us: int, by: str) -> BookmarkRow:
    """Mark a moment of a source. Raises NotFound."""
    bookmark_id = new_id("bkm", at_us)
    conn.execute(
        "INSERT INTO bookmarks (id, source_n, at_us, actor) VALUES (?, ?, ?, ?)",
        (bookmark_id, sources.number(conn, source_id), at_us, by),
    )
    return get(conn, bookmark_id)


def get(conn: Connection, bookmark_id: str) -> BookmarkRow:
    """Return a bookmark. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE b.id = ?", (bookmark_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such bookmark.")
    return _row(conn, row)


def listed(
    conn: Connection,
    *,
    source_id: str | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[BookmarkRow]:
    """Return a page of bookmarks, the newest first. Raises BadInput for a cursor or limit that cannot be."""
    check_limit(limit)
    filters = Filters(source=source_id, since_us=since_us, until_us=until_us)
    clauses = Clauses()
    clauses.add_source("b.source_n", filters)
    clauses.add_times("b.at_us", filters)
    clauses.add_cursor("b.at_us, b.n", cursor)
    rows = conn.execute(
        f"{_SELECT} {clauses.where()} ORDER BY b.at_us DESC, b.n DESC LIMIT ?", (*clauses.values, limit + 1)
    ).fetchall()
    items = [_row(conn, row) for row in rows[:limit]]
    more = encode_cursor(items[-1].at_us, rows[limit - 1][-1]) if len(rows) > limit else None
    return Page(items, more)


def _row(conn: Connection, row: Sequence[Any]) -> BookmarkRow:
    bookmark_id, source_id, at_us, by, source_n, _ = row
    said = conn.execute(
        "SELECT id, ended_us FROM conversations WHERE source_n = ? AND started_us <= ?"
        " ORDER BY started_us DESC, n DESC LIMIT 1",
        (source_n, at_us),
    ).fetchone()
    conversation_id = said[0] if said is not None and at_us <= said[1] + _AFTER_US else None
    return BookmarkRow(bookmark_id, source_id, at_us, by, conversation_id)
