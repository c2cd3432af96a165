"""What a recording's container says about its own length: enough to notice that a file was cut off.

A decoder reads a truncated WAV or Ogg to its end and is content; the container knows better.
"""

from __future__ import annotations

import os
from typing import BinaryIO

_EXACT = frozenset({"wav", "flac", "ogg", "aiff", "caf", "mov,mp4,m4a,3gp,3g2,mj2"})
"""FFmpeg's names of formats that state the audio's duration, instead of guessing it or giving that of a video."""
_OGG_PAGE_LIMIT = 27 + 255 + 255 * 255
"""Longest page: header, segment table, segments (RFC 3533 §6)."""
_MP3_FRAME_LIMIT = 4096
"""More than the longest MPEG audio frame; the first one holds the encoder's count of frames, if any."""


def breaks_off(file: BinaryIO) -> bool:
    """Tell whether a WAV or Ogg file ends before the end that it announces; False where that cannot be known."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        announced = int.from_bytes(head[4:8], "little")
        # a writer that could not seek back leaves all bits set, or none
        return announced not in (0, 0xFFFFFFFF) and announced + 8 > size + 1
    if head[:4] == b"OggS":
        file.seek(max(0, size - _OGG_PAGE_LIMIT))
        return not _ends_with_last_page(file.read())
    return False


def states_duration(file: BinaryIO, name: str) -> bool:
    """Tell whether the duration that FFmpeg gives for a format of this name is stated by the file, not guessed."""
    return name in _EXACT or (name == "mp3" and _counts_frames(file))


def _ends_with_last_page(tail: bytes) -> bool:
    """The last page bears the end-of-stream flag and is there in full (RFC 3533 §6)."""
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    table = page[27 : 27 + page[26]]
    return len(table) == page[26] and len(page) >= 27 + len(table) + sum(table)


def _counts_frames(file: BinaryIO) -> bool:
    file.seek(0)
    head = file.read(10)
    # an ID3v2 tag comes first; its size has seven bits a byte (ID3v2.4 structure §3.1)
    tag = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    file.seek(10 + tag if head[:3] == b"ID3" else 0)
    first = file.read(_MP3_FRAME_LIMIT)
    return b"Xing" in first or b"Info" in first
