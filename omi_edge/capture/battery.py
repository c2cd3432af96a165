"""What a pendant's battery says: hours left, and when to tell its owner without a storm of notices."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

HYSTERESIS_PERCENT = 5
"""A level must rise so far above its bar before it counts as recovered: readings waver by a percent or two."""
LEAST_HOURS = 0.5
LEAST_PERCENT = 2
"""Shorter or flatter histories say nothing about hours."""
KEEP_PERCENT = 5
KEEP_SECONDS = 900.0
"""What is worth a row: a change of so much, so much time, or the crossing of a bar (dossier §8, as Omi's app)."""

LEAST_SECONDS = 4.0
"""Rows are no nearer than this, whatever a pendant tells; an honest one tells every 5 s (dossier §4.8)."""


class Sample(msgspec.Struct, frozen=True):
    """One reading."""

    at_us: int
    percent: int
    charging: bool | None = None


class Level(StrEnum):
    """How the battery stands."""

    FINE = "fine"
    LOW = "low"
    CRITICAL = "critical"


class Gauge:
    """Follows the level of one pendant."""

    def __init__(self, low: int, critical: int) -> None:
        self.level = Level.FINE
        self._low = low
        self._critical = critical
        self.kept: Sample | None = None
        """The last reading that was stored."""

    def judge(self, percent: int, charging: bool | None) -> Level | None:
        """Take a reading; return the new level when it changed."""
        before = self.level
        if percent <= self._critical:
            self.level = Level.CRITICAL
        elif percent <= self._low:
            if self.level is not Level.CRITICAL or percent >= self._critical + HYSTERESIS_PERCENT:
                self.level = Level.LOW
        elif percent >= self._low + HYSTERESIS_PERCENT or charging:
            self.level = Level.FINE
        elif self.level is Level.CRITICAL:
            self.level = Level.LOW
        return self.level if self.level is not before else None

    def worth_keeping(self, sample: Sample) -> bool:
        """Say whether a reading is to be stored; the answer yes counts it as stored."""
        kept = self.kept
        if kept is not None and 0 <= sample.at_us - kept.at_us < LEAST_SECONDS * 1e6:
            return False
        worth = (
            kept is None
            or sample.charging is not kept.charging
            or abs(sample.percent - kept.percent) >= KEEP_PERCENT
            or sample.at_us - kept.at_us >= KEEP_SECONDS * 1e6
            or any((sample.percent <= bar) is not (kept.percent <= bar) for bar in (self._low, self._critical))
        )
        if worth:
            self.kept = sample
        return worth


def hours_left(history: Sequence[Sample]) -> float | None:
    """Estimate hours until empty from readings in order of time, None when nothing can be said.

    The mean rate since the last charging: from the first reading after it to the last.
    """
    start = 0
    for index, sample in enumerate(history):
        if sample.charging or (index and sample.percent > history[index - 1].percent + HYSTERESIS_PERCENT):
            start = index + 1 if sample.charging else index
    since = history[start:]
    if len(since) < 2:
        return None
    hours = (since[-1].at_us - since[0].at_us) / 3.6e9
    used = since[0].percent - since[-1].percent
    if hours < LEAST_HOURS or used < LEAST_PERCENT:
        return None
    return round(since[-1].percent * hours / used, 1)
