from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.evaluation.references import Cue
from omi_edge.evaluation.scoring import PIECE_WORDS, Piece, Rate, difference, rate, score, verdict
from omi_edge.listen.wer import normalise

WORDS = st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=50)
CUES = st.lists(WORDS, min_size=1, max_size=5).filter(any)


def test_errors_belong_to_their_pieces() -> None:
    cues = [Cue("we took the train"), Cue("–"), Cue("to Boston"), Cue("yesterday")]
    assert score(cues, "we took the the train to Boston") == (Piece(4, 1), Piece(2, 0), Piece(1, 1))
    assert score(cues, "oh we took the train to Austin yesterday") == (Piece(4, 1), Piece(2, 1), Piece(1, 0))
    assert score([Cue("one")], "") == (Piece(1, 1),)


@given(CUES, WORDS)
def test_all_words_and_all_errors_are_in_a_piece(cues: list[list[str]], heard: list[str]) -> None:
    pieces = score([Cue(" ".join(words)) for words in cues], " ".join(heard))
    said = [word for words in cues for word in words]
    assert sum(piece.words for piece in pieces) == len(said)
    wrong = jiwer.process_words(" ".join(said), " ".join(heard))
    assert sum(piece.errors for piece in pieces) == wrong.substitutions + wrong.deletions + wrong.insertions
    assert all(0 < piece.words <= PIECE_WORDS for piece in pieces)


def drawn(count: int, share: float, seed: int) -> list[Piece]:
    lot = np.random.default_rng(seed)
    return [Piece(10, int(lot.binomial(10, share))) for _ in range(count)]


def test_an_interval_around_the_rate_that_is_narrower_with_more() -> None:
    few, many = rate(drawn(20, 0.2, 1)), rate(drawn(2000, 0.2, 1))
    for one in (few, many):
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high
    assert many.high - many.low < (few.high - few.low) / 5  # type: ignore[operator]
    assert many.low < 0.2 < many.high  # type: ignore[operator]
    assert rate(drawn(20, 0.2, 1)) == few
    assert rate(drawn(9, 0.2, 1)).low is None


@pytest.mark.parametrize("seed", range(5))
def test_what_is_better_on_the_same_pieces_is_told_even_where_all_are_hard(seed: int) -> None:
    lot = np.random.default_rng(seed)
    old = [Piece(20, int(lot.integers(0, 18))) for _ in range(60)]
    new = [Piece(20, max(0, piece.errors - (index % 3 == 0))) for index, piece in enumerate(old)]
    found = difference(old, new)
    assert verdict(found) == "better"
    assert verdict(difference(new, old)) == "worse"
    assert found.value == pytest.approx(sum(n.errors - o.errors for n, o in zip(new, old, strict=True)) / 1200)
    assert verdict(difference(old, old)) == "equal"
    alone, other = rate(old), rate(new)
    assert alone.low is not None
    assert other.high is not None
    assert alone.low < other.high  # their own intervals overlap


def test_luck_is_not_called_a_difference() -> None:
    told = [verdict(difference(drawn(40, 0.2, 2 * n), drawn(40, 0.2, 2 * n + 1))) for n in range(40)]
    assert told.count("unknown") >= 34
    assert verdict(Rate(-0.1, None, None)) == "unknown"


def test_other_references_are_never_compared() -> None:
    with pytest.raises(ValueError, match="same reference"):
        difference([Piece(3, 1)], [Piece(4, 1)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("东京 Tower", ["东", "京", "tower"]),
        ("とても good", ["と", "て", "も", "good"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("rock 'n' roll don’t", ["rock", "n", "roll", "don't"]),
        ("ﬁne — №5", ["fine", "no5"]),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert normalise(text) == words
