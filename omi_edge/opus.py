"""Audio codecs of the pendant: Opus in full (ids 20, 21), the legacy PCM and mu-law ids, all to 16 kHz mono.

opuslib looks for libopus when it is imported, and only where the system's linker looks. We look first in the system,
in Homebrew's folders, then inside PyAV's wheel, which carries one.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError

Samples = npt.NDArray[np.int16]

BITRATE = 32_000
"""Bits per second of the CV1's encoder (protocol dossier §7)."""
COMPLEXITY = 3
"""Of the CV1's encoder, on libopus' scale from 0 to 10 (protocol dossier §7)."""
MAX_PACKET_BYTES = 160
"""The CV1's encoder makes no longer packet (protocol dossier §7)."""
_TOC = {Codec.OPUS_10MS: 0xB0, Codec.OPUS_20MS: 0xB8}
"""First byte of the pendant's packets: CELT, wideband, mono, one frame (protocol dossier §5.3)."""
_LOADING = threading.Lock()


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
    """One stream of packets to PCM.

    Never raises on a packet. Not to be shared between threads. The constructor raises AudioError without libopus.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.lost = 0
        """Lost frames that were concealed."""
        self.bad = 0
        """Packets that could not be decoded to one frame; concealed as well."""
        self._samples = codec.frame_us * SAMPLE_RATE // 1_000_000
        self._opus: Any = None
        if codec in _TOC:
            opuslib = _opuslib()
            self._opus = opuslib.Decoder(SAMPLE_RATE, 1)
            self._state = self._opus.decoder_state
            self._decode = opuslib.api.decoder.libopus_decode
            self._announced = opuslib.api.decoder.libopus_get_nb_samples
            self._buffer = np.zeros(self._samples, np.int16)
            self._pointer = self._buffer.ctypes.data_as(opuslib.api.c_int16_pointer)

    def decode(self, packet: bytes) -> Samples:
        """Return one frame, int16, shape (frame at 16 kHz,).

        An empty packet is a lost frame: Opus conceals it from what came before, PCM and mu-law fall silent.
        """
        if not packet:
            self.lost += 1
            return self._conceal()
        pcm = self._decoded(packet)
        if len(pcm) != self._samples:
            self.bad += 1
            return self._conceal()
        return pcm

    def reset(self) -> None:
        """Forget the stream, for a hole in it."""
        if self._opus is not None:
            self._opus.reset_state()

    def _decoded(self, packet: bytes) -> Samples:
        if self._opus is None:
            return _legacy(self.codec, packet)
        # a frame of another length must not touch the decoder's state: it is then as if it had been lost
        if self._announced(self._state, packet, len(packet)) != self._samples:
            return np.zeros(0, np.int16)
        return self._run(packet)

    def _run(self, packet: bytes | None) -> Samples:
        """Decode into our own buffer: opuslib's wrapper copies twice and cannot conceal."""
        length = 0 if packet is None else len(packet)
        count = self._decode(self._state, packet, length, self._pointer, self._samples, 0)
        return self._buffer[: max(0, count)].copy()

    def _conceal(self) -> Samples:
        pcm = self._run(None) if self._opus is not None else np.zeros(0, np.int16)
        return pcm if len(pcm) == self._samples else np.zeros(self._samples, np.int16)


class Encoder:
    """PCM to packets with the CV1's settings (protocol dossier §7). Not to be shared between threads.

    The constructor raises AudioError for a codec that is not Opus, or without libopus.
    """

    def __init__(self, codec: Codec = Codec.OPUS_20MS, *, bitrate: int = BITRATE) -> None:
        if codec not in _TOC:
            raise AudioError(f"codec {codec.name} cannot be encoded; use an Opus one.")
        self._samples = codec.frame_us * SAMPLE_RATE // 1_000_000
        opuslib = _opuslib()
        self._opus = opuslib.Encoder(SAMPLE_RATE, 1, opuslib.APPLICATION_RESTRICTED_LOWDELAY)
        self._state = self._opus.encoder_state
        self._encode = opuslib.api.encoder.libopus_encode
        self._int16_pointer = opuslib.api.c_int16_pointer
        self._packet = ctypes.create_string_buffer(MAX_PACKET_BYTES)
        ctl = opuslib.api.ctl
        for setter, value in (
            (ctl.set_bitrate, bitrate),
            (ctl.set_vbr, 1),
            (ctl.set_vbr_constraint, 0),
            (ctl.set_complexity, COMPLEXITY),
            (ctl.set_signal, opuslib.SIGNAL_VOICE),
            (ctl.set_lsb_depth, 16),
            (ctl.set_dtx, 0),
            (ctl.set_inband_fec, 0),
            (ctl.set_packet_loss_perc, 0),
        ):
            opuslib.api.encoder.encoder_ctl(self._state, setter, value)

    def encode(self, pcm: Samples) -> bytes:
        """Return the packet of one frame, int16, shape (frame at 16 kHz,), at most MAX_PACKET_BYTES long.

        Raises AudioError for any other shape or type.
        """
        if pcm.shape != (self._samples,) or pcm.dtype != np.int16:
            raise AudioError(f"a frame has {self._samples} samples of int16, not {pcm.shape} of {pcm.dtype}.")
        samples = np.ascontiguousarray(pcm)
        count = self._encode(
            self._state, samples.ctypes.data_as(self._int16_pointer), self._samples, self._packet, MAX_PACKET_BYTES
        )
        if count < 1:
            raise AudioError(f"libopus refused a frame with its error {count}.")
        return self._packet.raw[:count]


def silence_packet(codec: Codec) -> bytes:
    """Return a valid packet of digital silence; for Opus the very one that the encoder makes of it.

    After the first byte of an Opus packet comes CELT's silence flag, range-coded (RFC 6716 §4.3, "silence").
    """
    if codec in _TOC:
        return bytes([_TOC[codec], 0xFF, 0xFE])
    return bytes(320) if codec in (Codec.PCM16, Codec.PCM8) else b"\xff" * 160


def _legacy(codec: Codec, packet: bytes) -> Samples:
    """Old DevKit 1 formats; 8-bit ones as the dossier's table reads them (§5.1: the sources disagree)."""
    if codec is Codec.PCM16:
        return _pcm16(packet)
    if codec is Codec.PCM8:
        # 16-bit at 8 kHz when a frame has 320 bytes, else 8-bit unsigned
        eight_bit = (np.frombuffer(packet, np.uint8).astype(np.int16) - 128) * np.int16(256)
        return _double(_pcm16(packet) if len(packet) == 320 else eight_bit)
    wide = _mulaw_table()[np.frombuffer(packet, np.uint8)]
    return _double(wide) if codec is Codec.MULAW8 else wide


def _pcm16(packet: bytes) -> Samples:
    """Whole s16le samples; a packet with half a sample is none of ours, so it gives nothing."""
    return np.frombuffer(packet if len(packet) % 2 == 0 else b"", "<i2").astype(np.int16)


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


def _opuslib() -> Any:
    with _LOADING:  # the import is patched: two threads at once would undo each other's patch
        return _load()


@functools.cache
def _load() -> Any:
    path = libopus_path()
    find = ctypes.util.find_library

    def find_ours(name: str) -> str | None:
        return path if name == "opus" else find(name)

    ctypes.util.find_library = find_ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its source compares integers with `is`
            module: Any = importlib.import_module("opuslib")
    except ImportError as error:
        raise AudioError("the package opuslib is missing. Install omi-edge anew with its dependencies.") from error
    finally:
        ctypes.util.find_library = find
    # opus_*_ctl are variadic, and on Apple silicon variadic arguments travel elsewhere: ctypes passes them rightly only
    # when the fixed ones are declared (documentation of ctypes, "Calling varadic functions"); opuslib does not
    module.api.encoder.libopus_ctl.argtypes = (module.api.encoder.EncoderPointer, ctypes.c_int)
    module.api.decoder.libopus_ctl.argtypes = (module.api.decoder.DecoderPointer, ctypes.c_int)
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
