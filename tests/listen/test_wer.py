from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.listen.wer import normalise, word_error_rate

TEXTS = st.lists(st.sampled_from(["one", "two", "three", "it's", "4"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"),
    [
        ("we took the train", "we took the train", 0.0),
        ("we took the train", "we took a train", 0.25),  # substitution
        ("we took the train", "we took train", 0.25),  # deletion
        ("we took the train", "we took the the train", 0.25),  # insertion
        ("we took the train", "", 1.0),
        ("train", "a tray in", 3.0),  # insertions count: more than 1 is possible
        ("a b c d", "b c d a", 0.5),  # a word moved: one deletion, one insertion
        ("", "", 0.0),
        ("", "something", 1.0),
        ("We took, the train!", "we took the TRAIN", 0.0),
        ("it’s late", "it's late", 0.0),
    ],
)
def test_known_values(reference: str, hypothesis: str, rate: float) -> None:
    assert word_error_rate(reference, hypothesis) == pytest.approx(rate)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normalise("Don’t, at 10:30 – re_do!") == ["don't", "at", "10", "30", "re", "do"]


@given(TEXTS)
def test_nothing_is_wrong_with_the_same_words(text: str) -> None:
    assert word_error_rate(text, text) == 0


@given(TEXTS, TEXTS)
def test_edits_are_counted_the_same_both_ways_and_lie_between_their_bounds(one: str, other: str) -> None:
    here, there = len(normalise(one)), len(normalise(other))
    edits = word_error_rate(one, other) * here if here else there
    back = word_error_rate(other, one) * there if there else here
    assert edits == pytest.approx(back)
    assert abs(here - there) - 1e-9 <= edits <= max(here, there) + 1e-9


@given(TEXTS, TEXTS, TEXTS)
def test_a_way_round_is_never_shorter(one: str, middle: str, other: str) -> None:
    def edits(reference: str, hypothesis: str) -> float:
        count = len(normalise(reference))
        return word_error_rate(reference, hypothesis) * count if count else len(normalise(hypothesis))

    assert edits(one, other) <= edits(one, middle) + edits(middle, other) + 1e-9


@given(st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=8), st.data())
def test_one_lost_word_is_one_error(words: list[str], data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, len(words) - 1))
    heard = words[:lost] + words[lost + 1 :]
    assert word_error_rate(" ".join(words), " ".join(heard)) == pytest.approx(1 / len(words))
