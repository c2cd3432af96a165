"""Shopping lists: "milk bread and eggs" is three things, said with or without commas."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omi_edge.memory.clauses import Token
from omi_edge.memory.vocabulary import GROCERIES, GROCERY_PAIRS, STOP_WORDS

_END = frozenset(
    "tomorrow today tonight because before after when if on by at this next then please okay from but i we you they he she it "
    "that which otherwise so until as too also again monday tuesday wednesday thursday friday saturday sunday thanks".split()
)
_PURPOSE = frozenset(["for"])
_LEADING = frozenset("some more a an the up us me another any our".split())
_BETWEEN = frozenset("and or plus also some then".split())
MOST_ITEMS = 20


def shopping_list(tokens: Sequence[Token], *, strict: bool = False) -> str | None:
    """Return "Buy milk, bread and cheese for the weekend", None when these are no things to buy.

    ``strict`` wants at least one known grocery; without it one unknown thing ("a new lamp") will do as well.
    """
    items: list[list[str]] = [[]]
    purpose: list[str] = []
    known = 0
    for index, token in enumerate(tokens):
        word = token.word
        if word in _END and not (word == "a" and not items[-1]):
            break
        if word in _PURPOSE:
            purpose = _purpose(tokens[index:])
            break
        if word in _BETWEEN or (word in _LEADING and not items[-1]):
            if items[-1] and word in _BETWEEN:
                items.append([])
        else:
            pair = " ".join([*items[-1][-1:], word])
            if (
                items[-1]
                and items[-1][-1] in GROCERIES
                and pair not in GROCERY_PAIRS
                and word not in ("of", "with", "without")
            ):
                items.append([])
            items[-1].append(word)
            known += word in GROCERIES or pair in GROCERY_PAIRS
        if token.comma:
            items.append([])
        if token.stop:
            break
    things = [" ".join(item) for item in items if item and not set(item) <= STOP_WORDS]
    if not things or len(things) > MOST_ITEMS or known < (1 if strict or len(things) > 1 else 0):
        return None
    if not known and (
        len(things[0].split()) > 4 or tokens[0].word in ("it", "that", "this", "them", "one", "you", "him", "her")
    ):
        return None
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    return "Buy " + " ".join([listed, *purpose])


def _purpose(tokens: Sequence[Token]) -> list[str]:
    """Return "for the weekend", at most four words, and nothing of a clause after it."""
    words: list[str] = []
    for token in tokens[:5]:
        if words and (
            (token.word in _END and token.word not in ("this", "next"))
            or re.match(r"(?:and|can|i'll|we'll)$", token.word)
        ):
            break
        words.append(token.word)
        if token.stop:
            break
    if len(words) < 2 or set(words[1:]) <= STOP_WORDS or len(words) > 4:
        return []
    return words
