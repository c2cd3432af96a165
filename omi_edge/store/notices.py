"""Notices: what the owner should know, folded by code and subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from omi_edge.domain import Notice, Severity
from omi_edge.errors import NotFound
from omi_edge.ids import new_id
from omi_edge.store.connection import Connection

_COLUMNS = "id, code, severity, subjects, message, since_us, last_us, count, acknowledged_us"
LIST_LIMIT = 500


def raise_notice(
    conn: Connection, *, code: str, severity: Severity, subject_ids: Sequence[str], message: str, now_us: int
) -> Notice:
    """Raise a notice, or count it once more when it stands already."""
    subjects = _subjects(subject_ids)
    known = conn.execute(
        "SELECT id FROM notices WHERE code = ? AND subjects = ? AND cleared_us IS NULL", (code, subjects)
    ).fetchone()
    if known is not None:
        conn.execute(
            "UPDATE notices SET last_us = ?, count = count + 1, message = ?, severity = ? WHERE id = ?",
            (now_us, message, severity.value, known[0]),
        )
        return get(conn, known[0])
    notice_id = new_id("ntc", now_us)
    conn.execute(
        "INSERT INTO notices (id, code, severity, subjects, message, since_us, last_us, count)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
        (notice_id, code, severity.value, subjects, message, now_us, now_us),
    )
    return get(conn, notice_id)


def clear(conn: Connection, code: str, subject_ids: Sequence[str], now_us: int = 0) -> None:
    """Note that the reason is gone; harmless when there was none."""
    conn.execute(
        "UPDATE notices SET cleared_us = ? WHERE code = ? AND subjects = ? AND cleared_us IS NULL",
        (now_us, code, _subjects(subject_ids)),
    )


def get(conn: Connection, notice_id: str) -> Notice:
    """Return a notice. Raises NotFound."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM notices WHERE id = ?", (notice_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such notice.")
    return _notice(row)


def active(conn: Connection) -> list[Notice]:
    """Return the notices that stand, the oldest first; acknowledged ones as well."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM notices INDEXED BY notices_standing WHERE cleared_us IS NULL ORDER BY code, subjects"
        f" LIMIT {LIST_LIMIT}"
    )
    return sorted(map(_notice, rows), key=lambda notice: notice.since_us)


def unseen(conn: Connection, code: str) -> int:
    """Return how many notices of a code stand that nobody has acknowledged."""
    row = conn.execute(
        "SELECT count(*) FROM notices INDEXED BY notices_standing WHERE code = ? AND cleared_us IS NULL"
        " AND acknowledged_us IS NULL",
        (code,),
    ).fetchone()
    return int(row[0])


def acknowledge(conn: Connection, notice_id: str, now_us: int) -> Notice:
    """Note that somebody has seen it. Raises NotFound."""
    get(conn, notice_id)
    conn.execute("UPDATE notices SET acknowledged_us = coalesce(acknowledged_us, ?) WHERE id = ?", (now_us, notice_id))
    return get(conn, notice_id)


def _subjects(subject_ids: Sequence[str]) -> str:
    return msgspec.json.encode(sorted(subject_ids)).decode()


def _notice(row: Sequence[Any]) -> Notice:
    subjects = msgspec.json.decode(row[3], type=tuple[str, ...])
    return Notice(row[0], row[1], Severity(row[2]), subjects, row[4], row[5], row[6], row[7], row[8])
