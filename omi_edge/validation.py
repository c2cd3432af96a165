"""What msgspec found wrong with a setting, a query or a body, in a person's words and without the value that came."""

from __future__ import annotations

import re
import unicodedata

import msgspec

_WHERE = re.compile(r" - at `\$\.?([^`]*)`$")
_CHOICE = re.compile(r"str matching regex '\^\(?([\w|]+)\)?\$'")
_WORDS = {
    r"^\w+ >= ": "at least ",
    r"^\w+ <= ": "at most ",
    r"^\w+ > ": "more than ",
    r"^\w+ < ": "less than ",
    r"^str of length >= 1$": "a text that is not empty",
    r"^array of length <= (\d+)": r"a list of at most \1",
    r"^array of length >= (\d+)": r"a list of at least \1",
    r"^str of length <= (\d+)": r"a text of at most \1 characters",
    r"^str of length >= (\d+)": r"a text of at least \1 characters",
    r"^str of length (\d+)": r"a text of \1 characters",
    r"^str matching regex '\^\(\[a-z\]\{2,3\}\)\?\$'$": "a code of two or three letters like de",
    r"^str matching regex .*$": "of another form",
    r", got ": ", not ",
    r"\bint\b": "a whole number",
    r"\bfloat\b": "a number",
    r"\bstr\b": "a text",
    r"\bbool\b": "true or false",
    r"\barray\b": "a list",
    r"\bobject\b": "a table",
}


CONTROLS = "leave out line breaks, tabs and what cannot be seen."
"""Cure of a text that ``has_controls``."""


def has_controls(text: str) -> bool:
    """Say whether a text has control characters (Unicode category Cc: line breaks, tabs, escapes)."""
    return any(unicodedata.category(sign) == "Cc" for sign in text)


def explained(error: msgspec.ValidationError) -> tuple[str | None, str]:
    """Return the path of the field, None for the whole, and what it must be: ``at most 65535``."""
    text = str(error)
    where = _WHERE.search(text)
    wanted = _WHERE.sub("", text).removeprefix("Expected ").replace("`", "")
    if wanted.startswith("Invalid enum value"):
        wanted = "one of the allowed values"
    elif choice := _CHOICE.match(wanted):
        wanted = "one of " + choice[1].replace("|", ", ")
    for found, words in _WORDS.items():
        wanted = re.sub(found, words, wanted)
    return (where[1] or None) if where else None, wanted
