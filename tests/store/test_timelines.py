"""Gaps, what was withheld, and bookmarks: what lies beside the audio on a timeline."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omi_edge.domain import Cause, ConversationState, Gap, Withholding
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import bookmarks, conversations, gaps, withheld
from omi_edge.store.connection import Connection
from tests.helpers import START_US
from tests.store.filling import CONVERSATIONS, MINUTE, SECOND, SOURCES, add_conversation, add_source, undone

FAR_US = START_US + 10**12


@pytest.fixture
def sourced(conn: Connection) -> Connection:
    """An empty vault with two sources."""
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    return conn


def gap(start_s: float, end_s: float, *causes: Cause, source: str = SOURCES[0], frames: int = 0) -> Gap:
    return Gap(
        source, START_US + round(start_s * SECOND), START_US + round(end_s * SECOND), causes or (Cause.UNKNOWN,), frames
    )


# --- gaps ---------------------------------------------------------------------------------------------------------


def test_a_gap_keeps_its_causes_in_order(sourced: Connection) -> None:
    every = tuple(reversed(Cause))
    gaps.put(sourced, gap(0, 1, *every, frames=50))
    assert gaps.listed(sourced).items == [gap(0, 1, *every, frames=50)]
    with pytest.raises(NotFound):
        gaps.put(sourced, gap(0, 1, source="src_nowhere"))


def test_a_gap_told_again_takes_the_place_of_the_first(sourced: Connection) -> None:
    gaps.put(sourced, gap(0, 1, Cause.UNKNOWN))
    gaps.put(sourced, gap(0, 9, Cause.DAEMON_DOWN, frames=3))
    gaps.put(sourced, gap(0, 2, source=SOURCES[1]))  # another source is another timeline
    assert gaps.listed(sourced, source_id=SOURCES[0]).items == [gap(0, 9, Cause.DAEMON_DOWN, frames=3)]
    assert len(gaps.listed(sourced).items) == 2


def test_gaps_are_listed_newest_first_in_pages(sourced: Connection) -> None:
    put = [gap(n, n + 0.5, source=SOURCES[n % 2]) for n in range(5)]
    for one in put:
        gaps.put(sourced, one)
    seen: list[Gap] = []
    cursor = None
    while True:
        page = gaps.listed(sourced, limit=2, cursor=cursor)
        seen += page.items
        if (cursor := page.next) is None:
            break
    assert seen == put[::-1]
    assert gaps.listed(sourced, source_id=SOURCES[1]).items == [put[3], put[1]]
    assert gaps.listed(sourced, source_id="src_nowhere").items == []
    for wrong in ({"limit": 0}, {"cursor": "x"}):
        with pytest.raises(BadInput):
            gaps.listed(sourced, **wrong)


stretches = st.lists(st.integers(0, 30), min_size=2, max_size=12, unique=True).map(sorted)


@given(first=stretches, second=stretches, since=st.integers(-1, 31), length=st.integers(0, 10))
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_time_chooses_what_reaches_into_it(
    sourced: Connection, first: list[int], second: list[int], since: int, length: int
) -> None:
    """Gaps of a source do not overlap; they may touch, and be far longer than the time that is asked for."""
    put = [
        gap(start, end, Cause.LOST, source=source)
        for source, points in zip(SOURCES, (first, second), strict=True)
        for start, end in itertools.pairwise(points)
    ]
    since_us, until_us = START_US + since * SECOND, START_US + (since + length) * SECOND
    wanted = [one for one in put if one.end_us > since_us and one.start_us < until_us]
    with undone(sourced):
        for one in put:
            gaps.put(sourced, one)
        found = gaps.listed(sourced, since_us=since_us, until_us=until_us, limit=100).items
        assert sorted(found, key=lambda g: (g.source_id, g.start_us)) == sorted(
            wanted, key=lambda g: (g.source_id, g.start_us)
        )
        totals = gaps.totals(sourced, source_id=SOURCES[0], since_us=since_us, until_us=until_us)
        missing = [
            min(one.end_us, until_us) - max(one.start_us, since_us) for one in wanted if one.source_id == SOURCES[0]
        ]
        assert sum(total.total_us for total in totals) == sum(missing)
        assert sum(total.count for total in totals) == len(missing)


def test_totals_are_by_causes_and_the_longest_comes_first(sourced: Connection) -> None:
    either = (Cause.OUT_OF_RANGE, Cause.PENDANT_OFF)
    for one in (gap(0, 1, Cause.LOST, frames=7), gap(2, 3, Cause.LOST, frames=2), gap(5, 100, *either)):
        gaps.put(sourced, one)
    totals = gaps.totals(sourced, source_id=SOURCES[0], since_us=START_US, until_us=START_US + 10 * SECOND)
    assert [(t.causes, t.count, t.total_us, t.frames) for t in totals] == [
        (either, 1, 5 * SECOND, 0),
        ((Cause.LOST,), 2, 2 * SECOND, 9),
    ]


# --- withheld -----------------------------------------------------------------------------------------------------


def muted(conn: Connection, at_s: int, until_s: int | None = None) -> withheld.WithheldRow:
    until_us = None if until_s is None else START_US + until_s * SECOND
    return withheld.begin(conn, Withholding.MUTED, now_us=START_US + at_s * SECOND, until_us=until_us, by="uid:1000")


def test_the_same_kind_again_changes_the_planned_end_only(conn: Connection) -> None:
    assert withheld.current(conn) is None
    first = muted(conn, 0)
    assert (first.kind, first.start_us, first.end_us, first.until_us, first.by) == (
        Withholding.MUTED, START_US, None, None, "uid:1000",
    )  # fmt: skip
    again = muted(conn, 5, 60)
    assert (again.id, again.start_us, again.until_us) == (first.id, START_US, START_US + MINUTE)
    assert withheld.current(conn) == again
    assert withheld.listed(conn) == [again]


def test_another_kind_ends_the_first(conn: Connection) -> None:
    first = muted(conn, 0, 60)
    second = withheld.begin(conn, Withholding.OFF_RECORD, now_us=START_US + SECOND, until_us=None, by="gesture")
    assert withheld.current(conn) == second
    newest, oldest = withheld.listed(conn)
    assert (newest, oldest.id, oldest.end_us) == (second, first.id, START_US + SECOND)


def test_one_whose_time_is_over_is_not_drawn_out(conn: Connection) -> None:
    first = muted(conn, 0, 60)
    second = muted(conn, 90, 120)
    assert second.id != first.id
    assert [(row.start_us - START_US, row.end_us) for row in withheld.listed(conn)] == [
        (90 * SECOND, None),
        (0, START_US + MINUTE),
    ]


def test_it_ends_once(conn: Connection) -> None:
    assert withheld.end(conn, at_us=START_US) is None
    row = muted(conn, 0)
    ended = withheld.end(conn, at_us=START_US - SECOND)  # the clock was set back
    assert ended is not None
    assert (ended.id, ended.end_us) == (row.id, START_US)
    assert withheld.end(conn, at_us=FAR_US) is None
    assert withheld.current(conn) is None


@pytest.mark.parametrize(
    ("since", "until", "count"),
    [(None, None, 3), (0, 10, 1), (9, 10, 1), (10, 20, 0), (15, 25, 1), (25, 99, 2), (None, 20, 1), (30, None, 1)],
)
def test_a_time_chooses_what_was_withheld_in_it(
    conn: Connection, since: int | None, until: int | None, count: int
) -> None:
    for start, end in ((0, 10), (20, 30), (40, None)):
        muted(conn, start)
        if end is not None:
            withheld.end(conn, at_us=START_US + end * SECOND)
    span = [None if at is None else START_US + at * SECOND for at in (since, until)]
    assert len(withheld.listed(conn, *span)) == count


# --- bookmarks ----------------------------------------------------------------------------------------------------


def test_a_bookmark_belongs_to_what_was_being_said(sourced: Connection) -> None:
    add_conversation(sourced, CONVERSATIONS[0], SOURCES[0], START_US)  # one minute long
    add_conversation(sourced, CONVERSATIONS[1], SOURCES[0], START_US + 10 * MINUTE)
    add_conversation(sourced, CONVERSATIONS[2], SOURCES[1], START_US + 5 * MINUTE)
    said = {
        minutes: bookmarks.add(
            sourced, source_id=SOURCES[0], at_us=START_US + round(minutes * MINUTE), by="gesture"
        ).conversation_id
        for minutes in (-0.1, 0, 0.5, 2.9, 3.1, 10.5)
    }
    assert said == {
        -0.1: None, 0: CONVERSATIONS[0], 0.5: CONVERSATIONS[0], 2.9: CONVERSATIONS[0], 3.1: None,
        10.5: CONVERSATIONS[1],
    }  # fmt: skip
    with pytest.raises(NotFound):
        bookmarks.add(sourced, source_id="src_nowhere", at_us=START_US, by="gesture")
    with pytest.raises(NotFound):
        bookmarks.get(sourced, "bkm_nope")


def test_a_conversation_that_grows_takes_a_bookmark_in(sourced: Connection) -> None:
    add_conversation(sourced)
    row = bookmarks.add(sourced, source_id=SOURCES[0], at_us=START_US + 5 * MINUTE, by="uid:1000")
    assert row.conversation_id is None
    conversations.extend(sourced, CONVERSATIONS[0], START_US, START_US + 6 * MINUTE)
    conversations.set_state(sourced, CONVERSATIONS[0], ConversationState.COMPLETED)
    found = bookmarks.get(sourced, row.id)
    assert (found.conversation_id, found.by, found.source_id) == (CONVERSATIONS[0], "uid:1000", SOURCES[0])


def test_bookmarks_are_listed_newest_first_in_pages(sourced: Connection) -> None:
    made = [
        bookmarks.add(sourced, source_id=SOURCES[n % 2], at_us=START_US + n // 2 * SECOND, by="gesture")
        for n in range(5)
    ]
    first = bookmarks.listed(sourced, limit=3)
    assert first.items == made[:1:-1]  # of one moment the later one first
    rest = bookmarks.listed(sourced, limit=3, cursor=first.next)
    assert (rest.items, rest.next) == (made[1::-1], None)
    assert bookmarks.listed(sourced, source_id=SOURCES[1]).items == [made[3], made[1]]
    assert bookmarks.listed(sourced, since_us=START_US + SECOND, until_us=START_US + 2 * SECOND).items == [
        made[3],
        made[2],
    ]
    with pytest.raises(BadInput):
        bookmarks.listed(sourced, cursor="nonsense")
