"""The JSON shapes of correction rules, of what they did, and of people; see ``wire``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Words = Annotated[str, Meta(max_length=20_000)]
Language = Annotated[str, Meta(max_length=200)]


class RuleNew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to stand in the place of what."""

    pattern: Annotated[str, Meta(max_length=1000)]
    """Whole words in whatever case, or a regular expression (RE2) over the text of a segment."""
    replacement: Annotated[str, Meta(max_length=1000)] = ""
    r"""Any number of words; groups of an expression are \1 or \g<name>."""
    kind: Literal["plain", "regex"] = "plain"


class Rule(msgspec.Struct, frozen=True):
    """A correction rule."""

    id: str
    kind: str
    pattern: str
    replacement: str
    by: str
    created: str


class RuleTry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A text for the rules, or for one that is not added yet."""

    text: Words
    rule: RuleNew | None = None


class RuleEffect(msgspec.Struct, frozen=True):
    """What one rule did in one place."""

    rule_id: str
    """Empty for one that is not added."""
    rule: str
    """In words, as it was then."""
    before: str
    after: str


class RuleTried(msgspec.Struct, frozen=True):
    """A text before and after the rules, and what each did, in the order in which it was done."""

    before: str
    after: str
    changes: list[RuleEffect]


class RulesApply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which conversation the rules are to be applied to, or all."""

    conversation_id: Name | None = None
    all: bool = False


class HeardSegment(msgspec.Struct, frozen=True):
    """What was heard of a segment that rules changed, and what each did, in the order in which it was done."""

    segment_id: str
    at: str
    heard: str
    changes: list[RuleEffect]


class Dismissal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is not to be offered again, as it was offered."""

    before: Words
    after: Words


class PersonNew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Somebody whose name is to be known."""

    name: Name
    language: Language = ""
    """ISO 639 code of what they speak; empty for the language of the settings."""


class PersonChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be different; what is left out stays."""

    name: Name | None = None
    language: Language | None = None
    """Empty for the language of the settings."""


class Person(msgspec.Struct, frozen=True):
    """Somebody whose name is known."""

    id: str
    name: str
    is_user: bool
    """The wearer."""
    language: str
    created: str
