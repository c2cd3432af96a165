"""Two sources made one: what the first holds goes into the second, in one transaction or not at all.

Rows name their source by its number, so moving them is a change of that number; audio, text and ids stay as they are. A
player and a conversation find their audio by source and time, so it is done only where the two were never heard at the
same time, and only while nothing of the first is still being worked on.
"""

from __future__ import annotations

from omi_edge.store import ledger, sources
from omi_edge.store.connection import Connection

MOST_BYTES = 64_000_000
"""Most audio that is moved: other writers wait meanwhile, and the file's journal grows by as much. More than four hours
at the pendant's 32 kbit/s (protocol dossier §7); measured on two cores of an x86-64 server: a second."""

_TABLES = ("audio_chunks", "segments", "conversations", "tasks", "memories", "jobs", "gaps", "bookmarks", "recordings")
_COUNTERS = ("lost_frames", "audio_bytes", "silence_bytes", "dropped_bytes", "dropped_us")


def move(conn: Connection, source_id: str, into_id: str, now_us: int) -> str:
    """Move what a source holds into another; return why it stays where it is, "" when it was moved. Raises NotFound.

    The source itself stays, empty and ended, so that its id still leads somewhere.
    """
    n, into = sources.number(conn, source_id), sources.number(conn, into_id)
    why = _hindrance(conn, n, into)
    if why:
        return why
    # texts have no index by source; those that have a source have a conversation
    conn.execute(
        "UPDATE documents SET source_n = ? WHERE conversation_n IN (SELECT n FROM conversations WHERE source_n = ?)",
        (into, n),
    )
    for table in _TABLES:
        conn.execute(f"UPDATE {table} SET source_n = ? WHERE source_n = ?", (into, n))
    ledger.join(conn, source_id, into_id)
    _add_up(conn, n, into)
    sources.set_ended(conn, source_id, now_us)
    return ""


def _hindrance(conn: Connection, n: int, into: int) -> str:
    working = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM segments WHERE source_n = ? AND outcome = 'pending')"
        " OR EXISTS (SELECT 1 FROM conversations WHERE state <> 'completed' AND source_n = ?)"
        " OR EXISTS (SELECT 1 FROM jobs WHERE source_n = ? AND state IN ('queued', 'running'))",
        (n, n, n),
    ).fetchone()[0]
    if working:
        return "its last conversation is not complete yet; merge it again when it is, and what it holds moves as well."
    size = conn.execute("SELECT audio_bytes FROM sources WHERE n = ?", (n,)).fetchone()[0]
    if size > MOST_BYTES:
        return f"it holds more audio than is moved at once ({MOST_BYTES // 1_000_000} MB)."
    mine, others = _extent(conn, n), _extent(conn, into)
    if mine is not None and others is not None and mine[0] < others[1] and others[0] < mine[1]:
        return "the two were heard in turns or at the same time, and their audio would mix."
    return ""


def _extent(conn: Connection, n: int) -> tuple[int, int] | None:
    """Return from when to when a source was heard, holes included; None when it never was."""
    low, high = conn.execute(
        "SELECT min(low), max(high) FROM ("
        "SELECT min(start_us) AS low, NULL AS high FROM audio_chunks WHERE source_n = ?"
        " UNION ALL SELECT min(start_us), max(end_us) FROM gaps WHERE source_n = ?"
        " UNION ALL SELECT min(started_us), max(ended_us) FROM conversations WHERE source_n = ?"
        " UNION ALL SELECT heard_until_us, heard_until_us FROM sources WHERE n = ?)",
        (n, n, n, n),
    ).fetchone()
    return None if low is None else (low, high)


def _add_up(conn: Connection, n: int, into: int) -> None:
    added = ", ".join(f"{name} = {name} + (SELECT {name} FROM sources WHERE n = ?1)" for name in _COUNTERS)
    conn.execute(
        f"UPDATE sources SET {added},"
        " first_us = (SELECT min(first_us) FROM sources WHERE n IN (?1, ?2)),"
        " heard_until_us = (SELECT max(heard_until_us) FROM sources WHERE n IN (?1, ?2)) WHERE n = ?2",
        (n, into),
    )
    emptied = ", ".join(f"{name} = 0" for name in _COUNTERS)
    conn.execute(f"UPDATE sources SET {emptied}, first_us = NULL, heard_until_us = NULL WHERE n = ?", (n,))
