"""What a pendant stores while nobody is connected: frames are packed, put on a shelf, and their fate is remembered.

The firmware decides which shelf it is: one file, several files, or a ring (dossier §6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from omi_edge.clock import Clock
from omi_edge.domain import Codec
from omi_edge.virtual.device_clock import DeviceClock
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import Block, StoredFate, StoredTruth, joined
from omi_edge.virtual.ledger import Span
from omi_edge.virtual.multi_file import MultiFile
from omi_edge.virtual.outlet import Port
from omi_edge.virtual.packing import LONGEST_FRAME, Packer
from omi_edge.virtual.profiles import Profile, StorageKind
from omi_edge.virtual.ring_server import RingServer
from omi_edge.virtual.single_file import SingleFile


class Shelf(Protocol):
    """What one generation does with full blocks, and with its client."""

    @property
    def sending(self) -> bool:
        """Whether a transfer runs."""

    @property
    def persists_live(self) -> bool:
        """Whether what is streamed is to be stored, too."""

    def put(self, block: Block) -> None:
        """Take a block that is full."""

    def status(self) -> bytes:
        """Return the value of the status characteristic."""

    def command(self, value: bytes) -> None:
        """Take what was written to the control characteristic."""

    def connected(self) -> None:
        """Be told of a connection."""

    def disconnected(self) -> None:
        """Be told of the end of a connection."""

    def stopped(self, *, crashed: bool) -> None:
        """Be told that the pendant stops."""

    def started(self) -> None:
        """Be told of a start of the pendant."""

    def clock_set(self) -> None:
        """Be told that a client wrote the time."""

    def wipe(self) -> None:
        """Lose everything."""


class Storage:
    """The storage of one pendant; of one that has none, ``present`` is False and nothing is kept."""

    def __init__(self, clock: Clock, device_clock: DeviceClock, port: Port, profile: Profile, faults: Faults) -> None:
        self._device_clock = device_clock
        self._marks = profile.marks_times
        self._opus = profile.codec in (Codec.OPUS_10MS, Codec.OPUS_20MS)
        self._packer = Packer()
        self._blocks: list[Block] = []
        self._others: list[StoredTruth] = []
        self._begins = True
        self.shelf = _shelf(clock, device_clock, port, profile, faults)
        """What holds the blocks; None for a pendant without storage."""

    @property
    def present(self) -> bool:
        """Whether the pendant has a storage service at all."""
        return self.shelf is not None

    @property
    def sending(self) -> bool:
        """Whether a transfer runs."""
        return self.shelf is not None and self.shelf.sending

    @property
    def persists_live(self) -> bool:
        """Whether what is streamed is to be stored, too (dossier §6.0)."""
        return self.shelf is not None and self.shelf.persists_live

    @property
    def record(self) -> list[StoredTruth]:
        """What became of everything that was to be stored so far, in order, neighbours of one fate joined."""
        found = [StoredTruth(*span, block.fate) for block in self._blocks for span in block.spans]
        packing = [StoredTruth(*span, StoredFate.PACKING) for span in self._packer.spans]
        return joined([*found, *packing, *self._others])

    @property
    def blocks(self) -> Sequence[Block]:
        """Every block that was ever full, in order, with its place and what became of it."""
        return tuple(self._blocks)

    # what the microphone hears

    def take(self, frame: bytes, span: Span, at_us: int, ids: tuple[int, int]) -> None:
        """Store a codec frame; ``at_us`` is the boot time at which it is packed, ``ids`` are those of Packer.add."""
        if self.shelf is None:
            return
        if not (self._opus and 1 <= len(frame) <= LONGEST_FRAME):  # the blocks are made for Opus (dossier §6.1)
            self.discard(span)
            return
        if self._marks and self._begins:
            self._put(self._packer.mark(int(self._device_clock.at(span[0]) or 0), ids[0]), at_us)
        self._begins = False
        self._put(self._packer.add(frame, span, ids), at_us)

    def discard(self, span: Span) -> None:
        """Be told of a frame that was not stored because somebody was connected."""
        truth = StoredTruth(*span, StoredFate.DISCARDED)
        if self._others:
            self._others[-1:] = joined([self._others[-1], truth])
        else:
            self._others.append(truth)

    def _put(self, block: Block | None, at_us: int) -> None:
        if block is not None and self.shelf is not None:
            block.at_us = at_us
            self._blocks.append(block)
            self.shelf.put(block)

    # what the pendant tells it

    def connected(self) -> None:
        """Be told of a connection. The block that is not full stays in RAM until the next one is over."""
        self._begins = True
        if self.shelf is not None:
            self.shelf.connected()

    def disconnected(self) -> None:
        """Be told of the end of a connection."""
        if self.shelf is not None:
            self.shelf.disconnected()

    def stopped(self, *, crashed: bool) -> None:
        """Be told that the pendant stops, in order or by a crash: what is in RAM is lost. For the former, assumed."""
        self._others += [StoredTruth(*span, StoredFate.CRASHED) for span in self._packer.lose()]
        self._begins = True
        if self.shelf is not None:
            self.shelf.stopped(crashed=crashed)

    def started(self) -> None:
        """Be told of a start of the pendant."""
        if self.shelf is not None:
            self.shelf.started()

    def clock_set(self) -> None:
        """Be told that a client wrote the time."""
        if self.shelf is not None:
            self.shelf.clock_set()

    def wipe(self) -> None:
        """Lose all that is stored, as by a loss of the ring's metadata; a ring then has another id (dossier §6.7)."""
        if self.shelf is not None:
            self.shelf.wipe()

    def close(self) -> None:
        """Let go of everything that waits for a time."""
        if self.shelf is not None:
            self.shelf.disconnected()

    # what a client asks

    def status(self) -> bytes:
        """Return the value of the status characteristic."""
        return b"" if self.shelf is None else self.shelf.status()

    def command(self, value: bytes) -> None:
        """Take what was written to the control characteristic."""
        if self.shelf is not None:
            self.shelf.command(value)


def _shelf(
    clock: Clock, device_clock: DeviceClock, port: Port, profile: Profile, faults: Faults
) -> RingServer | SingleFile | MultiFile | None:
    match profile.storage:
        case StorageKind.NONE:
            return None
        case StorageKind.SINGLE_FILE:
            return SingleFile(clock, device_clock, port, faults, tells_start=profile.marks_times)
        case StorageKind.MULTI_FILE:
            return MultiFile(clock, device_clock, port, faults)
        case StorageKind.RING:
            return RingServer(clock, device_clock, port, faults, custody=profile.custody)
