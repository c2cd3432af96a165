"""docs/commands.md is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from omi_edge.cli.reference import render

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m omi_edge.cli.reference > docs/commands.md"
