"""Gaps: stretches of a source's timeline without audio, and why. Those of one source do not overlap."""

from __future__ import annotations

import msgspec

from omi_edge.domain import Cause, Gap
from omi_edge.store import sources
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Clauses, Filters, Page, check_limit, encode_cursor

SLIVER_US = 1_000_000
"""What is left of a gap beside what filled it, when it is less, comes of a pendant's whole seconds (dossier §6.6)."""


class GapTotal(msgspec.Struct, frozen=True):
    """How much is missing for one set of causes."""

    causes: tuple[Cause, ...]
    count: int
    total_us: int
    frames: int


def put(conn: Connection, gap: Gap) -> None:
    """Store a gap; one that begins where a stored one does takes its place. Raises NotFound for its source."""
    conn.execute(
        "INSERT INTO gaps (source_n, start_us, end_us, causes, frames) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (source_n, start_us) DO UPDATE SET end_us = excluded.end_us, causes = excluded.causes,"
        " frames = excluded.frames",
        (sources.number(conn, gap.source_id), gap.start_us, gap.end_us, ",".join(gap.causes), gap.frames),
    )


def fill(conn: Connection, source_id: str, start_us: int, end_us: int) -> None:
    """Take [start, end) out of the gaps of a source: it was filled later. Slivers beside it go with it. NotFound."""
    n = sources.number(conn, source_id)
    rows = conn.execute(
        "SELECT n, start_us, end_us, causes, frames FROM gaps WHERE source_n = ? AND start_us < ? AND end_us > ?"
        " AND start_us >= coalesce((SELECT max(start_us) FROM gaps WHERE source_n = ? AND start_us <= ?), 0)",
        (n, end_us, start_us, n, start_us),
    ).fetchall()
    for number, gap_start_us, gap_end_us, causes, frames in rows:
        conn.execute("DELETE FROM gaps WHERE n = ?", (number,))
        for low_us, high_us in ((gap_start_us, start_us), (end_us, gap_end_us)):
            if high_us - low_us >= SLIVER_US:
                share = frames * (high_us - low_us) // (gap_end_us - gap_start_us)
                put(conn, Gap(source_id, low_us, high_us, _causes(causes), share))


def listed(
    conn: Connection,
    *,
    source_id: str | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Gap]:
    """Return a page of the gaps that reach into [since_us, until_us), the newest first.

    Raises BadInput for a cursor or limit that cannot be.
    """
    check_limit(limit)
    clauses = Clauses()
    clauses.add_source("g.source_n", Filters(source=source_id))
    _add_span(conn, clauses, since_us, until_us)
    clauses.add_cursor("g.start_us, g.n", cursor)
    rows = conn.execute(
        "SELECT o.id, g.start_us, g.end_us, g.causes, g.frames, g.n FROM gaps g JOIN sources o ON o.n = g.source_n"
        f" {clauses.where()} ORDER BY g.start_us DESC, g.n DESC LIMIT ?",
        (*clauses.values, limit + 1),
    ).fetchall()
    items = [Gap(source, start, end, _causes(causes), frames) for source, start, end, causes, frames, _ in rows[:limit]]
    more = encode_cursor(items[-1].start_us, rows[limit - 1][-1]) if len(rows) > limit else None
    return Page(items, more)


def totals(conn: Connection, *, source_id: str, since_us: int, until_us: int) -> list[GapTotal]:
    """Return how much of [since_us, until_us) a source misses, by its causes, the longest first."""
    clauses = Clauses()
    clauses.add("g.source_n = ?", sources.number(conn, source_id))
    _add_span(conn, clauses, since_us, until_us)
    rows = conn.execute(
        f"SELECT g.causes, count(*), sum(min(g.end_us, ?) - max(g.start_us, ?)), sum(g.frames) FROM gaps g"
        f" {clauses.where()} GROUP BY g.causes ORDER BY 3 DESC",
        (until_us, since_us, *clauses.values),
    )
    return [GapTotal(_causes(causes), count, total, frames) for causes, count, total, frames in rows]


def _add_span(conn: Connection, clauses: Clauses, since_us: int | None, until_us: int | None) -> None:
    """Narrow to gaps that reach into [since_us, until_us), without reading those long before.

    Of each source only the last one that began before ``since_us`` can still reach over it.
    """
    if since_us is not None:
        reaching = conn.execute(
            "SELECT min(g.start_us) FROM sources o JOIN gaps g ON g.n = (SELECT b.n FROM gaps b"
            " WHERE b.source_n = o.n AND b.start_us < ? ORDER BY b.start_us DESC LIMIT 1) WHERE g.end_us > ?",
            (since_us, since_us),
        ).fetchone()[0]
        clauses.add("g.start_us >= ? AND g.end_us > ?", since_us if reaching is None else reaching, since_us)
    if until_us is not None:
        clauses.add("g.start_us < ?", until_us)


def _causes(text: str) -> tuple[Cause, ...]:
    return tuple(Cause(name) for name in text.split(","))
