"""Stored blocks in, codec frames out: 440 bytes of length-prefixed frames with a stale tail (dossier §6.1).

Takes any bytes, never raises. A record of the ring is a block behind a timestamp (dossier §6.5).
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

from omi_edge.capture.device import MIN_EPOCH

BLOCK_BYTES = 440
RECORD_BYTES = 444
"""``u32 big-endian timestamp, block``."""
_LAST = BLOCK_BYTES - 1
"""The writer never fills the last byte."""
_MARK = 0xFF
"""Where a length is expected: no frame is so long (dossier §5.1); firmware 3.0.16 and a draft use it as a sign."""
_TRAILER_AT = 408
_TRAILER = b"\xffCQ01"
_UPTIME_BIT = 0x8000_0000


class Mark(msgspec.Struct, frozen=True):
    """At this frame of its block the pendant's clock showed this time."""

    frame: int
    seconds: int
    """Since 1970 UTC, as the pendant had it; 0 where that is no time."""


class Record(msgspec.Struct, frozen=True):
    """One stored block, as the pendant handed it over."""

    store: int
    """Which ring or file of this pendant: see Cursor.store."""
    seq: int
    """Sequence number in the ring; in a file the byte offset of the block."""
    frames: tuple[bytes, ...]
    """Codec frames, oldest first."""
    raw: bytes
    """As it came: with its timestamp from a ring, the block alone from a file."""
    stamp: int | None = None
    """The pendant's clock when the block was full, seconds since 1970 UTC; None where it is unknown."""
    uptime: int | None = None
    """Seconds since the pendant started when the block was full; only where it says so instead of the time."""
    marks: tuple[Mark, ...] = ()
    """Times that are known of frames inside: where a file begins, and markers of firmware 3.0.16."""

    @property
    def digest(self) -> bytes:
        """What tells it from other records of its place."""
        return digest(self.raw)


def digest(raw: bytes) -> bytes:
    """Return 8 bytes that tell one record from another."""
    return hashlib.blake2b(raw, digest_size=8).digest()


def unpack(block: bytes) -> tuple[tuple[bytes, ...], tuple[Mark, ...]]:
    """Return the frames of a block, and the times that it marks.

    The last length byte usually announces a frame that is in the next block: hence ``>=`` (dossier §6.1, trap 10).
    """
    frames: list[bytes] = []
    marks: list[Mark] = []
    block = block[:BLOCK_BYTES]
    at, end = 0, min(len(block), _LAST)
    while at < end:
        length = block[at]
        if length == 0:
            at += 1
        elif length == _MARK:
            if at + 5 > len(block) or (at == _TRAILER_AT and block.startswith(_TRAILER, at)):
                break
            marks.append(Mark(len(frames), _marked(block, at)))
            at += 5
        elif at + 1 + length >= BLOCK_BYTES or at + 1 + length > len(block):
            break
        else:
            frames.append(block[at + 1 : at + 1 + length])
            at += 1 + length
    return tuple(frames), tuple(marks)


def record_of_ring(store: int, seq: int, raw: bytes) -> Record:
    """Read a record of the ring: 444 bytes. The time 0 is none, and with bit 31 it is an uptime (dossier §6.6)."""
    value = struct.unpack_from(">I", raw)[0] if len(raw) >= 4 else 0
    frames, _ = unpack(raw[4:])
    if value & _UPTIME_BIT:
        return Record(store, seq, frames, raw, uptime=value & ~_UPTIME_BIT)
    return Record(store, seq, frames, raw, stamp=value if value >= MIN_EPOCH else None)


def record_of_file(store: int, offset: int, raw: bytes, began: int | None = None) -> Record:
    """Read a block of a file; ``began`` is when the file begins, by the pendant's clock, where it is known."""
    frames, marks = unpack(raw)
    if offset == 0 and began is not None and began >= MIN_EPOCH:
        marks = (Mark(0, began), *marks)
    return Record(store, offset, frames, raw, marks=marks)


def _marked(block: bytes, at: int) -> int:
    """Return the time behind a marker of firmware 3.0.16: little-endian, unlike all else of the storage; 0 for none."""
    seconds = int.from_bytes(block[at + 1 : at + 5], "little")
    return seconds if MIN_EPOCH <= seconds < _UPTIME_BIT else 0
