"""When recordings without a time were made, and what is lost of them; and what of all that the owner withheld.

A recording whose clock tells nothing has the latest time that it can have: right before the next known point. Whether
the owner withheld recording then is asked of the ledger, which no step of the wall clock moves.
"""

from __future__ import annotations

from omi_edge.domain import SECOND_US, Cause, Gap, LedgerState
from omi_edge.pipeline.ear import record_of
from omi_edge.pipeline.intake import Span
from omi_edge.store import gaps, ledger, offline, withheld
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment
from omi_edge.store.offline import LossRow, ReadingRow, RunRow, RunState

NEAR_US = 3 * SECOND_US
"""How far a run and live audio beside it may overlap: a pendant's queue holds 1.28 s (dossier §7), and stamps are whole
seconds."""
SLACK_US = 5 * SECOND_US
"""A recording without a time that fills all but this of an absence was recorded then."""
WITHHELD = (LedgerState.FORGOTTEN, LedgerState.OFF_RECORD, LedgerState.MUTED)


def anchor(conn: Connection, run: RunRow, now: Moment, *, fetching: bool) -> None:
    """Give a run without a time the latest that it can have, unless the owner may have withheld recording then.

    ``fetching``: whether more may come that tells; then it waits.
    """
    reading = offline.get_reading(conn, run.reading_n)
    before, later = offline.around(conn, run)
    if later is None and (fetching or not offline.completed_since(conn, run.source_id, reading.n)):
        return
    candidates = [one for one in offline.may_be_of(conn, run) if one.n > reading.n]
    length_us = run.frames * reading.codec.frame_us
    latest_us = reading.connected_us - _not_here_us(run, reading)
    if later is not None and later.start_us is not None:
        latest_us = later.start_us
    known = [reading.away_us, None if before is None else end_us(before, reading)]
    # one whose connection before is not known may be from any time before
    earliest_us = max((one for one in known if one is not None), default=0)
    start_us = latest_us - length_us
    if candidates and later is None and start_us < earliest_us - SLACK_US:  # no room: it was recorded after that visit
        offline.reassign(conn, run.n, candidates[0].n)
        anchor(conn, offline.get_run(conn, run.n), now, fetching=fetching)
        return
    slack_us = max(0, start_us - earliest_us)
    reach_us = candidates[-1].connected_us if candidates and later is None else latest_us
    guessed = slack_us > SLACK_US or start_us < earliest_us - SLACK_US or reach_us > latest_us + SLACK_US
    spans = guessed and withheld_of(conn, run.source_id, reading, min(earliest_us, start_us), reach_us, now)
    offline.settle_run(
        conn, run.n, state=RunState.HELD if spans else RunState.PLACED, start_us=start_us,
        uncertainty_us=max(slack_us, earliest_us - start_us) if earliest_us else 0, guessed=guessed,
        earliest_us=earliest_us or None, latest_us=latest_us,
    )  # fmt: skip


def waited(conn: Connection, run: RunRow, reading: ReadingRow, start_us: int, now: Moment) -> list[Span]:
    """Return what of a run that begins at ``start_us`` may have waited in its first block since something was withheld.

    A block that is not full stays in the pendant's RAM, and bears the time at which it was full at last.
    """
    before = offline.previous(conn, run)
    low_us = 0 if before is None else end_at(conn, before, reading) - NEAR_US
    first = offline.records(conn, run, 1)
    if not first or not withheld_of(conn, run.source_id, reading, low_us, start_us, now):
        return []
    return [(start_us, start_us + len(record_of(first[0]).frames[run.at_frame :]) * reading.codec.frame_us)]


def withheld_of(
    conn: Connection, source_id: str, reading: ReadingRow, start_us: int, end_us: int, now: Moment
) -> list[Span]:
    """Return what of [start, end) the owner withheld, in UTC as it was at ``reading``."""
    shift_us = reading.ledger_us
    low_us, high_us = start_us + shift_us, end_us + shift_us
    account = ledger.account(conn, source_id, low_us, high_us, now)
    spans = [(span.start_us, span.end_us) for span in account if span.state in WITHHELD]
    since_us = account[0].start_us if account else high_us
    if low_us < since_us:  # from before the source was known here, as with the first visit of a pendant
        known = ledger.anchors(conn)
        for row in withheld.listed(conn):
            begin_us = ledger.at(known, row.start_us) if row.ledger_us is None else row.ledger_us
            finish_us = high_us if row.end_us is None else ledger.at(known, row.end_us)
            if begin_us < since_us and low_us < finish_us:
                spans.append((max(begin_us, low_us), min(finish_us, since_us)))
    return [(low - shift_us, high - shift_us) for low, high in spans]


def date(conn: Connection, source_id: str, loss: LossRow, *, fetching: bool) -> None:
    """Say when lost records were recorded, from what was recorded beside them, in ledger and gaps."""
    before, later = offline.beside(conn, source_id, loss)
    reading = offline.get_reading(conn, loss.reading_n)
    if later is None and (fetching or offline.unplaced(conn, source_id, 1)):
        return
    if any(one is not None and one.state is RunState.PLACED for one in (before, later)):
        return  # it may be moved yet, to fit what lies around it
    head = _head_inside(conn, source_id, loss, reading)
    if head is not None:  # recorded before and after a visit
        for part in offline.split_loss(conn, loss, head):
            date(conn, source_id, part, fetching=fetching)
        return
    floor_us, ceiling_us = _visits_around(conn, source_id, loss, reading)
    per_record_us = [
        one.frames * reading.codec.frame_us / ((one.last_seq - one.first_seq) // reading.step + 1)
        for one in (before, later)
        if one is not None
    ]
    if not per_record_us:
        offline.settle_loss(conn, loss.n, None, None)
        return
    length_us = round(loss.records * sum(per_record_us) / len(per_record_us))
    low_us = None if before is None else end_at(conn, before, reading)
    after_us = None if later is None or later.start_us is None else _at_reading(conn, later, later.start_us, reading)
    high_us = min(reading.connected_us if after_us is None else after_us, ceiling_us)
    if low_us is not None and 0 <= high_us - low_us <= length_us * 11 // 10 + SECOND_US // 2:
        start_us, finish_us = low_us, high_us
    elif after_us is not None:
        start_us, finish_us = high_us - length_us, high_us
    else:
        assert low_us is not None
        finish_us = min(low_us + length_us, high_us)
        start_us = finish_us - length_us
    # blocks of silence hold more than others, so what they last is an estimate; they are of no time that was fetched
    bounds = [bound for bound in (floor_us, low_us) if bound is not None and bound < finish_us]
    start_us = max([start_us, *bounds])
    offline.settle_loss(conn, loss.n, start_us, finish_us)
    if finish_us <= start_us:
        return
    frames = round(length_us / reading.codec.frame_us)
    span = ledger.Span(start_us + reading.ledger_us, finish_us + reading.ledger_us, LedgerState.LOST)
    ledger.write(conn, source_id, span)
    gaps.fill(conn, source_id, start_us, finish_us)
    gaps.put(conn, Gap(source_id, start_us, finish_us, (Cause.LOST,), frames))


def _head_inside(conn: Connection, source_id: str, loss: LossRow, reading: ReadingRow) -> int | None:
    """Return where a ring ended at a visit between the first and the last of lost records; None when it never did."""
    whole = reading.step == 1 and loss.records == loss.last - loss.first + 1
    heads = [
        one.head_position
        for one in offline.readings(conn, source_id, reading.n)
        if one.head_store == loss.store and one.head_position is not None
    ]
    return next((head for head in heads if whole and loss.first < head <= loss.last), None)


def _visits_around(conn: Connection, source_id: str, loss: LossRow, reading: ReadingRow) -> tuple[int | None, int]:
    """Return the visits between which lost records were recorded: the end of one, and when the next began.

    In UTC as it was at ``reading``. What a store held at a visit was recorded before; the rest of it afterwards.
    """
    known = offline.readings(conn, source_id, reading.n) or [reading]
    index = next(
        (
            index
            for index, one in enumerate(known)
            if one.head_store == loss.store and one.head_position is not None and loss.first < one.head_position
        ),
        len(known) - 1,
    )
    one = known[index]
    shift_us = one.ledger_us - reading.ledger_us
    # where nobody knows what the visit before left behind, after the last one at which everything was fetched
    since = one if index == 0 or known[index - 1].head_store is not None else known[0]
    floor_us = None if since.away_us is None else since.away_us + since.ledger_us - reading.ledger_us
    return floor_us, one.connected_us + shift_us


def _at_reading(conn: Connection, run: RunRow, utc_us: int, reading: ReadingRow) -> int:
    """Return a time of a run in UTC as it was at ``reading``, which may be another than its own."""
    return utc_us + offline.get_reading(conn, run.reading_n).ledger_us - reading.ledger_us


def _not_here_us(run: RunRow, reading: ReadingRow) -> int:
    """Return how long the rest of the run's store lasts that was there at the reading and was not fetched, about."""
    next_seq = run.last_seq + reading.step
    if reading.head_store != run.store or reading.head_position is None or next_seq >= reading.head_position:
        return 0
    records = (run.last_seq - run.first_seq) // reading.step + 1
    missing = (reading.head_position - next_seq) // reading.step
    return round(missing * run.frames * reading.codec.frame_us / records)


def end_at(conn: Connection, run: RunRow, reading: ReadingRow) -> int:
    """Return when a run ends, in UTC as it was at ``reading``, which may be another than its own."""
    return _at_reading(conn, run, end_us(run, offline.get_reading(conn, run.reading_n)), reading)


def end_us(run: RunRow, reading: ReadingRow) -> int:
    """Return when a run ends, in UTC as it was at its reading."""
    return (run.start_us or 0) + run.frames * reading.codec.frame_us
