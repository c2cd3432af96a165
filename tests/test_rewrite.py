"""Correction rules: what they replace, what becomes of times, and that none can hang."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge import rewrite
from omi_edge.domain import Word
from omi_edge.errors import BadInput
from omi_edge.rewrite import MOST_WORDS, PLAIN, REGEX, Rule, apply, check
from omi_edge.wording import Piece, plain_word


def words(text: str, confidence: float = 0.5) -> list[Word]:
    """One word a second."""
    return [Word(one, n * 1_000_000, n * 1_000_000 + 900_000, confidence) for n, one in enumerate(text.split())]


def plain(pattern: str, replacement: str) -> Rule:
    return Rule(f"rul_{pattern}", PLAIN, pattern, replacement)


def regex(pattern: str, replacement: str) -> Rule:
    return Rule(f"rul_{pattern}", REGEX, pattern, replacement)


def text(of: Sequence[Word]) -> str:
    return " ".join(word.text for word in of)


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (plain("see phi ra", "Zephira"), "call See Phi ra, now", "call Zephira, now"),
        (plain("zephyr", "the Zephyr Hotel"), "zephyr zephyrs Zephyr!", "the Zephyr Hotel zephyrs the Zephyr Hotel!"),
        (plain("um", ""), "um so um yes", "so yes"),
        (plain("um", ""), "um", "um"),  # never nothing
        (plain("a b", "b a"), "a b a b a", "b a b a a"),
        (plain("doctor wu", "Dr."), '"doctor wu"', '"Dr.'),
        (plain("a", "a a"), "a", "a a"),
        (regex(r"\b(\d+) euros?\b", r"€\1"), "it costs 5 euros and 7 euro.", "it costs €5 and €7."),
        (regex(r"(?P<first>\w+) and (\w+)", r"\2 und \g<first>"), "you and me", "me und you"),
        (regex("phi ra", "phira"), "see phi ra", "see phira"),
        (regex("-", " "), "one-two-three four", "one two three four"),
        (regex(" um ", " "), "so um yes", "so yes"),
        (regex("o", "0"), "foo oh no", "f00 0h n0"),
        (regex(r"(?i)\bomi\b", r"\\o"), "OMI here", "\\o here"),
        (regex("nothing", "x"), "as it was", "as it was"),
        (regex("b+", r"<\g<0>\0>"), "abba", "a<bbbb>a"),
        (regex("(a)|(b)", r"[\1\2]"), "a b c", "[a] [b] c"),
    ],
)
def test_what_stands_there_then(rule: Rule, before: str, after: str) -> None:
    check(rule.kind, rule.pattern, rule.replacement)
    found = apply([rule], words(before))
    assert text(found.words) == after
    assert bool(found.changes) == (before != after)


def test_a_replaced_stretch_keeps_its_span_and_what_is_beside_it_stays() -> None:
    before = words("call see phi ra now")
    (change,) = apply([plain("see phi ra", "Zephi Ra")], before).changes
    found = apply([plain("see phi ra", "Zephi Ra")], before).words
    assert (found[0], found[-1]) == (before[0], before[-1])
    assert (found[1].start_us, found[2].end_us) == (before[1].start_us, before[3].end_us)
    assert found[1].end_us == found[2].start_us
    assert {word.confidence for word in found} == {0.5}
    assert (change.rule_id, change.rule) == ("rul_see phi ra", "see phi ra → Zephi Ra")
    assert (change.before, change.after) == (tuple(before[1:4]), found[1:3])
    kept = apply([regex("so um yes", "so yes")], words("so um yes")).words
    assert kept == tuple(word for word in words("so um yes") if word.text != "um")


def test_each_rule_is_applied_once_in_order_and_sees_what_came_before() -> None:
    rules = [plain("a", "b"), plain("b", "c c"), plain("c", "d"), plain("a", "never")]
    found = apply(rules, words("a x"))
    assert text(found.words) == "d d x"
    assert [change.rule_id for change in found.changes] == ["rul_a", "rul_b", "rul_c", "rul_c"]


def test_what_a_person_put_right_is_left_alone() -> None:
    heard = words("see phi ra and see phi ra")
    by_hand = Piece("seg", 0, tuple(heard[:3]), tuple(words("Sephora")))
    assert text(apply([plain("see phi ra", "Zephira")], heard, [by_hand]).words) == "see phi ra and Zephira"
    first = plain("see", "sea")  # what a rule made, and a person then put right: their words come there
    corrected = Piece("seg", 0, (Word("sea", 0, 900_000, 0.5),), (Word("C", 0, 900_000, 1.0),))
    found = apply([first, plain("sea", "ocean")], words("see it") + words("x x x x see")[4:], [corrected])
    assert text(found.words) == "see it ocean"
    again = Piece("seg", 0, corrected.after, (Word("sí", 0, 900_000, 1.0),))  # put right twice
    assert text(apply([plain("sea", "ocean")], words("sea"), [corrected, again]).words) == "sea"


def test_no_text_grows_without_end() -> None:
    doubling = [Rule(f"rul_{n}", PLAIN, "a", "a a") for n in range(60)]
    assert len(apply(doubling, words("a")).words) <= MOST_WORDS
    wider = [regex("(.*)", r"\1\1")] * 60
    assert len(text(apply(wider, words("abcdefgh")).words)) <= rewrite.MOST_CHARACTERS


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*b", r"^(\w+\s?)*$!", "(x+x+)+y"])
def test_no_expression_can_hang(pattern: str) -> None:
    """A backtracking engine needs longer than the sun has for each of these."""
    began = time.process_time()
    apply([regex(pattern, "z")], words("a" * 3000 + "! " + "x" * 3000))
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("see (phi", r"character 5: missing \)"),
        ("see phi)", r"character 8: unexpected \)"),
        ("[z-a]", "character 2: invalid character class range"),
        ("ab[", "character 3: missing ]"),
        ("a**", "character 2: bad repetition"),
        ("*a", "character 1: no argument"),
        ("ab(?=c)", "character 3: .*look-around"),
        (r"(a)\1", r"character 4: .*back-references"),
        ("a{1001}", "character 2: invalid repetition size"),
        ("é(", "character 2: missing"),
        ("ab\\", r"character 3: trailing"),
        ("(" * 400, "character"),
        (r"(\pL{1,30} ?){1,30}z", "too large"),
        ("a*", "matches where nothing stands"),
        ("", "needs a pattern"),
        ("x" * 501, "over 500 characters"),
    ],
)
def test_a_faulty_expression_is_told_with_its_place(pattern: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check(REGEX, pattern, "")


@pytest.mark.parametrize(
    ("kind", "pattern", "replacement", "said"),
    [
        (PLAIN, "a ?", "b", "needs a letter"),
        (PLAIN, "a b", "a  b", "there already"),
        ("glob", "a", "b", "plain or regex"),
        (REGEX, "(a)", r"x\2", "character 2: the expression has no such group"),
        (REGEX, "(a)", r"\g<b>", r"character 1: .*\\0 to \\1"),
        (REGEX, "a", "\\n", "no such group"),
        (REGEX, "a", "\\", "no such group"),
    ],
)
def test_a_faulty_rule_is_refused(kind: str, pattern: str, replacement: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check(kind, pattern, replacement)


TEXTS = st.text("abcAB,.é", min_size=1, max_size=4)
GAPS = st.integers(-200, 900)


@st.composite
def heard(draw: st.DrawFn) -> list[Word]:
    at, found = 0, []
    for one in draw(st.lists(TEXTS, max_size=12)):
        start = max(at, at + draw(GAPS)) if draw(st.booleans()) else at
        end = start + draw(st.integers(0, 800))
        found.append(Word(one, start, end, draw(st.floats(0, 1))))
        at = draw(st.integers(start, max(start, end)))  # words may overlap
    return found


PHRASES = st.lists(st.text("abcAB", min_size=1, max_size=2), min_size=1, max_size=3).map(" ".join)
PLAINS = st.builds(lambda a, b: Rule("p", PLAIN, a, b), PHRASES, PHRASES | st.just(""))
REGEXES = st.builds(
    lambda a, b: Rule("r", REGEX, a, b),
    st.sampled_from([r"a(\w)", r"\b(\w)\w", "[ab]+ ?", r"(\w+) (\w+)", ",", r"\.| "]).map(lambda p: f"({p})"),
    st.sampled_from(["", "x", r"\1", r"\1 \1", r"y \1 z", r"\1\1"]),
)


@given(heard(), st.lists(PLAINS | REGEXES, max_size=4))
def test_times_are_sensible_and_the_original_is_not_lost(before: list[Word], rules: list[Rule]) -> None:
    found = apply(rules, before)
    after = found.words
    starts = [word.start_us for word in after]
    assert starts == sorted(starts)
    assert all(word.start_us <= word.end_us and 0 <= word.confidence <= 1 for word in after)
    assert all(word.text and not word.text.isspace() for word in after)
    assert bool(after) == bool(before)
    if before:
        assert starts[0] >= before[0].start_us
        assert max(w.end_us for w in after) <= max(w.end_us for w in before)
    count = len(before) + sum(len(change.after) - len(change.before) for change in found.changes)
    assert len(after) == count
    back = collections.Counter(after)
    for change in reversed(found.changes):
        assert not collections.Counter(change.after) - back
        back = back - collections.Counter(change.after) + collections.Counter(change.before)
    assert back == collections.Counter(before)
    assert apply(rules, before) == found


@given(heard(), PLAINS)
def test_a_plain_rule_leaves_none_of_what_it_seeks_unless_it_puts_it_in(before: list[Word], rule: Rule) -> None:
    after = [plain_word(word.text) for word in apply([rule], before).words]
    sought = [plain_word(one) for one in rule.pattern.split()]
    if len(sought) == 1 and rule.replacement and sought[0] not in map(plain_word, rule.replacement.split()):
        assert sought[0] not in after
