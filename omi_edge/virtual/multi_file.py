"""Answers a client of generation B: files of half an hour, which the pendant deletes once sent (dossier §6.4)."""

from __future__ import annotations

import itertools
import struct

from omi_edge.clock import Clock
from omi_edge.virtual.device_clock import EARLIEST_EPOCH, DeviceClock
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import Block, Delivery, StoredFate
from omi_edge.virtual.outlet import Outlet, Piece, Pieces, Port
from omi_edge.virtual.packing import BLOCK_BYTES

STOP, LIST, READ, DELETE, HEARTBEAT = 0x03, 0x10, 0x11, 0x12, 0x32
OK, BAD_OFFSET, INVALID, BAD_INDEX, END = 0, 3, 6, 8, 100
"""Commands and one-byte answers (dossier §6.4); that a bad offset is answered as in generation A is assumed."""
LENGTHS = {STOP: (1,), LIST: (1,), READ: (2, 6), DELETE: (2,), HEARTBEAT: (1,)}
FILE_SECONDS = 30 * 60
"""Then another file is begun (dossier §6.4)."""
STORAGE_BYTES = 480_000_000
"""Then recording stops without a word (dossier §6.6)."""
BYTES_PER_SECOND = 16 * 1024
"""As measured for the ring (dossier §6.5); assumed for this generation."""
ATT_HEADER_BYTES, STAMP_BYTES = 3, 4
ENTRY_BYTES = 8


class File:
    """One file. ``name`` is a time, or an uptime until the clock has been set."""

    def __init__(self, name: int, store: int, began_us: int) -> None:
        self.name = name
        self.store = store
        self.began_us = began_us
        """Boot time of the pendant's clock."""
        self.blocks: list[Block] = []

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.blocks) * BLOCK_BYTES


class MultiFile:
    """Holds the files."""

    persists_live = False
    """See Shelf."""

    def __init__(self, clock: Clock, device_clock: DeviceClock, port: Port, faults: Faults) -> None:
        self._clock = clock
        self._device_clock = device_clock
        self._port = port
        self._room = faults.ring_records * BLOCK_BYTES or STORAGE_BYTES
        self._outlet = Outlet(clock, port, faults)
        self._files: list[File] = []
        self._current: File | None = None
        self._stores = itertools.count(1)
        self._started_us = clock.boot_us()

    @property
    def sending(self) -> bool:
        """Whether a transfer runs."""
        return self._outlet.busy

    @property
    def files(self) -> list[File]:
        """The files in the order of their names: oldest first, those with an uptime before all others."""
        return sorted(self._files, key=lambda file: file.name)

    # what the pendant tells it

    def put(self, block: Block) -> None:
        """Take a block that is full."""
        if self._used() + BLOCK_BYTES > self._room:
            block.fate = StoredFate.FULL
            return
        file = self._current
        if file is None or block.at_us - file.began_us >= FILE_SECONDS * 1_000_000:
            file = self._current = File(self._name(block.at_us), next(self._stores), block.at_us)
            self._files.append(file)
        block.store, block.seq = file.store, file.size
        file.blocks.append(block)

    def connected(self) -> None:
        """Be told of a connection."""

    def disconnected(self) -> None:
        """Be told of the end of a connection."""
        self._outlet.stop()

    def stopped(self, *, crashed: bool) -> None:
        """Be told that the pendant stops, by a crash or in order."""
        self._outlet.stop()

    def started(self) -> None:
        """Be told of a start of the pendant: another file is begun, and uptimes begin anew."""
        self._started_us = self._clock.boot_us()
        self._current = None

    def clock_set(self) -> None:
        """Be told that a client wrote the time: files of this start that have an uptime for a name get a proper one."""
        for file in self._files:
            if file.name < EARLIEST_EPOCH and file.began_us >= self._started_us:
                file.name = self._name(file.began_us)

    def wipe(self) -> None:
        """Lose everything."""
        self._outlet.stop()
        for file in list(self._files):
            self._remove(file, StoredFate.WIPED)

    # what a client asks

    def status(self) -> bytes:
        """Return used bytes, the count of files and two zeros: 16 bytes, little-endian."""
        return struct.pack("<4I", self._used(), len(self._files), 0, 0)

    def command(self, value: bytes) -> None:
        """Take what was written to the control characteristic."""
        if not value or len(value) not in LENGTHS.get(value[0], ()):
            self._answer(INVALID)
        elif value[0] == LIST:
            self._port.send_stored(self._list())
        elif value[0] == READ:
            self._read(value[1], int.from_bytes(value[2:], "big"))
        elif value[0] == DELETE:
            self._delete(value[1])
        else:
            if value[0] == STOP:
                self._outlet.stop()
            self._answer(OK)

    def _answer(self, status: int) -> None:
        self._port.send_stored(bytes([status]))

    def _list(self) -> bytes:
        """Name and size of each file; that those are left out which do not fit is assumed (dossier §6.4, gotcha 3)."""
        fit = (self._port.mtu - ATT_HEADER_BYTES - 1) // ENTRY_BYTES
        files = self.files[: min(fit, 255)]
        return bytes([len(files)]) + b"".join(struct.pack(">II", file.name, file.size) for file in files)

    def _read(self, index: int, offset: int) -> None:
        files = self.files
        if index >= len(files):
            self._answer(BAD_INDEX)
        elif offset > files[index].size:
            self._answer(BAD_OFFSET)
        else:
            self._outlet.stop()
            self._answer(OK)
            self._outlet.start(self._sends(files[index], offset))

    def _delete(self, index: int) -> None:
        """Delete a file, also the one being recorded: the next block then begins another. That is assumed."""
        files = self.files
        if index >= len(files):
            self._answer(BAD_INDEX)
            return
        self._outlet.stop()
        self._remove(files[index], StoredFate.FREED)
        self._answer(OK)

    def _sends(self, file: File, offset: int) -> Pieces:
        """Send a file, and delete it before the end is told, unless it is the one being recorded (dossier §6.4)."""
        data = b"".join(block.raw for block in file.blocks)
        stamp = file.name.to_bytes(STAMP_BYTES, "big")
        step = min(self._port.mtu - ATT_HEADER_BYTES - STAMP_BYTES, BLOCK_BYTES)
        delivery = Delivery(file.blocks, BLOCK_BYTES, offset)
        for at in range(offset, len(data), step):
            part = data[at : at + step]
            reached = yield Piece(stamp + part, len(part) / BYTES_PER_SECOND)
            delivery.note(at, at + len(part), reached)
        if file is not self._current:
            self._remove(file, None)
        yield Piece(bytes([END]), data=False)

    def _remove(self, file: File, fate: StoredFate | None) -> None:
        """Delete a file; by the pendant itself where there is no ``fate``."""
        self._files.remove(file)
        for block in file.blocks:
            if fate is None:
                block.give_up()
            else:
                block.fate = fate
        if file is self._current:
            self._current = None

    def _used(self) -> int:
        return sum(file.size for file in self._files)

    def _name(self, at_us: int) -> int:
        now = self._device_clock.at(at_us)
        uptime = max(0, at_us - self._started_us) // 1_000_000
        name = int(now) if now is not None and now >= EARLIEST_EPOCH else uptime
        taken = {file.name for file in self._files}
        return next(each for each in itertools.count(name) if each not in taken)
