"""Times and durations that a person types; times are in the wearer's zone unless they name another."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from omi_edge.errors import BadInput

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>\d{{1,7}}){unit})?" for unit in _UNITS), re.ASCII)
LONGEST_SECONDS = 30 * 86_400


def parse(text: str, zone: ZoneInfo) -> datetime:
    """Return an instant from ``2026-03-02``, ``2026-03-02 10:00`` or any ISO 8601 time. Raises BadInput."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise BadInput(f"{text!r} is not a time; write it like 2026-03-02 10:00 or 2026-03-02T10:00:00Z.") from error
    try:
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (OverflowError, ValueError) as error:
        raise BadInput(f"{text!r} is outside of what a calendar can hold.") from error


def utc_text(text: str, zone: ZoneInfo) -> str:
    """Return a typed time as the API takes it: RFC 3339 in UTC."""
    return rfc3339(parse(text, zone))


def due_text(text: str, zone: ZoneInfo) -> str:
    """Return when something is due as the API takes it: a day stays a day, a time becomes RFC 3339 in UTC."""
    at = parse(text, zone)
    return text.strip() if _DAY.fullmatch(text.strip()) else rfc3339(at)


def rfc3339(at: datetime) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(text: str) -> float:
    """Return seconds from ``90s``, ``30m``, ``2h`` or ``1h30m``. Raises BadInput; also for more than 30 days."""
    found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    seconds = sum(int(count) * _UNITS[unit] for unit, count in found.groupdict().items() if count) if found else 0
    if not seconds:
        raise BadInput(f"{text!r} is not a duration; write it like 90s, 30m, 2h or 1h30m.")
    if seconds > LONGEST_SECONDS:
        raise BadInput(f"{text!r} is longer than 30 days.")
    return float(seconds)
