"""What a pendant stored: records once, runs from fetched to heard, the owner's word, and what conversations reach."""

from __future__ import annotations

import pytest

from omi_edge.domain import Codec
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import offline
from omi_edge.store.connection import Connection
from omi_edge.store.offline import CursorRow, NewRun, RecordRow, RunRow, RunState
from tests.helpers import START_US
from tests.store.filling import MINUTE, SECOND, SOURCES, add_source, stored_run

SOURCE = SOURCES[0]
FRAME_US = Codec.OPUS_20MS.frame_us


@pytest.fixture(autouse=True)
def source(conn: Connection) -> None:
    add_source(conn)


def begun(conn: Connection, offset_us: int | None = 0) -> int:
    return offline.begin_reading(
        conn, SOURCE, away_us=None, connected_us=START_US, read_us=START_US, offset_us=offset_us, ledger_us=7,
        codec=Codec.OPUS_20MS, step=1,
    )  # fmt: skip


def put(conn: Connection, reading_n: int, *seqs: int, final: int | None = None, raw: bytes = b"raw") -> None:
    rows = [RecordRow(1, seq, reading_n, None, raw) for seq in seqs]
    at = CursorRow(1, max(seqs) + 1)
    offline.keep(conn, SOURCE, rows, at, None if final is None else (1, final))


def place(conn: Connection, reading_n: int, *runs: NewRun, upto: int) -> list[RunRow]:
    offline.place(
        conn, SOURCE, reading_n, runs, placed=(1, upto), after=b"after", empty=(), now_us=START_US
    )  # fmt: skip
    return offline.latest(conn, SOURCE, 100)[::-1]


def held(conn: Connection, run: RunRow) -> RunRow:
    offline.settle_run(
        conn, run.n, state=RunState.HELD, start_us=START_US, uncertainty_us=5, guessed=True, earliest_us=START_US - 5,
        latest_us=START_US + 5,
    )  # fmt: skip
    return offline.get_run(conn, run.n)


def here(conn: Connection) -> list[int]:
    return [row[0] for row in conn.execute("SELECT seq FROM offline_records ORDER BY seq")]


def test_a_cursor_comes_back_as_it_was_kept(conn: Connection) -> None:
    assert offline.cursor(conn, SOURCE) is None
    reading_n = begun(conn)
    at = CursorRow(3, 9, b"tail", 2**64 - 1, 5, 2)
    offline.keep(conn, SOURCE, [RecordRow(3, 8, reading_n, 77, b"x")], at)
    assert offline.cursor(conn, SOURCE) == at
    assert offline.source_ids(conn) == [SOURCE]


def test_a_record_that_comes_again_is_there_once(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, 0, 1, raw=b"old")
    put(conn, begun(conn), 1, 2, raw=b"newer", final=3)
    rows = offline.unplaced(conn, SOURCE, 10)
    assert [(row.seq, row.raw) for row in rows] == [(0, b"old"), (1, b"newer"), (2, b"newer")]
    assert offline.waiting_bytes(conn, SOURCE) == 13


def test_what_is_not_final_can_be_looked_at_again(conn: Connection) -> None:
    assert offline.kept(conn, SOURCE, 1, 0, 10) == []
    put(conn, begun(conn), 0, 1, 2, 3, final=2)
    put(conn, begun(conn), 3, raw=b"again")
    assert offline.kept(conn, SOURCE, 1, 0, 10) == [(2, b"raw"), (3, b"again")]
    assert offline.kept(conn, SOURCE, 1, 3, 10) == [(3, b"again")]
    assert offline.kept(conn, SOURCE, 1, 0, 1) == [(2, b"raw")]
    assert offline.kept(conn, SOURCE, 2, 0, 10) == []
    offline.keep(conn, SOURCE, [], CursorRow(2, 0), (2, 0))
    assert offline.kept(conn, SOURCE, 1, 0, 10) == []


def test_only_what_the_pendant_gave_up_is_placed(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, 0, 1, 2, final=2)
    assert [row.seq for row in offline.unplaced(conn, SOURCE, 10)] == [0, 1]
    assert offline.heads(conn, SOURCE, reading_n, 2) == [(1, 0, b"ra"), (1, 1, b"ra")]
    offline.keep(conn, SOURCE, [], CursorRow(1, 3), (1, 1))  # what is final stays so
    assert len(offline.unplaced(conn, SOURCE, 10)) == 2
    offline.finalize(conn, SOURCE)
    assert len(offline.unplaced(conn, SOURCE, 10)) == 3


def test_a_record_may_be_of_any_reading_since_the_last_complete_one(conn: Connection) -> None:
    first, second, third, fourth = (begun(conn, n) for n in range(4))
    offline.complete_reading(conn, first)
    assert [row.n for row in offline.readings(conn, SOURCE, third)] == [second, third]
    assert offline.completed_since(conn, SOURCE, first)
    assert not offline.completed_since(conn, SOURCE, second)
    last = offline.last_reading(conn, SOURCE)
    assert last is not None
    assert (last.n, last.offset_us, last.ledger_us, last.complete) == (fourth, 3, 7, False)


def test_a_run_goes_on_with_what_comes_later(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, 0, 1, 2, final=3)
    (run,) = place(conn, reading_n, NewRun(False, 1, 0, 2, 1, 15, START_US, 3), upto=2)
    assert (run.state, run.at_frame, run.frames, run.uncertainty_us) == (RunState.PLACED, 2, 15, 3)
    offline.heard(conn, run, frames=15, at_seq=1, at_frame=5, left_out_us=0)
    assert offline.get_run(conn, run.n).state is RunState.HEARD
    (run,) = place(conn, reading_n, NewRun(True, 1, 2, 0, 2, 10, None, 0), upto=3)
    assert (run.state, run.frames, run.heard, run.last_seq) == (RunState.PLACED, 25, 15, 2)
    assert offline.placing(conn, SOURCE).after == b"after"


def test_records_are_let_go_of_when_no_run_needs_them(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, 0, 1, 2, final=3)
    first, second = place(
        conn, reading_n, NewRun(False, 1, 0, 0, 1, 15, START_US, 0), NewRun(False, 1, 1, 5, 2, 15, None, 0), upto=3
    )
    offline.heard(conn, first, frames=10, at_seq=1, at_frame=0, left_out_us=0)
    assert here(conn) == [1, 2]
    offline.heard(conn, offline.get_run(conn, first.n), frames=5, at_seq=1, at_frame=5, left_out_us=4 * FRAME_US)
    assert here(conn) == [1, 2]  # the other one begins in record 1
    assert offline.get_run(conn, first.n).left_out_us == 4 * FRAME_US
    second = held(conn, second)
    assert offline.decide(conn, second.id, wanted=False).state is RunState.DISCARDED
    assert here(conn) == []


def test_a_held_run_takes_one_word(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, 0, final=1)
    (run,) = place(conn, reading_n, NewRun(False, 1, 0, 0, 0, 10, None, 0), upto=1)
    assert run.state is RunState.UNKNOWN
    with pytest.raises(BadInput, match="does not wait"):
        offline.decide(conn, run.id, wanted=True)
    run = held(conn, run)
    assert offline.held(conn, SOURCE) == [run]
    assert offline.belongs(conn, SOURCE, run.id)
    add_source(conn, SOURCES[1], device_id=None)
    assert not offline.belongs(conn, SOURCES[1], run.id)
    kept = offline.decide(conn, run.id, wanted=True)
    assert (kept.state, kept.start_us, kept.guessed) == (RunState.PLACED, START_US, True)
    assert here(conn) == [0]
    assert offline.held(conn, SOURCE) == []
    with pytest.raises(BadInput):
        offline.decide(conn, run.id, wanted=False)
    with pytest.raises(NotFound, match="devices held"):
        offline.decide(conn, "run_0", wanted=True)


def test_a_stretch_is_reached_by_what_was_heard_and_kept(conn: Connection) -> None:
    def reach(start_us: int, end_us: int) -> list[str]:
        return [run.id for run in offline.reaching(conn, SOURCE, start_us, end_us)]

    length_us = 30 * FRAME_US
    run = stored_run(conn, START_US)
    assert reach(START_US, START_US + SECOND) == []  # not heard yet
    offline.heard(conn, run, frames=20, at_seq=2, at_frame=0, left_out_us=0)
    assert reach(START_US, START_US + SECOND) == [run.id]
    assert reach(START_US + 20 * FRAME_US, START_US + SECOND) == []  # the rest of it was not heard yet
    offline.heard(conn, offline.get_run(conn, run.n), frames=10, at_seq=2, at_frame=10, left_out_us=0)
    assert reach(START_US + length_us - 1, START_US + MINUTE) == [run.id]
    assert reach(START_US + length_us, START_US + MINUTE) == []
    assert reach(START_US - SECOND, START_US) == []
    left_out = stored_run(conn, START_US + MINUTE, first=3)
    offline.heard(conn, left_out, frames=30, at_seq=5, at_frame=10, left_out_us=length_us)
    assert reach(START_US + MINUTE, START_US + 2 * MINUTE) == []
    later = stored_run(conn, START_US + 2 * MINUTE, first=6)
    offline.heard(conn, later, frames=30, at_seq=8, at_frame=10, left_out_us=0)
    assert reach(START_US, START_US + 3 * MINUTE) == [run.id, later.id]
    assert reach(START_US + 2 * MINUTE + 1, START_US + 3 * MINUTE) == [later.id]


def test_neighbours_with_a_time_are_found(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, *range(4), final=4)
    times = (START_US, None, None, START_US + MINUTE)
    runs = place(conn, reading_n, *(NewRun(False, 1, n, 0, n, 10, at, 0) for n, at in enumerate(times)), upto=4)
    assert offline.around(conn, runs[1]) == (runs[0], runs[3])
    assert offline.around(conn, runs[0]) == (None, runs[3])
    assert [run.n for run in offline.open_runs(conn, SOURCE)] == [run.n for run in runs]
    offline.move_run(conn, runs[0].n, START_US + 9, 7)
    assert offline.get_run(conn, runs[0].n).start_us == START_US + 9


def test_a_loss_lies_between_what_was_recorded_before_and_after(conn: Connection) -> None:
    reading_n = begun(conn)
    put(conn, reading_n, 0, 5, final=6)
    before, later = place(
        conn, reading_n, NewRun(False, 1, 0, 0, 0, 10, START_US, 0), NewRun(False, 1, 5, 0, 5, 10, START_US + 9, 0),
        upto=6,
    )  # fmt: skip
    offline.lose(conn, SOURCE, reading_n, store=1, first=1, last=4, records=4, why="overwritten")
    (loss,) = offline.open_losses(conn, SOURCE)
    assert offline.beside(conn, SOURCE, loss) == (before, later)
    offline.settle_loss(conn, loss.n, START_US + 1, START_US + 8)
    assert offline.open_losses(conn, SOURCE) == []
    (loss,) = offline.losses(conn, SOURCE)
    assert (loss.records, loss.why, loss.start_us, loss.end_us, loss.settled) == (
        4, "overwritten", START_US + 1, START_US + 8, True
    )  # fmt: skip
