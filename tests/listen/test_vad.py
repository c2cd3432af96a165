from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import EnginePermanent
from omi_edge.listen import vad
from omi_edge.listen.vad import CHUNK_SAMPLES, SileroVad, model_path, speech_spans
from tests.listen.sound import SHORT, Samples, noise, recording, script


def speech() -> Samples:
    return recording(SHORT)


def test_speech_is_probable_where_words_are_said_and_not_in_the_pauses() -> None:
    probabilities = SileroVad().probabilities(speech())
    (line,) = script(SHORT).lines
    per_second = SAMPLE_RATE / CHUNK_SAMPLES
    inside = probabilities[round((line.start + 0.1) * per_second) : round((line.end - 0.1) * per_second)]
    before = probabilities[: round((line.start - 0.1) * per_second)]
    assert np.mean(inside > 0.5) > 0.95
    assert before.max() < 0.35
    assert probabilities[-10:].max() < 0.35


@pytest.mark.parametrize(
    "sound",
    [np.zeros(3 * SAMPLE_RATE, np.int16), noise(3, 12), noise(3, 800), noise(3, 800, pink=True)],
    ids=["digital silence", "quiet room", "white noise", "pink noise"],
)
def test_silence_and_noise_are_not_speech(sound: Samples) -> None:
    assert SileroVad().probabilities(sound).max() < 0.5


def test_the_probabilities_do_not_depend_on_how_the_sound_arrives() -> None:
    samples = speech()
    whole = SileroVad().probabilities(samples)
    assert len(whole) == len(samples) // CHUNK_SAMPLES
    assert whole.dtype == np.float32
    piecewise = SileroVad()
    cuts = np.sort(np.random.default_rng(3).integers(0, len(samples), 40))
    pieces = [piecewise.probabilities(piece) for piece in np.split(samples, cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_less_than_a_chunk_waits_for_more() -> None:
    stream = SileroVad()
    assert len(stream.probabilities(np.zeros(CHUNK_SAMPLES - 1, np.int16))) == 0
    assert len(stream.probabilities(np.zeros(0, np.int16))) == 0
    assert len(stream.probabilities(np.zeros(1, np.int16))) == 1


def test_a_reset_forgets_the_stream() -> None:
    stream = SileroVad()
    first = stream.probabilities(speech())
    stream.probabilities(speech()[: CHUNK_SAMPLES * 40 + 100])  # ends in the middle of speech and of a chunk
    assert not np.array_equal(stream.probabilities(speech()), first)
    stream.reset()
    np.testing.assert_array_equal(stream.probabilities(speech()), first)


def test_what_came_before_counts() -> None:
    tail = speech()[CHUNK_SAMPLES * 40 :]
    alone = SileroVad().probabilities(tail)
    going_on = SileroVad().probabilities(speech())[40:]
    assert not np.array_equal(alone, going_on)


def test_the_caller_may_reuse_its_buffer() -> None:
    buffer = speech()[: CHUNK_SAMPLES * 30 + 200].copy()
    stream, other = SileroVad(), SileroVad()
    stream.probabilities(buffer)
    other.probabilities(buffer.copy())
    buffer[:] = 9999
    rest = speech()[CHUNK_SAMPLES * 30 + 200 :]
    np.testing.assert_array_equal(stream.probabilities(rest), other.probabilities(rest))


def test_a_wheel_without_the_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_path().is_file()
    monkeypatch.setattr(vad, "MODEL_FILE", "assets/absent.onnx")
    with pytest.raises(EnginePermanent, match="faster-whisper"):
        model_path()


def test_the_model_is_run_without_the_package_that_carries_it() -> None:
    code = (
        "import sys\nimport numpy\nfrom omi_edge.listen.vad import SileroVad\n"
        "SileroVad().probabilities(numpy.zeros(512, numpy.int16))\nprint('faster_whisper' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_spans_of_speech_open_high_close_low_and_are_no_clicks() -> None:
    assert speech_spans([]) == []
    assert speech_spans([0.4] * 9) == []
    assert speech_spans([0.1, 0.6, 0.4, 0.4, 0.3, 0.9, 0.9, 0.1]) == [(32, 128)]
    assert speech_spans([0.9] * 10) == [(0, 320)]
    assert speech_spans([0.6] * 3 + [0.4] * 3, close=0.5) == [(0, 96)]


def test_spans_of_a_recording_are_where_its_words_are() -> None:
    (line,) = script(SHORT).lines
    spans = speech_spans(SileroVad().probabilities(speech()))
    assert abs(spans[0][0] / 1000 - line.start) < 0.3
    assert abs(spans[-1][1] / 1000 - line.end) < 0.3
