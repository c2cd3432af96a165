"""Answers a client of generation A: one file of blocks; answers do not name their question (dossier §6.2)."""

from __future__ import annotations

import struct
from collections import deque

from omi_edge.clock import Clock
from omi_edge.virtual.device_clock import DeviceClock
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import Block, StoredFate
from omi_edge.virtual.outlet import Outlet, Piece, Pieces, Port
from omi_edge.virtual.packing import BLOCK_BYTES
from omi_edge.virtual.timers import Timers

READ, DELETE, NUKE, STOP, HEARTBEAT = 0, 1, 2, 3, 50
OK, BAD_FILE, EMPTY, INVALID, END, DELETED = 0, 3, 4, 6, 100, 200
"""Commands and one-byte answers (dossier §6.2)."""
FILE_BYTES = 480_000_000
"""Then recording stops without a word (dossier §6.6)."""
BLOCK_SECONDS = 0.1
"""From one block to the next on a DevKit 2; assumed for a CV1 (dossier §6.2, §12)."""
PAUSE_SECONDS = 1.0
"""From the answer to the first data (dossier §6.2)."""
BUSY_SECONDS = 0.5
"""How long each command holds the pendant up (dossier §6.2). A real one answers the write itself so late."""
SAVED_BLOCKS = 100
"""Without heartbeats the offset is saved so often (dossier §6.2)."""


class SingleFile:
    """Holds the file; ``tells_start`` adds the third word of firmware 3.0.16 to the status."""

    persists_live = False
    """See Shelf."""

    def __init__(
        self, clock: Clock, device_clock: DeviceClock, port: Port, faults: Faults, *, tells_start: bool
    ) -> None:
        self.blocks: list[Block] = []
        """What is in the file."""
        self.saved_offset = 0
        self._store = 1
        self._limit = (faults.ring_records or FILE_BYTES // BLOCK_BYTES) * BLOCK_BYTES
        self._device_clock = device_clock
        self._port = port
        self._tells_start = tells_start
        self._outlet = Outlet(clock, port, faults)
        self._timers = Timers(clock)
        self._waiting: deque[bytes] = deque()
        self._offset = 0
        self._memory = bytes(BLOCK_BYTES)
        """What was read from the medium last; sent again where there is nothing to read."""

    @property
    def sending(self) -> bool:
        """Whether a transfer runs."""
        return self._outlet.busy

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.blocks) * BLOCK_BYTES

    # what the pendant tells it

    def put(self, block: Block) -> None:
        """Take a block that is full."""
        if "delete" in self._timers:  # a command holds the pendant up: nothing is written before it is done (assumed)
            self._timers.cancel("delete")
            self._delete()
        if self.size + BLOCK_BYTES > self._limit:
            block.fate = StoredFate.FULL
            return
        block.store, block.seq = self._store, self.size
        self.blocks.append(block)

    def connected(self) -> None:
        """Be told of a connection."""

    def disconnected(self) -> None:
        """Be told of the end of a connection: where the transfer stood is saved."""
        self._stop()
        self._waiting.clear()
        self._timers.cancel("busy")

    def stopped(self, *, crashed: bool) -> None:
        """Be told that the pendant stops; a crash saves nothing."""
        if crashed:
            self._outlet.stop()
        self.disconnected()

    def started(self) -> None:
        """Be told of a start of the pendant."""

    def clock_set(self) -> None:
        """Be told that a client wrote the time."""

    def wipe(self) -> None:
        """Lose everything."""
        self._clear(StoredFate.WIPED)

    # what a client asks

    def status(self) -> bytes:
        """Return size and saved offset, and of firmware 3.0.16 the start of the recording: little-endian words."""
        words = [self.size, self.saved_offset]
        if self._tells_start:
            start_us = self.blocks[0].spans[0][0] if self.blocks and self.blocks[0].spans else None
            words.append(0 if start_us is None else int(self._device_clock.at(start_us) or 0))
        return struct.pack(f"<{len(words)}I", *words)

    def command(self, value: bytes) -> None:
        """Take what was written to the control characteristic; while the pendant is held up it waits."""
        if "busy" in self._timers:
            self._waiting.append(value)
            return
        self._timers.later("busy", BUSY_SECONDS, self._next)
        self._outlet.pause(BUSY_SECONDS)
        self._answer(value)

    def _next(self) -> None:
        if self._waiting:
            self.command(self._waiting.popleft())

    def _answer(self, value: bytes) -> None:
        status = self._judge(value)
        self._port.send_stored(bytes([status]))
        if status != OK:
            return
        if value[0] == READ:
            offset = int.from_bytes(value[2:], "big") // BLOCK_BYTES * BLOCK_BYTES
            self._outlet.start(self._sends(offset), PAUSE_SECONDS)
        elif value[0] == STOP:
            self._stop()
        elif value[0] == NUKE:
            self._clear(StoredFate.WIPED)
        elif value[0] == DELETE:
            self._outlet.stop()
            self._timers.later("delete", BUSY_SECONDS, self._delete)

    def _judge(self, value: bytes) -> int:
        if len(value) not in (2, 6) or value[0] not in (READ, DELETE, NUKE, STOP, HEARTBEAT):
            return INVALID
        if value[1] != 1:
            return BAD_FILE
        if value[0] == READ and not self.blocks:
            return EMPTY
        if value[0] == READ and int.from_bytes(value[2:], "big") >= self.size:
            return BAD_FILE
        return OK

    def _sends(self, offset: int) -> Pieces:
        """Send the file; a block whose notification failed is passed over, and still counts as left (dossier §6.2)."""
        self._offset, left, sent = offset, self.size - offset, 0
        while left > 0:
            at = self._offset // BLOCK_BYTES
            if at < len(self.blocks):
                self._memory = self.blocks[at].raw
            self._offset += BLOCK_BYTES
            sent += 1
            if (yield Piece(self._memory, BLOCK_SECONDS)):
                left -= BLOCK_BYTES
            if sent % SAVED_BLOCKS == 0:
                self.saved_offset = min(self._offset, self.size)
        self.saved_offset = self.size
        yield Piece(bytes([END]), data=False)

    def _stop(self) -> None:
        if self._outlet.busy:
            self._outlet.stop()
            self.saved_offset = min(self._offset, self.size)

    def _delete(self) -> None:
        self._clear(StoredFate.FREED)
        self._port.send_stored(bytes([DELETED]))

    def _clear(self, fate: StoredFate) -> None:
        self._outlet.stop()
        for block in self.blocks:
            block.fate = fate
        self.blocks = []
        self.saved_offset = 0
        self._store += 1
