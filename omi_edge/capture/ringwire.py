"""Bytes of the ring protocol (dossier §6.5, §6.7): all big-endian. Takes any bytes, never raises.

Values are read by their least length: drafts append fields, and unknown opcodes are none of ours (trap 16).
"""

from __future__ import annotations

import struct

import msgspec

STOP = b"\x03"
INFO = b"\x10"
ACK_OK, ACK_NOT_READY, ACK_OUT_OF_RANGE, ACK_OTHER_RING = 0, 9, 10, 11
CONTRACT = 1
"""Version of the custody draft that is understood."""
KEEPS_UNTIL_TOLD, IDEMPOTENT_ADVANCE, HAS_RING_ID = 0x01, 0x04, 0x08
"""Its capabilities that are asked for. Not 0x02: what is streamed live would then be stored as well."""
WANTED = KEEPS_UNTIL_TOLD | IDEMPOTENT_ADVANCE | HAS_RING_ID


class Ack(msgspec.Struct, frozen=True):
    """A command was taken, or refused."""

    status: int
    granted: int = 0
    """Capabilities, where the command enabled some."""


class Info(msgspec.Struct, frozen=True):
    """How the ring stands: unread is what lies in [read_seq, write_seq)."""

    read_seq: int
    write_seq: int
    capacity: int
    """Records that fit."""
    dropped: int
    """Records overwritten because the ring was full."""
    record_bytes: int
    capabilities: int = 0
    ring_id: int | None = None


class Begin(msgspec.Struct, frozen=True):
    """A transfer begins."""

    start: int
    count: int


class Data(msgspec.Struct, frozen=True):
    """Bytes of a transfer, not aligned to records."""

    payload: bytes


class Done(msgspec.Struct, frozen=True):
    """A transfer is over."""

    status: int
    next_seq: int
    crc: int | None = None
    """CRC-32 (IEEE 802.3) of all payload bytes; drafts only."""


Answer = Ack | Info | Begin | Data | Done


def answer_of(value: bytes) -> Answer | None:
    """Read a notification; None for what is too short or unknown."""
    kind, rest = value[:1], value[1:]
    match kind:
        case b"\x01" if rest:
            return Ack(rest[0], rest[1] if len(rest) > 1 else 0)
        case b"\x02" if len(rest) >= 30:
            return _info(rest)
        case b"\x03" if rest:
            return Data(rest)
        case b"\x04" if len(rest) >= 9:
            status, next_seq = struct.unpack_from(">BQ", rest)
            return Done(status, next_seq, int.from_bytes(rest[9:13], "big") if len(rest) >= 13 else None)
        case b"\x05" if len(rest) >= 12:
            return Begin(*struct.unpack_from(">QI", rest))
    return None


def read(start: int, count: int) -> bytes:
    """Return the command that fetches ``count`` records from ``start``; 0 would mean all."""
    return struct.pack(">BQI", 0x11, start, count)


def advance(seq: int, ring_id: int | None = None) -> bytes:
    """Return the command that frees everything before ``seq``, of that ring alone where it has an id."""
    return struct.pack(">BQ", 0x12, seq) if ring_id is None else struct.pack(">BQQ", 0x15, ring_id, seq)


def enable(capabilities: int) -> bytes:
    """Return the command that asks for capabilities, for this connection."""
    return bytes([0x14, CONTRACT, capabilities])


def _info(rest: bytes) -> Info:
    fields: tuple[int, int, int, int, int] = struct.unpack_from(">QQIQH", rest)
    if len(rest) < 40 or rest[31] != CONTRACT:
        return Info(*fields)
    capabilities, ring_id = rest[30], int.from_bytes(rest[32:40], "big")
    # an id is never 0 (dossier §6.7)
    return Info(*fields, capabilities, ring_id if capabilities & HAS_RING_ID and ring_id else None)
