"""Ogg Opus without re-encoding: packets into pages (RFC 3533), with the headers of RFC 7845.

The bytes depend on the packets alone, and ``length`` tells their number from the packets' sizes: so a part of the file
can be served without making the rest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from omi_edge.errors import AudioError

GRANULE_RATE = 48_000
"""Granule positions of Ogg Opus count samples at 48 kHz whatever the stream's rate (RFC 7845 §4)."""
PRE_SKIP = 120
"""Look-ahead of the pendant's encoder, 40 samples at 16 kHz (protocol dossier §7), at 48 kHz."""
PAGE_US = 1_000_000
"""RFC 7845 §6 asks for pages of at most one second in a file that may be streamed."""
PAGE_SEGMENTS = 255
"""Entries of a page's segment table (RFC 3533 §6); a packet needs one for each 255 bytes begun, and never none."""
_PAGE = struct.Struct("<4sBBqIIIB")
_FIRST, _LAST = 2, 4
_LOST = {10_000: b"\xb0", 20_000: b"\xb8"}
"""A packet of nothing but its first byte is one lost frame (RFC 6716 §3.2.1), which a decoder conceals. The byte is
that of the pendant's packets (protocol dossier §5.3)."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def stream(packets: Iterable[bytes], frame_us: int, *, serial: int = 1, pre_skip: int = PRE_SKIP) -> Iterator[bytes]:
    """Yield the pages of a mono 16 kHz stream of ``packets`` of ``frame_us`` each, 10 or 20 ms.

    An empty packet is a lost frame and keeps its place in time. ``pre_skip`` counts samples at 48 kHz. Raises
    AudioError for another frame length, or for a packet that no page can hold.
    """
    lost = _lost_packet(frame_us)
    granules = frame_us * GRANULE_RATE // 1_000_000
    for number, header in enumerate(_headers(pre_skip)):
        yield _page([header], 0, serial, number, _FIRST if number == 0 else 0)
    number, granule = 2, 0
    waiting: list[bytes] = []
    segments = 0
    for packet in packets:
        whole = packet or lost
        if not _fits(len(waiting), segments, len(whole), frame_us):
            granule += len(waiting) * granules
            yield _page(waiting, granule, serial, number, 0)
            number, waiting, segments = number + 1, [], 0
        waiting.append(whole)
        segments += _segments(len(whole))
    granule += len(waiting) * granules
    yield _page(waiting, granule, serial, number, _LAST)


def build(packets: Iterable[bytes], frame_us: int, *, serial: int = 1, pre_skip: int = PRE_SKIP) -> bytes:
    """Return the whole file; see ``stream``."""
    return b"".join(stream(packets, frame_us, serial=serial, pre_skip=pre_skip))


def length(sizes: Sequence[int], frame_us: int) -> int:
    """Return how many bytes ``stream`` makes of packets of these ``sizes``."""
    _lost_packet(frame_us)
    total = sum(_PAGE.size + 1 + len(header) for header in _headers(PRE_SKIP))
    count = segments = 0
    for size in sizes:
        size = size or 1
        if not _fits(count, segments, size, frame_us):
            total += _PAGE.size
            count = segments = 0
        count += 1
        segments += _segments(size)
        total += size + _segments(size)
    return total + _PAGE.size


def _headers(pre_skip: int) -> tuple[bytes, bytes]:
    """Identification and comment header (RFC 7845 §5.1, §5.2)."""
    vendor = b"omi-edge"
    return (
        b"OpusHead" + struct.pack("<BBHIhB", 1, 1, pre_skip, 16_000, 0, 0),
        b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", 0),
    )


def _lost_packet(frame_us: int) -> bytes:
    try:
        return _LOST[frame_us]
    except KeyError:
        raise AudioError(f"Ogg Opus is written for frames of 10 or 20 ms, not {frame_us / 1000:g} ms.") from None


def _segments(size: int) -> int:
    return size // 255 + 1


def _fits(count: int, segments: int, size: int, frame_us: int) -> bool:
    if _segments(size) > PAGE_SEGMENTS:
        raise AudioError(f"a packet of {size} bytes is none of Opus.")
    return count < PAGE_US // frame_us and segments + _segments(size) <= PAGE_SEGMENTS


def _page(packets: list[bytes], granule: int, serial: int, number: int, flags: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    header = _PAGE.pack(b"OggS", 0, flags, granule, serial, number, 0, len(lacing))
    page = bytearray(header + lacing + b"".join(packets))
    struct.pack_into("<I", page, 22, _crc(page))
    return bytes(page)


def _crc(data: bytes | bytearray) -> int:
    """CRC of RFC 3533 §6: polynomial 0x04c11db7, not reflected, start and end 0.

    zlib's is the same polynomial reflected, with start and end inverted: so bits are turned round before and after.
    """
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
