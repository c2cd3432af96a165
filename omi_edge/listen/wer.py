"""Word error rate: what a recogniser is held to."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def normalise(text: str) -> list[str]:
    """Return lower-case words without punctuation; numbers stay as they are written."""
    return _WORD.findall(text.lower().replace("’", "'"))


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Return (substitutions + insertions + deletions) / words of the reference, by Levenshtein distance."""
    said, heard = normalise(reference), normalise(hypothesis)
    if not said:
        return float(bool(heard))
    row = list(range(len(heard) + 1))
    for index, word in enumerate(said, 1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(heard, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other)),
            )
    return row[-1] / len(said)
