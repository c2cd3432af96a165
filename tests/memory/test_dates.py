"""Spoken dates against the moment of speaking: Monday 2 March 2026, ten in the morning in Berlin."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.memory.dates import find_due
from tests.helpers import START_US

BERLIN = ZoneInfo("Europe/Berlin")


def due(text: str, moment_us: int = START_US, zone: ZoneInfo = BERLIN) -> str:
    """Local day, hour when one was said, "~" before what is not certain."""
    found = find_due(text, moment_us, zone)
    if found is None or found.due_us is None:
        return ""
    local = datetime.fromtimestamp(found.due_us / 1e6, UTC).astimezone(zone)
    return ("" if found.certain else "~") + local.strftime("%Y-%m-%d %H:%M" if found.has_time else "%Y-%m-%d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tomorrow at ten in the morning", "2026-03-03 10:00"),
        ("by friday", "2026-03-06"),
        ("on monday", "2026-03-09"),
        ("on the fifth of march", "2026-03-05"),
        ("march twelfth", "2026-03-12"),
        ("in two weeks", "2026-03-16"),
        ("in an hour", "2026-03-02 11:00"),
        ("tonight", "2026-03-02"),
        ("at half past three", "2026-03-02 15:30"),
        ("tomorrow at noon", "2026-03-03 12:00"),
        ("i may go there for a second", ""),
        ("there were five people", ""),
    ],
)
def test_what_is_said_every_day(text: str, expected: str) -> None:
    assert due(text) == expected


def test_an_hour_holds_its_local_meaning_over_the_change_of_the_clock() -> None:
    saturday_us = int(datetime(2026, 3, 28, 12, tzinfo=BERLIN).timestamp()) * 1_000_000
    assert due("tomorrow at ten in the morning", saturday_us) == "2026-03-29 10:00"


WORDS = st.sampled_from(
    "tomorrow today next friday monday at ten thirty o'clock the third of june in two weeks by noon midnight half past "
    "quarter to may second morning evening end month year 31 0 99999 february twenty ninth last".split()
)


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=60), st.integers(-(10**17), 10**17))
def test_nothing_that_is_said_breaks_it_and_nothing_is_due_before_it_was_said(text: str, moment_us: int) -> None:
    found = find_due(text.lower(), moment_us, BERLIN)
    assert found is None or found.due_us is None or found.due_us >= moment_us
