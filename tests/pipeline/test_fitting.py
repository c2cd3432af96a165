"""Where a run lies among what is there, and what of it is never decoded."""

from __future__ import annotations

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.domain import LedgerState
from omi_edge.pipeline.fitting import Fit, fit
from omi_edge.pipeline.ledger import Ledger
from omi_edge.store import audio, ledger, offline
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Span
from omi_edge.store.offline import CursorRow, NewRun, RecordRow, RunState
from tests.helpers import START_US
from tests.pipeline.test_dating import SOURCE, S, heard, known, reading
from tests.store.filling import chunk

FRAMES = 500
"""Ten seconds."""


def run_at(conn: Connection, reading_n: int, first: int, at: float, uncertainty_us: int = 50_000) -> offline.RunRow:
    """Note a run of FRAMES that waits to be heard."""
    last = first + FRAMES // 5 - 1
    rows = [RecordRow(1, seq, reading_n, None, b"raw") for seq in (first, last)]
    offline.keep(conn, SOURCE, rows, CursorRow(1, last + 1), (1, last + 1))
    run = NewRun(False, 1, first, 0, last, FRAMES, START_US + round(at * S), uncertainty_us)
    offline.place(conn, SOURCE, reading_n, [run], placed=(1, last + 1), after=None, empty=(), now_us=START_US)
    return offline.open_runs(conn, SOURCE)[-1]


@pytest.mark.parametrize("by", ["live audio", "the run before"])
async def test_what_a_run_is_moved_into_is_left_out_as_well(db: Database, clock: DrivenClock, by: str) -> None:
    """By its clock it ends two seconds before a mute; by what lies before it, it reaches into the mute."""
    book = Ledger(db, clock)
    await clock.advance(300)

    def work(conn: Connection) -> Fit:
        known(conn)
        n = reading(conn, 60, 150, 1000, complete=True)
        if by == "live audio":
            for at in range(90, 102, 2):
                audio.put(conn, chunk(SOURCE, START_US + at * S + S))
        else:
            heard(conn, n, 0, 119, 91.0)
        muted = Span(START_US + 112 * S, START_US + 120 * S, LedgerState.MUTED)
        ledger.write(conn, SOURCE, muted)
        return fit(conn, run_at(conn, n, 200, 100.0), offline.get_reading(conn, n), book.moment())

    found = await db.write(work)
    assert found.state is RunState.PLACED
    assert found.start_us == START_US + 103 * S
    reached_us = found.start_us + FRAMES * 20_000  # 113 s: one second of it lies in the mute
    assert any(low <= START_US + 112 * S and reached_us <= high for low, high in found.leave_out)
    assert found.uncertainty_us == 3 * S  # no surer than it was moved far


async def test_a_run_that_order_says_cannot_be_then_has_no_time(db: Database, clock: DrivenClock) -> None:
    book = Ledger(db, clock)
    await clock.advance(300)

    def work(conn: Connection) -> Fit:
        known(conn)
        n = reading(conn, 60, 150, 1000, complete=True)
        heard(conn, n, 0, 119, 120.0)
        return fit(conn, run_at(conn, n, 200, 100.0), offline.get_reading(conn, n), book.moment())

    assert (await db.write(work)).state is RunState.UNKNOWN
