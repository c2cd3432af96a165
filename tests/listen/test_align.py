from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.domain import Turn, Word
from omi_edge.listen.align import LONE_US, REACH_US, assign

LABELS = st.sampled_from(["SPEAKER_00", "SPEAKER_01", None])


def word(text: str, start_ms: int, end_ms: int) -> Word:
    return Word(text, start_ms * 1000, end_ms * 1000, 0.9)


def turn(start_ms: int, end_ms: int, speaker: str | None, confidence: float = 0.8) -> Turn:
    return Turn(start_ms * 1000, end_ms * 1000, speaker, confidence)


def spoken(words: list[Word], turns: list[Turn]) -> list[tuple[str | None, str]]:
    return [(run.speaker, " ".join(word.text for word in run.words)) for run in assign(words, turns)]


@st.composite
def in_time(draw: st.DrawFn) -> tuple[list[Word], list[Turn]]:
    """Words and turns, each in order of time; turns may leave holes, words may overlap their borders."""
    steps = st.tuples(st.integers(0, 900_000), st.integers(1, 1_200_000))
    at = 0
    words: list[Word] = []
    for pause, length in draw(st.lists(steps, max_size=12)):
        at += pause
        words.append(Word(f"w{len(words)}", at, at + length, draw(st.floats(0, 1))))
        at += length
    at, turns = 0, []
    for pause, length in draw(st.lists(steps, max_size=8)):
        at += pause
        turns.append(Turn(at, at + length, draw(LABELS), draw(st.floats(0, 1))))
        at += length
    return words, turns


@given(in_time())
def test_no_word_is_lost_doubled_or_moved(scene: tuple[list[Word], list[Turn]]) -> None:
    words, turns = scene
    runs = assign(words, turns)
    assert [word for run in runs for word in run.words] == words
    assert all(run.words for run in runs)


@given(in_time())
def test_runs_are_as_long_as_can_be_and_name_only_who_was_heard(scene: tuple[list[Word], list[Turn]]) -> None:
    words, turns = scene
    runs = assign(words, turns)
    assert all(one.speaker != other.speaker for one, other in itertools.pairwise(runs))
    assert {run.speaker for run in runs} <= {turn.speaker for turn in turns} | {None}
    assert all(0 <= run.confidence <= 1 for run in runs)


@given(in_time())
def test_a_word_inside_one_turn_is_that_voices_unless_it_stands_alone(scene: tuple[list[Word], list[Turn]]) -> None:
    words, turns = scene
    speakers = {word: run.speaker for run in assign(words, turns) for word in run.words}
    for word in words:
        inside = [turn for turn in turns if turn.start_us <= word.start_us and word.end_us <= turn.end_us]
        if inside and word.end_us - word.start_us >= LONE_US:
            assert speakers[word] == inside[0].speaker


def test_a_word_goes_to_the_turn_that_holds_most_of_it() -> None:
    turns = [turn(0, 1000, "SPEAKER_00"), turn(1000, 2000, "SPEAKER_01")]
    assert spoken([word("early", 700, 1200), word("late", 900, 1600)], turns) == [
        ("SPEAKER_00", "early"),
        ("SPEAKER_01", "late"),
    ]


def test_a_word_near_a_turn_is_its_and_one_far_from_all_is_nobodys() -> None:
    turns = [turn(0, 1000, "SPEAKER_00")]
    reach = REACH_US // 1000
    assert spoken([word("near", 1000 + reach, 1900)], turns) == [("SPEAKER_00", "near")]
    assert spoken([word("far", 1001 + reach, 1900)], turns) == [(None, "far")]


def test_a_short_word_between_two_of_another_voice_is_a_border_that_slipped() -> None:
    turns = [turn(0, 1000, "SPEAKER_00"), turn(1000, 1390, "SPEAKER_01"), turn(1390, 2500, "SPEAKER_00")]
    short = [word("we", 500, 990), word("took", 1000, 1390), word("it", 1400, 1900)]
    assert spoken(short, turns) == [("SPEAKER_00", "we took it")]
    turns[1], turns[2] = turn(1000, 1500, "SPEAKER_01"), turn(1500, 2500, "SPEAKER_00")
    long = [word("we", 500, 990), word("really", 1000, 1450), word("it", 1500, 1900)]
    assert spoken(long, turns) == [("SPEAKER_00", "we"), ("SPEAKER_01", "really"), ("SPEAKER_00", "it")]


def test_a_known_voice_is_not_smoothed_away_between_unknown_ones() -> None:
    turns = [turn(0, 1000, None, 0.0), turn(1000, 1300, "SPEAKER_01"), turn(1300, 2500, None, 0.0)]
    words = [word("we", 500, 990), word("took", 1000, 1290), word("it", 1400, 1900)]
    assert spoken(words, turns) == [(None, "we"), ("SPEAKER_01", "took"), (None, "it")]


def test_the_confidence_of_a_run_is_the_mean_of_its_turns() -> None:
    turns = [turn(0, 1000, "SPEAKER_00", 0.6), turn(1000, 2000, "SPEAKER_00", 0.9)]
    (run,) = assign([word("we", 0, 500), word("took", 1100, 1600)], turns)
    assert run.confidence == pytest.approx(0.75)


def test_without_turns_the_words_are_nobodys_and_without_words_there_is_nothing() -> None:
    (run,) = assign([word("hello", 0, 500)], [])
    assert (run.speaker, run.confidence) == (None, 0.0)
    assert assign([], [turn(0, 1000, "SPEAKER_00")]) == []
