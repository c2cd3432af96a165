"""What is wrong is told in a person's words, without a schema's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from omi_edge.validation import explained, has_controls


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (Annotated[str, Meta(max_length=3)], "long", "a text of at most 3 characters"),
        (Annotated[str, Meta(min_length=2)], "a", "a text of at least 2 characters"),
        (Annotated[str, Meta(min_length=1)], "", "a text that is not empty"),
        (Annotated[str, Meta(pattern="^([a-z]{2,3})?$")], "German", "a code of two or three letters like de"),
        (Annotated[list[int], Meta(max_length=1)], [1, 2], "a list of at most 1"),
        (Annotated[int, Meta(ge=1)], 0, "at least 1"),
        (int, "a", "a whole number, not a text"),
    ],
)
def test_what_is_wanted(kind: Any, value: object, wanted: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, kind)
    assert explained(caught.value) == (None, wanted)


def test_control_characters_are_seen() -> None:
    assert [has_controls(text) for text in ("", "é ł 日 🙂", "a\tb", "\x1b[2J", "\x85", "a\n")] == [
        False,
        False,
        *[True] * 4,
    ]
