"""Correction rules: what stands in the place of words that a recogniser is known to get wrong. Pure.

A rule is plain (whole words, whatever their case) or a regular expression. Expressions are run by RE2, whose time grows
with the length of the text alone, so that none can hang what runs it; it has no look-around and no back-references.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import statistics
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from omi_edge.domain import Word
from omi_edge.errors import BadInput
from omi_edge.stretches import held
from omi_edge.validation import CONTROLS, has_controls
from omi_edge.wording import Piece, plain_word, spread

PLAIN, REGEX = "plain", "regex"
LONGEST = 500
"""Characters of a pattern and of a replacement. A choice."""
MEMORY = 1 << 18
"""Bytes that RE2 may take for one expression; its default is 8 MiB. It bounds the work for each character as well."""
MOST_WORDS = 1000
MOST_CHARACTERS = 20_000
"""What a text may grow to: a rule that would make more of it is left out there. A segment is at most 30 s. A choice."""

_GROUP = re.compile(r"\\(?:(?P<number>\d{1,2})|g<(?P<name>\w+)>|(?P<slash>\\)|(?P<other>.?))", re.DOTALL)
Stretch = tuple[int, int, list[str]]
"""First word, the one behind the last, and what is to stand there."""


class Rule(msgspec.Struct, frozen=True):
    """One rule."""

    id: str
    kind: str
    """plain or regex."""
    pattern: str
    replacement: str

    def __str__(self) -> str:
        return f"{'/' + self.pattern + '/' if self.kind == REGEX else self.pattern} → {self.replacement or 'nothing'}"


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What one rule did in one place; ``rule`` is as it was then."""

    rule_id: str
    rule: str
    before: tuple[Word, ...]
    after: tuple[Word, ...]


class Rewritten(msgspec.Struct, frozen=True):
    """Words after the rules, and what each did, in the order in which it was done."""

    words: tuple[Word, ...]
    changes: tuple[Change, ...] = ()


def check(kind: str, pattern: str, replacement: str) -> None:
    """Raise BadInput, with the place of the fault, for a rule that cannot be applied."""
    if kind not in (PLAIN, REGEX):
        raise BadInput(f"a rule is {PLAIN} or {REGEX}.", "kind")
    if not pattern.strip() or len(pattern) > LONGEST or len(replacement) > LONGEST:
        raise BadInput(f"a rule needs a pattern, and neither it nor the replacement has over {LONGEST} characters.")
    for name, text in (("pattern", pattern), ("replacement", replacement)):
        if has_controls(text):
            raise BadInput(f"the {name} has a control character in it; {CONTROLS}", name)
    if kind == PLAIN:
        if not all(any(sign.isalnum() for sign in word) for word in pattern.split()):
            raise BadInput("each word of a plain rule needs a letter or a digit.", "pattern")
        if pattern.split() == replacement.split():
            raise BadInput("the rule puts in what stands there already.", "replacement")
        return
    expression = _compiled(pattern)
    if expression.search("") is not None:
        raise BadInput("the expression matches where nothing stands; have it match a character at least.", "pattern")
    _check_template(expression, replacement)


def apply(rules: Sequence[Rule], words: Sequence[Word], corrections: Sequence[Piece] = ()) -> Rewritten:
    """Apply each rule once, in order, to the words of one segment; a rule sees what those before it made.

    What takes the place of words shares their span by letters and has their mean confidence. Words of a stretch that
    one of the ``corrections`` put right, or will put right here, are left alone. So is everything by a rule that would
    leave nothing of the text, or more than a text may grow to.
    """
    now, changes = list(words), list[Change]()
    for rule in rules:
        locked = held(now, corrections) if corrections else set()
        found = [
            one for one in _stretches(rule, now)
            if locked.isdisjoint(range(one[0], one[1])) and one[2] != [word.text for word in now[one[0] : one[1]]]
        ]  # fmt: skip
        made, done = _put(rule, now, found)
        if made and len(made) <= MOST_WORDS and sum(len(word.text) for word in made) <= MOST_CHARACTERS:
            now, changes = made, changes + done
    return Rewritten(tuple(now), tuple(changes))


def _put(rule: Rule, words: Sequence[Word], found: Sequence[Stretch]) -> tuple[list[Word], list[Change]]:
    made: list[Word] = []
    changes = []
    behind = 0
    for stretch in found:
        first, last, texts = _trimmed(words, stretch)
        old = words[first:last]
        until_us = max(word.end_us for word in old)
        if last < len(words):  # the times of words never run back
            until_us = max(old[0].start_us, min(until_us, words[last].start_us))
        confidence = round(statistics.fmean(word.confidence for word in old), 3)
        new = [msgspec.structs.replace(w, confidence=confidence) for w in spread(texts, old[0].start_us, until_us)]
        made += [*words[behind:first], *new]
        changes.append(Change(rule.id, str(rule), tuple(old), tuple(new)))
        behind = last
    return [*made, *words[behind:]], changes


def _trimmed(words: Sequence[Word], stretch: Stretch) -> Stretch:
    """Leave out words at the edges that stay as they are; at least one old word is left."""
    first, last, texts = stretch
    while last - first > 1 and texts and words[first].text == texts[0]:
        first, texts = first + 1, texts[1:]
    while last - first > 1 and texts and words[last - 1].text == texts[-1]:
        last, texts = last - 1, texts[:-1]
    return first, last, texts


def _stretches(rule: Rule, words: Sequence[Word]) -> list[Stretch]:
    return list(_plain(rule, words) if rule.kind == PLAIN else _regular(rule, words))


def _plain(rule: Rule, words: Sequence[Word]) -> Iterator[Stretch]:
    sought = [plain_word(text) for text in rule.pattern.split()]
    there = [plain_word(word.text) for word in words]
    at = 0
    while at + len(sought) <= len(there):
        if there[at : at + len(sought)] == sought:
            yield at, at + len(sought), _edged(words[at].text, words[at + len(sought) - 1].text, rule.replacement)
            at += len(sought)
        else:
            at += 1


def _edged(first: str, last: str, replacement: str) -> list[str]:
    """Return the replacement with what stood before the first letter and behind the last: commas, quotes."""
    texts = replacement.split()
    if texts:
        if texts[0][0].isalnum():
            texts[0] = first[: next(n for n, sign in enumerate(first) if sign.isalnum())] + texts[0]
        if texts[-1][-1].isalnum():
            texts[-1] += last[max(n for n, sign in enumerate(last) if sign.isalnum()) + 1 :]
    return texts


def _regular(rule: Rule, words: Sequence[Word]) -> Iterator[Stretch]:
    """Find matches in the text; each takes the whole of the words that it touches, and those of one word are one."""
    text = " ".join(word.text for word in words)
    ends = list(itertools.accumulate(len(word.text) + 1 for word in words))
    """Behind the space that follows each word."""
    owner = [n for n, word in enumerate(words) for _ in range(len(word.text) + 1)]
    groups: list[tuple[int, int, list[Any]]] = []
    for match in _compiled(rule.pattern).finditer(text):
        start, end = match.span()
        if start == end:
            continue
        first, last = owner[start], owner[end - 1]
        if end == ends[last]:  # with the space: what follows it is joined
            last += 1
        if groups and first < groups[-1][1]:
            groups[-1] = (groups[-1][0], last + 1, [*groups[-1][2], match])
        else:
            groups.append((first, last + 1, [match]))
    for first, last, matches in groups:
        at, until, made = ends[first] - 1 - len(words[first].text), ends[last - 1] - 1, ""
        for match in matches:
            made += text[at : match.start()] + _expanded(match, rule.replacement)
            at = match.end()
        yield first, last, (made + text[at:until]).split()


def _expanded(match: Any, replacement: str) -> str:
    def group(found: re.Match[str]) -> str:
        if found["slash"]:
            return "\\"
        name = found["name"] or found["number"]
        return match.group(int(name) if name.isdigit() else name) or ""

    return _GROUP.sub(group, replacement)


def _check_template(expression: Any, replacement: str) -> None:
    for found in _GROUP.finditer(replacement):
        name = found["name"] or found["number"] or ""
        known = int(name) <= expression.groups if name.isdigit() else name in expression.groupindex
        if not (known or found["slash"]):
            raise BadInput(
                f"the replacement, at character {found.start() + 1}: the expression has no such group; a group is "
                f"\\0 to \\{expression.groups} or \\g<name>, and \\\\ is a backslash.",
                "replacement",
            )


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """Compile with RE2, which is loaded by the first expression. Raises BadInput with the place of the fault."""
    re2 = importlib.import_module("re2")
    options = re2.Options()
    options.max_mem, options.log_errors = MEMORY, False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace")
        raise BadInput(f"the expression {_fault(pattern, said)}", "pattern") from error


def _fault(pattern: str, said: str) -> str:
    """Say what RE2 found and where; it names the faulty part, and where that is all of it, Python's parser knows."""
    what, _, part = said.partition(": ")
    if "too large" in what:
        return "repeats too much and grows too large; use smaller numbers in braces."
    at = None
    if part == pattern or part not in pattern or not part:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(pattern)
        except re.error as error:
            at = error.pos
        except (RecursionError, OverflowError):
            pass
    if at is None:
        at = max(0, pattern.find(part)) if part else len(pattern) - 1
    hint = "; look-around and back-references are not to be had" if "perl operator" in what or "escape" in what else ""
    return f"has a fault at character {at + 1}: {what}{hint}."
