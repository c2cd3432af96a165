"""The words of utterances put right: new text over old, with times, and found again in another version. Pure."""

from __future__ import annotations

import difflib
import itertools
import statistics
from collections.abc import Sequence

import msgspec

from omi_edge.domain import Outcome, Utterance, Word

NEAR_US = 1_000_000
"""A word is found again within this distance of where it began: recognisers place a word differently, and the same
word said twice is rarely said twice in a second."""
APART = 2
"""Changes with fewer equal words between them are one: each takes an equal word beside it as its hold."""


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive words of one segment, and what stands in their place."""

    segment_id: str
    at_us: int
    """Middle of the utterance; tells which one where there were no words."""
    before: tuple[Word, ...]
    after: tuple[Word, ...]
    parts: tuple[Piece, ...] | None = None
    """Of a stretch that a person put right: what differs in it. None where this is all that is known of it."""

    @property
    def differences(self) -> tuple[Piece, ...]:
        """What differs, piece by piece."""
        return (self,) if self.parts is None else self.parts

    def turned(self) -> Piece:
        """Return what undoes it."""
        return Piece(self.segment_id, self.at_us, self.after, self.before)


class Mark(msgspec.Struct, frozen=True):
    """Some words of a comparison."""

    kind: str
    """equal, removed or added."""
    words: tuple[str, ...]
    at_us: int
    """When the first of them began."""


def spread(texts: Sequence[str], start_us: int, end_us: int) -> list[Word]:
    """Return words that share a span by their letters; a person typed them, so their confidence is 1."""
    ends = list(itertools.accumulate(len(text) for text in texts))
    total = max(1, ends[-1]) if ends else 1
    edges = [start_us + (end_us - start_us) * end // total for end in [0, *ends]]
    return [Word(text, first, last, 1.0) for text, (first, last) in zip(texts, itertools.pairwise(edges), strict=True)]


def reword(lines: Sequence[Sequence[Word]], texts: Sequence[str]) -> list[list[Word]]:
    """Put ``texts`` in the place of the words of consecutive lines; return the new words of each line.

    A word that stays keeps its times and its line. What is replaced gives its span to what replaces it. A word that
    comes between two takes the pause between them, or half of a neighbour where there is none.
    """
    flat = [(line, word) for line, words in enumerate(lines) for word in words]
    found: list[list[Word]] = [[] for _ in lines]
    lent = False  # the next old word is in the result already
    matcher = difflib.SequenceMatcher(None, [word.text for _, word in flat], list(texts), autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        new = texts[j1:j2]
        if tag == "equal":
            for line, word in flat[i1 + lent : i2]:
                found[line].append(word)
            lent = False
        elif tag == "replace":
            _replace(found, flat[i1:i2], new)
        elif tag == "insert" and flat:
            lent = _insert(found, flat, i1, new)
    return found


def _replace(found: list[list[Word]], old: Sequence[tuple[int, Word]], new: Sequence[str]) -> None:
    taken = 0
    for done, (line, group) in enumerate(_by_line(old)):
        share = round(len(new) * sum(len(words) for _, words in _by_line(old)[: done + 1]) / len(old))
        found[line] += spread(new[taken:share], group[0].start_us, group[-1].end_us)
        taken = share


def _by_line(old: Sequence[tuple[int, Word]]) -> list[tuple[int, list[Word]]]:
    return [(line, [word for _, word in group]) for line, group in itertools.groupby(old, key=lambda one: one[0])]


def _insert(found: list[list[Word]], flat: Sequence[tuple[int, Word]], at: int, new: Sequence[str]) -> bool:
    """Put words before ``flat[at]``; say whether that word went in with them."""
    if at == 0:
        line, word = flat[0]
        *added, last = spread([*new, word.text], word.start_us, word.end_us)
        found[line] += [*added, msgspec.structs.replace(last, confidence=word.confidence)]
        return True
    line, word = flat[at - 1]
    word = found[line][-1] if found[line] else word  # as it is by now: it may have lent of its span already
    until_us = flat[at][1].start_us if at < len(flat) and flat[at][0] == line else word.end_us
    if until_us > word.end_us:
        found[line] += spread(new, word.end_us, until_us)
    else:
        first, *added = spread([word.text, *new], word.start_us, word.end_us)
        if found[line]:
            found[line].pop()
        found[line] += [msgspec.structs.replace(first, confidence=word.confidence), *added]
    return False


def pieces(utterance: Utterance, words: Sequence[Word]) -> list[Piece]:
    """Return what changes when ``words`` stand in an utterance; each piece holds a word that can be found again."""
    old, new = list(utterance.words), list(words)
    changed: list[list[int]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if changed and i1 - changed[-1][1] < APART:
            changed[-1][1], changed[-1][3] = i2, j2
        else:
            changed.append([i1, i2, j1, j2])
    at_us = (utterance.start_us + utterance.end_us) // 2
    found = []
    for i1, i2, j1, j2 in changed:
        if i1 == i2 or j1 == j2:  # nothing before or nothing after: take an equal neighbour along
            if i1 > 0 and j1 > 0:
                i1, j1 = i1 - 1, j1 - 1
            elif i2 < len(old) and j2 < len(new):
                i2, j2 = i2 + 1, j2 + 1
        found.append(Piece(utterance.segment_id, at_us, tuple(old[i1:i2]), tuple(new[j1:j2])))
    return found


def with_words(utterance: Utterance, words: Sequence[Word]) -> Utterance:
    """Return an utterance with other words, its span unchanged."""
    return msgspec.structs.replace(
        utterance,
        text=" ".join(word.text for word in words),
        words=tuple(words),
        confidence=statistics.fmean(word.confidence for word in words) if words else 0.0,
        outcome=Outcome.TEXT if words else utterance.outcome,
    )


def place(utterances: list[Utterance], piece: Piece) -> bool:
    """Put a piece into ``utterances`` where its words are found; say whether they were. The list is changed."""
    own = [n for n, one in enumerate(utterances) if one.segment_id == piece.segment_id]
    if not piece.before:
        empty = [n for n in own if not utterances[n].words]
        if not empty:
            return False
        nearest = min(empty, key=lambda n: abs(_middle(utterances[n]) - piece.at_us))
        utterances[nearest] = with_words(utterances[nearest], piece.after)
        return True
    flat = sorted(((n, word) for n in own for word in utterances[n].words), key=lambda one: one[1].start_us)
    first = find([word for _, word in flat], piece.before)
    if first is None:
        return False
    old = flat[first : first + len(piece.before)]
    owners = sorted({n for n, _ in old})
    rest = [*flat[:first], *flat[first + len(old) :]]
    for word in moved(piece, [word for _, word in old]):
        middle_us = (word.start_us + word.end_us) // 2
        owner = min(owners, key=lambda n: distance(utterances[n], middle_us))
        rest.append((owner, word))
    for n in owners:
        words = sorted((word for owner, word in rest if owner == n), key=lambda word: word.start_us)
        utterances[n] = with_words(utterances[n], words)
    return True


def compare(before: Sequence[Utterance], after: Sequence[Utterance]) -> list[Mark]:
    """Return what one text has that another has not, word by word, in order; segment by segment, which is quick."""
    old, new = _by_segment(before), _by_segment(after)
    marks: list[Mark] = []
    for key in sorted({*old, *new}, key=lambda key: min(w[0].start_us for w in (old.get(key), new.get(key)) if w)):
        for kind, words in _changes(old.get(key, []), new.get(key, [])):
            texts = tuple(word.text for word in words)
            if marks and marks[-1].kind == kind == "equal":
                marks[-1] = Mark(kind, marks[-1].words + texts, marks[-1].at_us)
            else:
                marks.append(Mark(kind, texts, words[0].start_us))
    return marks


def plain_word(text: str) -> str:
    """Return a word without case and without what is no letter or digit at its ends."""
    folded = text.casefold()
    kept = [n for n, sign in enumerate(folded) if sign.isalnum()]
    return folded[kept[0] : kept[-1] + 1] if kept else folded


def find(words: Sequence[Word], wanted: Sequence[Word], *, plain: bool = True) -> int | None:
    """Return where ``wanted`` begins in ``words``, the nearest in time; None when it does not.

    When not ``plain``, case and signs at the ends of words count as well.
    """
    sought = [plain_word(word.text) if plain else word.text for word in wanted]
    there = [plain_word(word.text) if plain else word.text for word in words]
    best: tuple[int, int] | None = None
    for first in range(len(there) - len(sought) + 1):
        apart_us = abs(words[first].start_us - wanted[0].start_us)
        if (
            apart_us <= NEAR_US
            and (best is None or apart_us < best[0])
            and there[first : first + len(sought)] == sought
        ):
            best = apart_us, first
    return None if best is None else best[1]


def moved(piece: Piece, old: Sequence[Word]) -> list[Word]:
    """Return the new words with their times carried from where they were typed to where the old words lie here."""
    from_us, length_us = piece.before[0].start_us, max(1, piece.before[-1].end_us - piece.before[0].start_us)
    to_us, room_us = old[0].start_us, old[-1].end_us - old[0].start_us

    def at(at_us: int) -> int:
        return to_us + (at_us - from_us) * room_us // length_us

    return [msgspec.structs.replace(w, start_us=at(w.start_us), end_us=at(w.end_us)) for w in piece.after]


def distance(utterance: Utterance, at_us: int) -> int:
    """Return how far a moment lies outside of an utterance, in µs."""
    return max(utterance.start_us - at_us, at_us - utterance.end_us, 0)


def _by_segment(utterances: Sequence[Utterance]) -> dict[str, list[Word]]:
    found: dict[str, list[Word]] = {}
    for one in utterances:
        if one.words:
            found.setdefault(one.segment_id, []).extend(one.words)
    return {key: sorted(words, key=lambda word: word.start_us) for key, words in found.items()}


def _changes(old: Sequence[Word], new: Sequence[Word]) -> list[tuple[str, Sequence[Word]]]:
    matcher = difflib.SequenceMatcher(None, [w.text for w in old], [w.text for w in new], autojunk=False)
    found: list[tuple[str, Sequence[Word]]] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        parts = [("equal", new[j1:j2])] if tag == "equal" else [("removed", old[i1:i2]), ("added", new[j1:j2])]
        found += [(kind, words) for kind, words in parts if words]
    return found


def _middle(utterance: Utterance) -> int:
    return (utterance.start_us + utterance.end_us) // 2
