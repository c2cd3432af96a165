"""The rules by which speech becomes conversations: which one a segment belongs to, and when one is over. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from omi_edge.domain import Outcome, SpeechSegment

SURE_SPEECH_US = 500_000
"""Speech of at least this length without a word is unexpected: the shortest English sentences take about half a
second, while coughs and clicks that pass the VAD are shorter."""
SURE_SHARE = 0.3
"""Share of a segment that must be speech before its silence is unexpected."""


class Candidate(msgspec.Struct, frozen=True):
    """A conversation of the same source that a segment might belong to."""

    id: str
    started_us: int
    ended_us: int
    ended_for_good: bool = False
    """Ended by hand or by length: only what was said before its end still belongs to it."""


def place(
    segment: SpeechSegment, candidates: Iterable[Candidate], *, silence_us: int, max_length_us: int
) -> str | None:
    """Return the id of the conversation that ``segment`` belongs to, None for a new one; the nearest wins."""
    best: tuple[int, str] | None = None
    for candidate in candidates:
        apart_us = max(segment.start_us - candidate.ended_us, candidate.started_us - segment.end_us, 0)
        length_us = max(segment.end_us, candidate.ended_us) - min(segment.start_us, candidate.started_us)
        if apart_us > silence_us or length_us > max_length_us:
            continue
        if candidate.ended_for_good and segment.start_us >= candidate.ended_us:
            continue
        if best is None or apart_us < best[0]:
            best = apart_us, candidate.id
    return best[1] if best else None


def is_over(ended_us: int, quiet_until_us: int, silence_us: int) -> bool:
    """Say whether a conversation whose last speech ended at ``ended_us`` is over.

    ``quiet_until_us`` is the moment up to which its source is known to hold no further speech.
    """
    return quiet_until_us - ended_us > silence_us


def outcome_of(segment: SpeechSegment, words: int) -> Outcome:
    """Judge what a recogniser heard in ``segment``."""
    if words:
        return Outcome.TEXT
    sure = segment.speech_us >= SURE_SPEECH_US and segment.speech_ratio >= SURE_SHARE
    return Outcome.UNEXPECTED_EMPTY if sure else Outcome.EXPECTED_SILENCE
