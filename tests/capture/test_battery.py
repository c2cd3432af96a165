"""Hours left, and notices without storms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.battery import Gauge, Level, Sample, hours_left

HOUR_US = 3_600_000_000


def history(*levels: int, hours: float = 1.0, charging: bool | None = False) -> list[Sample]:
    return [Sample(round(index * hours * HOUR_US), level, charging) for index, level in enumerate(levels)]


def test_hours_left_follow_from_the_mean_rate() -> None:
    assert hours_left(history(90, 80, 70, 60)) == 6.0
    assert hours_left(history(100, 90, hours=4)) == 36.0


def test_what_was_before_the_last_charging_does_not_count() -> None:
    charged = [*history(20, 10), Sample(3 * HOUR_US, 50, True), Sample(4 * HOUR_US, 100, True)]
    after = [Sample(5 * HOUR_US, 100, False), Sample(7 * HOUR_US, 80, False)]
    assert hours_left(charged + after) == 8.0


def test_a_jump_upwards_is_a_charging_that_nobody_told_of() -> None:
    assert hours_left([*history(30, 20), *[Sample((9 + n) * HOUR_US, 100 - 20 * n) for n in range(3)]]) == 3.0


@pytest.mark.parametrize("samples", [[], history(50), history(50, 49), history(50, 50, 50), history(90, 80, hours=0.1)])
def test_too_little_says_nothing(samples: list[Sample]) -> None:
    assert hours_left(samples) is None


def test_it_is_low_once_and_fine_only_well_above() -> None:
    gauge = Gauge(20, 8)
    told = [gauge.judge(percent, None) for percent in (25, 21, 20, 21, 20, 19, 21, 24, 25, 20)]
    assert told == [None, None, Level.LOW, None, None, None, None, None, Level.FINE, Level.LOW]


def test_critical_comes_after_low_and_goes_back_through_it() -> None:
    gauge = Gauge(20, 8)
    told = [gauge.judge(percent, None) for percent in (20, 8, 9, 12, 13, 30)]
    assert told == [Level.LOW, Level.CRITICAL, None, None, Level.LOW, Level.FINE]


@given(st.lists(st.integers(0, 1).map(lambda step: 20 + step), max_size=200))
def test_a_level_that_wavers_at_a_bar_is_told_once_at_most(levels: list[int]) -> None:
    gauge = Gauge(20, 8)
    assert sum(gauge.judge(percent, None) is not None for percent in levels) <= 1


def test_rows_are_kept_for_changes_time_and_bars() -> None:
    gauge = Gauge(20, 8)
    minute = 60_000_000
    samples = [(0, 82), (1, 81), (2, 78), (3, 77), (10, 77), (18, 76), (19, 21), (20, 20), (21, 20)]
    kept = [gauge.worth_keeping(Sample(at * minute, percent)) for at, percent in samples]
    assert kept == [True, False, False, True, False, True, True, True, False]
    assert gauge.worth_keeping(Sample(22 * minute, 20, True))
