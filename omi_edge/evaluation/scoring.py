"""Word error rates with an interval, and whether one recogniser is better than another or only luckier."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.evaluation.references import Cue
from omi_edge.listen.wer import errors, normalise

PIECE_WORDS = 20
"""Longer pieces of a reference are divided: what is drawn by lot must be many. A choice."""
FEWEST_PIECES = 10
"""With fewer an interval would say nothing. A choice."""
DRAWS = 10_000
DRAWS_AT_ONCE = 500
SEED = 20_041
"""Fixed, so that the same counts always give the same interval."""
TAIL_PERCENT = 2.5
"""On each side: an interval of 95 %."""

Column = npt.NDArray[np.int64]


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a reference: how many words it has, and how many errors were made in it."""

    words: int
    errors: int


class Rate(msgspec.Struct, frozen=True):
    """Errors per word of the reference; ``low`` and ``high`` None where there is too little to tell."""

    value: float
    low: float | None
    high: float | None


def score(cues: Sequence[Cue], heard: str) -> tuple[Piece, ...]:
    """Return the errors of what was ``heard``, piece by piece. At least one cue must have a word."""
    spoken = [words for cue in cues if (words := normalise(cue.text))]
    found = errors([word for words in spoken for word in words], normalise(heard))
    lengths = [len(piece) for words in spoken for piece in _divided(words)]
    ends = list(accumulate(lengths))
    return tuple(Piece(length, sum(found[end - length : end])) for length, end in zip(lengths, ends, strict=True))


def rate(pieces: Sequence[Piece]) -> Rate:
    """Return the word error rate, and the interval by the bootstrap over pieces (Bisani and Ney, ICASSP 2004)."""
    words, wrong = _columns(pieces)
    value = float(wrong.sum() / words.sum())
    if len(pieces) < FEWEST_PIECES:
        return Rate(value, None, None)
    return Rate(value, *_interval(wrong, words))


def difference(old: Sequence[Piece], new: Sequence[Piece]) -> Rate:
    """Return how much higher the error rate of ``new`` is than that of ``old`` on the same pieces.

    Both are drawn together (the same paper, "probability of improvement"): that a piece is hard for both then does not
    hide that one is better. Raises ValueError when they are of different references.
    """
    words, wrong = _columns(old)
    others, wrong_now = _columns(new)
    if not np.array_equal(words, others):
        raise ValueError("the two were not measured on the same reference")
    value = float((wrong_now.sum() - wrong.sum()) / words.sum())
    if len(old) < FEWEST_PIECES:
        return Rate(value, None, None)
    return Rate(value, *_interval(wrong_now - wrong, words))


def verdict(found: Rate) -> str:
    """Return "better", "worse", "equal" (not one error between them in any draw) or "unknown" of a difference."""
    if found.low is None or found.high is None:
        return "unknown"
    if found.high < 0:
        return "better"
    if found.low > 0:
        return "worse"
    return "equal" if found.low == found.high == 0 else "unknown"


def _divided(words: Sequence[str]) -> list[tuple[str, ...]]:
    count = -(-len(words) // PIECE_WORDS)
    return [tuple(piece) for piece in np.array_split(np.array(words, object), count)]


def _columns(pieces: Sequence[Piece]) -> tuple[Column, Column]:
    table = np.array([(piece.words, piece.errors) for piece in pieces], np.int64)
    return table[:, 0], table[:, 1]


def _interval(wrong: Column, words: Column) -> tuple[float, float]:
    """Draw as many pieces as there are, with replacement, again and again; return what most rates lie between."""
    lot = np.random.default_rng(SEED)
    evenly = np.full(len(words), 1 / len(words))
    rates = np.empty(DRAWS)
    for first in range(0, DRAWS, DRAWS_AT_ONCE):  # all at once would need much memory for a long reference
        drawn = lot.multinomial(len(words), evenly, DRAWS_AT_ONCE)
        rates[first : first + DRAWS_AT_ONCE] = (drawn @ wrong) / (drawn @ words)
    low, high = np.percentile(rates, (TAIL_PERCENT, 100 - TAIL_PERCENT))
    return float(low), float(high)
