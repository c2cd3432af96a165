"""Names: which words are people and places, who speaks under which name, how lower-case text is written nicely."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from omi_edge.domain import Utterance
from omi_edge.engine import Dialogue
from omi_edge.memory.clauses import Clause, Token
from omi_edge.memory.vocabulary import (
    ALWAYS_CAPITAL,
    AMBIGUOUS_NAMES,
    FEMALE_NAMES,
    KIN,
    LONG_PLACES,
    MALE_NAMES,
    STOP_WORDS,
)

GIVEN_NAMES = FEMALE_NAMES | MALE_NAMES
_INTRODUCTION = re.compile(r"(?P<sure>my name is|my name's|i am called|i'm called)|(?P<maybe>i am|i'm|this is)")
_AFTER_INTRODUCTION = frozenset("speaking here from calling and".split())


class Names:
    """What is known about names in one dialogue."""

    def __init__(self, dialogue: Dialogue, clauses: Sequence[Clause]) -> None:
        self._wearer = dialogue.wearer_name.strip()
        self._people = {key: name.strip() for key, name in dialogue.people.items() if name.strip()}
        self._cased = any(
            token.raw != token.raw.lower() and token.word[:1] != "i" for c in clauses for token in c.tokens
        )
        known = [*self._people.values(), *([self._wearer] if self._wearer else [])]
        self._known = {word.casefold(): word for name in known for word in name.split()[:1]}
        self._introduced = self._introductions(clauses)
        self.speakers = tuple(dict.fromkeys(c.utterance.speaker for c in clauses if c.utterance.speaker))

    def speaker(self, utterance: Utterance) -> str | None:
        """Return the name of who speaks; None when it is not known."""
        for key in (utterance.person_id, utterance.speaker):
            if key is not None and key in self._people:
                return self._people[key]
        return self._introduced.get(utterance.speaker or "")

    def is_wearer(self, utterance: Utterance) -> bool:
        """Say whether the wearer is known to speak."""
        name = self.speaker(utterance)
        return name is not None and self._same(name, self._wearer)

    def addressee(self, utterance: Utterance) -> str | None:
        """Return whom the speaker talks to: the other one of exactly two voices, when named."""
        others = [label for label in self.speakers if label != utterance.speaker]
        if len(self.speakers) != 2 or len(others) != 1:
            return None
        return self._people.get(others[0]) or self._introduced.get(others[0])

    def addressee_is_wearer(self, utterance: Utterance) -> bool:
        """Say whether the wearer is known to be spoken to."""
        name = self.addressee(utterance)
        return name is not None and self._same(name, self._wearer)

    def at(self, tokens: Sequence[Token], index: int) -> int:
        """Return how many tokens from ``index`` on are a person's name: 0, 1, or 2 with a family name."""
        token = tokens[index]
        word = token.word.removesuffix("'s")
        capital = token.raw[:1].isupper()
        after_kin = index > 0 and tokens[index - 1].word in KIN
        inside = index > 0 and not tokens[index - 1].stop
        if word in self._known:
            sure = word not in AMBIGUOUS_NAMES or (capital and inside) or after_kin
        elif word in AMBIGUOUS_NAMES:
            sure = after_kin or (capital and inside and self._cased)
        elif word in GIVEN_NAMES:
            sure = not self._cased or capital
        else:
            sure = after_kin and capital and word.isalpha() and word not in STOP_WORDS and word not in ALWAYS_CAPITAL
        if not sure:
            return 0
        if token.word.endswith("'s") or token.comma or token.stop or index + 1 >= len(tokens):
            return 1
        following = tokens[index + 1]
        surname = (
            self._cased
            and following.raw[:1].isupper()
            and following.word.removesuffix("'s").isalpha()
            and following.word not in STOP_WORDS
            and following.word not in ALWAYS_CAPITAL
            and not following.word.startswith("i'")
        )
        return 2 if surname else 1

    def written(self, tokens: Sequence[Token]) -> str:
        """Return a name with its capitals, as known when it is known."""
        words = [token.raw.removesuffix("'s").removesuffix("’s") for token in tokens]
        return " ".join(self._known.get(word.casefold(), word if word[:1].isupper() else word.capitalize())
                        for word in words)  # fmt: skip

    def polish(self, tokens: Iterable[Token], *, sentence: bool = True) -> str:
        """Return tokens as a person would write them: I, names, places and days with capitals."""
        listed = list(tokens)
        words = [self._written_word(listed, index) for index in range(len(listed))]
        text = " ".join(word + ("," if token.comma and index + 1 < len(listed) else "")
                        for index, (word, token) in enumerate(zip(words, listed, strict=True)))  # fmt: skip
        for place in LONG_PLACES:
            text = re.sub(rf"\b{place}\b", place.title(), text, flags=re.IGNORECASE)
        return text[:1].upper() + text[1:] if sentence else text

    def _written_word(self, tokens: list[Token], index: int) -> str:
        token = tokens[index]
        if token.word == "i" or token.word.startswith("i'"):
            return "I" + token.raw[1:]
        if token.raw != token.raw.lower() and not (index == 0 and token.word in STOP_WORDS):
            return token.raw
        base, _, ending = token.raw.partition("'")
        if base.lower() in ALWAYS_CAPITAL or (self.at(tokens, index) and base.lower() not in STOP_WORDS):
            return base.capitalize() + ("'" + ending if ending else "")
        return token.raw.lower() if index == 0 and token.word in STOP_WORDS else token.raw

    def _introductions(self, clauses: Sequence[Clause]) -> dict[str, str]:
        said: dict[str, set[str]] = {}
        for clause in clauses:
            label = clause.utterance.speaker
            found = None if clause.doubtful or clause.question else _INTRODUCTION.match(clause.body)
            if label is None or found is None:
                continue
            first = clause.body_index_at(found.end() + 1)
            if first >= len(clause.tokens):
                continue
            name = self._introduced_name(clause, first, sure=bool(found["sure"]))
            if name:
                said.setdefault(label, set()).add(name)
        return {label: names.pop() for label, names in said.items() if len(names) == 1}

    def _introduced_name(self, clause: Clause, first: int, *, sure: bool) -> str | None:
        token = clause.tokens[first]
        length = self.at(clause.tokens, first)
        if not length:
            believed = sure and token.word.isalpha() and token.word not in STOP_WORDS
            length = 1 if believed and (token.raw[:1].isupper() or token.word in AMBIGUOUS_NAMES) else 0
        if not length:
            return None
        after = clause.tokens[first + length : first + length + 1]
        if not sure and after and after[0].word not in _AFTER_INTRODUCTION and not clause.tokens[first].comma:
            return None
        return self.written(clause.tokens[first : first + length])

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return bool(other) and one.casefold().split()[0] == other.casefold().split()[0]
