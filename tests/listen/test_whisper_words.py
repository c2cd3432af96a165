"""Whisper's words, from a model that really hears: what was said comes out, and nothing else."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import faster_whisper
import numpy as np
import pytest

from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import NO_HINTS, Hints, Recognition
from omi_edge.listen.guards import Guarded
from omi_edge.listen.wer import normalise, word_error_rate
from omi_edge.listen.whisper import WhisperRecognizer
from tests.listen.sound import Samples, noise
from tests.listen.spoken_whisper import HELD_OUT, MODEL, NAME, held_out, needed, samples, shelved, sound_of

pytestmark = needed
LINES = held_out().lines
QUICK = [line for line in LINES if line.conversation == 1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelved(tmp_path_factory.mktemp("spoken") / "models").folder


@pytest.fixture(scope="module")
def engine(models: Path) -> WhisperRecognizer:
    return WhisperRecognizer(folder=str(models), model=NAME, threads=1)


def hear(engine: WhisperRecognizer, sound: Samples, hints: Hints = NO_HINTS) -> Recognition:
    engine.start(hints)
    engine.accept(sound.tobytes())
    return engine.finish()


def text(found: Recognition) -> str:
    return " ".join(word.text for word in found.words)


def with_noise(sound: Samples, decibels: float) -> Samples:
    level = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))) * 10 ** (-decibels / 20)
    louder = sound.astype(np.float64) + noise(len(sound) / SAMPLE_RATE, level)
    return np.clip(louder, -32768, 32767).astype(np.int16)


def test_held_out_sentences_come_out_as_they_were_said(engine: WhisperRecognizer) -> None:
    heard = [text(hear(engine, sound_of(line))) for line in LINES]
    assert word_error_rate(held_out().text(), " ".join(heard)) <= 0.05


def test_several_sentences_in_one_segment(engine: WhisperRecognizer) -> None:
    found = hear(engine, sound_of(QUICK[0], QUICK[-1]))
    assert word_error_rate(held_out().text(1), text(found)) <= 0.15
    assert found.words == tuple(sorted(found.words, key=lambda word: word.start_ms))


def test_with_white_noise_at_10_db(engine: WhisperRecognizer) -> None:
    heard = [text(hear(engine, with_noise(sound_of(line), 10))) for line in LINES]
    assert word_error_rate(held_out().text(), " ".join(heard)) <= 0.15


def test_words_lie_where_they_were_said(engine: WhisperRecognizer) -> None:
    errors = []
    for entry, line in zip(tomllib.loads(HELD_OUT.with_suffix(".toml").read_text())["lines"], LINES, strict=True):
        found = hear(engine, sound_of(line))
        if normalise(text(found)) == normalise(line.text):
            began = [line.start - 0.3 + word.start_ms / 1000 for word in found.words]
            errors += [abs(a - b) for a, b in zip(began[1:], entry["starts"][1:], strict=True)]
    assert len(errors) > 40
    assert np.median(errors) <= 0.05
    assert np.percentile(errors, 90) <= 0.15


def test_no_words_in_nothing_even_when_whisper_is_asked(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = WhisperRecognizer(folder=str(models), model=NAME, threads=1)
    for sound in (np.zeros(5 * SAMPLE_RATE, np.int16), noise(5, 30), noise(5, 800), noise(5, 800, pink=True)):
        assert hear(engine, sound).words == ()
    # past the search for speech and past the guards: the model itself writes nothing
    monkeypatch.setattr("omi_edge.listen.whisper.speech_spans", lambda _: [(0, 5000)])
    monkeypatch.setattr(
        "omi_edge.listen.whisper.guard",
        lambda pieces, *_, **__: Guarded(tuple(word for piece in pieces for word in piece.words)),
    )
    for sound in (np.zeros(5 * SAMPLE_RATE, np.int16), noise(5, 30), noise(5, 800)):
        assert hear(engine, sound).words == ()


def test_partial_text_grows_into_the_final_text(models: Path) -> None:
    engine = WhisperRecognizer(folder=str(models), model=NAME, threads=1, partials=True)
    sound = sound_of(QUICK[0], QUICK[1])
    engine.start()
    partials = [
        engine.accept(sound[first : first + SAMPLE_RATE].tobytes()) for first in range(0, len(sound), SAMPLE_RATE)
    ]
    final = normalise(text(engine.finish()))
    live = normalise(partials[-1])
    assert len(live) >= len(final) / 2
    assert word_error_rate(" ".join(final[: len(live)]), " ".join(live)) <= 0.3


def test_a_prompt_and_hotwords_do_not_come_out(models: Path) -> None:
    engine = WhisperRecognizer(folder=str(models), model=NAME, threads=1, initial_prompt="Victor, Zoltan.")
    heard = [text(hear(engine, sound_of(line), Hints(("Helen", "omi")))) for line in LINES[:8]]
    assert word_error_rate(" ".join(line.text for line in LINES[:8]), " ".join(heard)) <= 0.1


def test_batches_give_the_same_words(models: Path) -> None:
    model = faster_whisper.WhisperModel(str(models / NAME), device="cpu", compute_type="int8", cpu_threads=1)
    segments, _ = faster_whisper.BatchedInferencePipeline(model).transcribe(
        samples().astype(np.float32) / 32768, batch_size=4, language="en", word_timestamps=True
    )
    assert word_error_rate(held_out().text(), " ".join(segment.text for segment in segments)) <= 0.15


def test_the_figures_hold_the_bars() -> None:
    figures = json.loads((MODEL / "figures.json").read_text(encoding="utf-8"))
    assert figures["wrong_words"]["held-out sentences of the four voices"] <= 0.05
    assert figures["wrong_words"]["white noise at 10 dB"] <= 0.15
    assert set(figures["segments_in_nothing"].values()) == {0}
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 3_000_000
