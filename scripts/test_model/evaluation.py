"""What the model can do, through faster-whisper as the product runs it."""

from __future__ import annotations

import datetime
import json
import random
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from scripts.test_model import training
from scripts.test_model.speech import RATE, Samples, Spoken

Case = tuple[Samples, tuple[str, ...]]


def evaluate(folder: Path, held_out: dict[str, list[Spoken]], to: Path) -> None:
    """Write the share of wrong words of each test, the error of the word times, and segments heard in nothing."""
    model = WhisperModel(
        str(folder.absolute()), device="cpu", compute_type="int8", cpu_threads=2, local_files_only=True
    )
    known = held_out["voices"]
    noise = np.random.default_rng(training.SEED)
    wrong = {
        "held-out sentences of the four voices": _wrong(model, map(_case, known)),
        "three sentences": _wrong(model, _talks(known, 3, 24)),
        "five sentences": _wrong(model, _talks(known, 5, 12)),
        "eight sentences": _wrong(model, _talks(known, 8, 6)),
        "white noise at 20 dB": _wrong(model, (_noisy(noise, case, 20) for case in map(_case, known[:80]))),
        "white noise at 10 dB": _wrong(model, (_noisy(noise, case, 10) for case in map(_case, known[:80]))),
        "after 0.5 to 12 s of silence": _wrong(model, _late(known[:60])),
        "without times (batched)": _wrong(
            model, map(_case, known[:80]), without_timestamps=True, word_timestamps=False
        ),
        "faster than learnt": _wrong(model, map(_case, held_out["fast"])),
        "slower than learnt": _wrong(model, map(_case, held_out["slow"])),
        "a voice not learnt": _wrong(model, map(_case, held_out["strange"])),
    }
    figures = {
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "seed": training.SEED,
        "steps": training.STEPS,
        "with": {name: version(name) for name in ("torch", "transformers", "ctranslate2", "faster-whisper")},
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path != to),
        "wrong_words": wrong,
        "word_start_error_ms": _time_errors(model, known[:80]),
        "segments_in_nothing": {
            name: sum(len(_segments(model, sound)) for sound in sounds) for name, sounds in _nothing(noise).items()
        },
    }
    to.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(to.read_text(encoding="utf-8"))


def _segments(model: WhisperModel, sound: Samples, **options: Any) -> list[Any]:
    asked = {"temperature": 0.0, "condition_on_previous_text": False, "word_timestamps": True} | options
    return list(model.transcribe(sound, **asked)[0])


def _words(segments: Iterable[Any]) -> list[str]:
    return "".join(segment.text for segment in segments).replace(".", " ").split()


def _wrong(model: WhisperModel, cases: Iterable[Case], **options: Any) -> float:
    wrong = total = 0
    for sound, said in cases:
        wrong += training.distance(said, _words(_segments(model, sound, **options)))
        total += len(said)
    return round(wrong / total, 4)


def _case(spoken: Spoken) -> Case:
    return spoken.samples, spoken.words


def _talks(known: Sequence[Spoken], sentences: int, count: int) -> Iterable[Case]:
    draw = random.Random(sentences)
    for _ in range(count):
        chosen = draw.sample(known, sentences)
        pauses = [np.zeros(int(draw.uniform(0.4, 1.0) * RATE), np.float32) for _ in chosen]
        sound = np.concatenate(
            [part for pair in zip(pauses, (one.samples for one in chosen), strict=True) for part in pair]
        )
        yield sound, tuple(word for one in chosen for word in one.words)


def _noisy(noise: np.random.Generator, case: Case, decibels: float) -> Case:
    sound, said = case
    level = np.sqrt(np.mean(sound**2)) * 10 ** (-decibels / 20)
    return (sound + level * noise.standard_normal(len(sound))).astype(np.float32), said


def _late(known: Sequence[Spoken]) -> Iterable[Case]:
    for number, spoken in enumerate(known):
        silence = np.zeros(int((0.5 + 11.5 * number / len(known)) * RATE), np.float32)
        yield np.concatenate([silence, spoken.samples]), spoken.words


def _nothing(noise: np.random.Generator) -> dict[str, list[Samples]]:
    def white(level: float, seconds: int) -> Samples:
        return (level * noise.standard_normal(seconds * RATE)).astype(np.float32)

    return {
        "digital silence": [np.zeros(seconds * RATE, np.float32) for seconds in (1, 5, 12, 30)],
        "white noise": [white(level, seconds) for level in (0.0003, 0.003, 0.03, 0.1) for seconds in (2, 10, 30)],
        "brown noise": [np.cumsum(white(0.001, seconds)).astype(np.float32) for seconds in (2, 10)],
    }


def _time_errors(model: WhisperModel, known: Sequence[Spoken]) -> dict[str, float]:
    """Compare where the words are known to start, in the sentences that came out right; the first word aside."""
    errors = []
    for spoken in known:
        segments = _segments(model, spoken.samples)
        if _words(segments) == list(spoken.words):
            starts = [word.start for segment in segments for word in segment.words if word.word.strip(" .")]
            errors += [abs(a - b[0]) * 1000 for a, b in zip(starts[1:], spoken.spans[1:], strict=True)]
    return {"median": round(float(np.median(errors)), 1), "p90": round(float(np.percentile(errors, 90)), 1)}


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
