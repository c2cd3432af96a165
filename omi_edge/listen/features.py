"""Short-time speech features in NumPy: mel cepstra, pitch and voicing, every 10 ms."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE

Floats = npt.NDArray[np.float32]

HOP = SAMPLE_RATE // 100
WINDOW = 400
FFT = 512
MELS = 26
CEPSTRA = 12
"""25 ms windows every 10 ms, 26 mel bands, 12 cepstra without the energy: the usual front end of speech recognition
(Davis and Mermelstein, 1980)."""
PITCH_WINDOW = 640
"""40 ms hold two periods of the lowest voice."""
LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
VOICED = 0.5
"""Height of the normalised autocorrelation's peak from which a frame is voiced."""


def frames(pcm: npt.NDArray[np.int16]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return cepstra (n, 12), pitch in semitones over 55 Hz (n,), voicing 0..1 (n,) and level in dB (n,)."""
    signal = pcm.astype(np.float32)
    count = max(0, (len(signal) - PITCH_WINDOW) // HOP + 1)
    if count == 0:
        empty = np.zeros(0, np.float32)
        return np.zeros((0, CEPSTRA), np.float32), empty, empty, empty
    wide = np.lib.stride_tricks.sliding_window_view(signal, PITCH_WINDOW)[::HOP][:count]
    pitch, voicing = _pitch(wide)
    middle = (PITCH_WINDOW - WINDOW) // 2
    narrow = wide[:, middle : middle + WINDOW]
    emphasised = narrow - 0.97 * np.concatenate([narrow[:, :1], narrow[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(emphasised * np.hamming(WINDOW).astype(np.float32), FFT)) ** 2
    mel = np.log(power.astype(np.float32) @ _filters().T + 1.0)
    level = 10 * np.log10(np.mean(narrow.astype(np.float64) ** 2, axis=1) + 1.0)
    return (mel @ _cosines().T).astype(np.float32), pitch, voicing, level.astype(np.float32)


def _pitch(windows: Floats) -> tuple[Floats, Floats]:
    """Autocorrelation normalised by that of the window (Boersma, 1993)."""
    taper = np.hanning(PITCH_WINDOW).astype(np.float32)
    centred = (windows - windows.mean(axis=1, keepdims=True)) * taper
    size = 2048
    spectrum = np.abs(np.fft.rfft(centred, size)) ** 2
    correlation = np.fft.irfft(spectrum, size)[:, :PITCH_WINDOW]
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2, size)[:PITCH_WINDOW]
    low, high = int(SAMPLE_RATE / HIGHEST_HZ), int(SAMPLE_RATE / LOWEST_HZ)
    normal = correlation[:, low:high] / (correlation[:, :1] + 1e-3) * (own[0] / own[low:high])
    # a period's multiples are nearly as high: the shortest lag within a little of the best is the voice's
    lags = np.arange(low, high)
    weighted = normal - 0.01 * np.log2(lags / low)
    best = np.argmax(weighted, axis=1)
    height = np.take_along_axis(normal, best[:, None], 1)[:, 0]
    hertz = SAMPLE_RATE / lags[best]
    return (12 * np.log2(hertz / 55.0)).astype(np.float32), np.clip(height, 0, 1).astype(np.float32)


@functools.cache
def _filters() -> Floats:
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return filters


@functools.cache
def _cosines() -> Floats:
    band = np.arange(MELS)
    order = np.arange(1, CEPSTRA + 1)
    cosines: Floats = (np.cos(np.pi * order[:, None] * (band + 0.5) / MELS) * np.sqrt(2 / MELS)).astype(np.float32)
    return cosines
