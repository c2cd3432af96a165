"""The audit: one row for every act on content; rows are never changed and never deleted."""

from __future__ import annotations

import msgspec

from omi_edge.store.connection import Connection


class AuditEntry(msgspec.Struct, frozen=True):
    """Who did what to which things, and how it ended."""

    actor: str
    """``uid:1000``, ``client:NAME``, ``daemon``."""
    role: str
    act: str
    ids: tuple[str, ...] = ()
    outcome: str = "done"
    count: int = 0
    """How many things, where ``ids`` names only the first."""
    request_id: str | None = None


class AuditRow(msgspec.Struct, frozen=True):
    """A stored entry."""

    id: int
    at_us: int
    entry: AuditEntry


def append(conn: Connection, entry: AuditEntry, now_us: int) -> int:
    """Write an entry; return its number. Durable with the transaction it is part of."""
    cursor = conn.execute(
        "INSERT INTO audit (at_us, actor, role, act, ids, outcome, count, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            now_us, entry.actor, entry.role, entry.act, msgspec.json.encode(entry.ids).decode(), entry.outcome,
            entry.count, entry.request_id,
        ),
    )  # fmt: skip
    return int(cursor.lastrowid)


def recent(conn: Connection, limit: int = 100) -> list[AuditRow]:
    """Return the newest entries, the newest first."""
    rows = conn.execute(
        "SELECT id, at_us, actor, role, act, ids, outcome, count, request_id FROM audit ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [
        AuditRow(
            number,
            at_us,
            AuditEntry(actor, role, act, msgspec.json.decode(ids, type=tuple[str, ...]), outcome, count, key),
        )
        for number, at_us, actor, role, act, ids, outcome, count, key in rows
    ]
