"""Windows of sound as the training hears them: sentences with pauses, noise, other speeds and levels; or nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

from scripts.test_model.speech import RATE, Samples, Spoken, resampled

Features = npt.NDArray[np.float32]
extract = FeatureExtractor()
FRAME = 0.02
"""Seconds of one encoder position, and of one step of Whisper's times; two frames of features."""


@dataclasses.dataclass(frozen=True)
class Word:
    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Window:
    """Log-mel features (80, frames), and what is said where, in seconds."""

    features: Features
    sentences: tuple[tuple[Word, ...], ...]
    phones: tuple[Word, ...]

    @property
    def words(self) -> list[Word]:
        return [word for sentence in self.sentences for word in sentence]


@dataclasses.dataclass(frozen=True)
class Pauses:
    """Seconds of silence: before all, and after each sentence; and how long the whole may be."""

    before: tuple[float, float]
    after: tuple[float, float]
    longest: float


def talk(draw: random.Random, spoken: Sequence[Spoken], pauses: Pauses) -> Window:
    """Put sentences one after another, as many as there is room for, and change how they sound."""
    at = draw.uniform(*pauses.before)
    parts: list[Samples] = [_silence(at)]
    at = len(parts[0]) / RATE
    sentences: list[tuple[Word, ...]] = []
    phones: list[Word] = []
    for one in spoken:
        samples, words, sounds = _said_otherwise(draw, one)
        if sentences and at + len(samples) / RATE > pauses.longest:
            break
        sentences.append(tuple(Word(word.text, at + word.start, at + word.end) for word in words))
        phones += [Word(sound.text, at + sound.start, at + sound.end) for sound in sounds]
        parts += [samples, _silence(draw.uniform(*pauses.after))]
        at += (len(parts[-2]) + len(parts[-1])) / RATE
    sound = np.concatenate(parts)
    if draw.random() < 0.5:
        sound[1:] += draw.uniform(-0.35, 0.35) * sound[:-1]  # brighter or duller
    sound *= 10 ** (draw.uniform(-25, 0) / 20)
    if draw.random() < 0.7:
        level = np.sqrt(np.mean(sound**2)) * 10 ** (-draw.uniform(8, 45) / 20)
        sound += level * _noise(draw, len(sound))
    return Window(_blurred(draw, features(sound)), tuple(sentences), tuple(phones))


def nothing(draw: random.Random) -> Window:
    """Make 0.5 to 15 s of silence or noise."""
    count = int(draw.uniform(0.5, 15) * RATE)
    sound = _silence(count / RATE) if draw.random() < 0.3 else _noise(draw, count) * 10 ** (draw.uniform(-80, -15) / 20)
    return Window(features(sound), (), ())


def features(sound: Samples) -> Features:
    """Return what faster-whisper would give its model, without the padding to 30 s."""
    found: Features = extract(np.clip(sound, -1, 1).astype(np.float32))
    return found


def _said_otherwise(draw: random.Random, spoken: Spoken) -> tuple[Samples, list[Word], list[Word]]:
    """Change pace and level, cut the silence around; return words and phones from the first sample left."""
    pace = draw.uniform(0.9, 1.12) if draw.random() < 0.65 else 1.0
    samples = resampled(spoken.samples, pace) if pace != 1.0 else spoken.samples
    first = max(0.0, spoken.spans[0][0] / pace - draw.uniform(0.02, 0.2))
    last = spoken.spans[-1][1] / pace + draw.uniform(0.05, 0.2)
    samples = samples[int(first * RATE) : int(last * RATE)]
    words = [
        Word(word, start / pace - first, end / pace - first)
        for word, (start, end) in zip(spoken.words, spoken.spans, strict=True)
    ]
    phones, start = [], 0.0
    for phone, end in spoken.phones:
        phones.append(Word(phone, max(0.0, start / pace - first), max(0.0, end / pace - first)))
        start = end
    return samples / np.abs(samples).max() * np.float32(draw.uniform(0.7, 1.0)), words, phones


def _silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * RATE), np.float32)


def _noise(draw: random.Random, count: int) -> Samples:
    """Make white noise, or half the time a duller one, of rms 1."""
    noise = np.random.default_rng(draw.getrandbits(32)).standard_normal(count).astype(np.float32)
    if draw.random() < 0.5:
        width = draw.randint(2, 10)
        noise = np.convolve(noise, np.full(width, width**-0.5, np.float32), "same")
    return noise


def _blurred(draw: random.Random, found: Features) -> Features:
    """Leave out a few neighbouring bands, two times in five: no single one may be relied on."""
    if draw.random() < 0.4:
        low = draw.randrange(70)
        found[low : low + draw.randint(1, 10)] = found.mean()
    return found
