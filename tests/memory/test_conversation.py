from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.domain import Outcome, SpeechSegment
from omi_edge.memory.conversation import Candidate, is_over, outcome_of, place

S = 1_000_000


def segment(start: float, end: float, speech: float | None = None) -> SpeechSegment:
    return SpeechSegment(
        "seg", "src", round(start * S), round(end * S), round((end - start if speech is None else speech) * S)
    )


def where(start: float, end: float, *candidates: Candidate) -> str | None:
    return place(segment(start, end), candidates, silence_us=120 * S, max_length_us=3600 * S)


def test_speech_within_the_silence_joins() -> None:
    assert where(100, 105, Candidate("a", 0, 50 * S)) == "a"
    assert where(170, 175, Candidate("a", 0, 50 * S)) == "a"
    assert where(170.001, 175, Candidate("a", 0, 50 * S)) is None


def test_late_audio_joins_the_nearest_even_from_before() -> None:
    near, far = Candidate("near", 100 * S, 200 * S), Candidate("far", 0, 10 * S)
    assert where(80, 90, far, near) == "near"
    assert where(12, 15, far, near) == "far"


def test_a_conversation_does_not_grow_beyond_its_maximum() -> None:
    assert where(3590, 3601, Candidate("long", 0, 3580 * S)) is None
    assert where(3590, 3600, Candidate("long", 0, 3580 * S)) == "long"


def test_what_was_ended_by_hand_takes_only_what_was_said_before() -> None:
    ended = Candidate("ended", 0, 50 * S, ended_for_good=True)
    assert where(55, 60, ended) is None
    assert where(40, 45, ended) == "ended"


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_over_only_after_the_silence(ended_us: int, silence_us: int) -> None:
    assert not is_over(ended_us, ended_us + silence_us, silence_us)
    assert is_over(ended_us, ended_us + silence_us + 1, silence_us)


def test_outcomes() -> None:
    assert outcome_of(segment(0, 1, 0.3), 1) is Outcome.TEXT
    assert outcome_of(segment(0, 2, 1.5), 0) is Outcome.UNEXPECTED_EMPTY
    assert outcome_of(segment(0, 1, 0.4), 0) is Outcome.EXPECTED_SILENCE
    assert outcome_of(segment(0, 10, 0.6), 0) is Outcome.EXPECTED_SILENCE
