"""The real recogniser takes a good part of real time: what it heard is made once and looked at by many tests."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest

from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import Recognition
from omi_edge.errors import EngineTransient
from omi_edge.listen.transcribe import PocketSphinxRecognizer
from omi_edge.listen.wer import word_error_rate
from tests.listen.sound import CONVERSATION, SHORT, WORDS, Samples, noise, recording, script, segments

PART_SECONDS = 28.4
"""The first four segments of the shipped recording end here, between two lines."""

WORDS_SECONDS = 7.0
"""The first segment of the recording in three formats ends before this, the second after it."""


class Heard(msgspec.Struct, frozen=True):
    """One segment, what was shown while it was heard, and what came of it."""

    samples: Samples
    partials: tuple[str, ...]
    recognition: Recognition

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.recognition.words)


@functools.cache
def recognizer() -> PocketSphinxRecognizer:
    """One for all tests, as one engine process hears all segments: nothing of a segment may reach the next."""
    return PocketSphinxRecognizer()


def hear(samples: Samples, block: int = 8000) -> Heard:
    engine = recognizer()
    engine.start()
    partials = [engine.accept(samples[first : first + block].tobytes()) for first in range(0, len(samples), block)]
    return Heard(samples, tuple(partials), engine.finish())


@functools.cache
def _heard(path: Path, until: float) -> tuple[Heard, ...]:
    """The segments of a recording that end before ``until`` seconds."""
    return tuple(
        hear(recording(path)[segment.start : segment.end])
        for segment in segments(path)
        if segment.end <= until * SAMPLE_RATE
    )


def heard(path: Path, until: float = 1e9) -> tuple[Heard, ...]:
    """What the recogniser made of each; not to be called while a segment is open."""
    return _heard(path, until)


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.full)])
def all_heard(request: pytest.FixtureRequest) -> list[Heard]:
    """The long recording takes as long as all others; in the quick test test_main_job.py hears all of it."""
    long = heard(CONVERSATION, PART_SECONDS) if request.param == "long" else ()
    return [*long, *heard(WORDS[0], WORDS_SECONDS), *heard(SHORT)]


def text_of(path: Path, until: float = 1e9) -> str:
    return " ".join(one.text for one in heard(path, until))


@pytest.mark.full  # test_main_job.py says the same of the whole recording
def test_what_was_said_is_recognised() -> None:
    said = " ".join(line.text for line in script(CONVERSATION).lines if line.end < PART_SECONDS)
    assert len(said.split()) > 70
    assert word_error_rate(said, text_of(CONVERSATION, PART_SECONDS)) <= 0.20


def test_one_sentence_is_recognised() -> None:
    assert word_error_rate(script(SHORT).text(), text_of(SHORT)) <= 0.20


def test_three_formats_of_the_same_words_come_out_alike() -> None:
    first, *others = [text_of(path, WORDS_SECONDS) for path in WORDS]
    said = " ".join(line.text for line in script(WORDS[0]).lines if line.end < WORDS_SECONDS)
    assert len(said.split()) > 15
    assert word_error_rate(said, first) <= 0.20
    for other in others:
        assert word_error_rate(first, other) <= 0.05


def test_the_same_sound_gives_the_same_words_whatever_was_heard_before() -> None:
    (before,) = heard(SHORT)
    hear(noise(1, 3000))  # would move the cepstral mean far away
    again = hear(before.samples)
    assert again.recognition == before.recognition
    assert again.partials == before.partials


def test_a_segment_that_was_given_up_leaves_nothing_behind() -> None:
    (before,) = heard(SHORT)
    engine = recognizer()
    engine.start()
    engine.accept(recording(WORDS[0])[SAMPLE_RATE : 3 * SAMPLE_RATE + 77].tobytes())
    assert hear(before.samples).recognition == before.recognition


def test_the_words_do_not_depend_on_how_the_sound_arrives() -> None:
    (before,) = heard(SHORT)
    assert hear(before.samples, block=320).recognition == before.recognition


def test_words_lie_in_the_segment_one_after_the_other(all_heard: list[Heard]) -> None:
    for one in all_heard:
        words = one.recognition.words
        assert words
        assert words[0].start_ms >= 0
        assert words[-1].end_ms <= len(one.samples) * 1000 / SAMPLE_RATE
        assert all(word.start_ms < word.end_ms for word in words)
        assert all(word.end_ms <= other.start_ms for word, other in itertools.pairwise(words))


def test_words_lie_where_they_were_said() -> None:
    (segment,), (line,) = segments(SHORT), script(SHORT).lines
    words = heard(SHORT)[0].recognition.words
    offset = segment.start / SAMPLE_RATE
    assert offset + words[0].start_ms / 1000 == pytest.approx(line.start, abs=0.15)
    assert offset + words[-1].end_ms / 1000 == pytest.approx(line.end, abs=0.15)


def test_confidence_is_a_probability(all_heard: list[Heard]) -> None:
    confidences = [word.confidence for one in all_heard for word in one.recognition.words]
    assert all(0 <= confidence <= 1 for confidence in confidences)
    assert min(confidences) < 0.5 < np.mean(confidences)


@pytest.mark.full  # test_main_job.py says the same of the whole recording
def test_confidence_tells_right_words_from_wrong() -> None:
    said = set(script(CONVERSATION).text().lower().split())
    words = [word for one in heard(CONVERSATION, PART_SECONDS) for word in one.recognition.words]
    right = [word.confidence for word in words if word.text.lower() in said]
    wrong = [word.confidence for word in words if word.text.lower() not in said]
    assert wrong
    assert np.mean(right) > np.mean(wrong) + 0.1


def test_the_text_grows_while_it_is_heard_and_the_last_of_it_is_nearly_the_result(all_heard: list[Heard]) -> None:
    for one in all_heard:
        lengths = [len(partial.split()) for partial in one.partials]
        assert lengths[0] <= 1
        assert lengths[len(lengths) // 2] > 0
        assert lengths[-1] > lengths[len(lengths) // 2]
    shown = " ".join(one.partials[-1] for one in all_heard)
    assert word_error_rate(" ".join(one.text for one in all_heard), shown) <= 0.25


def test_the_partial_text_stays_while_less_than_a_block_has_come() -> None:
    samples = heard(SHORT)[0].samples
    engine = recognizer()
    engine.start()
    text = engine.accept(samples[: SAMPLE_RATE * 3 // 2].tobytes())
    assert text
    assert engine.accept(samples[SAMPLE_RATE * 3 // 2 :][:160].tobytes()) == text
    engine.start()
    assert engine.accept(samples[:160].tobytes()) == ""


def test_partial_and_final_text_come_from_one_pass_over_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = recognizer()
    decoder = engine._decoder
    given: list[bytes] = []

    class Counting:
        """The decoder, and what sound it was given."""

        def __getattr__(self, name: str) -> object:
            return getattr(decoder, name)

        def process_raw(self, data: bytes, **options: object) -> object:
            given.append(data)
            return decoder.process_raw(data, **options)

    monkeypatch.setattr(engine, "_decoder", Counting())
    (before,) = heard(SHORT)
    samples = before.samples[: SAMPLE_RATE + 123]
    hear(samples, block=1000)
    assert b"".join(given) == samples.tobytes()


def test_sound_outside_a_segment_is_refused_instead_of_a_crash() -> None:
    engine = recognizer()
    engine.start()
    engine.finish()
    with pytest.raises(EngineTransient):
        engine.accept(bytes(6400))
    with pytest.raises(EngineTransient):
        engine.finish()
    engine.start()
    assert engine.finish().words == ()


@pytest.mark.parametrize(
    "sound",
    [np.zeros(SAMPLE_RATE, np.int16), np.zeros(0, np.int16), np.zeros(1, np.int16), noise(1.5, 12)],
    ids=["digital silence", "nothing", "one sample", "quiet room"],
)
def test_silence_has_no_words(sound: Samples) -> None:
    one = hear(sound)
    assert one.text == ""
    assert set(one.partials) <= {""}


def test_words_are_written_as_a_person_writes_them(all_heard: list[Heard]) -> None:
    words = " ".join(one.text for one in all_heard).split()
    assert "I" in words
    assert "i" not in words
    assert not [word for word in words if not word.replace("'", "").replace(".", "").replace("-", "").isalpha()]


def test_the_engine_names_itself_with_its_version() -> None:
    name, version, model = heard(SHORT)[0].recognition.engine.split()
    assert (name, model) == ("pocketsphinx", "en-us")
    assert version[0].isdigit()
    assert heard(SHORT)[0].recognition.language == "en"
