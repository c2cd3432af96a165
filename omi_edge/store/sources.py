"""Where audio comes from: a pendant, a file, a socket. Counters of a source are kept in its row."""

from __future__ import annotations

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Clauses, Filters

_COLUMNS = (
    "id, kind, name, device_id, client_id, codec, created_us, first_us, heard_until_us, ended_us, lost_frames, "
    "audio_bytes, dropped_bytes, dropped_us, time_known"
)
LIST_LIMIT = 1000


class SourceRow(msgspec.Struct, frozen=True):
    """One source."""

    id: str
    kind: str
    """pendant, file, microphone or socket."""
    name: str
    device_id: str | None
    client_id: str | None
    codec: int
    created_us: int
    first_us: int | None
    """When its audio begins."""
    heard_until_us: int | None
    ended_us: int | None
    """When it ended for good; None while more may come."""
    lost_frames: int
    audio_bytes: int
    dropped_bytes: int
    """Packets of silence that were not kept, or no longer are."""
    dropped_us: int
    time_known: bool


def add(
    conn: Connection,
    *,
    id: str,
    kind: str,
    name: str,
    device_id: str | None,
    client_id: str | None,
    codec: int,
    created_us: int,
    time_known: bool = True,
    first_us: int | None = None,
) -> SourceRow:
    """Register a source."""
    conn.execute(
        "INSERT INTO sources (id, kind, name, device_id, client_id, codec, created_us, time_known, first_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (id, kind, name, device_id, client_id, int(codec), created_us, int(time_known), first_us),
    )
    return get(conn, id)


def get(conn: Connection, source_id: str) -> SourceRow:
    """Return a source. Raises NotFound."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM sources WHERE id = ?", (source_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such source.")
    return _row(row)


def number(conn: Connection, source_id: str) -> int:
    """Return the source's number inside the file. Raises NotFound."""
    row = conn.execute("SELECT n FROM sources WHERE id = ?", (source_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such source.")
    return int(row[0])


def for_device(conn: Connection, device_id: str) -> SourceRow | None:
    """Return the source of a device, None when it was never heard."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM sources WHERE device_id = ? ORDER BY n LIMIT 1", (device_id,)
    ).fetchone()
    return _row(row) if row is not None else None


def advance(
    conn: Connection,
    source_id: str,
    *,
    heard_until_us: int,
    lost_frames: int = 0,
    dropped_bytes: int = 0,
    dropped_us: int = 0,
) -> None:
    """Note how far a source was heard, and add to its counters."""
    conn.execute(
        "UPDATE sources SET heard_until_us = max(coalesce(heard_until_us, 0), ?), lost_frames = lost_frames + ?,"
        " dropped_bytes = dropped_bytes + ?, dropped_us = dropped_us + ? WHERE id = ?",
        (heard_until_us, lost_frames, dropped_bytes, dropped_us, source_id),
    )


def rename(conn: Connection, source_id: str, name: str) -> SourceRow:
    """Call a source otherwise. Raises NotFound or BadInput."""
    get(conn, source_id)
    name = name.strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise BadInput("a source's name has 1 to 100 printable characters.", "name")
    conn.execute("UPDATE sources SET name = ? WHERE id = ?", (name, source_id))
    return get(conn, source_id)


def set_ended(conn: Connection, source_id: str, at_us: int) -> None:
    """Note that nothing more will come."""
    conn.execute("UPDATE sources SET ended_us = ? WHERE id = ?", (at_us, source_id))


def unfinished(conn: Connection) -> list[SourceRow]:
    """Return the recordings whose end was never noted: the program was killed while it took them in."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM sources WHERE kind = 'file' AND ended_us IS NULL ORDER BY n")
    return [_row(row) for row in rows]


def list_all(conn: Connection) -> list[SourceRow]:
    """Return the newest thousand sources."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM sources ORDER BY n DESC LIMIT {LIST_LIMIT}")
    return [_row(row) for row in rows]


def holdings(conn: Connection, filters: Filters = Filters()) -> list[tuple[SourceRow, int, int, int]]:  # noqa: B008 frozen
    """Return sources, newest first, each with how many conversations, tasks and memories are of it.

    Of ``filters`` source, device and client count.
    """
    clauses = Clauses()
    clauses.add_source("n", filters)
    counts = ", ".join(
        f"(SELECT count(*) FROM {table} t WHERE t.source_n = sources.n)"
        for table in ("conversations", "tasks", "memories")
    )
    rows = conn.execute(
        f"SELECT {_COLUMNS}, {counts} FROM sources {clauses.where()} ORDER BY n DESC LIMIT {LIST_LIMIT}", clauses.values
    )
    return [(_row(row[:-3]), *row[-3:]) for row in rows]


def _row(row: tuple[object, ...]) -> SourceRow:
    return msgspec.convert(dict(zip(SourceRow.__struct_fields__, row, strict=True)), SourceRow, strict=False)
