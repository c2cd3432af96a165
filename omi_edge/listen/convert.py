"""Samples of any common shape as the recognisers have them: s16le mono 16 kHz, block by block."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import BadInput

Samples = npt.NDArray[np.int16]

RATES = (8000, 192_000)
"""From telephones to studios. A much lower rate would make much out of little."""
WIDTHS = (1, 2, 3, 4)
"""Bytes of a sample: unsigned with one, else signed, as in WAV files; little-endian."""
CHANNELS = (1, 8)


class Converter:
    """One stream. Raises BadInput for a shape that is not taken: ``rate`` in Hz, ``width`` in bytes of one channel."""

    def __init__(self, rate: int, width: int, channels: int) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise BadInput(f"the rate must be {RATES[0]} to {RATES[1]} samples per second.")
        if width not in WIDTHS:
            raise BadInput("the width must be 1 to 4 bytes a sample.")
        if not CHANNELS[0] <= channels <= CHANNELS[1]:
            raise BadInput(f"there must be {CHANNELS[0]} to {CHANNELS[1]} channels.")
        self.shape = (rate, width, channels)
        self._rate, self._width, self._channels = self.shape
        self._rest = b""
        self._resampler: Any = None

    def convert(self, data: bytes) -> Samples:
        """Return what these bytes come to; a part of a frame waits for the next, a resampler keeps some samples."""
        data = self._rest + data
        frame = self._width * self._channels
        whole = len(data) - len(data) % frame
        self._rest = data[whole:]
        if self.shape == (SAMPLE_RATE, 2, 1):
            return np.frombuffer(data[:whole], "<i2").astype(np.int16)
        mono = _floats(data[:whole], self._width).reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        if self._rate == SAMPLE_RATE:
            rounded: Samples = np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16)
            return rounded
        return self._resampled(mono) if len(mono) else np.zeros(0, np.int16)

    def finish(self) -> Samples:
        """Return what the resampler still has."""
        return _joined([] if self._resampler is None else self._resampler.resample(None))

    def _resampled(self, mono: npt.NDArray[np.float32]) -> Samples:
        av: Any = importlib.import_module("av")
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(mono.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = self._rate
        return _joined(self._resampler.resample(frame))


def _floats(data: bytes, width: int) -> npt.NDArray[np.float32]:
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:  # as the upper bytes of four
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return padded.reshape(-1).view("<i4").astype(np.float32) / np.float32(2**31)
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / np.float32(1 << (8 * width - 1))


def _joined(frames: Any) -> Samples:
    pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
    return np.concatenate(pieces).astype(np.int16) if pieces else np.zeros(0, np.int16)
