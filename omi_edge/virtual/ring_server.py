"""Answers a client of the ring, generation C: firmware 3.0.20, 3.0.21 and the draft called custody (dossier §6.5)."""

from __future__ import annotations

import struct
import zlib

import msgspec

from omi_edge.clock import Clock
from omi_edge.virtual.device_clock import EARLIEST_EPOCH, DeviceClock
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import Block, Delivery, StoredFate
from omi_edge.virtual.outlet import Outlet, Piece, Pieces, Port
from omi_edge.virtual.ring import BATCH_RECORDS, RECORD_BYTES, RING_RECORDS, Ring
from omi_edge.virtual.timers import Timers

STOP, INFO, READ, ADVANCE, CLEAR, ENABLE, ADVANCE_RING = 0x03, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
"""Commands (dossier §6.5, §6.7)."""
ACK, TELL, DATA, DONE, READ_BEGIN, LIVE_MARK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
"""First byte of a notification; TELL answers INFO."""
OK, INVALID, NOT_READY, OUT_OF_RANGE, OTHER_RING = 0, 6, 9, 10, 11
LENGTHS = {STOP: (1,), INFO: (1,), READ: (9, 13), ADVANCE: (9,), CLEAR: (1,)}
CUSTODY_LENGTHS = LENGTHS | {ENABLE: (3,), ADVANCE_RING: (17,)}
CONTRACT = 1
"""Version of the custody draft."""
APP_ACK, LIVE_PERSIST, IDEMPOTENT_ADVANCE, RING_ID = 0x01, 0x02, 0x04, 0x08
CAPABILITIES = APP_ACK | LIVE_PERSIST | IDEMPOTENT_ADVANCE | RING_ID
UPTIME_BIT = 0x8000_0000
"""Set in a timestamp that is an uptime (dossier §6.6)."""
BYTES_PER_SECOND = 16 * 1024
"""Measured by Omi's users as 15.96 KiB/s (dossier §6.5)."""
CHECKPOINT_SECONDS = 2.0
"""Between two times at which 3.0.21 frees what its link layer has sent (dossier §6.5)."""
INFO_SECONDS = 5.0
"""So long INFO waits for a storage that is not ready, or for a larger MTU (dossier §6.5, §2.3)."""
SLOT_SECONDS = 0.01
"""A READ lies in its slot for so long before it is looked at; assumed, no source gives it."""
STATUS_SECONDS = 0.25
"""Age of the status at most (dossier §6.5)."""
ATT_HEADER_BYTES = 3
U32 = 0xFFFF_FFFF


def done(status: int, next_seq: int, check: int | None = None) -> bytes:
    """Return the end of a transfer; ``check`` is the CRC-32 of all its data where that is told (dossier §6.7)."""
    return struct.pack(">BBQ", DONE, status, next_seq) + (b"" if check is None else check.to_bytes(4, "big"))


class _Transfer(msgspec.Struct):
    start: int
    end: int
    acknowledged: int
    """The link layer has taken everything before this record."""
    queued: bool = False
    """Whether more data follow at once."""


class RingServer:
    """Holds a Ring; ``custody`` makes it speak the draft."""

    def __init__(self, clock: Clock, device_clock: DeviceClock, port: Port, faults: Faults, *, custody: bool) -> None:
        self.ring = Ring(faults.ring_records or RING_RECORDS, faults.seed)
        self._clock = clock
        self._device_clock = device_clock
        self._port = port
        self._faults = faults
        self._custody = custody
        self._frees_itself = not (custody or faults.no_auto_advance)
        self._outlet = Outlet(clock, port, faults)
        self._timers = Timers(clock)
        self._granted = 0
        self._ready_us = 0
        self._slot: tuple[int, int] | None = None
        self._transfer: _Transfer | None = None
        self._status = b""
        self._status_us = 0
        self._started_us = clock.boot_us()

    @property
    def sending(self) -> bool:
        """Whether a transfer runs."""
        return self._outlet.busy

    @property
    def persists_live(self) -> bool:
        """Whether what is streamed is stored, too: after the client's opt-in (dossier §6.0)."""
        return bool(self._granted & LIVE_PERSIST)

    # what the pendant tells it

    def put(self, block: Block) -> None:
        """Take a block that is full."""
        now = self._device_clock.at(block.at_us)
        if now is not None and now >= EARLIEST_EPOCH:
            block.stamp = int(now) & U32
        elif not self._custody:
            block.fate = StoredFate.NO_CLOCK
            return
        elif not self._faults.zero_stamps:
            block.stamp = UPTIME_BIT | max(0, block.at_us - self._started_us) // 1_000_000
        self.ring.put(block)
        if self.persists_live and self.ring.write_seq % BATCH_RECORDS == 0:
            mark = struct.pack(">BQQH", LIVE_MARK, self.ring.ring_id, self.ring.write_seq, block.next_id)
            self._port.send_stored(mark)

    def connected(self) -> None:
        """Be told of a connection: the storage gets power, and what is unfinished is written."""
        self.ring.commit()
        self._ready_us = self._clock.boot_us() + round(self._faults.storage_not_ready * 1e6)
        self._status = b""

    def disconnected(self) -> None:
        """Be told of the end of a connection."""
        self._checkpoint()
        self._end_transfer()
        self._timers.clear()
        self._slot, self._granted = None, 0

    def stopped(self, *, crashed: bool) -> None:
        """Be told that the pendant stops: in order, or by a crash."""
        if crashed:
            self._end_transfer()  # before anything is freed
            self.ring.crash()
        else:
            self.ring.commit()
        self.disconnected()

    def started(self) -> None:
        """Be told of a start of the pendant."""
        self._started_us = self._clock.boot_us()

    def clock_set(self) -> None:
        """Be told that a client wrote the time."""

    def wipe(self) -> None:
        """Lose everything, as by a loss of the metadata."""
        self._end_transfer()
        self.ring.clear()

    # what a client asks

    def status(self) -> bytes:
        """Return used bytes, unread records, free bytes and whether the clock is right: 16 bytes, little-endian."""
        now_us = self._clock.boot_us()
        if not self._status or now_us - self._status_us >= STATUS_SECONDS * 1e6:
            ring, now = self.ring, self._device_clock.now()
            free = max(0, ring.capacity - ring.unread)
            right = now is not None and now >= EARLIEST_EPOCH
            words = (ring.unread * RECORD_BYTES, ring.unread, free * RECORD_BYTES, int(right))
            self._status, self._status_us = struct.pack("<4I", *(min(word, U32) for word in words)), now_us
        return self._status

    def command(self, value: bytes) -> None:
        """Take what was written to the control characteristic."""
        lengths = CUSTODY_LENGTHS if self._custody else LENGTHS
        if not value or len(value) not in lengths.get(value[0], ()):
            self._acknowledge(INVALID)
            return
        self.ring.commit()
        if value[0] == STOP:
            self._stop()
        elif value[0] == INFO:
            self._inform()
        elif value[0] == ENABLE:
            self._enable(value)
        elif self._clock.boot_us() < self._ready_us:
            self._acknowledge(NOT_READY)
        elif value[0] == READ:
            self._put_into_slot(value)
        elif value[0] == ADVANCE:
            self._advance(int.from_bytes(value[1:], "big"))
        elif value[0] == CLEAR:
            self._clear()
        else:
            self._advance_ring(*struct.unpack(">QQ", value[1:]))

    def _acknowledge(self, status: int) -> None:
        self._port.send_stored(bytes([ACK, status]))

    def _stop(self) -> None:
        """End a transfer without DONE; what is queued already comes after the answer (dossier §6.5)."""
        self._slot = None
        self._timers.cancel("read")
        self._acknowledge(OK)
        if self._transfer is not None and self._transfer.queued:
            self._outlet.flush()
        self._end_transfer()

    def _inform(self) -> None:
        waits = (self._ready_us - self._clock.boot_us()) / 1e6
        too_small = self._custody and self._port.mtu < len(self._info()) + ATT_HEADER_BYTES
        if waits > INFO_SECONDS or too_small:
            self._timers.later("info", INFO_SECONDS, lambda: self._acknowledge(NOT_READY))
        elif waits > 0:
            self._timers.later("info", waits, lambda: self._port.send_stored(self._info()))
        else:
            self._port.send_stored(self._info())

    def _info(self) -> bytes:
        ring = self.ring
        info = struct.pack(
            ">BQQIQH", TELL, ring.read_seq, ring.write_seq, min(ring.capacity, U32), ring.dropped, RECORD_BYTES
        )
        return info + struct.pack(">BBQ", CAPABILITIES, CONTRACT, ring.ring_id) if self._custody else info

    def _enable(self, value: bytes) -> None:
        if value[1] != CONTRACT:
            self._acknowledge(INVALID)
            return
        self._granted = value[2] & CAPABILITIES
        self._port.send_stored(bytes([ACK, OK, self._granted]))

    def _advance(self, seq: int) -> None:
        if self._transfer is not None and not self._custody:
            self._acknowledge(NOT_READY)  # custody allows it expressly (dossier §6.7); that others do not is assumed
        elif self._custody and seq <= self.ring.read_seq:
            self._acknowledge(OK)
        elif not self.ring.read_seq <= seq <= self.ring.write_seq:
            self._acknowledge(OUT_OF_RANGE)
        else:
            self.ring.advance(seq, by_itself=False)
            self._acknowledge(OK)

    def _advance_ring(self, ring_id: int, seq: int) -> None:
        if ring_id == self.ring.ring_id:
            self._advance(seq)
        else:
            self._acknowledge(OTHER_RING)

    def _clear(self) -> None:
        if self._transfer is not None:
            self._acknowledge(NOT_READY)
        else:
            self.ring.clear()
            self._acknowledge(OK)

    # a transfer

    def _put_into_slot(self, value: bytes) -> None:
        """Keep a READ until it is looked at; a second one takes its place, but for custody (dossier §6.5, §6.7)."""
        if self._custody and (self._slot is not None or self._transfer is not None):
            self._acknowledge(NOT_READY)
            return
        self._slot = int.from_bytes(value[1:9], "big"), int.from_bytes(value[9:], "big")
        self._timers.later("read", SLOT_SECONDS, self._begin)

    def _begin(self) -> None:
        assert self._slot is not None
        (start, count), self._slot = self._slot, None
        ring = self.ring
        if not ring.read_seq <= start <= ring.write_seq:
            self._acknowledge(OUT_OF_RANGE)
            return
        end = min(start + count, ring.write_seq) if count else ring.write_seq
        self._end_transfer()
        self._transfer = _Transfer(start, end, start)
        if self._frees_itself:
            self._timers.later("checkpoint", CHECKPOINT_SECONDS, self._checkpoint_and_again)
        self._outlet.start(self._sends(self._transfer))

    def _sends(self, transfer: _Transfer) -> Pieces:
        yield Piece(struct.pack(">BQI", READ_BEGIN, transfer.start, transfer.end - transfer.start), data=False)
        seq, check, status = transfer.start, 0, OK
        while seq < transfer.end and status == OK:
            last = min(transfer.end, (seq // BATCH_RECORDS + 1) * BATCH_RECORDS)
            batch = [block for at in range(seq, last) if (block := self.ring.get(at)) is not None]
            if len(batch) < last - seq:
                status = OUT_OF_RANGE  # overwritten meanwhile; what is said then is assumed
                break
            data = b"".join(block.record for block in batch)
            delivery = Delivery(batch, RECORD_BYTES)
            room = self._port.mtu - ATT_HEADER_BYTES - 1
            for at in range(0, len(data), room):
                part = data[at : at + room]
                check = zlib.crc32(part, check)
                transfer.queued = at + room < len(data) or last < transfer.end
                reached = yield Piece(bytes([DATA]) + part, len(part) / BYTES_PER_SECOND)
                delivery.note(at, at + len(part), reached)
                transfer.acknowledged = seq + (at + len(part)) // RECORD_BYTES
            seq = last
        self._checkpoint()
        self._transfer = None
        self._timers.cancel("checkpoint")
        yield Piece(done(status, seq, check if self._faults.done_crc else None), data=False)

    def _checkpoint_and_again(self) -> None:
        self._checkpoint()
        if self.sending:
            self._timers.later("checkpoint", CHECKPOINT_SECONDS, self._checkpoint_and_again)

    def _checkpoint(self) -> None:
        """Free what the link layer has taken (dossier §6.5, trap)."""
        if self._transfer is not None and self._frees_itself:
            self.ring.advance(self._transfer.acknowledged, by_itself=True)

    def _end_transfer(self) -> None:
        self._transfer = None
        self._timers.cancel("checkpoint")
        self._outlet.stop()
