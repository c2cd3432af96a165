"""Audio codecs of the pendant: Opus in full (ids 20, 21), the legacy PCM and mu-law ids, all to 16 kHz mono.

opuslib looks for libopus when it is imported, and only where the system's linker looks. We look first in the system,
in Homebrew's folders, then inside PyAV's wheel, which carries one.
"""

from __future__ import annotations

import ctypes.util
import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError

Samples = npt.NDArray[np.int16]

BITRATE = 32_000
COMPLEXITY = 3
MAX_PACKET_BYTES = 160
"""Encoder settings of the CV1 (protocol dossier §7)."""
_SILENCE_TOC = {Codec.OPUS_10MS: 0xB0, Codec.OPUS_20MS: 0xB8}
"""First byte of the pendant's packets: CELT, wideband, mono, one frame (protocol dossier §5.3)."""


def libopus_path() -> str:
    """Return the libopus that will be used. Raises AudioError when there is none."""
    for candidate in _candidates():
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    raise AudioError("libopus was not found. Install it (apt install libopus0, or brew install opus) or reinstall av.")


class Decoder:
    """One stream of packets to PCM. Never raises on a packet; not to be shared between threads."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.lost = 0
        """Lost frames that were concealed."""
        self.bad = 0
        """Packets that could not be decoded to one frame; concealed as well."""
        self._samples = codec.frame_us * SAMPLE_RATE // 1_000_000
        self._opus: Any = None
        if codec in _SILENCE_TOC:
            opuslib = _opuslib()
            self._opus = opuslib.Decoder(SAMPLE_RATE, 1)
            self._decode = opuslib.api.decoder.libopus_decode
            self._buffer = np.zeros(self._samples, np.int16)
            self._pointer = self._buffer.ctypes.data_as(opuslib.api.c_int16_pointer)

    def decode(self, packet: bytes) -> Samples:
        """Return one frame, int16, shape (frame at 16 kHz,); an empty packet is a lost frame."""
        if not packet:
            self.lost += 1
            return self._conceal()
        pcm = self._run(packet) if self._opus is not None else _legacy(self.codec, packet)
        if len(pcm) != self._samples:
            self.bad += 1
            return self._conceal()
        return pcm

    def reset(self) -> None:
        """Forget the stream, for a hole in it."""
        if self._opus is not None:
            self._opus.reset_state()

    def _run(self, packet: bytes | None) -> Samples:
        """Decode into our own buffer: opuslib's wrapper copies twice and cannot conceal.

        libopus refuses a packet longer than the buffer, so a frame of another length never passes for ours.
        """
        length = 0 if packet is None else len(packet)
        count = self._decode(self._opus.decoder_state, packet, length, self._pointer, self._samples, 0)
        return self._buffer[: max(0, count)].copy()

    def _conceal(self) -> Samples:
        pcm = self._run(None) if self._opus is not None else np.zeros(0, np.int16)
        return pcm if len(pcm) == self._samples else np.zeros(self._samples, np.int16)


class Encoder:
    """PCM to packets with the CV1's settings (protocol dossier §7)."""

    def __init__(self, codec: Codec = Codec.OPUS_20MS) -> None:
        if codec not in _SILENCE_TOC:
            raise AudioError(f"codec {codec.name} cannot be encoded; use an Opus one.")
        self._samples = codec.frame_us * SAMPLE_RATE // 1_000_000
        opuslib = _opuslib()
        self._opus = opuslib.Encoder(SAMPLE_RATE, 1, opuslib.APPLICATION_RESTRICTED_LOWDELAY)
        self._opus.bitrate = BITRATE
        self._opus.vbr = 1
        self._opus.complexity = COMPLEXITY
        self._opus.signal = opuslib.SIGNAL_VOICE

    def encode(self, pcm: Samples) -> bytes:
        """Return the packet of one frame, int16, shape (frame at 16 kHz,)."""
        if pcm.shape != (self._samples,):
            raise AudioError(f"a frame has {self._samples} samples, not {pcm.shape}.")
        packet: bytes = self._opus.encode(pcm.tobytes(), self._samples)
        return packet


@functools.cache
def silence_packet(codec: Codec) -> bytes:
    """Return a valid packet of digital silence, as the pendant's encoder makes it."""
    if codec not in _SILENCE_TOC:
        return bytes(320) if codec is Codec.PCM16 else b"\xff" * 160
    encoder = Encoder(codec)
    silence = np.zeros(codec.frame_us * SAMPLE_RATE // 1_000_000, np.int16)
    for _ in range(10):  # the encoder's filters settle
        packet = encoder.encode(silence)
    return packet


def _legacy(codec: Codec, packet: bytes) -> Samples:
    """Old DevKit 1 formats; 8-bit ones as the dossier's table reads them (§5.1: the sources disagree)."""
    packet = packet[: len(packet) // 2 * 2] if codec is Codec.PCM16 else packet
    if codec is Codec.PCM16:
        return np.frombuffer(packet, "<i2").astype(np.int16, copy=False)
    if codec is Codec.PCM8:
        # 16-bit at 8 kHz when a frame has 320 bytes, else 8-bit unsigned
        narrow = (
            np.frombuffer(packet, "<i2").astype(np.int16, copy=False)
            if len(packet) == 320
            else ((np.frombuffer(packet, np.uint8).astype(np.int16) - 128) << 8).astype(np.int16)
        )
        return _double(narrow)
    wide = _mulaw_table()[np.frombuffer(packet, np.uint8)]
    return _double(wide) if codec is Codec.MULAW8 else wide


def _double(narrow: Samples) -> Samples:
    """8 kHz to 16 kHz by linear interpolation: enough for a legacy codec."""
    if not len(narrow):
        return narrow
    following = np.append(narrow[1:], narrow[-1]).astype(np.int32)
    wide = np.empty(len(narrow) * 2, np.int16)
    wide[0::2] = narrow
    wide[1::2] = (narrow.astype(np.int32) + following) // 2
    return wide


@functools.cache
def _mulaw_table() -> Samples:
    """ITU-T G.711 mu-law expansion."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent = (code >> 4) & 7
    magnitude = (((code & 15).astype(np.int32) << 3) + 132 << exponent) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


@functools.cache
def _opuslib() -> Any:
    path = libopus_path()
    find = ctypes.util.find_library

    def find_ours(name: str) -> str | None:
        return path if name == "opus" else find(name)

    ctypes.util.find_library = find_ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its source compares integers with `is`
            module: ModuleType = importlib.import_module("opuslib")
    finally:
        ctypes.util.find_library = find
    return module


def _candidates() -> Iterator[str]:
    system = ctypes.util.find_library("opus")
    if system:
        yield system
    if sys.platform == "darwin":
        for folder in ("/opt/homebrew/lib", "/usr/local/lib"):
            yield f"{folder}/libopus.dylib"
    av = importlib.util.find_spec("av")
    if av is not None and av.origin is not None:
        package = Path(av.origin).parent
        for folder, pattern in ((package.parent / "av.libs", "libopus-*.so*"), (package / ".dylibs", "libopus*.dylib")):
            for library in sorted(folder.glob(pattern)):
                yield str(library)
