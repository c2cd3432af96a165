"""Word error rate: what a recogniser is held to. Words are aligned by jiwer; the normaliser is ``normalise``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import jiwer

_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")
"""Kana and Han, which are written without spaces: Unicode's blocks of them, up to extension G."""
_IN_WORDS = ("L", "M", "N")
"""Unicode's general categories of letters, marks and numbers."""


def normalise(text: str) -> list[str]:
    """Return the words that are compared.

    Unicode NFKC, lower case, no punctuation but apostrophes inside words; numbers stay as they are written, and
    spellings too. Kana and Han count sign by sign.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    signs = _UNSPACED.sub(r" \1 ", text)
    plain = "".join(sign if sign == "'" or unicodedata.category(sign)[0] in _IN_WORDS else " " for sign in signs)
    return [word for part in plain.split() if (word := part.strip("'"))]


def errors(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Return how many errors belong to each word that was ``said``, by the alignment with the fewest.

    A word inserted belongs to the one before it, at the beginning to the first. At least one word must have been said.
    """
    found = [0] * len(said)
    for chunk in jiwer.process_words(" ".join(said), " ".join(heard)).alignments[0]:
        if chunk.type == "insert":
            found[max(0, chunk.ref_start_idx - 1)] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for index in range(chunk.ref_start_idx, chunk.ref_end_idx):
                found[index] += 1
    return found


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Return (substitutions + insertions + deletions) / words of the reference, by Levenshtein distance."""
    said, heard = normalise(reference), normalise(hypothesis)
    if not said:
        return float(bool(heard))
    return sum(errors(said, heard)) / len(said)
