"""A small part of ``scripts/soak week``: a day, a few walks, everything that happens once a day."""

from __future__ import annotations

import pytest

from scripts.soak_week import run
from tests.scripted import register


@pytest.mark.full
@pytest.mark.parametrize("profile", ["cv1-3.0.21", "cv1-3.0.18"])
async def test_a_day_with_eight_walks(profile: str) -> None:
    register()
    assert await run(profile, days=1, walks=8, seed=7) == []
