"""Omi's `.bin` recordings: frames as the app keeps them, ``[length u32 LE][frame]`` repeated, without a header.

What they are stands in their names alone (protocol dossier §6.8):
``audio_{device}_{codec}_{rate}_{channels}_fs{160|320}_{start, seconds since 1970}.bin``.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from omi_edge.capture.replay import RecordingInfo, Samples, opened_file
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError
from omi_edge.opus import Decoder

SUFFIX = ".bin"
LENGTH_BYTES = 4
FRAME_LIMIT = 1275
"""Longest Opus frame (RFC 6716 §3.2.1); a legacy one has at most 320 bytes (dossier §5.1)."""
READ_BYTES = 64 * 1024
JUDGED_FRAMES = 50
"""So many of the first frames tell by majority which codec they are of."""
_NAME = re.compile(
    r"audio_(?P<device>[0-9a-z]*)_(?P<codec>opus_fs320|opus|pcm16|pcm8|mulaw16|mulaw8)_\d{4,6}_\d_"
    r"fs(?P<size>160|320)_(?P<start>\d{1,11})(?: ?\(\d+\))?\.bin",
    re.IGNORECASE | re.ASCII,
)
"""With the ``(1)`` that a second download gets."""
_TOKENS = {
    "opus": Codec.OPUS_10MS, "opus_fs320": Codec.OPUS_20MS, "pcm16": Codec.PCM16, "pcm8": Codec.PCM8,
    "mulaw16": Codec.MULAW16, "mulaw8": Codec.MULAW8,
}  # fmt: skip
_OPUS_OF = {0xB0: Codec.OPUS_10MS, 0xB8: Codec.OPUS_20MS}
"""By the first byte of a pendant's frames (dossier §5.3)."""
_LATEST_SECONDS = 7_258_118_400
"""2200: a later start is no start."""


class WalName(msgspec.Struct, frozen=True):
    """What a name says."""

    device: str
    """Letters and digits of the pendant's address, in lower case; may be empty."""
    codec: Codec
    start_us: int | None
    """UTC; None for 0, which the app writes when it does not know."""


class FrameCutter:
    """Cuts a stream of bytes into frames. Takes any bytes, never raises, keeps at most one frame."""

    def __init__(self) -> None:
        self.broken = False
        """A length that no frame has was read: nothing after it can be made sense of."""
        self._rest = b""

    @property
    def rest(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are whole now; empty ones are left out."""
        frames: list[bytes] = []
        if self.broken:
            return frames
        whole = self._rest + data
        at = 0
        while at + LENGTH_BYTES <= len(whole):
            size = int.from_bytes(whole[at : at + LENGTH_BYTES], "little")
            if size > FRAME_LIMIT:
                self.broken = True
                break
            if at + LENGTH_BYTES + size > len(whole):
                break
            if size:
                frames.append(whole[at + LENGTH_BYTES : at + LENGTH_BYTES + size])
            at += LENGTH_BYTES + size
        self._rest = b"" if self.broken else whole[at:]
        return frames


def framed(frame: bytes) -> bytes:
    """Return a frame with its length before it."""
    return len(frame).to_bytes(LENGTH_BYTES, "little") + frame


def is_wal(path: Path) -> bool:
    """Tell whether a file is one of these, by its name."""
    return path.suffix.lower() == SUFFIX


def parse_name(name: str) -> WalName | None:
    """Return what a file's name says; None for another name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    codec = _TOKENS[found["codec"].lower()]
    if codec is Codec.OPUS_10MS and found["size"] == "320":  # an older app called both of them opus
        codec = Codec.OPUS_20MS
    seconds = int(found["start"])
    start_us = seconds * 1_000_000 if 0 < seconds < _LATEST_SECONDS else None
    return WalName(found["device"].lower(), codec, start_us)


class WalRecording:
    """A `.bin` recording. The constructor raises AudioError when it is none.

    ``frame_codec`` tells what ``frames`` yields; a legacy codec has none, and is read as PCM like any recording.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        """What could not be read, known when all was read; None for a sound file."""
        self.named = parse_name(path.name)
        self.codec = self._codec()
        self.frame_codec = self.codec if self.codec in _OPUS_OF.values() else None
        seconds = sum(1 for _ in self.frames()) * self.codec.frame_us / 1e6
        start_us = self.named.start_us if self.named is not None else None
        self.info = RecordingInfo(path.name, seconds, start_us, self.codec.name.lower(), SAMPLE_RATE, 1)

    @property
    def device(self) -> str:
        """Letters and digits of the pendant's address as the name tells them; empty when it does not."""
        return self.named.device if self.named is not None else ""

    def __iter__(self) -> Iterator[Samples]:
        """Yield the frames as PCM, int16 at 16 kHz mono."""
        decoder = Decoder(self.codec)
        return map(decoder.decode, self.frames())

    def frames(self) -> Iterator[bytes]:
        """Yield every whole frame; ``damage`` then tells what was left over."""
        self.damage = None
        cutter, count = FrameCutter(), 0
        with opened_file(self.path) as file:
            for frame in _cut(file, cutter):
                count += 1
                yield frame
        seconds = count * self.codec.frame_us / 1e6
        if cutter.broken:
            self.damage = f"after {seconds:.2f} s it is no longer frames of a pendant."
        elif cutter.rest:
            self.damage = f"the file breaks off after {seconds:.2f} s."

    def digest(self) -> bytes:
        """Return SHA-256 of the codec and every whole frame: the same whatever the file is called."""
        found = hashlib.sha256(f"omi {self.codec.name}\n".encode())
        for frame in self.frames():
            found.update(framed(frame))
        return found.digest()

    def _codec(self) -> Codec:
        named = self.named.codec if self.named is not None else None
        with opened_file(self.path) as file:
            first = list(islice(_cut(file, FrameCutter()), JUDGED_FRAMES))
        if not first:
            raise AudioError(
                "the file holds no frames of a pendant. An Omi recording is each frame with its length before it."
            )
        if named is not None and named not in _OPUS_OF.values():
            return named
        told, count = Counter(frame[0] for frame in first).most_common(1)[0]
        if told in _OPUS_OF and count * 2 > len(first):  # the frames know better than the name: 20 ms is never 10
            return _OPUS_OF[told]
        if named is None:
            raise AudioError(
                "neither name nor frames tell which codec this is. Give the file the name that Omi's app gave it: "
                "audio_DEVICE_CODEC_16000_1_fs320_START.bin."
            )
        return named


def _cut(file: BinaryIO, cutter: FrameCutter) -> Iterator[bytes]:
    while data := file.read(READ_BYTES):
        yield from cutter.feed(data)
        if cutter.broken:
            return
