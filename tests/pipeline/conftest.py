"""An encrypted file and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.store.database import Database
from tests.helpers import START_US


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


@pytest.fixture
async def db(tmp_path: Path, clock: DrivenClock) -> AsyncIterator[Database]:
    folder = tmp_path / "data"
    await asyncio.to_thread(Database.create, folder, "correct horse battery", clock)
    database = await asyncio.to_thread(Database.open, folder, "correct horse battery", clock)
    yield database
    await database.close()
