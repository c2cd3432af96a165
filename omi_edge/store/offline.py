"""What a pendant stored while it was away, from its arrival here until it is heard.

    records, as they come ─► final once the pendant has freed them ─► placed: runs on the timeline ─► heard, and gone

A *reading* is what the clocks showed at one connection. Rows of runs and losses stay: they say where audio came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from omi_edge.domain import Codec
from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.store import sources
from omi_edge.store.connection import Connection

LIST_LIMIT = 1000
BEFORE = 8
"""Runs that began before a stretch and are looked at for reaching into it; a choice: only guessed times overlap."""
_RUN = (
    "r.n, r.id, o.id, r.reading_n, r.state, r.store, r.first_seq, r.last_seq, r.at_seq, r.at_frame, r.frames, r.heard,"
    " r.start_us, r.uncertainty_us, r.guessed, r.earliest_us, r.latest_us, r.left_out_us,"
    " r.decided"
)
_READING = "n, away_us, connected_us, read_us, offset_us, ledger_us, codec, step, head_store, head_position, complete"
_LOSS = "n, reading_n, store, first, last, records, why, start_us, end_us, settled"


class RunState(StrEnum):
    """Where a run stands."""

    UNKNOWN = "unknown"
    """Nobody knows yet when it was recorded."""
    HELD = "held"
    """It may have been recorded while the owner withheld recording: it waits for their word, undecoded."""
    PLACED = "placed"
    """It has its time and waits to be heard, as a whole or the rest of it."""
    HEARD = "heard"
    DISCARDED = "discarded"
    """The owner did not want it: it was never decoded."""


class CursorRow(msgspec.Struct, frozen=True):
    """How far a pendant's stored audio is here; the fields of ``capture.stored.Cursor``."""

    store: int
    position: int
    tail: bytes = b""
    identity: int | None = None
    end: int = 0
    dropped: int = 0


class Placing(msgspec.Struct, frozen=True):
    """How far the records of a source are placed."""

    final: tuple[int, int] = (0, 0)
    """Store and position before which the pendant holds nothing any more."""
    placed: tuple[int, int] = (0, 0)
    after: bytes | None = None
    """What placing needs to know of the run that was placed last."""
    last_run_n: int | None = None


class ReadingRow(msgspec.Struct, frozen=True):
    """One connection's clocks."""

    n: int
    away_us: int | None
    """When the connection before ended; None when that is not known."""
    connected_us: int
    read_us: int
    """When the pendant's clock was read, and then set."""
    offset_us: int | None
    """Its clock minus ours at that moment; None when it was never set."""
    ledger_us: int
    """Ledger time minus UTC at that moment."""
    codec: Codec
    step: int
    """By how much the numbers of two records that follow one another differ: 1 in a ring, in a file their bytes."""
    head_store: int | None
    head_position: int | None
    """Store and position before which lies what was recorded before this connection; None where that is not known."""
    complete: int
    """1 when everything that the pendant held was fetched; 2 when no more of it is waited for."""


class RecordRow(msgspec.Struct, frozen=True):
    """One block as it came."""

    store: int
    seq: int
    reading_n: int
    began: int | None
    """When its file began, for the first block of a file that tells."""
    raw: bytes


class RunRow(msgspec.Struct, frozen=True):
    """Audio without a hole."""

    n: int
    id: str
    source_id: str
    reading_n: int
    state: RunState
    store: int
    first_seq: int
    last_seq: int
    at_seq: int
    """The record at which hearing goes on,"""
    at_frame: int
    """and the frame in it."""
    frames: int
    heard: int
    """Frames that are dealt with."""
    start_us: int | None
    """UTC; None while it is unknown."""
    uncertainty_us: int
    guessed: bool
    """Whether its time is only the latest that it can have been."""
    earliest_us: int | None
    latest_us: int | None
    """Between which it was recorded, where its time was not known."""
    left_out_us: int
    """What of it was thrown away undecoded, or is there already."""
    decided: bool
    """Whether the owner wants it although it may be of a time when they withheld recording."""


class LossRow(msgspec.Struct, frozen=True):
    """Records that are gone for good."""

    n: int
    reading_n: int
    store: int
    first: int
    last: int
    records: int
    why: str
    start_us: int | None
    """UTC, about; None where nothing tells."""
    end_us: int | None
    settled: bool
    """Whether it is known by now when that was, as far as it ever will be."""


class NewRun(msgspec.Struct, frozen=True):
    """A run as it was placed, or what continues the last one."""

    continues: bool
    store: int
    first_seq: int
    first_frame: int
    last_seq: int
    frames: int
    start_us: int | None
    uncertainty_us: int


# --- fetching ---------------------------------------------------------------------------------------------------------


def cursor(conn: Connection, source_id: str) -> CursorRow | None:
    """Return how far a source's pendant was fetched; None when it never was."""
    row = conn.execute(
        "SELECT store, position, tail, identity, ends, dropped FROM offline_cursors WHERE source_n = ?",
        (sources.number(conn, source_id),),
    ).fetchone()
    if row is None:
        return None
    return CursorRow(row[0], row[1], bytes(row[2]), None if row[3] is None else int(row[3]), row[4], row[5])


def begin_reading(
    conn: Connection,
    source_id: str,
    *,
    away_us: int | None,
    connected_us: int,
    read_us: int,
    offset_us: int | None,
    ledger_us: int,
    codec: Codec,
    step: int,
) -> int:
    """Note what the clocks showed at a connection; return its number."""
    inserted = conn.execute(
        "INSERT INTO offline_readings (source_n, away_us, connected_us, read_us, offset_us, ledger_us, codec, step)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (sources.number(conn, source_id), away_us, connected_us, read_us, offset_us, ledger_us, int(codec), step),
    )
    return int(inserted.lastrowid)


def complete_reading(conn: Connection, reading_n: int) -> None:
    """Note that everything the pendant held at this connection is here."""
    conn.execute("UPDATE offline_readings SET complete = 1 WHERE n = ?", (reading_n,))


def readings(conn: Connection, source_id: str, until_n: int) -> list[ReadingRow]:
    """Return the readings that a record fetched under ``until_n`` may be of, in order.

    Those are the ones after the last complete one before it. Empty when there is no such reading.
    """
    n = sources.number(conn, source_id)
    rows = conn.execute(
        f"SELECT {_READING} FROM offline_readings WHERE source_n = ? AND n <= ? AND n > coalesce((SELECT max(n)"
        f" FROM offline_readings WHERE source_n = ? AND n < ? AND complete = 1), 0) ORDER BY n LIMIT {LIST_LIMIT}",
        (n, until_n, n, until_n),
    )
    return [_reading(row) for row in rows]


def last_reading(conn: Connection, source_id: str) -> ReadingRow | None:
    """Return the newest reading of a source."""
    row = conn.execute(
        f"SELECT {_READING} FROM offline_readings WHERE source_n = ? ORDER BY n DESC LIMIT 1",
        (sources.number(conn, source_id),),
    ).fetchone()
    return None if row is None else _reading(row)


def get_reading(conn: Connection, reading_n: int) -> ReadingRow:
    """Return a reading that is known to be there."""
    return _reading(conn.execute(f"SELECT {_READING} FROM offline_readings WHERE n = ?", (reading_n,)).fetchone())


def note_head(conn: Connection, reading_n: int, store: int, position: int) -> None:
    """Note where the pendant's store ended at a connection; the first word of it holds."""
    conn.execute(
        "UPDATE offline_readings SET head_store = ?, head_position = ? WHERE n = ? AND head_store IS NULL",
        (store, position, reading_n),
    )


def completed_since(conn: Connection, source_id: str, reading_n: int) -> bool:
    """Say whether all that was recorded before a reading is here, or is not waited for."""
    row = conn.execute(
        "SELECT 1 FROM offline_readings WHERE source_n = ? AND n >= ? AND complete > 0 LIMIT 1",
        (sources.number(conn, source_id), reading_n),
    ).fetchone()
    return row is not None


def keep(
    conn: Connection, source_id: str, records: Sequence[RecordRow], at: CursorRow, final: tuple[int, int] | None = None
) -> None:
    """Keep records and the cursor behind them; a record of the same store and number is replaced.

    ``final``: store and position before which the pendant holds nothing any more, when it has just been told.
    """
    n = sources.number(conn, source_id)
    before = cursor(conn, source_id)
    if before is not None and before.store < at.store:  # what lies behind a cursor that went back was garbled
        conn.execute(
            "DELETE FROM offline_records WHERE source_n = ? AND store = ? AND seq >= ? AND (store, seq) >="
            " (SELECT final_store, final_position FROM offline_cursors WHERE source_n = ?)",
            (n, before.store, before.position, n),
        )
    conn.executemany(
        "INSERT INTO offline_records (source_n, store, seq, reading_n, began, raw) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (source_n, store, seq) DO UPDATE SET reading_n = excluded.reading_n, began = excluded.began,"
        " raw = excluded.raw",
        [(n, record.store, record.seq, record.reading_n, record.began, record.raw) for record in records],
    )
    identity = None if at.identity is None else str(at.identity)
    conn.execute(
        "INSERT INTO offline_cursors (source_n, store, position, tail, identity, ends, dropped)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source_n) DO UPDATE SET store = excluded.store,"
        " position = excluded.position, tail = excluded.tail, identity = excluded.identity, ends = excluded.ends,"
        " dropped = excluded.dropped",
        (n, at.store, at.position, at.tail, identity, at.end, at.dropped),
    )
    if final is not None:
        conn.execute(
            "UPDATE offline_cursors SET final_store = ?, final_position = ? WHERE source_n = ?"
            " AND (final_store, final_position) < (?, ?)",
            (*final, n, *final),
        )


def kept(conn: Connection, source_id: str, store: int, since: int, limit: int) -> list[tuple[int, bytes]]:
    """Return number and bytes of the records of a store that are not final yet: in order, from ``since`` on."""
    n = sources.number(conn, source_id)
    rows = conn.execute(
        "SELECT seq, raw FROM offline_records WHERE source_n = ? AND store = ? AND seq >= ? AND (store, seq) >="
        " (SELECT final_store, final_position FROM offline_cursors WHERE source_n = ?) ORDER BY seq LIMIT ?",
        (n, store, since, n, limit),
    )
    return [(row[0], bytes(row[1])) for row in rows]


def finalize(conn: Connection, source_id: str) -> None:
    """Take all that was fetched for final and whole: its pendant will not be asked again."""
    n = sources.number(conn, source_id)
    conn.execute(
        "UPDATE offline_cursors SET final_store = store, final_position = position WHERE source_n = ?"
        " AND (final_store, final_position) < (store, position)",
        (n,),
    )
    conn.execute(
        "UPDATE offline_readings SET complete = 2 WHERE complete = 0 AND n ="
        " (SELECT max(n) FROM offline_readings WHERE source_n = ?)",
        (n,),
    )


def lose(
    conn: Connection, source_id: str, reading_n: int, *, store: int, first: int, last: int, records: int, why: str
) -> None:
    """Note records that are gone for good."""
    conn.execute(
        "INSERT INTO offline_losses (source_n, reading_n, store, first, last, records, why)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (sources.number(conn, source_id), reading_n, store, first, last, records, why),
    )


# --- placing ----------------------------------------------------------------------------------------------------------


def source_ids(conn: Connection) -> list[str]:
    """Return the sources of which anything was ever fetched."""
    rows = conn.execute("SELECT o.id FROM offline_cursors c JOIN sources o ON o.n = c.source_n ORDER BY c.source_n")
    return [row[0] for row in rows]


def placing(conn: Connection, source_id: str) -> Placing:
    """Return how far a source's records are placed."""
    row = conn.execute(
        "SELECT final_store, final_position, placed_store, placed_position, after, last_run_n FROM offline_cursors"
        " WHERE source_n = ?",
        (sources.number(conn, source_id),),
    ).fetchone()
    if row is None:
        return Placing()
    return Placing((row[0], row[1]), (row[2], row[3]), None if row[4] is None else bytes(row[4]), row[5])


def unplaced(conn: Connection, source_id: str, limit: int) -> list[RecordRow]:
    """Return final records that are not placed yet, in the order in which they were recorded."""
    at = placing(conn, source_id)
    rows = conn.execute(
        "SELECT store, seq, reading_n, began, raw FROM offline_records WHERE source_n = ?"
        " AND (store, seq) >= (?, ?) AND (store, seq) < (?, ?) ORDER BY store, seq LIMIT ?",
        (sources.number(conn, source_id), *at.placed, *at.final, limit),
    )
    return [RecordRow(row[0], row[1], row[2], row[3], bytes(row[4])) for row in rows]


def count_unplaced(conn: Connection, source_id: str, limit: int) -> int:
    """Return how many of those there are, ``limit`` at most."""
    at = placing(conn, source_id)
    row = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM offline_records WHERE source_n = ? AND (store, seq) >= (?, ?)"
        " AND (store, seq) < (?, ?) LIMIT ?)",
        (sources.number(conn, source_id), *at.placed, *at.final, limit),
    ).fetchone()
    return int(row[0])


def heads(conn: Connection, source_id: str, reading_n: int, size: int) -> list[tuple[int, int, bytes]]:
    """Return store, number and the first ``size`` bytes of all final unplaced records of a reading, in order."""
    at = placing(conn, source_id)
    rows = conn.execute(
        "SELECT store, seq, substr(raw, 1, ?) FROM offline_records WHERE source_n = ? AND (store, seq) >= (?, ?)"
        " AND (store, seq) < (?, ?) AND reading_n = ? ORDER BY store, seq",
        (size, sources.number(conn, source_id), *at.placed, *at.final, reading_n),
    )
    return [(row[0], row[1], bytes(row[2])) for row in rows]


def place(
    conn: Connection,
    source_id: str,
    reading_n: int,
    runs: Sequence[NewRun],
    *,
    placed: tuple[int, int],
    after: bytes | None,
    empty: Sequence[tuple[int, int]],
    now_us: int,
) -> None:
    """Note the runs that records make up, in order, up to ``placed``; records without a frame are let go."""
    n = sources.number(conn, source_id)
    last_run_n = placing(conn, source_id).last_run_n
    for run in runs:
        if run.continues and last_run_n is not None:
            conn.execute(
                "UPDATE offline_runs SET last_seq = ?, frames = frames + ?, state = CASE state WHEN 'heard' THEN"
                " 'placed' ELSE state END WHERE n = ?",
                (run.last_seq, run.frames, last_run_n),
            )
            continue
        state = RunState.UNKNOWN if run.start_us is None else RunState.PLACED
        inserted = conn.execute(
            "INSERT INTO offline_runs (id, source_n, reading_n, state, store, first_seq, last_seq, at_seq, at_frame,"
            " frames, start_us, uncertainty_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                new_id("run", now_us), n, reading_n, state.value, run.store, run.first_seq, run.last_seq,
                run.first_seq, run.first_frame, run.frames, run.start_us, run.uncertainty_us,
            ),
        )  # fmt: skip
        last_run_n = int(inserted.lastrowid)
    conn.execute(
        "UPDATE offline_cursors SET placed_store = ?, placed_position = ?, after = ?, last_run_n = ?"
        " WHERE source_n = ?",
        (*placed, after, last_run_n, n),
    )
    conn.executemany(
        "DELETE FROM offline_records WHERE source_n = ? AND store = ? AND seq = ?", [(n, *one) for one in empty]
    )


def settle_run(
    conn: Connection,
    run_n: int,
    *,
    state: RunState,
    start_us: int | None,
    uncertainty_us: int = 0,
    guessed: bool = False,
    earliest_us: int | None = None,
    latest_us: int | None = None,
) -> None:
    """Note what was found out about the time of a run."""
    conn.execute(
        "UPDATE offline_runs SET state = ?, start_us = ?, uncertainty_us = ?, guessed = ?, earliest_us = ?,"
        " latest_us = ? WHERE n = ?",
        (state.value, start_us, uncertainty_us, int(guessed), earliest_us, latest_us, run_n),
    )


def may_be_of(conn: Connection, run: RunRow) -> list[ReadingRow]:
    """Return the readings that a run may be of, in order: up to the one under which it was fetched."""
    first = records(conn, run, 1)
    return readings(conn, run.source_id, first[0].reading_n) if first else [get_reading(conn, run.reading_n)]


def reassign(conn: Connection, run_n: int, reading_n: int) -> None:
    """Say that a run was recorded before another reading than was thought."""
    conn.execute("UPDATE offline_runs SET reading_n = ? WHERE n = ?", (reading_n, run_n))


def move_run(conn: Connection, run_n: int, start_us: int, uncertainty_us: int) -> None:
    """Put a run that is not heard yet a little earlier or later; it is no surer than it was moved far."""
    conn.execute(
        "UPDATE offline_runs SET start_us = ?, uncertainty_us = ? WHERE n = ? AND heard = 0",
        (start_us, uncertainty_us, run_n),
    )


# --- hearing ----------------------------------------------------------------------------------------------------------


def get_run(conn: Connection, run_n: int) -> RunRow:
    """Return a run that is known to be there."""
    return _run(_runs(conn, "WHERE r.n = ?", run_n)[0])


def open_runs(conn: Connection, source_id: str) -> list[RunRow]:
    """Return the runs of a source that are not done, in the order in which they were recorded."""
    rows = _runs(
        conn, "WHERE r.source_n = ? AND r.state IN ('unknown', 'held', 'placed') ORDER BY r.n",
        sources.number(conn, source_id),
    )  # fmt: skip
    return [_run(row) for row in rows]


def around(conn: Connection, run: RunRow) -> tuple[RunRow | None, RunRow | None]:
    """Return the run before and the one after, of the same reading, that have a time."""
    n = sources.number(conn, run.source_id)
    where = "WHERE r.source_n = ? AND r.reading_n = ? AND r.start_us IS NOT NULL AND r.n {} ? ORDER BY r.n {} LIMIT 1"
    before = _runs(conn, where.format("<", "DESC"), n, run.reading_n, run.n)
    later = _runs(conn, where.format(">", "ASC"), n, run.reading_n, run.n)
    return (_run(before[0]) if before else None, _run(later[0]) if later else None)


def previous(conn: Connection, run: RunRow) -> RunRow | None:
    """Return the run that was recorded before this one and has a time, of whatever reading."""
    rows = _runs(
        conn, "WHERE r.source_n = ? AND r.start_us IS NOT NULL AND r.n < ? ORDER BY r.n DESC LIMIT 1",
        sources.number(conn, run.source_id), run.n,
    )  # fmt: skip
    return _run(rows[0]) if rows else None


def records(conn: Connection, run: RunRow, limit: int) -> list[RecordRow]:
    """Return the next records of a run, from where hearing goes on."""
    rows = conn.execute(
        "SELECT store, seq, reading_n, began, raw FROM offline_records WHERE source_n = ? AND store = ?"
        " AND seq >= ? AND seq <= ? ORDER BY seq LIMIT ?",
        (sources.number(conn, run.source_id), run.store, run.at_seq, run.last_seq, limit),
    )
    return [RecordRow(row[0], row[1], row[2], row[3], bytes(row[4])) for row in rows]


def heard(conn: Connection, run: RunRow, *, frames: int, at_seq: int, at_frame: int, left_out_us: int) -> None:
    """Note that ``frames`` more of a run are dealt with, up to a place in its records; let go of those before it."""
    conn.execute(
        "UPDATE offline_runs SET heard = heard + ?, at_seq = ?, at_frame = ?, left_out_us = left_out_us + ?,"
        " state = CASE WHEN heard + ? >= frames THEN 'heard' ELSE state END WHERE n = ?",
        (frames, at_seq, at_frame, left_out_us, frames, run.n),
    )
    _release(conn, get_run(conn, run.n), run.at_seq)


def held(conn: Connection, source_id: str) -> list[RunRow]:
    """Return the runs that wait for the owner's word."""
    return [run for run in open_runs(conn, source_id) if run.state is RunState.HELD]


def belongs(conn: Connection, source_id: str, run_id: str) -> bool:
    """Say whether there is such a run of a source."""
    row = conn.execute(
        "SELECT 1 FROM offline_runs WHERE id = ? AND source_n = ?", (run_id, sources.number(conn, source_id))
    ).fetchone()
    return row is not None


def decide(conn: Connection, run_id: str, *, wanted: bool) -> RunRow:
    """Do the owner's word about a held run: hear it at the latest time it can be of, or let it go undecoded.

    Raises NotFound, and BadInput for one that is not held.
    """
    found = _runs(conn, "WHERE r.id = ?", run_id)
    if not found:
        raise NotFound("there is no such recording; `omi-edge devices held` lists those that wait.")
    run = _run(found[0])
    if run.state is not RunState.HELD:
        raise BadInput("this recording does not wait for a decision: it was decided, or never had to be.")
    if wanted:
        conn.execute("UPDATE offline_runs SET state = 'placed', decided = 1 WHERE n = ?", (run.n,))
    else:
        conn.execute("UPDATE offline_runs SET state = 'discarded' WHERE n = ?", (run.n,))
        _release(conn, get_run(conn, run.n), run.at_seq)
    return get_run(conn, run.n)


def reaching(conn: Connection, source_id: str, start_us: int, end_us: int) -> list[RunRow]:
    """Return the runs of which something was heard and kept inside [start, end), in order of time.

    Of those that began before, only the last BEFORE are looked at: but for guessed times, runs follow one another.
    """
    n = sources.number(conn, source_id)
    within = _runs(
        conn, "WHERE r.source_n = ? AND r.start_us >= ? AND r.start_us < ? AND r.heard > 0 ORDER BY r.start_us"
        f" LIMIT {LIST_LIMIT}", n, start_us, end_us,
    )  # fmt: skip
    before = _runs(
        conn, "WHERE r.source_n = ? AND r.start_us < ? AND r.heard > 0 ORDER BY r.start_us DESC"
        f" LIMIT {BEFORE}", n, start_us,
    )  # fmt: skip
    found: list[RunRow] = []
    for run in map(_run, (*reversed(before), *within)):
        heard_us = run.heard * get_reading(conn, run.reading_n).codec.frame_us
        if heard_us > run.left_out_us and (run.start_us or 0) + heard_us > start_us:
            found.append(run)
    return found


def latest(conn: Connection, source_id: str, limit: int) -> list[RunRow]:
    """Return the newest runs of a source, the newest first."""
    rows = _runs(conn, "WHERE r.source_n = ? ORDER BY r.n DESC LIMIT ?", sources.number(conn, source_id), limit)
    return [_run(row) for row in rows]


def waiting_bytes(conn: Connection, source_id: str) -> int:
    """Return how much is here that was not heard yet."""
    row = conn.execute(
        "SELECT coalesce(sum(length(raw)), 0) FROM offline_records WHERE source_n = ?",
        (sources.number(conn, source_id),),
    ).fetchone()
    return int(row[0])


# --- losses -----------------------------------------------------------------------------------------------------------


def losses(conn: Connection, source_id: str, limit: int = LIST_LIMIT) -> list[LossRow]:
    """Return what a source's pendant gave up before it was here, the newest first."""
    rows = conn.execute(
        f"SELECT {_LOSS} FROM offline_losses WHERE source_n = ? ORDER BY n DESC LIMIT ?",
        (sources.number(conn, source_id), limit),
    )
    return [_loss(row) for row in rows]


def open_losses(conn: Connection, source_id: str) -> list[LossRow]:
    """Return the losses whose time is not known yet."""
    rows = conn.execute(
        f"SELECT {_LOSS} FROM offline_losses WHERE source_n = ? AND settled = 0 ORDER BY n",
        (sources.number(conn, source_id),),
    )
    return [_loss(row) for row in rows]


def beside(conn: Connection, source_id: str, loss: LossRow) -> tuple[RunRow | None, RunRow | None]:
    """Return the runs with a time that end before and begin after what was lost, of the same store."""
    n = sources.number(conn, source_id)
    before = _runs(
        conn,
        "WHERE r.source_n = ? AND r.store = ? AND r.first_seq < ? AND r.start_us IS NOT NULL ORDER BY r.n DESC LIMIT 1",
        n, loss.store, loss.first,
    )  # fmt: skip
    later = _runs(
        conn,
        "WHERE r.source_n = ? AND r.store = ? AND r.last_seq > ? AND r.start_us IS NOT NULL ORDER BY r.n LIMIT 1",
        n, loss.store, loss.last,
    )  # fmt: skip
    return (_run(before[0]) if before else None, _run(later[0]) if later else None)


def split_loss(conn: Connection, loss: LossRow, at: int) -> tuple[LossRow, LossRow]:
    """Make a loss two, the second from record ``at`` on: they are of different times. Only for whole records."""
    conn.execute("UPDATE offline_losses SET last = ?, records = ? WHERE n = ?", (at - 1, at - loss.first, loss.n))
    inserted = conn.execute(
        "INSERT INTO offline_losses (source_n, reading_n, store, first, last, records, why)"
        " SELECT source_n, reading_n, store, ?, ?, ?, why FROM offline_losses WHERE n = ?",
        (at, loss.last, loss.last - at + 1, loss.n),
    )
    rows = conn.execute(
        f"SELECT {_LOSS} FROM offline_losses WHERE n IN (?, ?) ORDER BY n", (loss.n, inserted.lastrowid)
    )
    first, second = [_loss(row) for row in rows]
    return first, second


def settle_loss(conn: Connection, loss_n: int, start_us: int | None, end_us: int | None) -> None:
    """Note when lost records were recorded, as far as anything tells."""
    conn.execute(
        "UPDATE offline_losses SET start_us = ?, end_us = ?, settled = 1 WHERE n = ?", (start_us, end_us, loss_n)
    )


# --- inside -----------------------------------------------------------------------------------------------------------


def _release(conn: Connection, run: RunRow, from_seq: int) -> None:
    """Let go of the records of a run that no run needs any more, from ``from_seq`` on."""
    done = run.state in (RunState.HEARD, RunState.DISCARDED)
    conn.execute(
        "DELETE FROM offline_records WHERE source_n = ? AND store = ? AND seq >= ? AND seq < ? AND NOT EXISTS"
        " (SELECT 1 FROM offline_runs r WHERE r.source_n = offline_records.source_n AND r.store = offline_records.store"
        " AND r.last_seq >= offline_records.seq AND r.state IN ('unknown', 'held', 'placed')"
        " AND r.at_seq <= offline_records.seq)",
        (sources.number(conn, run.source_id), run.store, from_seq, run.last_seq + 1 if done else run.at_seq),
    )


def _runs(conn: Connection, where: str, *values: object) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = conn.execute(
        f"SELECT {_RUN} FROM offline_runs r JOIN sources o ON o.n = r.source_n {where}", values
    ).fetchall()
    return found


def _run(row: tuple[object, ...]) -> RunRow:
    return msgspec.convert(dict(zip(RunRow.__struct_fields__, row, strict=True)), RunRow, strict=False)


def _reading(row: tuple[object, ...]) -> ReadingRow:
    return msgspec.convert(dict(zip(ReadingRow.__struct_fields__, row, strict=True)), ReadingRow, strict=False)


def _loss(row: tuple[object, ...]) -> LossRow:
    return msgspec.convert(dict(zip(LossRow.__struct_fields__, row, strict=True)), LossRow, strict=False)
