"""The error tree: one slug, one exit code and one status each, all of them documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from omi_edge import errors
from omi_edge.errors import BadInput, OmiEdgeError

ROOT = Path(__file__).parents[1]


def tree(kind: type[OmiEdgeError] = OmiEdgeError) -> Iterator[type[OmiEdgeError]]:
    """Every class that errors.py defines, the base first."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_slugs_tell_errors_apart() -> None:
    slugs = [kind.slug for kind in tree()]
    assert len(set(slugs)) == len(slugs)


def test_every_error_is_in_the_picture_of_the_tree() -> None:
    picture = errors.__doc__ or ""
    drawn = set(re.findall(r"[├└]─ (\w+)", picture)) | {"OmiEdgeError"}
    assert drawn == {kind.__name__ for kind in tree()}


@pytest.mark.parametrize("kind", list(tree()))
def test_statuses_are_errors(kind: type[OmiEdgeError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.__doc__


def test_readme_lists_the_exit_codes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert listed == {kind.exit_code for kind in tree()} | {0, 130}
    families = {int(code) for code in re.findall(r"(\d+) [a-z]", (errors.__doc__ or "").rsplit("Exit codes:", 1)[1])}
    assert families == listed


def test_bad_input_names_its_field() -> None:
    assert BadInput("limit must be a number.", "limit").field == "limit"
    assert str(BadInput("no.")) == "no."
