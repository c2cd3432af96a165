"""What a person wrote is shown in every version that has its audio, whatever was heard there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.domain import Utterance, Word
from omi_edge.stretches import BY_TIME, BY_WORDS, HEARD, LOST, held, settle, span
from omi_edge.wording import Piece, pieces, reword, with_words
from tests.test_wording import STEP, utterance, words


def corrected(one: Utterance, first: int, last: int, text: str) -> Piece:
    """Return what a correction of some words keeps."""
    (line,) = reword([one.words[first:last]], text.split())
    new = (*one.words[:first], *line, *one.words[last:])
    parts = tuple(pieces(one, new))
    return Piece(one.segment_id, (one.start_us + one.end_us) // 2, one.words[first:last], tuple(line), parts)


def said(*lines: str, start_us: int = 0, segment: str = "seg_1") -> list[Utterance]:
    found = []
    for n, line in enumerate(lines):
        found.append(utterance(line.split(), f"utt_{n}", start_us, segment))
        start_us = found[-1].end_us
    return found


def text(of: list[Utterance]) -> str:
    return " | ".join(one.text for one in of)


@pytest.mark.parametrize(
    ("before", "stretch", "after", "heard", "way", "shown"),
    [
        ("one two three", (1, 2), "zwei", ["one two three"], BY_WORDS, "one zwei three"),
        ("one two three", (1, 2), "zwei", ["one zwei three"], HEARD, "one zwei three"),
        ("one two three", (1, 2), "zwei", ["one too three"], BY_TIME, "one zwei three"),
        ("one bob three", (1, 2), "Bob", ["one bob three"], BY_WORDS, "one Bob three"),
        ("a zoo in the park", (0, 1), "the", ["uh zoo the park"], BY_TIME, "the zoo the park"),
        ("one three four", (0, 1), "one two", ["one two three"], HEARD, "one two three"),
        ("see see it", (0, 2), "see", ["see see it"], BY_WORDS, "see it"),
        ("so um yes", (1, 2), "", ["so uh yes"], BY_TIME, "so yes"),
        ("so um", (1, 2), "", ["so"], HEARD, "so"),
        ("a b c d", (0, 4), "a b c e", ["x y", "z d"], BY_TIME, "a b | c e"),
        ("a b c d", (0, 4), "a b c e", ["a b", "c d"], BY_WORDS, "a b | c e"),
        ("a b c d", (0, 4), "a b c e", ["a x c d"], BY_TIME, "a b c e"),  # what was left equal is a person's too
        ("a b c d", (0, 4), "a b c e", [""], BY_TIME, "a b c e"),
    ],
)
def test_it_is_shown(before: str, stretch: tuple[int, int], after: str, heard: list[str], way: int, shown: str) -> None:
    part = corrected(utterance(before.split()), *stretch, after)
    tried = said(*heard)
    assert (settle(tried, [part]), text(tried)) == (way, shown)


def test_only_a_segment_that_is_missing_loses_it() -> None:
    part = corrected(utterance(["one", "two"]), 0, 1, "eins")
    tried = said("one two", segment="seg_2")
    assert (settle(tried, [part]), text(tried)) == (LOST, "one two")
    both = [part, Piece("seg_2", 0, words(["one"]), words(["eins"]))]
    assert (settle(tried, both), text(tried)) == (LOST, "one two")  # all of it or nothing


def test_a_word_gives_way_when_more_than_half_of_it_lies_in_the_stretch() -> None:
    part = corrected(utterance(["one", "two", "three"]), 1, 2, "zwei")
    for shift_us, shown in ((STEP // 2 - 1, "zwei b"), (STEP // 2, "a zwei b")):
        begin_us = STEP + shift_us
        tried = [
            with_words(said("a b")[0], (Word("a", begin_us, begin_us + STEP, 0.5), Word("b", 5 * STEP, 6 * STEP, 0.5)))
        ]
        assert settle(tried, [part]) == BY_TIME
        assert sorted(text(tried).split()) == sorted(shown.split())


def test_the_last_of_several_at_one_place_wins() -> None:
    one = utterance(["one", "two", "three"])
    first = corrected(one, 1, 2, "zwei")
    now = said("one zwei three")[0]
    second = corrected(now, 1, 2, "deux")
    for heard in ("one two three", "one zwei three", "one deux three", "one too three", "one", ""):
        tried = said(heard)
        assert LOST not in (settle(tried, [first]), settle(tried, [second]))
        assert "deux" in text(tried).split()
        assert "zwei" not in text(tried)


def test_all_of_a_stretch_is_held_at_its_time_and_by_what_it_says() -> None:
    part = corrected(utterance("Peter and Victor will visit".split()), 0, 5, "Peter and Viktor will visit")
    assert held(words("Peter hand Viktor will visit us".split()), [part]) == {0, 1, 2, 3, 4}
    late = words("well Peter and Viktor will visit".split())
    assert held(late, [part]) == set(range(6))
    assert held(words(["us"], 60 * STEP), [part]) == set()


TEXTS = st.sampled_from(["a", "bb", "ccc", "Dd.", "e"])


@st.composite
def versions(draw: st.DrawFn) -> list[Utterance]:
    """A segment as another recogniser heard it, with one voice or several."""
    found, line, at_us = [], list[Word](), draw(st.integers(0, STEP))
    for one in draw(st.lists(TEXTS, max_size=12)):
        end_us = at_us + draw(st.integers(10_000, 3 * STEP))
        line.append(Word(one, at_us, end_us, 0.5))
        at_us = end_us + draw(st.integers(0, STEP))
        if draw(st.integers(0, 3)) == 0:
            found.append(line)
            line = []
    found.append(line)
    made = list[Utterance]()
    for n, line in enumerate(found):
        if line or not made:
            start_us, end_us = (line[0].start_us, line[-1].end_us) if line else (0, STEP)
            made.append(with_words(utterance(["x"], f"utt_{n}"), line))
            made[-1] = Utterance(
                **{f: getattr(made[-1], f) for f in made[-1].__struct_fields__}
                | {"start_us": start_us, "end_us": end_us}
            )
    return made


@given(st.lists(TEXTS, min_size=1, max_size=8), st.data(), st.lists(TEXTS, max_size=6), versions())
def test_every_correction_is_shown_and_its_neighbours_are_kept(
    before: list[str], data: st.DataObject, after: list[str], heard: list[Utterance]
) -> None:
    first = data.draw(st.integers(0, len(before) - 1))
    part = corrected(utterance(before), first, data.draw(st.integers(first + 1, len(before))), " ".join(after))
    tried = list(heard)
    way = settle(tried, [part])
    assert way != LOST
    old, new = ([word for one in version for word in one.words] for version in (heard, tried))
    texts = [word.text for word in new]
    runs = [n for n in range(len(texts) + 1) if texts[n : n + len(after)] == after]
    assert runs
    starts = [word.start_us for word in new]
    assert starts == sorted(starts)
    assert all(word.start_us <= word.end_us for word in new)
    assert [(one.id, one.start_us, one.end_us) for one in tried] == [
        (one.id, one.start_us, one.end_us) for one in heard
    ]
    if way == HEARD:
        assert tried == heard
    elif way == BY_TIME:
        start_us, end_us = span(part)
        kept = [
            word for word in old
            if 2 * (min(word.end_us, end_us) - max(word.start_us, start_us)) <= word.end_us - word.start_us
        ]  # fmt: skip
        assert any(new[:n] + new[n + len(after) :] == kept for n in runs)
    else:
        assert len(new) - len(old) == len(after) - len(part.before)
