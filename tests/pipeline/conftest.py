"""An open vault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.store.database import Database
from tests.helpers import PASSPHRASE


@pytest.fixture
async def db(folder: Path, clock: DrivenClock) -> AsyncIterator[Database]:
    database = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    yield database
    await database.close()
