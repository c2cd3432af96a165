"""Where a run lies among what is there already, right before it is heard, and what of it is never decoded.

A run has a time of whole seconds; live audio and the runs before it say more. What the owner withheld is looked for
around both, the time that its clock tells and the place that it gets.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from omi_edge.domain import SECOND_US
from omi_edge.pipeline import dating
from omi_edge.pipeline.dating import NEAR_US
from omi_edge.pipeline.intake import Span
from omi_edge.store import offline, recordings
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment
from omi_edge.store.offline import ReadingRow, RunRow, RunState

DRIFT_US = 30 * SECOND_US
"""A clock that is off by less has drifted; by more, it was set wrong at some moment that nobody knows."""
CLOCK_US = SECOND_US
"""A pendant's clock is read in whole seconds."""


class Fit(msgspec.Struct, frozen=True):
    """What is to be done with a run."""

    state: RunState
    """PLACED: hear it; HELD: it may be of a time that was withheld; UNKNOWN: its clock cannot have been right."""
    start_us: int
    uncertainty_us: int
    leave_out: tuple[Span, ...] = ()
    """Never to be decoded."""


def fit(conn: Connection, run: RunRow, reading: ReadingRow, now: Moment) -> Fit:
    """Say where a run with a time lies, in UTC as it was at ``reading``, and what of it is left out."""
    assert run.start_us is not None
    if run.decided:
        return Fit(RunState.PLACED, run.start_us, run.uncertainty_us)
    off_us = abs(reading.offset_us or 0) if run.latest_us is None else 0  # else no clock said when it was
    at_us = run.start_us if run.heard else _among_others(conn, run, reading)
    if at_us is None:
        return Fit(RunState.UNKNOWN, run.start_us, 0)
    unsure_us = max(run.uncertainty_us, abs(at_us - run.start_us))
    drift_us = off_us if off_us <= DRIFT_US else 0
    # of one that is only guessed nothing was withheld in all of the time that it can be of
    margin_us = abs(at_us - run.start_us) if run.guessed else unsure_us + CLOCK_US + drift_us
    reach_us = max(margin_us, off_us)
    end_us = run.start_us + run.frames * reading.codec.frame_us
    spans = dating.withheld_of(conn, run.source_id, reading, run.start_us - reach_us, end_us + reach_us, now)
    if run.heard == 0 and spans and reach_us > margin_us:
        return Fit(RunState.HELD, run.start_us, off_us)
    near = [(low_us - margin_us, high_us + margin_us) for low_us, high_us in spans]
    waited = [] if run.heard else dating.waited(conn, run, reading, at_us, now)
    return Fit(RunState.PLACED, at_us, unsure_us, (*near, *waited))


def _among_others(conn: Connection, run: RunRow, reading: ReadingRow) -> int | None:
    """Return where a run begins among audio that is there and runs before it; None where order says that it cannot."""
    assert run.start_us is not None
    length_us = run.frames * reading.codec.frame_us
    low_us, high_us = run.start_us - NEAR_US - length_us, run.start_us + length_us + NEAR_US
    taken = recordings.taken_spans(conn, run.source_id, low_us, high_us)
    at_us = fitted(run.start_us, length_us, taken, run.uncertainty_us + NEAR_US)
    before = offline.previous(conn, run)
    if before is None:
        return at_us
    over_us = dating.end_at(conn, before, reading) - at_us  # one may seem to begin before the end of the one before it
    most_us = before.uncertainty_us + run.uncertainty_us + NEAR_US
    if before.store == run.store:  # a clock that was off may have been right while one was recorded
        other = offline.get_reading(conn, before.reading_n)
        most_us += sum(min(abs(one.offset_us or 0), DRIFT_US) for one in (reading, other))
    if over_us > most_us and before.store == run.store and not before.guessed and run.latest_us is None:
        return None
    return at_us + over_us if 0 < over_us <= most_us else at_us


def fitted(start_us: int, length_us: int, taken: Sequence[Span], most_us: int) -> int:
    """Return where a run begins once it is moved, by ``most_us`` at most, out of the way of what is there."""
    middle_us = start_us + length_us // 2
    before_us = max((end for _, end in taken if end <= middle_us), default=None)
    after_us = min((begin for begin, _ in taken if begin > middle_us), default=None)
    if before_us is not None and 0 < before_us - start_us <= most_us:
        return before_us
    if after_us is not None and 0 < start_us + length_us - after_us <= most_us:
        moved_us = after_us - length_us
        return moved_us if before_us is None else max(moved_us, before_us)
    return start_us
