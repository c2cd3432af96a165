"""Times that a person types."""

from __future__ import annotations

import contextlib
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.cli.timetext import LONGEST_SECONDS, due_text, duration, parse, utc_text
from omi_edge.errors import BadInput

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-02", "2026-03-01T23:00:00.000Z"),
        ("2026-03-02 10:00", "2026-03-02T09:00:00.000Z"),
        ("2026-07-02T10:00:30", "2026-07-02T08:00:30.000Z"),
        ("2026-03-02T10:00:00Z", "2026-03-02T10:00:00.000Z"),
        (" 2026-03-02T10:00:00-05:00 ", "2026-03-02T15:00:00.000Z"),
    ],
)
def test_without_a_zone_it_is_the_wearers(text: str, utc: str) -> None:
    assert utc_text(text, BERLIN) == utc


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "10:00", "0001-01-01"])
def test_what_is_no_time_is_refused_with_a_cure(text: str) -> None:
    with pytest.raises(BadInput, match=r"2026-03-02 10:00|calendar"):
        parse(text, BERLIN)


def test_a_due_day_stays_a_day() -> None:
    assert due_text("2026-03-06", BERLIN) == "2026-03-06"
    assert due_text("2026-03-06 10:00", BERLIN) == "2026-03-06T09:00:00.000Z"
    with pytest.raises(BadInput):
        due_text("2026-02-30", BERLIN)


@given(st.text())
def test_nothing_else_comes_out(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert parse(text, BERLIN).tzinfo is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), (" 1H 30M ", 5400), ("1d", 86_400), ("30d", 2_592_000)],
)
def test_a_duration_is_read_by_its_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0m", "m", "-5m", "1.5h", "30m1h", "5x", "1h 30", "٣m", "31d", "9999999d"])
def test_what_is_no_duration_is_refused_with_a_cure(text: str) -> None:
    with pytest.raises(BadInput, match=r"1h30m|30 days"):
        duration(text)


@given(st.text())
def test_a_duration_is_positive_and_has_a_bound(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert 0 < duration(text) <= LONGEST_SECONDS
