"""Moments between the wire (RFC 3339) and the inside (microseconds of UTC)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from omi_edge.errors import BadInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""A later year is a slip of the finger, and near 9999 local time cannot be computed."""
LATEST_US = (LATEST - _EPOCH) // _MICROSECOND
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_OFFSET_AFTER_SPACE = re.compile(r" (?=\d\d:\d\d$)")
"""A ``+`` that was not percent-encoded in a query arrives as a space."""


def iso(at_us: int) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_or_none(at_us: int | None) -> str | None:
    """Return RFC 3339, or None for no moment."""
    return None if at_us is None else iso(at_us)


def seconds(us: int) -> float:
    """Return microseconds as seconds, to the millisecond."""
    return round(us / 1e6, 3)


def moment(text: str, field: str) -> int:
    """Return microseconds of UTC for RFC 3339 with a zone. Raises BadInput that names ``field``."""
    whole = _OFFSET_AFTER_SPACE.sub("+", text)
    try:
        parsed = msgspec.convert(whole, datetime) if "T" in whole.upper() else None
    except msgspec.ValidationError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise BadInput(f"{field} must be a time with its zone, like 2026-03-02T09:00:00Z.", field)
    return _sensible((parsed - _EPOCH) // _MICROSECOND, field)


def moment_or_none(text: str | None, field: str) -> int | None:
    """Return microseconds of UTC, or None for None."""
    return None if text is None else moment(text, field)


def due(text: str | None, zone: ZoneInfo) -> tuple[int | None, bool]:
    """Return when something is due, and whether a time of day was named.

    A date alone means the last millisecond of that day in ``zone``. Raises BadInput.
    """
    if text is None:
        return None, False
    if not _DATE.fullmatch(text):
        return moment(text, "due"), True
    try:
        end = datetime.combine(date.fromisoformat(text), time(23, 59, 59, 999_000), zone)
    except ValueError as error:
        raise BadInput("due must be a day of the calendar, like 2026-03-05.", "due") from error
    return _sensible((end - _EPOCH) // _MICROSECOND, "due"), False


def _sensible(at_us: int, field: str) -> int:
    if not 0 <= at_us < LATEST_US:
        raise BadInput(f"{field} must lie between 1970 and {LATEST.year}; is the year right?", field)
    return at_us
