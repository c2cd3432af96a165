"""Every second of a source has one state, whatever is written, in whichever order, and whatever the clocks do."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlcipher3.dbapi2 as sqlcipher
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omi_edge.domain import Cause, Codec, LedgerState, Withholding
from omi_edge.errors import NotFound
from omi_edge.store import ledger, migrations, sources, withheld
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Moment, Span
from tests.helpers import START_US

S = 1_000_000
HOUR = 3600 * S
SOURCE, OTHER = "src_1", "src_2"
CERTAIN = [state for state in LedgerState if state is not LedgerState.UNKNOWN]
AWAY = (Cause.OUT_OF_RANGE, Cause.DISCONNECTED)


def opened() -> Connection:
    """A vault in memory and without a key: a property needs hundreds."""
    conn = sqlcipher.connect(":memory:", isolation_level=None)
    conn.execute("PRAGMA foreign_keys = ON")
    for _, script in migrations.MIGRATIONS:
        for statement in migrations.statements(script):
            conn.execute(statement)
    for source_id in (SOURCE, OTHER):
        sources.add(
            conn, id=source_id, kind="pendant", name="Omi", device_id=source_id, client_id=None,
            codec=Codec.OPUS_20MS, created_us=START_US,
        )  # fmt: skip
    return conn


@pytest.fixture
def conn() -> Iterator[Connection]:
    connection = opened()
    yield connection
    connection.close()


class Machine:
    """A machine whose clocks do what a test wants, with a ledger."""

    def __init__(self, conn: Connection, *, boot_id: str = "a") -> None:
        self.conn = conn
        self.now = Moment(boot_id, 1000 * S, START_US)
        self.elapsed_us = 0

    def wait(self, us: int) -> None:
        self.elapsed_us += us
        self.now = Moment(self.now.boot_id, self.now.boot_us + us, self.now.utc_us + us)

    def step(self, us: int) -> None:
        self.now = Moment(self.now.boot_id, self.now.boot_us, self.now.utc_us + us)

    def reboot(self, boot_id: str, us: int, *, shown_us: int | None = None) -> None:
        """Off for ``us``; the wall clock moves by ``shown_us`` meanwhile."""
        self.elapsed_us += us
        self.now = Moment(boot_id, 20 * S, self.now.utc_us + (us if shown_us is None else shown_us))

    def present(self) -> int:
        return self.now.boot_us + ledger.tick(self.conn, self.now)

    def write(self, seconds: float, state: LedgerState, causes: tuple[Cause, ...] = ()) -> None:
        """Let time go by, and write what it was."""
        start_us = self.present()
        self.wait(round(seconds * S))
        ledger.write(self.conn, SOURCE, Span(start_us, self.present(), state, causes))

    def down(self) -> None:
        """What the daemon does when it starts."""
        alive_us, now_us = ledger.last_life_us(self.conn), self.present()
        if 0 < alive_us < now_us:
            ledger.write_all(self.conn, Span(alive_us, now_us, LedgerState.DAEMON_DOWN))
        self.live()

    def live(self, *, listening: bool = True) -> None:
        ledger.live(self.conn, self.present(), listening=listening)

    def account(self, source_id: str = SOURCE) -> list[Span]:
        return ledger.account(self.conn, source_id, 0, 1 << 62, self.now)

    def seconds(self) -> list[tuple[str, float]]:
        return [(span.state.value, span.length_us / S) for span in self.account()]


def totals(spans: Sequence[Span]) -> dict[LedgerState, int]:
    found: dict[LedgerState, int] = {}
    for row in ledger.sums(spans):
        found[row.state] = found.get(row.state, 0) + row.total_us
    return found


def rows(conn: Connection) -> int:
    return int(conn.execute("SELECT count(*) FROM ledger").fetchone()[0])


# --- spans ------------------------------------------------------------------------------------------------------------

spans_of = st.builds(
    lambda start, length, state, causes: Span(start, start + length, state, causes if state == "unknown" else ()),
    st.integers(0, 60), st.integers(1, 30), st.sampled_from(LedgerState),
    st.sampled_from([(), AWAY, (Cause.DEVICE_SILENT, Cause.LOST), (*AWAY, Cause.PENDANT_OFF)]),
)  # fmt: skip


def painted(spans: Sequence[Span]) -> list[str]:
    """Each unit of time with the state that is named first in LedgerState: the definition itself."""
    end = max(span.end_us for span in spans)
    order = list(LedgerState)
    found = []
    for at in range(min(span.start_us for span in spans), end):
        states = [span.state for span in spans if span.start_us <= at < span.end_us]
        found.append(min(states, key=order.index, default=LedgerState.UNKNOWN).value)
    return found


@settings(max_examples=150)
@given(st.lists(spans_of, min_size=1, max_size=14), st.randoms(use_true_random=False))
@example([Span(0, 1, LedgerState.UNKNOWN), Span(2, 3, LedgerState.UNKNOWN)], random.Random(1))
def test_any_spans_in_any_order_give_each_moment_its_first_state(spans: list[Span], chance: random.Random) -> None:
    conn, shuffled = opened(), opened()
    try:
        machine = Machine(conn)
        other = list(spans)
        chance.shuffle(other)
        for span in spans:
            ledger.write(conn, SOURCE, span)
        for span in other:
            ledger.write(shuffled, SOURCE, span)
        end = max(span.end_us for span in spans)
        found = ledger.account(conn, SOURCE, -100, end, machine.now)
        assert [s.state.value for s in found for _ in range(s.length_us)] == painted(spans)
        assert found == ledger.account(shuffled, SOURCE, -100, end, machine.now)
        assert all(a.end_us == b.start_us for a, b in itertools.pairwise(found))
        assert all((a.state, a.causes) != (b.state, b.causes) for a, b in itertools.pairwise(found))
        assert sum(totals(found).values()) == end - min(span.start_us for span in spans)
        known = "SELECT count(*) FROM ledger WHERE state <> 'unknown' OR causes <> ''"
        assert conn.execute(known).fetchone()[0] <= len(found)  # what nobody knows is one with what has no row
    finally:
        conn.close()
        shuffled.close()


@given(st.lists(st.tuples(spans_of, st.integers(0, 5)), min_size=1, max_size=10))
def test_what_was_lost_in_passing_never_makes_more_time_than_there_was(spans: list[tuple[Span, int]]) -> None:
    laid: list[Span] = []
    for span, lost in spans:
        laid = ledger.laid(
            laid, Span(span.start_us, span.end_us, span.state, (), min(lost, span.length_us), min(lost, 1))
        )
    assert all(0 <= span.lost_us <= span.length_us for span in laid)
    assert sum(row.total_us for row in ledger.sums(laid)) == sum(span.length_us for span in laid)


def test_a_day_of_talk_is_one_row_and_each_chunk_changes_it(conn: Connection) -> None:
    machine = Machine(conn)
    for _ in range(100):
        machine.write(2, LedgerState.SPEECH)
    assert rows(conn) == 1
    before = conn.total_changes
    machine.write(2, LedgerState.SPEECH)
    assert conn.total_changes - before == 1


def test_an_uncertain_gap_is_unknown_with_its_causes_and_a_certain_one_is_not(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(60, LedgerState.UNKNOWN, AWAY)
    machine.write(5, LedgerState.SPEECH)
    machine.write(30, LedgerState.UNKNOWN)
    machine.write(5, LedgerState.SPEECH)
    machine.write(20, LedgerState.DISCONNECTED)
    machine.live()
    assert [(row.state.value, row.causes, row.total_us // S, row.places) for row in ledger.sums(machine.account())] == [
        ("speech", (), 10, 2), ("disconnected", (), 20, 1), ("unknown", AWAY, 60, 1), ("unknown", (), 30, 1),
    ]  # fmt: skip


def test_what_is_put_later_into_the_past_takes_its_place(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    machine.write(100, LedgerState.UNKNOWN, AWAY)
    machine.write(10, LedgerState.SPEECH)
    machine.live()
    end_us = machine.now.utc_us
    ledger.put(conn, SOURCE, end_us - 90 * S, end_us - 20 * S, LedgerState.RECOVERED)
    assert machine.seconds() == [("speech", 10), ("unknown", 20), ("recovered", 70), ("unknown", 10), ("speech", 10)]
    ledger.put(conn, SOURCE, end_us - 130 * S, end_us - 120 * S, LedgerState.RECOVERED)
    assert machine.seconds()[0] == ("recovered", 10)  # from before it was first seen
    with pytest.raises(NotFound):
        ledger.put(conn, "src_none", 0, 1, LedgerState.LOST)


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-2 * HOUR, -S, S, 5 * HOUR])
def test_a_step_of_the_wall_clock_adds_an_anchor_and_changes_no_length(conn: Connection, step: int) -> None:
    machine = Machine(conn)
    machine.write(100, LedgerState.SPEECH)
    machine.step(step)
    machine.write(50, LedgerState.SILENCE)
    machine.live()
    assert machine.seconds() == [("speech", 100), ("silence", 50)]
    known = ledger.anchors(conn)
    assert len(known) == 2
    first, last = machine.account()
    assert ledger.utc(known, first.start_us) == START_US
    assert ledger.utc(known, last.start_us) == START_US + 100 * S + step
    assert ledger.at(known, START_US + 120 * S + step) == last.start_us + 20 * S


def test_a_clock_that_is_slewed_needs_no_anchor(conn: Connection) -> None:
    machine = Machine(conn)
    machine.present()
    machine.step(100_000)
    machine.write(10, LedgerState.SPEECH)
    assert len(ledger.anchors(conn)) == 1


def test_what_is_counted_back_from_now_is_not_moved_by_a_step(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    machine.write(60, LedgerState.UNKNOWN, AWAY)
    machine.step(HOUR)
    machine.present()
    ledger.put(conn, SOURCE, machine.now.utc_us - 50 * S, machine.now.utc_us, LedgerState.RECOVERED)
    machine.live()
    assert machine.seconds() == [("speech", 10), ("unknown", 10), ("recovered", 50)]


def test_a_stretch_that_a_step_passed_over_has_no_length(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(100, LedgerState.SPEECH)
    machine.step(HOUR)
    machine.present()
    known = ledger.anchors(conn)
    inside = ledger.at(known, START_US + HOUR // 2)
    assert inside == known[1].ledger_us
    assert [ledger.at(known, START_US + n * 10 * S) for n in range(1000)] == sorted(
        ledger.at(known, START_US + n * 10 * S) for n in range(1000)
    )


def test_a_restart_in_the_same_boot_is_measured_by_the_boot_clock(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    machine.live(listening=False)
    machine.wait(30 * S)
    machine.step(-HOUR)
    machine.down()
    machine.write(10, LedgerState.SPEECH)
    assert machine.seconds() == [("speech", 10), ("daemon_down", 30), ("speech", 10)]


def test_across_a_reboot_the_wall_clock_tells_the_distance(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    machine.live()
    machine.reboot("b", 3 * HOUR)
    assert machine.seconds() == [("speech", 10), ("daemon_down", 10800)]  # also before a daemon starts
    machine.down()
    machine.write(10, LedgerState.SPEECH)
    assert machine.seconds() == [("speech", 10), ("daemon_down", 10800), ("speech", 10)]
    assert ledger.utc(ledger.anchors(conn), machine.account()[-1].start_us) == START_US + 10 * S + 3 * HOUR


@pytest.mark.parametrize("shown", [-50 * 365 * 24 * HOUR, -S, 400 * 24 * HOUR])
def test_a_clock_that_cannot_be_right_tells_no_distance_until_it_is_put_right(conn: Connection, shown: int) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    machine.live()
    machine.reboot("b", 3 * HOUR, shown_us=shown)
    machine.down()
    machine.write(2 * 3600, LedgerState.SPEECH)
    assert machine.seconds() == [("speech", 10), ("daemon_down", ledger.SEAM_US / S), ("speech", 7200)]
    machine.step(3 * HOUR - shown)
    machine.write(10, LedgerState.SPEECH)
    expected = [("speech", 10), ("daemon_down", 10800), ("speech", 7210)]
    assert machine.seconds() == expected
    machine.step(HOUR)  # once a boot
    machine.write(10, LedgerState.SPEECH)
    assert sum(seconds for _, seconds in machine.seconds()) == sum(seconds for _, seconds in expected) + 10


def test_a_clock_that_was_behind_during_a_reboot_is_believed_once_the_network_put_it_right(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    withheld.begin(conn, Withholding.MUTED, now_us=machine.now.utc_us, until_us=None, by="t",
                   ledger_us=machine.present())  # fmt: skip
    machine.live()
    machine.reboot("b", 3 * HOUR, shown_us=20 * S)
    machine.down()
    ledger.begin(conn, OTHER, machine.present())
    machine.write(30, LedgerState.SPEECH)
    machine.step(3 * HOUR - 20 * S)
    machine.write(30, LedgerState.SPEECH)
    assert machine.seconds() == [("speech", 10), ("muted", 10860)]  # held all the while
    withheld.end(conn, at_us=machine.now.utc_us)
    assert machine.seconds() == [("speech", 10), ("daemon_down", 10800), ("speech", 60)]
    assert sum(span.length_us for span in machine.account(OTHER)) == 60 * S


def test_where_boots_have_no_names_the_clocks_tell_them_apart(conn: Connection) -> None:
    machine = Machine(conn, boot_id="")
    machine.write(10, LedgerState.SPEECH)
    machine.live()
    machine.step(2 * S)
    machine.write(10, LedgerState.SPEECH)
    machine.reboot("", HOUR)
    machine.wait(2000 * S)  # the boot clock is beyond where it was
    machine.down()
    assert machine.seconds() == [("speech", 20), ("daemon_down", 5600)]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "step", "crash", "stop", "reboot"]),
            st.integers(1, 4000),
            st.sampled_from(CERTAIN),
        ),
        max_size=25,
    )
)
def test_the_sum_is_the_time_that_went_by_whatever_happens(acts: list[tuple[str, int, LedgerState]]) -> None:
    """Crashes between any two writes, clean stops, steps both ways, reboots with a sane clock."""
    conn = opened()
    try:
        machine = Machine(conn)
        ledger.begin(conn, SOURCE, machine.present())
        machine.down()
        for number, (act, seconds, state) in enumerate(acts):
            if act == "write":
                machine.write(seconds, state)
            elif act == "step":
                # after an hour: a clock put forward right after a reboot was behind during it
                machine.write(3601, state)
                machine.step((seconds - 2000) * S)
                machine.present()
            elif act == "crash":
                machine.wait(seconds * S)
                machine.down()
            elif act == "stop":
                machine.live(listening=False)
                machine.wait(seconds * S)
                machine.down()
            else:
                machine.reboot(f"b{number}", seconds * S)
                machine.down()
            found = machine.account()
            assert sum(totals(found).values()) == machine.elapsed_us
            assert all(a.end_us == b.start_us for a, b in itertools.pairwise(found))
    finally:
        conn.close()


# --- by rule ----------------------------------------------------------------------------------------------------------


def test_what_no_span_covers_is_unknown_and_after_the_last_sign_of_life_nobody_listened(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    machine.wait(50 * S)
    assert machine.seconds() == [("speech", 10), ("unknown", 50)]
    machine.live()
    machine.wait(ledger.STALE_US)
    assert machine.seconds()[-1] == ("unknown", 50 + ledger.STALE_US / S)
    machine.wait(S)
    assert machine.seconds()[-1] == ("daemon_down", ledger.STALE_US / S + 1)
    machine.live(listening=False)
    machine.wait(S)
    assert machine.seconds()[-1] == ("daemon_down", 1)


def test_what_is_withheld_now_is_told_at_once_as_long_as_it_lasts(conn: Connection) -> None:
    machine = Machine(conn)
    machine.write(10, LedgerState.SPEECH)
    until_us = machine.now.utc_us + 60 * S
    withheld.begin(conn, Withholding.OFF_RECORD, now_us=machine.now.utc_us, until_us=until_us, by="t",
                   ledger_us=machine.present())  # fmt: skip
    machine.wait(40 * S)
    machine.live()
    assert machine.seconds() == [("speech", 10), ("off_record", 40)]
    machine.wait(40 * S)
    assert machine.seconds() == [("speech", 10), ("off_record", 60), ("unknown", 20)]


def test_a_source_that_is_gone_has_no_account_until_it_is_seen_again(conn: Connection) -> None:
    machine = Machine(conn)
    ledger.begin(conn, SOURCE, machine.present())
    machine.write(10, LedgerState.SPEECH)
    ledger.end(conn, SOURCE, machine.present())
    machine.wait(100 * S)
    assert machine.seconds() == [("speech", 10)]
    ledger.begin(conn, SOURCE, machine.present())
    machine.wait(5 * S)
    assert machine.seconds() == [("speech", 10), ("unknown", 105)]
    ledger.end(conn, SOURCE, machine.present())
    machine.wait(15 * S)
    machine.write(5, LedgerState.SPEECH)  # heard is seen
    assert machine.seconds() == [("speech", 10), ("unknown", 120), ("speech", 5)]
    assert ledger.account(conn, OTHER, 0, 1 << 62, machine.now) == []
    assert ledger.known_sources(conn) == [SOURCE]


async def test_it_works_in_the_encrypted_file_as_well(db: Database) -> None:
    def work(conn: Any) -> list[tuple[str, float]]:
        sources.add(
            conn, id=SOURCE, kind="pendant", name="Omi", device_id=None, client_id=None, codec=Codec.OPUS_20MS,
            created_us=START_US,
        )  # fmt: skip
        machine = Machine(conn)
        machine.write(10, LedgerState.SPEECH)
        machine.write(5, LedgerState.UNKNOWN, AWAY)
        machine.live()
        return machine.seconds()

    assert await db.write(work) == [("speech", 10), ("unknown", 5)]
