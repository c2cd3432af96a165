"""Ogg Opus without re-encoding: packets into pages (RFC 3533), with the headers of RFC 7845."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

GRANULE_RATE = 48_000
"""Granule positions of Ogg Opus count samples at 48 kHz whatever the stream's rate (RFC 7845 §4)."""
PRE_SKIP = 120
"""Look-ahead of the pendant's encoder, 40 samples at 16 kHz (protocol dossier §7), at 48 kHz."""
PAGE_US = 1_000_000
"""RFC 7845 §6 asks for pages of at most one second in a file that may be streamed."""
_PAGE = struct.Struct("<4sBBqIIIB")
_FIRST, _LAST = 2, 4


def stream(packets: Iterable[bytes], frame_us: int, *, serial: int = 1) -> Iterator[bytes]:
    """Yield the pages of a mono 16 kHz stream of ``packets`` of ``frame_us`` each; the same input, the same bytes."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, PRE_SKIP, 16_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 8) + b"omi-edge" + struct.pack("<I", 0)
    yield _page([head], 0, serial, 0, _FIRST)
    yield _page([tags], 0, serial, 1, 0)
    number, granule = 2, 0
    waiting: list[bytes] = []
    per_page = max(1, PAGE_US // frame_us)
    for packet in packets:
        if len(waiting) == per_page or sum(len(p) // 255 + 1 for p in waiting) + len(packet) // 255 + 1 > 255:
            granule += len(waiting) * frame_us * GRANULE_RATE // 1_000_000
            yield _page(waiting, granule, serial, number, 0)
            waiting = []
            number += 1
        waiting.append(packet)
    granule += len(waiting) * frame_us * GRANULE_RATE // 1_000_000
    yield _page(waiting, granule, serial, number, _LAST)


def build(packets: Iterable[bytes], frame_us: int, *, serial: int = 1) -> bytes:
    """Return the whole file."""
    return b"".join(stream(packets, frame_us, serial=serial))


def _page(packets: list[bytes], granule: int, serial: int, number: int, flags: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    header = _PAGE.pack(b"OggS", 0, flags, granule, serial, number, 0, len(lacing))
    page = bytearray(header + lacing + b"".join(packets))
    struct.pack_into("<I", page, 22, _crc(page))
    return bytes(page)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _crc(data: bytes | bytearray) -> int:
    """CRC of RFC 3533 §6: polynomial 0x04c11db7, not reflected, start and end 0.

    zlib's is the same polynomial reflected, with start and end inverted: so bits are turned round before and after.
    """
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
