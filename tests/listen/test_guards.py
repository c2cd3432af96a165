"""Invented words go, each with its reason; what was said stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.engine import HeardWord
from omi_edge.listen.guards import Piece, Reason, compression_ratio, guard, reasons
from omi_edge.listen.phantoms import BEGINNINGS, WHOLE, is_phantom

ALL = [(0, 600_000)]
"""Everything is speech."""


def piece(text: str, start: float = 0.0, each: float = 0.3, confidence: float = 0.9, **said: Any) -> Piece:
    """A piece whose words follow one another, ``each`` seconds long."""
    words = tuple(
        HeardWord(word, round((start + n * each) * 1000), round((start + (n + 1) * each) * 1000), confidence)
        for n, word in enumerate(text.split())
    )
    return Piece(text, words, **({"avg_logprob": -0.3, "no_speech_prob": 0.05, "compression_ratio": 1.2} | said))


def left(*pieces: Piece, speech: list[tuple[int, int]] = ALL, **more: Any) -> tuple[str, str]:
    guarded = guard(pieces, speech, **more)
    assert sum(one.words for one in guarded.rejected) + len(guarded.words) == sum(len(p.words) for p in pieces)
    return " ".join(word.text for word in guarded.words), reasons(guarded.rejected)


def test_what_was_said_stays() -> None:
    said = "No, no, no, no, we will meet on Monday at ten. We will bring the keys."
    assert left(piece(said)) == (said, "")


def test_silence_needs_both_its_probabilities() -> None:
    unsure = {"no_speech_prob": 0.7, "avg_logprob": -1.1}
    assert left(piece("some words here", **unsure)) == ("", "no-speech")
    for sure in ({"no_speech_prob": 0.5}, {"avg_logprob": -0.9}):
        assert left(piece("some words here", **(unsure | sure))) == ("some words here", "")


def test_a_piece_that_is_hardly_in_speech() -> None:
    text = "nothing of this was said by anybody at all"
    assert left(piece(text), speech=[(0, 300)]) == ("", "little-speech")
    assert left(piece(text), speech=[]) == ("", "little-speech")


def test_a_word_away_from_speech() -> None:
    far = (HeardWord("hello", 100, 500, 0.9), HeardWord("there", 950, 1300, 0.9), HeardWord("ghost", 1301, 1500, 0.9))
    one = Piece("hello there ghost", far, -0.3, 0.1, 1.0)
    assert left(one, speech=[(0, 600)]) == ("hello there", "outside-speech")  # 400 ms are a matter of placing


def test_a_word_that_was_not_placed_goes_with_its_neighbours() -> None:
    words = (HeardWord("Anna", 0, 0, 0.9), HeardWord("called", 0, 1400, 0.9), HeardWord("today", 1400, 1900, 0.9))
    assert left(Piece("Anna called today", words, -0.3, 0.1, 1.0), speech=[(700, 2000)]) == ("Anna called today", "")
    alone = Piece("Anna", words[:1], -0.3, 0.1, 1.0)
    assert left(alone, speech=[(700, 2000)])[0] == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("we meet in in in in in in in in", "we meet in"),
        ("please call and Helen and Helen and Helen and Helen tomorrow", "please call and Helen tomorrow"),
        ("I see. I see. I see. I see. Fine.", "I see. Fine."),
        ("see you all tomorrow. See you all tomorrow. See you all tomorrow.", "see you all tomorrow."),
        ("all right. All right. All right.", "all right. All right. All right."),
        ("see you tomorrow. See you tomorrow.", "see you tomorrow. See you tomorrow."),
    ],
)
def test_loops_are_cut_to_their_first_turn(text: str, kept: str) -> None:
    assert left(piece(text)) == (kept, "" if text == kept else "repetition")


def test_a_loop_over_several_pieces() -> None:
    pieces = [piece("I am on my way.", start=n * 2.0) for n in range(4)]
    assert left(*pieces) == ("I am on my way.", "repetition")


def test_a_decoding_that_gzip_makes_small_goes_as_a_whole() -> None:
    text = " ".join(f"number one, number two, number three and number {n % 4} again" for n in range(6))
    assert compression_ratio(text) > 2.4
    assert left(piece(text, compression_ratio=compression_ratio(text))) == ("", "compression")
    assert left(piece("fine words", compression_ratio=3.0, window=1)) == ("fine words", "")  # the loop is out


def test_words_faster_than_anybody_speaks() -> None:
    fast, slow = "one two three four five six", "please bring the keys"
    assert left(piece(fast, each=0.05), piece(slow, start=2.0)) == (slow, "too-fast")
    assert left(piece(fast, each=0.1)) == (fast, "")  # ten a second: the record is 10.6
    many = piece("there are far more words in here than this little speech can hold", each=0.12)
    assert left(many, speech=[(400, 1000)]) == ("", "too-fast, outside-speech")


@pytest.mark.parametrize("language", sorted(WHOLE))
def test_a_phantom_counts_when_little_supports_it(language: str) -> None:
    for phrase in WHOLE[language]:
        shy = piece(f"{phrase.capitalize()}!", confidence=0.3)
        assert left(shy, language=language) == ("", "phantom-phrase")
        assert left(piece(phrase), language=language) == (phrase, ""), "a person may say it"
        assert left(piece(phrase), speech=[(0, 110)], language=language)[0] == ""


@pytest.mark.parametrize("language", sorted(BEGINNINGS))
def test_credits_begin_alike(language: str) -> None:
    for start in BEGINNINGS[language]:
        assert is_phantom(f"{start.title()} Somebody 2019", language)
    assert not is_phantom("Nobody wrote subtitles by then.", language)


def test_phantoms_repeat_are_english_everywhere_and_come_from_the_prompt() -> None:
    assert is_phantom("Thanks for watching! Thanks for watching!", "sv")
    assert is_phantom("ご視聴 ありがとうございました。", "ja")
    assert not is_phantom("Thank you for the flowers.", "en")
    assert not is_phantom("...", "en")
    shy = piece("Anna and Bob", confidence=0.2)
    assert left(shy, prompt=["A talk of Anna and Bob."]) == ("", "phantom-phrase")
    assert left(shy) == ("Anna and Bob", "")


def test_a_rejection_tells_where_and_why_and_not_what() -> None:
    found = guard([piece("Thank you.", start=1.0, confidence=0.1)], ALL).rejected
    assert [(one.start_ms, one.end_ms, one.reason, one.words) for one in found] == [(1000, 1600, Reason.PHANTOM, 2)]


WORDS = st.builds(
    lambda text, start, length, sure: HeardWord(text, start, start + length, sure),
    st.sampled_from(["and", "Helen", "in", "thank", "you", "monday.", "...", "谢", "谢"]),
    st.integers(0, 30_000),
    st.integers(0, 2_000),
    st.floats(0, 1),
)
PIECES = st.lists(
    st.builds(
        lambda words, *rest: Piece(" ".join(word.text for word in words), tuple(words), *rest),
        st.lists(WORDS, max_size=12),
        st.floats(-3, 0),
        st.floats(0, 1),
        st.floats(0.5, 10),
        st.just(0.0),
        st.integers(0, 2),
    ),
    max_size=6,
)
SPEECH = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 5_000)), max_size=5).map(
    lambda spans: [(start, start + length) for start, length in sorted(spans)]
)


@given(PIECES, SPEECH, st.sampled_from(["en", "zh", "xx"]))
def test_whatever_comes_nothing_is_invented_moved_or_unaccounted(
    pieces: list[Piece], speech: list[tuple[int, int]], language: str
) -> None:
    given_words = [word for one in pieces for word in one.words]
    guarded = guard(pieces, speech, language=language)
    rest = iter(given_words)
    assert all(any(word is other for other in rest) for word in guarded.words), "the same words in the same order"
    assert sum(one.words for one in guarded.rejected) == len(given_words) - len(guarded.words)
    assert {one.reason for one in guarded.rejected} <= set(Reason)
    if not speech:
        assert not guarded.words


@given(
    st.lists(st.integers(0, 9_999), min_size=1, max_size=60, unique=True),
    st.integers(110, 900),
    st.integers(1, 15),
)
def test_clean_words_in_speech_all_stay(numbers: list[int], each_ms: int, a_piece: int) -> None:
    words = [HeardWord(f"w{n}", at * each_ms, (at + 1) * each_ms, 0.8) for at, n in enumerate(numbers)]
    pieces = [
        Piece(" ".join(word.text for word in words[at : at + a_piece]), tuple(words[at : at + a_piece]), -0.4, 0.2, 1.3)
        for at in range(0, len(words), a_piece)
    ]
    guarded = guard(pieces, [(0, len(words) * each_ms)])
    assert list(guarded.words) == words
    assert guarded.rejected == ()
