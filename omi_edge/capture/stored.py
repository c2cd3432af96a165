"""What fetching stored audio is about: where it stands, what went missing, and who makes it durable."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from omi_edge.capture.blocks import BLOCK_BYTES, Record

GATHER_SECONDS = 0.2
"""Records that come within so long are made durable together: our choice; 3.0.21 frees every 2 s (dossier §6.5)."""
GATHER_RECORDS = 64
"""And at most so many."""
LOOK_RECORDS = 16
"""Kept ones that are looked for in what comes again, in at least twice as much: our choice. A hole shifts what is
behind it by a notification, about one record, and more than a few holes in so little do not happen."""


FEW_RECORDS = 4
"""Fewer may be missing together where one notification got lost: 494 bytes are parts of three (dossier §6.5)."""


class Cursor(msgspec.Struct, frozen=True):
    """How far a pendant's stored audio is in our hands; kept in the same transaction as the records before it."""

    store: int
    """Counts the rings and files that this pendant has had, by our own count, from 1: a number of a record is unique
    only within one. A ring that was cleared, and each file, is a store of its own."""
    position: int
    """First sequence number, or byte offset, that was not kept yet."""
    tail: bytes = b""
    """Digest of the record right before ``position``; empty when nothing of this store was kept."""
    identity: int | None = None
    """The ring's random id, or the timestamp that is the file's name; None where there is none."""
    end: int = 0
    """Where the store ended when it was last looked at: size of the file, or first sequence number not yet given."""
    dropped: int = 0
    """How many records the ring had overwritten, by its own count."""


class Why(StrEnum):
    """Why records never came."""

    OVERWRITTEN = "overwritten"
    """The ring was full: the oldest made room."""
    FREED = "freed"
    """The pendant gave them up without our word: sent and not received, or handed to another client."""
    GARBLED = "garbled"
    """A part of what was sent did not arrive, and the pendant has given the rest up; which part is not known."""


class Loss(msgspec.Struct, frozen=True):
    """Records that are gone for good."""

    store: int
    first: int
    last: int
    """Sequence numbers, or byte offsets, between which it lies, both included."""
    records: int
    """How many are missing; all between ``first`` and ``last`` unless it is GARBLED."""
    why: Why


class Drained(msgspec.Struct, frozen=True):
    """What came of one drain."""

    records: int = 0
    """Kept; those read again for a check are counted once."""
    payload: int = 0
    """Bytes of them."""
    lost: int = 0
    """Records that are gone for good."""
    retries: int = 0
    """Transfers that were broken off or failed their check."""


class Keeper(Protocol):
    """Whom a drain hands everything to. What it raises ends the drain, after a STOP."""

    async def keep(self, records: Sequence[Record], cursor: Cursor) -> None:
        """Return once records and cursor are durable, in one transaction.

        A record that was kept before under the same store and seq is replaced: its transfer had failed a check. Without
        records the cursor alone is kept, and nothing becomes final by it.
        """

    async def freed(self, cursor: Cursor) -> None:
        """The pendant holds nothing before ``cursor`` any more: what was kept is whole and final. Keep the cursor."""

    async def lost(self, loss: Loss, cursor: Cursor) -> None:
        """Records are gone; keep the cursor, which is behind them, in the same transaction as the note of it."""

    async def kept(self, store: int, since: int, most: int) -> Sequence[tuple[int, bytes]]:
        """Return number and bytes of what is kept of ``store`` and not final yet: in order, from ``since`` on.

        At most so many. They may have a hole that no check has found yet.
        """

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """So much of what the pendant holds is in our hands."""


def overlap(kept: Sequence[tuple[int, bytes]], came: bytes) -> bool:
    """Say whether any of what was kept is in what came, at whatever place.

    A notification that got lost takes bytes out; all behind it are shifted and else as they were. Where this is so for
    either of the two, they still are of the same ring or file. A record with a hole in it has one whole half: more than
    the stale tail that blocks of another file may have in common (dossier §6.1).
    """
    return any(len(half) >= BLOCK_BYTES // 2 and half in came for _, raw in kept for half in _halves(raw)) or (
        bool(kept) and bool(kept[0][1]) and came.startswith(kept[0][1])
    )


def _halves(raw: bytes) -> tuple[bytes, bytes]:
    return raw[: len(raw) // 2], raw[len(raw) // 2 :]


class Stumble(Exception):
    """A transfer went wrong in a way that trying again may mend; never leaves ``capture``."""


class Tally:
    """Hands records to a keeper and counts; the cursor moves with what is durable."""

    def __init__(self, keeper: Keeper, cursor: Cursor | None) -> None:
        self.keeper = keeper
        self.cursor = cursor or Cursor(0, 0)
        """Store 0 is none: the first has number 1."""
        self.retries = 0
        self.done = 0
        self.total = 0
        """Bytes, for the progress."""
        self._lost = 0
        self._payload = 0
        self._kept: int = 0
        self._reached: dict[int, int] = {}

    async def keep(self, records: Sequence[Record], position: int) -> None:
        """Make ``records`` durable, and the cursor stand at ``position``."""
        if not records:
            return
        cursor = msgspec.structs.replace(self.cursor, position=position, tail=records[-1].digest)
        await self.keeper.keep(records, cursor)
        self.cursor = cursor
        reached = self._reached.get(cursor.store, -1)
        fresh = [record for record in records if record.seq > reached]
        self._reached[cursor.store] = max(reached, records[-1].seq)
        self._kept += len(fresh)
        self._payload += sum(len(record.raw) for record in fresh)
        self.done += sum(len(record.raw) for record in records)
        self.tell()

    async def lose(self, loss: Loss, position: int) -> None:
        """Tell a loss; the cursor then stands at ``position``."""
        cursor = msgspec.structs.replace(self.cursor, position=position, tail=b"")
        await self.keeper.lost(loss, cursor)
        self.cursor = cursor
        self._lost += loss.records

    def begin_store(self, identity: int | None, position: int, *, end: int = 0, dropped: int = 0) -> None:
        """Go on in another ring or file; told to the keeper with its first record."""
        self.cursor = Cursor(self.cursor.store + 1, position, b"", identity, end, dropped)

    def left(self, remaining: int) -> None:
        """Say how many bytes are still to come."""
        self.total = max(self.total, self.done + remaining)
        self.done = self.total - remaining
        self.tell()

    def tell(self) -> None:
        """Tell the progress."""
        self.keeper.progress(min(self.done, self.total), self.total)

    def summary(self) -> Drained:
        """Return what came of it."""
        return Drained(self._kept, self._payload, self._lost, self.retries)
