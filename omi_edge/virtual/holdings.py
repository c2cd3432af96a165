"""What a pendant keeps of what its microphone heard while nobody listened, and what became of every frame of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from omi_edge.virtual.ledger import Span


class StoredFate(StrEnum):
    """What became of a frame that was not, or not only, sent live."""

    PACKING = "packing"
    """In the block that is not full yet, in RAM."""
    STORED = "stored"
    """The pendant holds it."""
    FREED = "freed"
    """A client freed it: ADVANCE, or delete."""
    SELF_FREED = "self-freed"
    """The pendant gave it up by itself; its link had taken every byte, and so had the client's Bluetooth stack."""
    SELF_FREED_UNSEEN = "self-freed-unseen"
    """The same, but not all of it reached the client: the link layer alone acknowledged it."""
    WIPED = "wiped"
    """All of the storage was cleared: CLEAR, nuke, or a loss of its metadata."""
    OVERWRITTEN = "overwritten"
    """The ring was full, and the oldest made room."""
    FULL = "full"
    """There was no room: files do not overwrite (dossier §6.6)."""
    NO_CLOCK = "no-clock"
    """Thrown away because the pendant did not know the time (dossier §6.6)."""
    CRASHED = "crashed"
    """In RAM when the pendant stopped: an unfinished block, or the ring's unfinished batch."""
    DISCARDED = "discarded"
    """Somebody was connected, so it was not stored, and nobody listened (dossier §6.0)."""


class Block(msgspec.Struct):
    """One block of 440 bytes, from the moment it is full."""

    raw: bytes
    spans: tuple[Span, ...]
    """Of its frames, in order; ends are boot time of the pendant's clock."""
    next_id: int
    """Id that the first frame after it has, or would have had, on the air."""
    at_us: int = 0
    """When it was full, boot time."""
    stamp: int = 0
    """The timestamp in front of it in a ring."""
    store: int = 0
    """Which ring or file of this pendant, from 1; 0 for none."""
    seq: int = -1
    """Sequence number in a ring, byte offset in a file; -1 for none."""
    fate: StoredFate = StoredFate.STORED
    unseen: bool = True
    """Whether some of it did not reach the client when it was sent last, or it never was sent."""

    @property
    def record(self) -> bytes:
        """As a ring hands it over: 444 bytes, timestamp first (dossier §6.5)."""
        return self.stamp.to_bytes(4, "big") + self.raw

    def give_up(self) -> None:
        """Be freed by the pendant itself."""
        self.fate = StoredFate.SELF_FREED_UNSEEN if self.unseen else StoredFate.SELF_FREED


class Delivery:
    """Notes which ``blocks``, sent one after another with ``size`` bytes each, reach the client from ``offset`` on."""

    def __init__(self, blocks: Sequence[Block], size: int, offset: int = 0) -> None:
        self._blocks = blocks
        self._size = size
        self._lost: set[int] = set()
        for block in blocks[offset // size :]:
            block.unseen = True

    def note(self, start: int, end: int, reached: bool) -> None:
        """Take what became of the bytes from ``start`` to ``end``."""
        for index in range(start // self._size, (end - 1) // self._size + 1):
            if not reached:
                self._lost.add(index)
            elif end >= (index + 1) * self._size and index not in self._lost:
                self._blocks[index].unseen = False


class StoredTruth(msgspec.Struct, frozen=True):
    """What became of one stretch of what the microphone heard; ends are boot time of the pendant's clock."""

    start_us: int
    end_us: int
    fate: StoredFate


def joined(truths: Iterable[StoredTruth]) -> list[StoredTruth]:
    """Return them in the order of time, neighbours of one fate joined."""
    found: list[StoredTruth] = []
    for truth in sorted(truths, key=lambda truth: truth.start_us):
        if found and found[-1].fate is truth.fate and found[-1].end_us == truth.start_us:
            found[-1] = msgspec.structs.replace(found[-1], end_us=truth.end_us)
        else:
            found.append(truth)
    return found
