"""Sentences spoken by flite, with the true time of each word and each phone."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import subprocess
import tempfile
import wave
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.test_model.vocabulary import sentence

RATE = 16_000
VOICES = ("slt", "rms", "awb", "kal16")
"""Voices of Debian's flite at 16 kHz; the fifth, kal, has 8 kHz and is kept for a test."""
PAUSE = "pau"
Samples = npt.NDArray[np.float32]
Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Spoken:
    """One sentence; samples at 16 kHz between -1 and 1, times in seconds."""

    voice: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]
    """Start and end of each word."""
    phones: tuple[tuple[str, float], ...]
    """Each phone with its end."""
    samples: Samples


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be spoken; ``stretch`` above 1 is slower than the voice's own pace."""

    voice: str
    words: tuple[str, ...]
    stretch: float


def speak(order: Order) -> Spoken | None:
    """Return the sentence spoken, or None where its phones cannot be told apart by words."""
    phones, samples = _flite(order.voice, " ".join(order.words) + ".", order.stretch)
    spans = _spans([_phone_count(order.voice, word) for word in order.words], phones)
    return Spoken(order.voice, order.words, spans, phones, samples) if spans else None


def speak_all(orders: Iterable[Order]) -> list[Spoken]:
    """Speak in the order given, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [spoken for spoken in pool.map(speak, orders) if spoken is not None]


def orders(
    draw: random.Random,
    count: int,
    voices: tuple[str, ...],
    stretch: Callable[[], float],
    not_these: set[tuple[str, ...]],
) -> list[Order]:
    """Draw orders with sentences that are not in ``not_these`` (single words always may be)."""
    found: list[Order] = []
    while len(found) < count:
        words = sentence(draw)
        if len(words) == 1 or words not in not_these:
            found.append(Order(voices[len(found) % len(voices)], words, round(stretch(), 2)))
    return found


def resampled(samples: Samples, factor: float) -> Samples:
    """Return the sound ``factor`` times faster and higher, by linear interpolation."""
    at = np.arange(int(len(samples) / factor)) * factor
    found: Samples = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    return found


def _flite(voice: str, text: str, stretch: float) -> tuple[tuple[tuple[str, float], ...], Samples]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "spoken.wav")
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-psdur", "-t", text, "-o", path]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        with wave.open(path) as file:
            rate = file.getframerate()
            samples: Samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(
                np.float32
            ) / np.float32(32768)
    pairs = (part.rpartition(":") for part in printed.split())
    return tuple((phone, float(end)) for phone, _, end in pairs), samples if rate == RATE else resampled(
        samples, rate / RATE
    )


@functools.cache
def _phone_count(voice: str, word: str) -> int:
    return sum(phone != PAUSE for phone, _ in _flite(voice, word, 1.0)[0])


def _spans(counts: list[int], phones: tuple[tuple[str, float], ...]) -> tuple[Span, ...] | None:
    """Give each word as many phones as it has alone; None when that does not come out even."""
    starts = [0.0, *(end for _, end in phones)]
    spoken = [(start, end) for start, (phone, end) in zip(starts, phones, strict=False) if phone != PAUSE]
    ends = list(itertools.accumulate(counts))
    if not ends or ends[-1] != len(spoken):
        return None
    return tuple((spoken[end - count][0], spoken[end - 1][1]) for count, end in zip(counts, ends, strict=True))
