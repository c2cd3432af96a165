"""New words in the place of old ones: their times, and how they are found again."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.domain import Outcome, Utterance, Word
from omi_edge.wording import compare, pieces, place, reword, with_words

STEP = 400_000
TEXTS = st.lists(st.sampled_from(["a", "bb", "ccc", "Dd.", "e"]), max_size=12)


def words(texts: list[str], start_us: int = 0, gap_us: int = 0) -> tuple[Word, ...]:
    return tuple(
        Word(text, start_us + n * STEP, start_us + (n + 1) * STEP - gap_us, 0.5) for n, text in enumerate(texts)
    )


def utterance(texts: list[str], utterance_id: str = "utt_1", start_us: int = 0, segment: str = "seg_1") -> Utterance:
    said = words(texts, start_us)
    end_us = said[-1].end_us if said else start_us + STEP
    return Utterance(
        utterance_id, "con_1", segment, "src_1", None, start_us, end_us, " ".join(texts), said, 0.5,
        outcome=Outcome.TEXT if texts else Outcome.UNEXPECTED_EMPTY,
    )  # fmt: skip


def test_words_that_stay_keep_their_times_and_the_others_share_the_span() -> None:
    old = words(["remind", "me", "to", "cull", "him"])
    (new,) = reword([old], ["remind", "me", "to", "please", "call", "him"])
    assert new[:3] == list(old[:3])
    assert new[-1] == old[-1]
    assert (new[3].start_us, new[4].end_us) == (old[3].start_us, old[3].end_us)
    assert new[3].end_us == new[4].start_us
    assert [word.confidence for word in new] == [0.5, 0.5, 0.5, 1.0, 1.0, 0.5]


def test_a_word_between_takes_the_pause_or_part_of_its_neighbour() -> None:
    (new,) = reword([words(["a", "c"], gap_us=100_000)], ["a", "b", "c"])
    assert (new[1].start_us, new[1].end_us) == (STEP - 100_000, STEP)
    (new,) = reword([words(["a", "c"])], ["a", "b", "c"])
    assert (new[0].start_us, new[0].end_us, new[1].end_us) == (0, STEP // 2, STEP)
    (new,) = reword([words(["b", "c"])], ["a", "b", "c"])
    assert (new[0].start_us, new[1].end_us, new[1].confidence) == (0, STEP, 0.5)


def test_a_stretch_stays_in_its_lines() -> None:
    first, second = words(["good", "mourning"]), words(["how", "our", "you"], 10_000_000)
    new = reword([first, second], "good morning how are you".split())
    assert [[word.text for word in line] for line in new] == [["good", "morning"], ["how", "are", "you"]]
    new = reword([first, second], ["entirely", "other", "text", "of", "five"])
    assert [len(line) for line in new] == [2, 3]
    assert all(word.start_us >= 10_000_000 for word in new[1])


@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
def test_nothing_typed_is_lost_and_time_runs_forward(lines: list[list[str]], texts: list[str]) -> None:
    old = [words(line, 100_000_000 * n) for n, line in enumerate(lines)]
    new = reword(old, texts)
    flat = [word for line in new for word in line]
    if any(lines):
        assert [word.text for word in flat] == texts
    assert all(word.start_us <= word.end_us for word in flat)
    assert all(one.end_us <= two.start_us for line in new for one, two in itertools.pairwise(line))
    for before, line in zip(old, new, strict=True):
        if line:
            assert before[0].start_us <= line[0].start_us
            assert line[-1].end_us <= before[-1].end_us


@given(TEXTS, TEXTS)
def test_pieces_do_it_and_undo_it(before: list[str], after: list[str]) -> None:
    one = utterance(before)
    (new,) = reword([one.words], after) if before else ([],)
    parts = pieces(one, new)
    tried = [one]
    assert all(place(tried, part) for part in parts)
    assert [word.text for word in tried[0].words] == [word.text for word in new]
    assert (tried[0].start_us, tried[0].end_us) == (one.start_us, one.end_us)
    assert all(place(tried, part.turned()) for part in reversed(parts))
    assert tried[0].words == one.words


def test_a_piece_is_found_where_the_words_are_split_between_voices() -> None:
    whole = utterance(["we", "met", "the", "smiths", "there"])
    (new,) = reword([whole.words], ["we", "met", "the", "Schmidts", "there"])
    (part,) = pieces(whole, new)
    split = [
        with_words(utterance(["we", "met", "the"], "utt_2"), whole.words[:3]),
        with_words(utterance(["smiths", "there"], "utt_3", 3 * STEP), whole.words[3:]),
    ]
    assert place(split, part)
    assert [one.text for one in split] == ["we met the", "Schmidts there"]


def test_a_piece_is_found_by_its_words_and_near_its_time_only() -> None:
    one = utterance(["no", "yes", "no", "yes", "no"])
    (part,) = pieces(
        one, with_words(one, [*one.words[:2], Word("know", 2 * STEP, 3 * STEP, 1.0), *one.words[3:]]).words
    )
    tried = [one]
    assert place(tried, part)
    assert tried[0].text == "no yes know yes no"
    other = [utterance(["nay", "yes"])]
    assert not place(other, part)
    assert other[0].text == "nay yes"
    assert not place([utterance(["no"], start_us=60_000_000)], part)
    assert not place([utterance(["no"], segment="seg_2")], part)


def test_a_comparison_names_what_each_has() -> None:
    before = [utterance(["call", "the", "doctor"]), utterance(["bye"], "utt_2", 9_000_000, "seg_2")]
    after = [utterance(["call", "a", "doctor"]), utterance(["good", "bye"], "utt_3", 9_000_000, "seg_2")]
    assert [(mark.kind, mark.words) for mark in compare(before, after)] == [
        ("equal", ("call",)), ("removed", ("the",)), ("added", ("a",)), ("equal", ("doctor",)),
        ("added", ("good",)), ("equal", ("bye",)),
    ]  # fmt: skip
    assert [mark.kind for mark in compare(before, before)] == ["equal"]
    assert compare([], []) == []
