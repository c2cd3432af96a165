from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_edge.domain import SAMPLE_RATE, Turn
from omi_edge.listen.diarize import BuiltinDiarizer
from tests.helpers import START_US
from tests.listen.sound import CONVERSATION, WORDS, Samples, noise, recording, said, script, segments

FRAME_US = 10_000


def turns_of(pieces: Iterable[tuple[int, Samples]], diarizer: BuiltinDiarizer | None = None) -> list[Turn]:
    one = diarizer or BuiltinDiarizer()
    one.start()
    for start_us, samples in pieces:
        one.add(start_us, samples.tobytes())
    return one.finish()


def speech(conversation: int) -> list[tuple[int, Samples]]:
    """The segments of one conversation of the shipped recording, as the gate cuts them."""
    lines = [line for line in script(CONVERSATION).lines if line.conversation == conversation]
    return [
        (START_US + segment.start * 1_000_000 // SAMPLE_RATE, recording(CONVERSATION)[segment.start : segment.end])
        for segment in segments(CONVERSATION)
        if lines[0].start - 1 < segment.start / SAMPLE_RATE < lines[-1].end
    ]


@functools.cache
def found(conversation: int) -> tuple[Turn, ...]:
    return tuple(turns_of(speech(conversation)))


def voices(turns: Iterable[Turn]) -> set[str]:
    return {turn.speaker for turn in turns if turn.speaker is not None}


def errors(turns: Sequence[Turn], conversation: int) -> tuple[float, float]:
    """Share of the spoken time that is given to the wrong voice, and to nobody, under the best naming."""
    lines = [line for line in script(CONVERSATION).lines if line.conversation == conversation]
    count = len(recording(CONVERSATION)) * 100 // SAMPLE_RATE
    truth = np.full(count, "", object)
    for line in lines:
        truth[round(line.start * 100) : round(line.end * 100)] = line.speaker
    found = np.full(count, "", object)
    for turn in turns:
        if turn.speaker is not None:
            found[(turn.start_us - START_US) // FRAME_US : (turn.end_us - START_US) // FRAME_US] = turn.speaker
    spoken = truth != ""
    wrong = []
    for names in itertools.permutations(["A", "B"], 2):
        named = np.full(count, "", object)
        for label, name in zip(sorted(voices(turns)), names, strict=False):
            named[found == label] = name
        wrong.append(float(np.mean((named != truth)[spoken & (found != "")])))
    return min(wrong), float(np.mean((found == "")[spoken]))


@pytest.mark.parametrize("conversation", [0, 1])
def test_two_voices_are_found_and_told_apart(conversation: int) -> None:
    turns = found(conversation)
    assert voices(turns) == {"SPEAKER_00", "SPEAKER_01"}
    confused, missed = errors(turns, conversation)
    assert confused <= 0.01
    assert missed <= 0.05


@pytest.mark.parametrize("speaker", ["A", "B"])
def test_one_voice_is_one(speaker: str) -> None:
    lines = said(CONVERSATION, speaker)
    turns = turns_of((START_US + round(line.start * 1e6), samples) for line, samples in lines)
    assert voices(turns) == {"SPEAKER_00"}
    unknown = sum(turn.end_us - turn.start_us for turn in turns if turn.speaker is None)
    assert unknown <= 0.02 * sum(turn.end_us - turn.start_us for turn in turns)


@pytest.mark.parametrize(
    "sound",
    [np.zeros(3 * SAMPLE_RATE, np.int16), noise(3, 12), noise(3, 1000), noise(3, 1000, pink=True), noise(0.01, 12)],
    ids=["digital silence", "quiet room", "white noise", "pink noise", "a click"],
)
def test_silence_and_noise_are_nobody(sound: Samples) -> None:
    assert voices(turns_of([(START_US, sound)])) == set()


def test_nothing_has_no_turns() -> None:
    assert turns_of([]) == []
    assert turns_of([(START_US, np.zeros(0, np.int16))]) == []


def test_noise_between_the_words_is_not_a_third_voice() -> None:
    pieces = speech(1)
    pieces.insert(3, (pieces[3][0] - 400_000, noise(0.3, 300)))
    assert voices(turns_of(pieces)) == {"SPEAKER_00", "SPEAKER_01"}


def test_labels_go_by_who_speaks_first() -> None:
    first = next(turn for turn in found(0) if turn.speaker is not None)
    assert first.speaker == "SPEAKER_00"
    from_the_second = turns_of(speech(1)[4:])
    assert next(turn.speaker for turn in from_the_second if turn.speaker is not None) == "SPEAKER_00"


def test_each_conversation_is_a_new_one() -> None:
    reused = BuiltinDiarizer()
    turns_of(speech(0)[:4], reused)
    assert tuple(turns_of(speech(1), reused)) == found(1)


def test_a_stranger_who_says_little_has_no_speaker_instead_of_a_wrong_one() -> None:
    """In ten seconds the second voice is heard for less than what makes a voice of its own."""
    samples, lines = recording(WORDS[0]), script(WORDS[0]).lines
    turns = turns_of(
        (segment.start * 1_000_000 // SAMPLE_RATE, samples[segment.start : segment.end])
        for segment in segments(WORDS[0])
    )
    for line in lines:
        middle = (line.start + line.end) / 2 * 1e6
        (turn,) = [turn for turn in turns if turn.start_us <= middle < turn.end_us]
        assert turn.speaker == ("SPEAKER_00" if line.speaker == "A" else None)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(0, 19), st.booleans()), max_size=8))
def test_turns_are_in_order_inside_the_speech_and_do_not_overlap(scene: list[tuple[int, int, bool]]) -> None:
    lines = said(CONVERSATION)
    pieces, at = [], START_US
    for pause_us, which, quiet in scene:
        samples = noise(0.4, 20) if quiet else lines[which][1]
        at += pause_us
        pieces.append((at, samples))
        at += len(samples) * 1_000_000 // SAMPLE_RATE
    turns = turns_of(pieces)
    assert all(START_US <= turn.start_us < turn.end_us <= at for turn in turns)
    assert all(one.end_us <= other.start_us for one, other in itertools.pairwise(turns))
    assert all(0 <= turn.confidence <= 1 for turn in turns)
    labels = list(dict.fromkeys(turn.speaker for turn in turns if turn.speaker is not None))
    assert labels == [f"SPEAKER_{number:02d}" for number in range(len(labels))]
