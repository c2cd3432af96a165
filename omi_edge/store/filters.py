"""What lists have in common: filters, pages and cursors."""

from __future__ import annotations

import base64
from typing import Any, Generic, TypeVar

import msgspec

from omi_edge.errors import BadInput

T = TypeVar("T")


class Filters(msgspec.Struct, frozen=True):
    """Narrow a list or a search; None leaves everything in."""

    source: str | None = None
    device: str | None = None
    client: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    speaker: str | None = None
    conversation: str | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list."""

    items: list[T]
    next: str | None
    """Cursor of the page that follows."""


class Clauses:
    """Collects conditions and their values for one statement."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.values: list[Any] = []

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition with its values."""
        self._conditions.append(condition)
        self.values += values

    def add_source(self, column: str, filters: Filters) -> None:
        """Narrow ``column``, a source_n, by source, device and client."""
        for name, wanted in (("id", filters.source), ("device_id", filters.device), ("client_id", filters.client)):
            if wanted is not None:
                self.add(f"{column} IN (SELECT n FROM sources WHERE {name} = ?)", wanted)

    def add_times(self, column: str, filters: Filters) -> None:
        """Narrow ``column``, a time, by since and until."""
        if filters.since_us is not None:
            self.add(f"{column} >= ?", filters.since_us)
        if filters.until_us is not None:
            self.add(f"{column} < ?", filters.until_us)

    def add_cursor(self, columns: str, cursor: str | None) -> None:
        """Begin after the cursor in a list that is sorted downwards by ``columns`` (a time and n)."""
        if cursor is not None:
            self.add(f"({columns}) < (?, ?)", *decode_cursor(cursor))

    def where(self) -> str:
        """Return the conditions as SQL."""
        return "WHERE " + " AND ".join(self._conditions) if self._conditions else ""


def check_limit(limit: int) -> int:
    """Return how many items a page may have. Raises BadInput below one."""
    if limit < 1:
        raise BadInput("a page has at least one item.", "limit")
    return limit


def encode_cursor(at_us: int, n: int) -> str:
    """Return an opaque cursor."""
    return base64.urlsafe_b64encode(f"{at_us}.{n}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, int]:
    """Return what ``encode_cursor`` was given. Raises BadInput."""
    try:
        at_us, n = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split(".")
        values = int(at_us), int(n)
    except ValueError:
        raise BadInput("this cursor is not one that the list gave out.", "cursor") from None
    if max(map(abs, values)) >= 1 << 63:
        raise BadInput("this cursor is not one that the list gave out.", "cursor")
    return values
