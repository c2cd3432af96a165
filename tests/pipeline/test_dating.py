"""When what is lost of a pendant's stored audio was recorded."""

from __future__ import annotations

from omi_edge.clock import DrivenClock
from omi_edge.domain import Codec, LedgerState
from omi_edge.pipeline import dating
from omi_edge.store import ledger, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.offline import CursorRow, NewRun, RecordRow
from tests.helpers import START_US

S = 1_000_000
SOURCE = "src_test"
PER_RECORD = 5
"""Frames of 20 ms: a record lasts a tenth of a second."""


def known(conn: Connection) -> None:
    """Let the source be known, and its account begin."""
    sources.add(
        conn, id=SOURCE, kind="pendant", name="Omi", device_id="d", client_id=None, codec=Codec.OPUS_20MS,
        created_us=START_US,
    )  # fmt: skip
    ledger.begin(conn, SOURCE, START_US)


def reading(conn: Connection, away: int, connected: int, head: int, *, complete: bool) -> int:
    """Note a visit, in seconds from the start, at which the ring ended at ``head``."""
    at_us = START_US + connected * S
    n = offline.begin_reading(
        conn, SOURCE, away_us=START_US + away * S, connected_us=at_us, read_us=at_us, offset_us=0, ledger_us=0,
        codec=Codec.OPUS_20MS, step=1,
    )  # fmt: skip
    offline.note_head(conn, n, 1, head)
    if complete:
        offline.complete_reading(conn, n)
    return n


def heard(conn: Connection, reading_n: int, first: int, last: int, at: float) -> None:
    """Note a run that was heard."""
    rows = [RecordRow(1, seq, reading_n, None, b"raw") for seq in (first, last)]
    offline.keep(conn, SOURCE, rows, CursorRow(1, last + 1), (1, last + 1))
    frames = (last - first + 1) * PER_RECORD
    run = NewRun(False, 1, first, 0, last, frames, START_US + round(at * S), 0)
    offline.place(conn, SOURCE, reading_n, [run], placed=(1, last + 1), after=None, empty=(), now_us=START_US)
    offline.heard(
        conn, offline.open_runs(conn, SOURCE)[-1], frames=frames, at_seq=last, at_frame=PER_RECORD, left_out_us=0
    )


async def test_a_loss_is_of_the_absence_in_which_its_records_came_into_the_ring(
    db: Database, clock: DrivenClock
) -> None:
    """The second fetch begins with what waited in the pendant since the first absence, and shows the later time."""

    def work(conn: Connection) -> None:
        known(conn)
        first = reading(conn, 100, 105, 40, complete=False)
        heard(conn, first, 0, 9, 100.0)
        second = reading(conn, 106, 130, 90, complete=True)
        heard(conn, second, 60, 89, 127.0)
        offline.lose(conn, SOURCE, second, store=1, first=10, last=59, records=50, why="freed")
        (loss,) = offline.open_losses(conn, SOURCE)
        dating.date(conn, SOURCE, loss, fetching=False)

    await db.write(work)
    await clock.advance(200)
    losses = await db.read(lambda conn: offline.losses(conn, SOURCE))
    told = [
        (row.first, row.last, row.records, (row.start_us or 0) - START_US, (row.end_us or 0) - START_US, row.settled)
        for row in reversed(losses)
    ]
    assert told == [(10, 39, 30, 102 * S, 105 * S, True), (40, 59, 20, 125 * S, 127 * S, True)]
    spans = await db.read(lambda conn: ledger.between(conn, SOURCE, 0, 1 << 62))
    lost = [span.length_us for span in spans if span.state is LedgerState.LOST]
    assert lost == [3 * S, 2 * S]
