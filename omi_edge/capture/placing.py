"""Says when stored audio was heard (dossier §6.6): records in, runs on the timeline out. Knows no pendant.

A run is audio without a hole. Ring records carry the whole second at which their block was full, so each bounds where
its run begins, and many of them together place it to about a tenth of a second. A clock that went back says nothing
about when: such a run has no time, until ``anchor`` puts it before the next one that has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from omi_edge.capture.blocks import Mark, Record
from omi_edge.domain import SECOND_US

JUMP_US = 2 * SECOND_US
"""A stamp further ahead than this of what the frames allow is a hole: with its whole seconds that is a jump of 2 to 3 s
(dossier §6.6). Smaller ones come of the pendant's queue, which holds 1.28 s (dossier §5.4)."""

VISIT_US = 30 * SECOND_US
"""A clock that was set at a visit and drifts is not off by more, and a pendant may take a moment to notice its end."""


class Run(msgspec.Struct, frozen=True):
    """Consecutive frames of one store."""

    store: int
    first_seq: int
    last_seq: int
    """Records that its frames are of, both included."""
    frames: tuple[bytes, ...]
    frame_us: int
    origin_us: int | None = None
    """UTC of the first frame of the whole run; None when the time is unknown."""
    skipped_us: int = 0
    """How much of the run came before these frames, in an earlier batch."""
    uptime_us: int | None = None
    """The pendant's uptime at the first frame of the whole run, where it told that instead of the time."""
    uncertainty_us: int = 0
    """How far the origin may be off, as far as the stamps can tell."""
    guessed: bool = False
    """Whether the time is only the latest that it can have been."""
    bounds_us: tuple[int, int] | None = None
    """Between which the origin lies, on its own axis; for the batch that follows."""
    last_us: int | None = None
    """The last stamp, on its own axis; for the batch that follows."""
    known_us: int | None = None
    """The latest end of a run with a time, up to here."""
    end_seq: int = 0
    """What the next record's ``seq`` is when nothing is missing."""

    @property
    def continues(self) -> bool:
        """Whether these frames follow on from the batch before without a hole."""
        return self.skipped_us > 0

    @property
    def duration_us(self) -> int:
        """Length of these frames."""
        return len(self.frames) * self.frame_us

    @property
    def start_us(self) -> int | None:
        """UTC of the first of these frames; None when the time is unknown."""
        return None if self.origin_us is None else self.origin_us + self.skipped_us

    @property
    def end_us(self) -> int | None:
        """UTC just after the last of these frames."""
        return None if self.start_us is None else self.start_us + self.duration_us


def last_step_back(stamps: Iterable[tuple[int, int | None]]) -> int | None:
    """Return the seq at which the pendant's clock went back for the last time, None when it never did.

    Takes (seq, stamp) in order. What the clock was off by when it was measured holds only from there on.
    """
    found = previous = None
    for seq, stamp in stamps:
        if stamp is not None:
            if previous is not None and stamp < previous:
                found = seq
            previous = stamp
    return found


def place(
    records: Sequence[Record],
    offset_us: int | None,
    frame_us: int,
    *,
    after: Run | None = None,
    stepped_at: int | None = None,
    until_us: int | None = None,
    since_us: int | None = None,
    known_us: int | None = None,
) -> list[Run]:
    """Return the runs that ``records``, in their order, make up.

    ``offset_us``: the pendant's clock minus ours, measured before ours was set; None counts as 0. ``stepped_at``: what
    ``last_step_back`` says of all that is to be placed, from this seq on the offset holds and before it 0; by default
    it is looked for in ``records``. ``after``: the last run of the batch before; the first one returned ``continues``
    it when nothing is missing between. ``until_us``: when the drain began; a run that ends later has no time.
    ``since_us``: when the last visit ended at which everything was drained; one that began well before has none either.
    ``known_us``: the latest end of what was stored before, where there is no ``after``; none of these began before it.
    """
    if stepped_at is None:
        stepped_at = last_step_back((record.seq, record.stamp) for record in records)
    builder = _Builder(frame_us, after, until_us, since_us, known_us)
    for record in records:
        holds = stepped_at is None or record.seq >= stepped_at
        builder.add(record, (offset_us or 0) if holds else 0)
    return builder.finish()


def anchor(runs: Sequence[Run], until_us: int) -> list[Run]:
    """Give runs without a time the latest that they can have: right before the next known point, or ``until_us``."""
    out: list[Run] = []
    limit_us = until_us
    for run in reversed(runs):
        if run.origin_us is None and not run.continues:
            run = msgspec.structs.replace(run, origin_us=limit_us - run.duration_us, guessed=True)
        if run.start_us is not None:
            limit_us = run.start_us
        out.append(run)
    return out[::-1]


class _Builder:
    def __init__(
        self, frame_us: int, after: Run | None, until_us: int | None, since_us: int | None, known_us: int | None
    ) -> None:
        self._frame_us = frame_us
        self._until_us = until_us
        self._since_us = since_us
        self._after = after
        self._runs: list[Run] = []
        self._frames: list[bytes] = []
        self._known_us = known_us if after is None else after.known_us
        self._store = 0 if after is None else after.store
        self._end_seq = -1 if after is None else after.end_seq
        self._first_seq = self._last_seq = 0
        self._bounds = None if after is None else after.bounds_us
        self._last_us = None if after is None else after.last_us
        self._uptime = after is not None and after.uptime_us is not None
        self._skipped_us = 0 if after is None else after.skipped_us + after.duration_us

    def add(self, record: Record, offset_us: int) -> None:
        """Take the next record."""
        if record.store != self._store or record.seq != self._end_seq:
            self._break()
        in_ring = record.stamp is not None or record.uptime is not None
        self._store = record.store
        self._end_seq = record.seq + (1 if in_ring or len(record.raw) == 444 else len(record.raw))
        if record.uptime is not None:
            self._stamped(record, record.uptime * SECOND_US, uptime=True)
        elif record.stamp is not None:
            self._stamped(record, record.stamp * SECOND_US - offset_us, uptime=False)
        elif record.marks:
            self._marked(record, offset_us)
        else:
            if len(record.raw) == 444 and self._bounds is not None:
                self._break()  # a ring's record without a time, after one with a time
            self._append(record, record.frames)

    def finish(self) -> list[Run]:
        """Return the runs."""
        self._close()
        return self._runs

    def _stamped(self, record: Record, time_us: int, *, uptime: bool) -> None:
        began = bool(self._frames or self._skipped_us)
        if began and (self._bounds is None or uptime is not self._uptime or not self._fits(record, time_us)):
            self._break()
        self._uptime = uptime
        self._append(record, record.frames)
        latest = time_us + SECOND_US - self._elapsed_us
        bounds = (latest - SECOND_US, latest)
        self._bounds = (
            bounds if self._bounds is None else (max(self._bounds[0], bounds[0]), min(self._bounds[1], latest))
        )
        self._last_us = time_us

    def _marked(self, record: Record, offset_us: int) -> None:
        begins = (*(mark.frame for mark in record.marks), len(record.frames))
        self._append(record, record.frames[: begins[0]])
        for mark, end in zip(record.marks, begins[1:], strict=True):
            self._begin_at(mark, offset_us)
            self._append(record, record.frames[mark.frame : end])

    def _begin_at(self, mark: Mark, offset_us: int) -> None:
        self._break()
        self._uptime = False
        if not mark.seconds:
            return
        start_us = mark.seconds * SECOND_US - offset_us
        if self._until_us is not None and start_us > self._until_us >= mark.seconds * SECOND_US:
            start_us = mark.seconds * SECOND_US  # begun before the clock fell back: it was right then
            self._known_us = None  # files are told by the times in their names, which are not in order then
        self._bounds, self._last_us = (start_us, start_us + SECOND_US), start_us

    def _fits(self, record: Record, time_us: int) -> bool:
        """Whether a stamp can be of the run so far."""
        assert self._bounds is not None
        earliest = time_us - self._elapsed_us - len(record.frames) * self._frame_us
        back = self._last_us is not None and time_us < self._last_us
        return not back and self._bounds[0] - JUMP_US <= earliest + SECOND_US and earliest <= self._bounds[1] + JUMP_US

    @property
    def _elapsed_us(self) -> int:
        return self._skipped_us + len(self._frames) * self._frame_us

    def _append(self, record: Record, frames: Sequence[bytes]) -> None:
        if not self._frames:
            self._first_seq = record.seq
        self._frames += frames
        self._last_seq = record.seq

    def _break(self) -> None:
        self._close()
        self._skipped_us = 0
        self._bounds = self._last_us = None
        self._uptime = False

    def _close(self) -> None:
        if not self._frames:
            return
        before = self._after if self._skipped_us else None
        origin_us, uncertainty_us = self._origin()
        uptime_us = origin_us if self._uptime else None
        if before is not None:
            origin_us, uptime_us, uncertainty_us = before.origin_us, before.uptime_us, before.uncertainty_us
        elif self._uptime or (origin_us is not None and not self._credible(origin_us)):
            origin_us = None
        if origin_us is not None:
            self._known_us = max(self._known_us or 0, origin_us + self._elapsed_us)
        self._runs.append(
            Run(
                self._store,
                self._first_seq,
                self._last_seq,
                tuple(self._frames),
                self._frame_us,
                origin_us,
                self._skipped_us,
                uptime_us,
                uncertainty_us,
                before is not None and before.guessed,
                self._bounds,
                self._last_us,
                self._known_us,
                self._end_seq,
            )
        )
        self._frames = []

    def _origin(self) -> tuple[int | None, int]:
        if self._bounds is None:
            return None, 0
        low, high = self._bounds
        if low > high:  # some were stamped late, none can be early
            return high, low - high
        return (low + high) // 2, (high - low + 1) // 2

    def _credible(self, origin_us: int) -> bool:
        """Whether a run can have been then: after what was stored before it, and not in the future."""
        after = self._known_us is None or origin_us >= self._known_us - JUMP_US
        before = self._since_us is None or origin_us >= self._since_us - VISIT_US
        return after and before and (self._until_us is None or origin_us + self._elapsed_us <= self._until_us + JUMP_US)
