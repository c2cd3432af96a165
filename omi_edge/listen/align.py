"""Each word to the voice that spoke it. No word is lost, doubled or moved."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from omi_edge.domain import Turn, Word

REACH_US = 500_000
"""A word that lies in no turn belongs to the nearest within half a second, else to nobody."""
LONE_US = 400_000
"""One word shorter than this between two of another voice is a border that slipped, not an interruption."""


class SpeakerRun(msgspec.Struct, frozen=True):
    """Consecutive words of one voice."""

    speaker: str | None
    words: tuple[Word, ...]
    confidence: float
    """Mean confidence of the turns the words lie in."""


def assign(words: Sequence[Word], turns: Sequence[Turn]) -> list[SpeakerRun]:
    """Return the words, in their order, in runs of one speaker each; ``turns`` in order of time."""
    found = [_turn(word, turns) for word in words]
    speakers = [turn.speaker if turn is not None else None for turn in found]
    for index in range(1, len(words) - 1):
        before, after = speakers[index - 1], speakers[index + 1]
        if (
            before is not None
            and before == after != speakers[index]
            and words[index].end_us - words[index].start_us < LONE_US
        ):
            speakers[index] = before
    runs: list[SpeakerRun] = []
    first = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or speakers[index] != speakers[first]:
            sure = [turn.confidence for turn in found[first:index] if turn is not None]
            confidence = sum(sure) / len(sure) if sure else 0.0
            runs.append(SpeakerRun(speakers[first], tuple(words[first:index]), confidence))
            first = index
    return runs if words else []


def _turn(word: Word, turns: Sequence[Turn]) -> Turn | None:
    best: Turn | None = None
    best_overlap = -REACH_US - 1
    for turn in turns:
        overlap = min(word.end_us, turn.end_us) - max(word.start_us, turn.start_us)
        if overlap > best_overlap:
            best, best_overlap = turn, overlap
    return best
