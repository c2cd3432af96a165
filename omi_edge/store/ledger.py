"""The ledger: what became of every second of a live source since it was first seen. Spans, never rows a second.

Spans lie on *ledger time*: UTC when the ledger began, counted on by the boot clock, which counts suspend. Anchors tie
it to the wall clock; a step of the wall clock adds an anchor and changes no length.

    boot time      ├────────────────────┤ reboot ├──────────────┤
    wall clock     ├─────────┤step├─────┤        ├──────────────┤
    ledger time    ├────────────────────┼────────┼──────────────┤      the distance across a reboot is taken from UTC
    anchors        a         a                   a

What is stored never overlaps: where two spans meet, the state that LedgerState names first holds, and of one state the
span that says more. So the order in which spans are written does not matter. What no span covers is settled when it is
read: muted while that holds, daemon down after the last sign of life, else unknown. A socket's source was disconnected
then: of the time in which its client is connected every moment is written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from omi_edge.domain import Cause, LedgerState
from omi_edge.store import sources, withheld
from omi_edge.store.connection import Connection

STEP_US = 250_000
"""A wall clock that is off its anchor by more was stepped. What slews it slews the boot clock with it (adjtimex(2))."""
SANE_US = 366 * 86_400_000_000
"""Longest absence that is believed across a reboot: a clock that says more is taken for one that was never set."""
SETTLING_US = 3_600_000_000
"""A clock put forward so soon after a reboot was behind during it: the distance is measured again. Machines without a
battery for their clock start with the time they stopped at, until the network tells."""
SEAM_US = 1
"""What stands for an absence of unknown length, so that what lies on its two sides is not joined."""
SAME_BOOT_US = 60_000_000
"""Where the system does not name its boots: a wall clock this near to where the boot clock expects it, same boot."""
LIFE_US = 300_000_000
"""How often the daemon gives a sign of life while nothing is heard: a crash is known to so much."""
STALE_US = 3 * LIFE_US
"""Without a sign of life for so long nobody listens, whatever was noted."""

_RANK = {state: rank for rank, state in enumerate(LedgerState)}
_COLUMNS = "start_us, end_us, state, causes, lost_us, losses"


class Moment(msgspec.Struct, frozen=True):
    """A reading of the clock."""

    boot_id: str
    boot_us: int
    utc_us: int


class Span(msgspec.Struct, frozen=True):
    """A stretch of one state, in ledger time."""

    start_us: int
    end_us: int
    state: LedgerState
    causes: tuple[Cause, ...] = ()
    """Of an absence every cause that fits, the likelier first; several mean that the state is unknown."""
    lost_us: int = 0
    """What of it was lost in holes too short for spans of their own."""
    losses: int = 0
    """How many such holes."""

    @property
    def length_us(self) -> int:
        """How long it is."""
        return self.end_us - self.start_us

    def part(self, start_us: int, end_us: int) -> Span:
        """Return what of it lies in [start, end), with its share of what was lost; may be empty."""
        start_us, end_us = max(start_us, self.start_us), min(end_us, self.end_us)
        length_us = max(0, end_us - start_us)
        if length_us == self.length_us:
            return self
        share = (self.lost_us * length_us // self.length_us, self.losses * length_us // self.length_us)
        return Span(start_us, start_us + length_us, self.state, self.causes, *share)


class Anchor(msgspec.Struct, frozen=True):
    """One instant on all clocks."""

    boot_id: str
    boot_us: int
    utc_us: int
    ledger_us: int


class Sum(msgspec.Struct, frozen=True):
    """How much of one state there is."""

    state: LedgerState
    causes: tuple[Cause, ...]
    """Of unknown time what it may have been; else empty."""
    total_us: int
    places: int


# --- the clock of the ledger ------------------------------------------------------------------------------------------


def tick(conn: Connection, now: Moment) -> int:
    """Return ledger time minus boot time; notes a reboot or a step of the wall clock that has been since."""
    last = _last_anchor(conn)
    if last is None:
        _add_anchor(conn, now, now.utc_us)
        return now.utc_us - now.boot_us
    if not _same_boot(conn, last, now):
        at_us = now_us(conn, now)
        _add_anchor(conn, now, at_us)
        return at_us - now.boot_us
    offset_us = last.ledger_us - last.boot_us
    step_us = (now.utc_us - now.boot_us) - (last.utc_us - last.boot_us)
    if abs(step_us) > STEP_US:
        offset_us += _measure_again(conn, last, now)
        _add_anchor(conn, now, now.boot_us + offset_us)
    return offset_us


def now_us(conn: Connection, now: Moment) -> int:
    """Return the present in ledger time; changes nothing. Before the ledger has begun: UTC."""
    last = _last_anchor(conn)
    if last is None:
        return now.utc_us
    if _same_boot(conn, last, now):
        return last.ledger_us + now.boot_us - last.boot_us
    from_us = max(last.ledger_us, last_life_us(conn))
    away_us = now.utc_us - (last.utc_us + from_us - last.ledger_us)
    return from_us + (away_us if SEAM_US <= away_us <= SANE_US else SEAM_US)


def last_life_us(conn: Connection) -> int:
    """Return the last moment at which a daemon surely listened, in ledger time; 0 before one ever did."""
    life = _life(conn)
    ends = [_last_heard_us(conn, n) for n, _, _ in _sources(conn)]
    return max([0 if life is None else life[0], *ends])


def anchors(conn: Connection) -> list[Anchor]:
    """Return all anchors: one a boot and one a step of the wall clock, in order of ledger time."""
    rows = conn.execute("SELECT boot_id, boot_us, utc_us, ledger_us FROM ledger_anchors ORDER BY ledger_us, n")
    return [Anchor(*row) for row in rows]


def at(known: Sequence[Anchor], utc_us: int) -> int:
    """Return the ledger time at which the wall clock showed ``utc_us``, the last when it did more than once."""
    for index in reversed(range(len(known))):
        offset_us = known[index].ledger_us - known[index].utc_us
        if utc_us >= known[index].utc_us or index == 0:
            until_us = known[index + 1].ledger_us if index + 1 < len(known) else None
            # inside a stretch that a step passed over: at the step
            return utc_us + offset_us if until_us is None else min(utc_us + offset_us, until_us)
    return utc_us


def called_now(known: Sequence[Anchor], utc_us: int, now: Moment, present_us: int) -> int:
    """Return what the wall clock, as it is set now, calls a past moment that it called ``utc_us`` then.

    ``present_us`` is ``now`` in ledger time. Of several such moments the last; one that never was stays as it is.
    """
    ends = [*(anchor.ledger_us for anchor in known[1:]), present_us]
    for anchor, end_us in zip(reversed(known), reversed(ends), strict=True):
        at_us = utc_us + anchor.ledger_us - anchor.utc_us
        if anchor.ledger_us <= at_us <= end_us:
            return at_us - present_us + now.utc_us
    return utc_us


def utc(known: Sequence[Anchor], ledger_us: int) -> int:
    """Return what the wall clock showed at a moment of ledger time."""
    before = [anchor for anchor in known if anchor.ledger_us <= ledger_us] or list(known[:1])
    return ledger_us + before[-1].utc_us - before[-1].ledger_us if before else ledger_us


# --- writing ----------------------------------------------------------------------------------------------------------


def begin(conn: Connection, source_id: str, at_us: int) -> None:
    """Say that a source is seen, at ``at_us`` of ledger time: from the first time on it has an account. NotFound."""
    conn.execute(
        "INSERT INTO ledger_sources (source_n, since_us) VALUES (?, ?) ON CONFLICT (source_n) DO UPDATE SET"
        " since_us = min(since_us, excluded.since_us), until_us = NULL"
        " WHERE excluded.since_us < since_us OR until_us IS NOT NULL",
        (sources.number(conn, source_id), at_us),
    )


def end(conn: Connection, source_id: str, at_us: int) -> None:
    """Say that a source will not be heard again: its account ends, until it is seen once more. NotFound."""
    conn.execute(
        "UPDATE ledger_sources SET until_us = max(since_us, ?) WHERE source_n = ? AND until_us IS NULL",
        (at_us, sources.number(conn, source_id)),
    )


def join(conn: Connection, source_id: str, into_id: str) -> None:
    """Enter the account of a source into that of another, and close it. Raises NotFound."""
    n, into = sources.number(conn, source_id), sources.number(conn, into_id)
    row = conn.execute("SELECT since_us FROM ledger_sources WHERE source_n = ?", (n,)).fetchone()
    if row is None:
        return
    moved = _between(conn, n, 0, 1 << 62)
    conn.execute("DELETE FROM ledger WHERE source_n = ?", (n,))
    conn.execute("DELETE FROM ledger_sources WHERE source_n = ?", (n,))
    begin(conn, into_id, row[0])
    for span in moved:
        _write(conn, into, span)


def put(
    conn: Connection, source_id: str, start_us: int, end_us: int, state: LedgerState, causes: Sequence[Cause] = ()
) -> None:
    """Note what became of [start, end), UTC by the wall clock as it is set now; also for the past. Raises NotFound.

    For what is counted back from now, like a pendant's recordings once its clock has been compared: a step of the
    wall clock in between does not move it. Several causes make no certain state: then it is to be unknown.
    """
    last = _last_anchor(conn)
    shift_us = 0 if last is None else last.ledger_us - last.utc_us
    write(conn, source_id, Span(start_us + shift_us, end_us + shift_us, state, tuple(causes)))


def write(conn: Connection, source_id: str, new: Span) -> None:
    """Note a span, in ledger time. The usual one, which follows on the last of its state, changes one row."""
    if new.end_us <= new.start_us:
        return
    n = sources.number(conn, source_id)
    conn.execute(
        "INSERT INTO ledger_sources (source_n, since_us) VALUES (?, ?) ON CONFLICT (source_n) DO UPDATE SET"
        " since_us = min(since_us, excluded.since_us), until_us = NULL"
        " WHERE excluded.since_us < since_us OR until_us < ?",
        (n, new.start_us, new.end_us),
    )
    _write(conn, n, new)


def write_all(conn: Connection, new: Span) -> None:
    """Note a span for every source, as far as it was known then."""
    for n, since_us, until_us in _sources(conn):
        part = new.part(since_us, new.end_us if until_us is None else until_us)
        if part.length_us:
            _write(conn, n, part)


def live(conn: Connection, at_us: int, *, listening: bool) -> None:
    """Give a sign of life, at ``at_us`` of ledger time; ``listening`` is False with the last one of a clean stop."""
    conn.execute(
        "INSERT INTO ledger_life (n, at_us, listening) VALUES (1, ?, ?) ON CONFLICT (n) DO UPDATE SET"
        " at_us = excluded.at_us, listening = excluded.listening",
        (at_us, int(listening)),
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def known_sources(conn: Connection) -> list[str]:
    """Return the ids of the sources that have an account, the first seen first."""
    rows = conn.execute("SELECT o.id FROM ledger_sources s JOIN sources o ON o.n = s.source_n ORDER BY s.source_n")
    return [row[0] for row in rows]


def account(conn: Connection, source_id: str, start_us: int, end_us: int, now: Moment) -> list[Span]:
    """Return the spans of [start, end), ledger time, without a hole, as far as the source was known by then.

    Raises NotFound. Empty for a source without an account.
    """
    rest = LedgerState.DISCONNECTED if sources.get(conn, source_id).kind == "socket" else LedgerState.UNKNOWN
    n = sources.number(conn, source_id)
    row = conn.execute("SELECT since_us, until_us FROM ledger_sources WHERE source_n = ?", (n,)).fetchone()
    if row is None:
        return []
    present_us = now_us(conn, now)
    start_us, end_us = max(start_us, row[0]), min(end_us, present_us if row[1] is None else row[1])
    if end_us <= start_us:
        return []
    found = _between(conn, n, start_us, end_us)
    for new in (*_down_now(conn, present_us), *_withheld_now(conn, present_us)):
        part = new.part(start_us, end_us)
        if part.length_us:
            found = laid(found, part)
    return _filled([span.part(start_us, end_us) for span in found], start_us, end_us, rest)


def between(conn: Connection, source_id: str, start_us: int, end_us: int) -> list[Span]:
    """Return the stored spans that reach into (start, end), ledger time. Raises NotFound."""
    return _between(conn, sources.number(conn, source_id), start_us, end_us)


def sums(spans: Iterable[Span]) -> list[Sum]:
    """Add spans up, in the order of LedgerState; the sum of all is the sum of their lengths.

    What may have had several causes is unknown, once for each set of causes, the longest first.
    """
    totals: dict[tuple[LedgerState, tuple[Cause, ...]], tuple[int, int]] = {}

    def add(state: LedgerState, causes: tuple[Cause, ...], total_us: int, places: int) -> None:
        before = totals.get((state, causes), (0, 0))
        totals[state, causes] = (before[0] + total_us, before[1] + places)

    for span in spans:
        causes = span.causes if span.state is LedgerState.UNKNOWN else ()
        add(span.state, causes, span.length_us - span.lost_us, 1)
        if span.lost_us:
            add(LedgerState.LOST, (), span.lost_us, max(1, span.losses))
    found = [Sum(state, causes, *total) for (state, causes), total in totals.items()]
    return sorted(found, key=lambda row: (_RANK[row.state], -row.total_us, row.causes))


def laid(old: Sequence[Span], new: Span) -> list[Span]:
    """Lay a span over others that do not overlap: of two the one that holds stays, like neighbours join."""
    pieces: list[Span] = []
    fresh = [new]
    for span in old:
        if _holds(span, new):
            pieces.append(span)
            fresh = [
                part
                for piece in fresh
                for part in (piece.part(piece.start_us, span.start_us), piece.part(span.end_us, piece.end_us))
                if part.length_us
            ]
        else:
            pieces += [span.part(span.start_us, new.start_us), span.part(new.end_us, span.end_us)]
    return _joined(pieces + fresh)


# --- inside -----------------------------------------------------------------------------------------------------------


def _holds(one: Span, other: Span) -> bool:
    """Say whether ``one`` holds against ``other``; also when they say the same."""
    return _weight(one) >= _weight(other)


def _weight(span: Span) -> tuple[int, bool, int, tuple[str, ...]]:
    """Order spans of all kinds: by state, then some causes before none, then few before many."""
    return (-_RANK[span.state], bool(span.causes), -len(span.causes), tuple(cause.value for cause in span.causes))


def _joined(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for span in sorted((span for span in spans if span.length_us > 0), key=lambda span: span.start_us):
        last = found[-1] if found else None
        if last and last.end_us == span.start_us and (last.state, last.causes) == (span.state, span.causes):
            found[-1] = replace(
                last, end_us=span.end_us, lost_us=last.lost_us + span.lost_us, losses=last.losses + span.losses
            )
        else:
            found.append(span)
    return found


def _filled(spans: Sequence[Span], start_us: int, end_us: int, rest: LedgerState) -> list[Span]:
    found: list[Span] = []
    for span in (*spans, Span(end_us, end_us, rest)):
        found += [Span(start_us, span.start_us, rest), span]
        start_us = span.end_us
    return _joined(found)


def _write(conn: Connection, n: int, new: Span) -> None:
    old = _between(conn, n, new.start_us - 1, new.end_us + 1)  # one that only touches may be joined
    kept = laid(old, new)
    starts = {span.start_us for span in kept}
    for span in old:
        if span.start_us not in starts:
            conn.execute("DELETE FROM ledger WHERE source_n = ? AND start_us = ?", (n, span.start_us))
    for span in kept:
        if span not in old:
            _store(conn, n, span)


def _store(conn: Connection, n: int, span: Span) -> None:
    conn.execute(
        f"INSERT INTO ledger (source_n, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source_n, start_us)"
        " DO UPDATE SET end_us = excluded.end_us, state = excluded.state, causes = excluded.causes,"
        " lost_us = excluded.lost_us, losses = excluded.losses",
        (n, span.start_us, span.end_us, span.state.value, ",".join(span.causes), span.lost_us, span.losses),
    )


def _between(conn: Connection, n: int, start_us: int, end_us: int) -> list[Span]:
    """Return the spans that reach into (start, end). They do not overlap: one that began before may, no earlier one."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM ledger WHERE source_n = ? AND start_us < ? AND end_us > ? AND start_us >= coalesce("
        "(SELECT max(start_us) FROM ledger WHERE source_n = ? AND start_us <= ?), ?) ORDER BY start_us",
        (n, end_us, start_us, n, start_us, start_us),
    )
    return [_span(row) for row in rows]


def _last_heard_us(conn: Connection, n: int) -> int:
    """Return when something was last heard of a source; that is written down while a daemon listens, and then alone."""
    row = conn.execute(
        "SELECT end_us FROM ledger WHERE source_n = ? AND state IN (?, ?) ORDER BY start_us DESC LIMIT 1",
        (n, LedgerState.SPEECH.value, LedgerState.SILENCE.value),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _span(row: Sequence[object]) -> Span:
    start_us, end_us, state, causes, lost_us, losses = row
    names = [name for name in str(causes).split(",") if name]
    return msgspec.convert((start_us, end_us, state, names, lost_us, losses), _Row).span()


class _Row(msgspec.Struct, array_like=True):
    start_us: int
    end_us: int
    state: LedgerState
    causes: tuple[Cause, ...]
    lost_us: int
    losses: int

    def span(self) -> Span:
        return Span(self.start_us, self.end_us, self.state, self.causes, self.lost_us, self.losses)


def _sources(conn: Connection) -> list[tuple[int, int, int | None]]:
    return [tuple(row) for row in conn.execute("SELECT source_n, since_us, until_us FROM ledger_sources")]


def _life(conn: Connection) -> tuple[int, bool] | None:
    row = conn.execute("SELECT at_us, listening FROM ledger_life WHERE n = 1").fetchone()
    return None if row is None else (row[0], bool(row[1]))


def _down_now(conn: Connection, present_us: int) -> list[Span]:
    """Since the last sign of life nobody listens, once that is long ago or was the last of a clean stop."""
    life = _life(conn)
    alive_us = last_life_us(conn)
    if life is None or (life[1] and present_us - alive_us <= STALE_US) or present_us <= alive_us:
        return []
    return [Span(alive_us, present_us, LedgerState.DAEMON_DOWN)]


def _withheld_now(conn: Connection, present_us: int) -> list[Span]:
    """What the owner withholds now, so far."""
    row = withheld.current(conn)
    if row is None:
        return []
    known = anchors(conn)
    start_us = at(known, row.start_us) if row.ledger_us is None else row.ledger_us
    end_us = present_us if row.until_us is None else min(present_us, at(known, row.until_us))
    return [Span(start_us, end_us, LedgerState(row.kind.value))] if end_us > start_us else []


def _last_anchor(conn: Connection) -> Anchor | None:
    row = conn.execute(
        "SELECT boot_id, boot_us, utc_us, ledger_us FROM ledger_anchors ORDER BY n DESC LIMIT 1"
    ).fetchone()
    return None if row is None else Anchor(*row)


def _add_anchor(conn: Connection, now: Moment, ledger_us: int) -> None:
    conn.execute(
        "INSERT INTO ledger_anchors (boot_id, boot_us, utc_us, ledger_us) VALUES (?, ?, ?, ?)",
        (now.boot_id, now.boot_us, now.utc_us, ledger_us),
    )


def _same_boot(conn: Connection, last: Anchor, now: Moment) -> bool:
    if now.boot_us < last.boot_us:
        return False
    if now.boot_id or last.boot_id:
        return now.boot_id == last.boot_id
    return abs((now.utc_us - now.boot_us) - (last.utc_us - last.boot_us)) <= SAME_BOOT_US


def _measure_again(conn: Connection, last: Anchor, now: Moment) -> int:
    """Return by how much the absence before this boot was longer than was believed, and move what lies after it.

    Once a boot: when its clock could not be believed at first, or was put forward soon after.
    """
    rows = conn.execute(
        "SELECT boot_id, boot_us, utc_us, ledger_us FROM ledger_anchors ORDER BY n DESC LIMIT 2"
    ).fetchall()
    if len(rows) < 2 or (rows[1][0] == last.boot_id and rows[1][1] <= last.boot_us):
        return 0
    before = Anchor(*rows[1])
    believed_utc_us = before.utc_us + last.ledger_us - before.ledger_us
    true_utc_us = last.boot_us + now.utc_us - now.boot_us
    shift_us = true_utc_us - believed_utc_us
    in_doubt = abs(last.utc_us - believed_utc_us) > STEP_US or now.boot_us - last.boot_us <= SETTLING_US
    if not in_doubt or not 0 < shift_us <= SANE_US:
        return 0
    _move(conn, last.ledger_us, shift_us)
    return shift_us


def _move(conn: Connection, from_us: int, shift_us: int) -> None:
    """Put ``shift_us`` of daemon down in at ``from_us``."""
    for n, since_us, until_us in _sources(conn):
        later = [span for span in _between(conn, n, from_us, 1 << 62) if span.end_us > from_us]
        for span in later:
            conn.execute("DELETE FROM ledger WHERE source_n = ? AND start_us = ?", (n, span.start_us))
        for span in later:
            if span.start_us < from_us:  # it went on all the while, as a mute does
                _store(conn, n, replace(span, end_us=span.end_us + shift_us))
            else:
                _store(conn, n, replace(span, start_us=span.start_us + shift_us, end_us=span.end_us + shift_us))
        if since_us < from_us and (until_us is None or until_us > from_us):
            _write(conn, n, Span(from_us, from_us + shift_us, LedgerState.DAEMON_DOWN))
    for statement in (
        "UPDATE ledger_anchors SET ledger_us = ledger_us + ? WHERE n = (SELECT max(n) FROM ledger_anchors)",
        "UPDATE ledger_sources SET since_us = since_us + ? WHERE since_us >= ?",
        "UPDATE ledger_sources SET until_us = until_us + ? WHERE until_us >= ?",
        "UPDATE ledger_life SET at_us = at_us + ? WHERE at_us >= ?",
        "UPDATE withheld SET ledger_us = ledger_us + ? WHERE n = (SELECT max(n) FROM withheld) AND ledger_us >= ?",
    ):
        conn.execute(statement, (shift_us, from_us)[: statement.count("?")])
