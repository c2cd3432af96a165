"""When the owner wanted nothing to be recorded: muted, or off the record. At most one such stretch is open."""

from __future__ import annotations

import msgspec

from omi_edge.domain import Withholding
from omi_edge.ids import new_id
from omi_edge.store.connection import Connection

_COLUMNS = "id, kind, start_us, end_us, until_us, actor, ledger_us"
LIST_LIMIT = 1000
_LATEST_US = (1 << 63) - 1


class WithheldRow(msgspec.Struct, frozen=True):
    """One stretch in which nothing is recorded."""

    id: str
    kind: Withholding
    start_us: int
    end_us: int | None
    """None while it is open."""
    until_us: int | None
    """When it is to end by itself; None for never."""
    by: str
    """Who began it: a caller of the API, or ``gesture``."""
    ledger_us: int | None = None
    """When it began in ledger time (``store.ledger``); None before there was one."""


def begin(
    conn: Connection, kind: Withholding, *, now_us: int, until_us: int | None, by: str, ledger_us: int | None = None
) -> WithheldRow:
    """Record nothing from now on. What holds of the same kind changes its planned end, another kind ends."""
    standing = current(conn)
    if standing is not None:
        over = standing.until_us is not None and standing.until_us <= now_us
        if standing.kind is kind and not over:
            conn.execute("UPDATE withheld SET until_us = ? WHERE id = ?", (until_us, standing.id))
            return get(conn, standing.id)
        end(conn, at_us=standing.until_us if over and standing.until_us is not None else now_us)
    withheld_id = new_id("wth", now_us)
    conn.execute(
        "INSERT INTO withheld (id, kind, start_us, until_us, actor, ledger_us) VALUES (?, ?, ?, ?, ?, ?)",
        (withheld_id, kind.value, now_us, until_us, by, ledger_us),
    )
    return get(conn, withheld_id)


def end(conn: Connection, *, at_us: int) -> WithheldRow | None:
    """Record again; return the stretch that ended, None when there was none."""
    standing = current(conn)
    if standing is None:
        return None
    conn.execute("UPDATE withheld SET end_us = max(start_us, ?) WHERE id = ?", (at_us, standing.id))
    return get(conn, standing.id)


def current(conn: Connection) -> WithheldRow | None:
    """Return the stretch that is open, also when its planned end has passed; None while all is recorded."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM withheld ORDER BY n DESC LIMIT 1").fetchone()
    last = _row(row) if row is not None else None
    return last if last is not None and last.end_us is None else None


def listed(conn: Connection, since_us: int | None = None, until_us: int | None = None) -> list[WithheldRow]:
    """Return the newest thousand stretches that reach into [since_us, until_us), the newest first."""
    first_us = 0
    if since_us is not None:  # they do not overlap: the last one that began before may reach over, no earlier one
        before = conn.execute("SELECT max(start_us) FROM withheld WHERE start_us < ?", (since_us,)).fetchone()[0]
        first_us = since_us if before is None else before
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM withheld WHERE start_us >= ? AND start_us < ? AND coalesce(end_us, ?) > ?"
        f" ORDER BY start_us DESC, n DESC LIMIT {LIST_LIMIT}",
        (first_us, _LATEST_US if until_us is None else until_us, _LATEST_US, since_us or 0),
    )
    return [_row(row) for row in rows]


def get(conn: Connection, withheld_id: str) -> WithheldRow:
    """Return a stretch that is known to be there."""
    return _row(conn.execute(f"SELECT {_COLUMNS} FROM withheld WHERE id = ?", (withheld_id,)).fetchone())


def _row(row: tuple[object, ...]) -> WithheldRow:
    return msgspec.convert(dict(zip(WithheldRow.__struct_fields__, row, strict=True)), WithheldRow)
