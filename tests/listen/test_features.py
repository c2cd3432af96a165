from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from omi_edge.domain import SAMPLE_RATE
from omi_edge.listen.features import CEPSTRA, HOP, PITCH_WINDOW, VOICED, frames
from tests.listen.sound import CONVERSATION, Samples, noise, said


def buzz(hertz: float, seconds: float = 0.5, level: float = 3000) -> Samples:
    """A voice-like tone: ten harmonics, the higher the weaker."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    parts = [np.sin(2 * np.pi * hertz * order * time) / order for order in range(1, 11)]
    samples: Samples = (np.sum(parts, axis=0) * level).astype(np.int16)
    return samples


@pytest.mark.parametrize("hertz", [70, 100, 140, 200, 280, 380])
def test_pitch_of_a_voice_is_found_within_a_quarter_tone(hertz: float) -> None:
    _, pitch, voicing, _ = frames(buzz(hertz))
    assert np.all(voicing > 0.85)
    assert np.abs(pitch - 12 * np.log2(hertz / 55)).max() < 0.5


def test_noise_has_no_voice_and_neither_has_silence() -> None:
    assert np.mean(frames(noise(2, 1000))[2] > VOICED) < 0.05
    assert frames(np.zeros(SAMPLE_RATE, np.int16))[2].max() == 0


def test_level_is_in_decibels() -> None:
    loud, soft = frames(noise(1, 3000))[3].mean(), frames(noise(1, 300))[3].mean()
    assert loud == pytest.approx(20 * np.log10(3000), abs=0.5)
    assert loud - soft == pytest.approx(20, abs=0.5)


def test_cepstra_tell_spectra_apart_and_not_loudness() -> None:
    _, spoken = said(CONVERSATION, "A", 1)[0]
    cepstra, _, _, level = frames(spoken)
    softer = frames(spoken // 2)[0]
    loud = level > level.max() - 20
    assert np.abs(cepstra[loud].mean(0) - softer[loud].mean(0)).max() < 0.5
    assert np.abs(cepstra[loud].mean(0) - frames(noise(0.5, 1500))[0].mean(0)).max() > 3


def test_the_pitch_of_the_two_voices_is_theirs() -> None:
    medians = []
    for speaker in ("A", "B"):
        _, pitch, voicing, _ = frames(np.concatenate([sound for _, sound in said(CONVERSATION, speaker, 1)]))
        medians.append(float(np.median(pitch[voicing > VOICED])))
    man, woman = medians
    assert 70 < 55 * 2 ** (man / 12) < 140
    assert 140 < 55 * 2 ** (woman / 12) < 260


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int16, st.integers(0, 4 * PITCH_WINDOW)))
def test_any_sound_has_one_finite_row_each_ten_milliseconds(pcm: Samples) -> None:
    cepstra, pitch, voicing, level = frames(pcm)
    count = max(0, (len(pcm) - PITCH_WINDOW) // HOP + 1)
    assert cepstra.shape == (count, CEPSTRA)
    assert pitch.shape == voicing.shape == level.shape == (count,)
    for row in (cepstra, pitch, voicing, level):
        assert row.dtype == np.float32
        assert np.isfinite(row).all()
    assert np.all((voicing >= 0) & (voicing <= 1))
