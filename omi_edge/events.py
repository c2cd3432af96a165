"""What happens, told to whoever listens: bounded, replayable, never waiting for a slow listener."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

KINDS = (
    "speech", "partial", "segment", "conversation", "memory", "task", "device", "microphone", "recording", "bookmark",
    "gap", "offline", "notice", "job", "reprocess", "final",
)  # fmt: skip
"""Kinds of events, the ``event:`` field of the stream."""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened."""

    number: int
    """Counts up from 1 in one run of the daemon."""
    kind: str
    at_us: int
    data: dict[str, Any]
    """JSON-ready; the shape of each kind is in docs/architecture.md."""


class Subscription:
    """One listener's queue; when it is full the oldest event is dropped and counted."""

    def __init__(self, limit: int) -> None:
        self._queue: deque[Event] = deque()
        self._limit = limit
        self._arrived = asyncio.Event()
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Events that nobody has taken yet."""
        return len(self._queue)

    async def get(self) -> Event:
        """Wait for the next event."""
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    def put(self, event: Event) -> None:
        """Append without waiting."""
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(event)
        self._arrived.set()


class Bus:
    """Publishes events to subscriptions and keeps the last ones for replay. Belongs to the event loop's thread."""

    def __init__(self, *, keep: int = 1000) -> None:
        self._recent: deque[Event] = deque(maxlen=keep)
        self._subscriptions: set[Subscription] = set()
        self._number = 0

    @property
    def last_number(self) -> int:
        """Number of the newest event, 0 before the first."""
        return self._number

    def publish(self, kind: str, at_us: int, **data: Any) -> None:
        """Tell everybody."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of event {kind}")
        self._number += 1
        event = Event(self._number, kind, at_us, data)
        if kind != "partial":  # a partial text is worth nothing once it has been replaced
            self._recent.append(event)
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextlib.contextmanager
    def subscribe(self, *, after: int | None = None, limit: int = 1000) -> Iterator[Subscription]:
        """Listen, first to what is kept after event number ``after`` (None: only to what comes)."""
        subscription = Subscription(limit)
        if after is not None:
            for event in self._recent:
                if event.number > after:
                    subscription.put(event)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
