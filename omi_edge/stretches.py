"""Where a correction belongs in another version of a transcript. Pure.

What a person put right is a stretch of a segment: the words that stood there, and those that are to stand there.
Another recogniser, or a rule, may have made other words of it. The person's are the truth about that time all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from omi_edge.domain import Utterance, Word
from omi_edge.wording import Piece, distance, find, moved, place, plain_word, with_words

LOST, BY_WORDS, HEARD, BY_TIME = range(4)
"""How a correction is shown: not at all, its old words were found, what it says was heard, or whatever is heard at its
time gave way. The order says which matters more where one has several stretches."""


def settle(utterances: list[Utterance], parts: Sequence[Piece]) -> int:
    """Put the stretches of a correction into ``utterances``, and say how; a lost one leaves the list as it is."""
    tried = list(utterances)
    ways = [_settled(tried, part) for part in parts]
    if LOST in ways:
        return LOST
    utterances[:] = tried
    return max(ways, default=BY_WORDS)


def held(words: Sequence[Word], parts: Sequence[Piece]) -> set[int]:
    """Return which words of a segment belong to stretches that a person put right, one after the other."""
    flat = [(word, {n}) for n, word in enumerate(words)]
    found: set[int] = set()
    for part in parts:
        now = [word for word, _ in flat]
        taken, at, new = _by_time(now, part)
        own = set[int]().union(*(flat[n][1] for n in taken))
        run = _heard(now, part)
        if run is not None:
            found |= own.union(*(origins for _, origins in flat[run : run + len(part.after)]))
            continue
        found |= own
        tried = _with_differences(flat, part, found)
        if tried is None:
            rest = [(word, own) for word in new]
            flat = [*flat[:at], *rest, *(one for n, one in enumerate(flat) if n >= at and n not in taken)]
        else:
            flat = tried
    return found


def span(part: Piece) -> tuple[int, int]:
    """Return from when to when a stretch lasts, in µs UTC; an empty one when there are no words at all."""
    words = part.before or part.after
    if not words:
        return part.at_us, part.at_us
    return words[0].start_us, max(word.end_us for word in words)


def _settled(utterances: list[Utterance], part: Piece) -> int:
    own = [n for n, one in enumerate(utterances) if one.segment_id == part.segment_id]
    if not own:
        return LOST
    flat = _flat(utterances, own)
    if _heard([word for _, word in flat], part) is not None:
        return HEARD if part.differences else BY_WORDS
    tried = list(utterances)
    if all(place(tried, one) for one in part.differences) and _reads([word for _, word in _flat(tried, own)], part):
        utterances[:] = tried
        return BY_WORDS
    taken, at, new = _by_time([word for _, word in flat], part)
    if not (taken or new):
        return HEARD
    owners = sorted({flat[n][0] for n in taken}) or own
    put = [(min(owners, key=lambda n: distance(utterances[n], (w.start_us + w.end_us) // 2)), w) for w in new]
    made = [*flat[:at], *put, *(one for n, one in enumerate(flat) if n >= at and n not in taken)]
    for n in {*(n for n, _ in put), *(flat[n][0] for n in taken)}:
        utterances[n] = with_words(utterances[n], [word for owner, word in made if owner == n])
    return BY_TIME


def _flat(utterances: Sequence[Utterance], own: Sequence[int]) -> list[tuple[int, Word]]:
    return sorted(((n, word) for n in own for word in utterances[n].words), key=lambda one: one[1].start_us)


def _with_differences(
    flat: Sequence[tuple[Word, set[int]]], part: Piece, found: set[int]
) -> list[tuple[Word, set[int]]] | None:
    """Return the words with what differs put in, None when that does not make the stretch; add to ``found`` whose."""
    tried = list(flat)
    for one in part.differences:
        first = find([word for word, _ in tried], one.before) if one.before else None
        if first is None:
            return None
        old = tried[first : first + len(one.before)]
        own = set[int]().union(*(origins for _, origins in old))
        found |= own
        tried[first : first + len(old)] = [(word, own) for word in moved(one, [word for word, _ in old])]
    return tried if _reads([word for word, _ in tried], part) else None


def _heard(words: Sequence[Word], part: Piece) -> int | None:
    """Return where exactly what the person wrote begins, at its time; None also where more of the old words is there.

    What was put in, or taken out, of a stretch makes one a part of the other: the longer one is what was heard.
    """
    said = _run([word.text for word in words], [word.text for word in part.after], words, part)
    if said is None or len(part.after) >= len(part.before):
        return said
    old = _run([plain_word(w.text) for w in words], [plain_word(w.text) for w in part.before], words, part)
    return said if old is None else None


def _run(there: Sequence[str], sought: Sequence[str], words: Sequence[Word], part: Piece) -> int | None:
    """Return where ``sought`` begins in ``there`` so that more than half of it, or of the stretch, is in the other."""
    if sought:
        for first in range(len(there) - len(sought) + 1):
            run = words[first : first + len(sought)]
            at = run[0].start_us, max(word.end_us for word in run)
            if list(there[first : first + len(sought)]) == list(sought) and _shared(at, span(part)):
                return first
    return None


def _shared(one: tuple[int, int], two: tuple[int, int]) -> bool:
    shorter = min(one[1] - one[0], two[1] - two[0])
    return 2 * (min(one[1], two[1]) - max(one[0], two[0])) > shorter or one == two


def _reads(words: Sequence[Word], part: Piece) -> bool:
    """Say whether what the person wrote stands there, near its time, letter by letter."""
    if not part.after:
        return True
    return find(words, part.after, plain=False) is not None


def _by_time(words: Sequence[Word], part: Piece) -> tuple[list[int], int, list[Word]]:
    """Return the words that give way, where what the person wrote comes, and that, in the room that is there.

    A word gives way when more than half of it lies in the stretch. What stays keeps its times; times never run back.
    """
    start_us, end_us = span(part)
    taken = [
        n for n, word in enumerate(words)
        if 2 * (min(word.end_us, end_us) - max(word.start_us, start_us)) > word.end_us - word.start_us
    ]  # fmt: skip
    middle_us = start_us + end_us
    later = (n for n, word in enumerate(words) if word.start_us + word.end_us >= middle_us)
    at = taken[0] if taken else next(later, len(words))
    low_us, high_us = start_us, end_us
    if at > 0:
        low_us = max(low_us, words[at - 1].end_us)
    after = next((words[n] for n in range(at, len(words)) if n not in taken), None)
    if after is not None:
        low_us, high_us = min(low_us, after.start_us), min(max(high_us, low_us), after.start_us)
    high_us = max(low_us, high_us)

    def moment(at_us: int) -> int:
        inside = min(max(at_us, start_us), end_us) - start_us
        return low_us + inside * (high_us - low_us) // max(1, end_us - start_us)

    new = [msgspec.structs.replace(w, start_us=moment(w.start_us), end_us=moment(w.end_us)) for w in part.after]
    return taken, at, new
