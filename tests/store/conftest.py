"""Open vaults, empty and filled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.store import database, keys
from omi_edge.store.connection import Connection, connect
from omi_edge.store.database import Database
from tests.helpers import PASSPHRASE
from tests.store import filling


@pytest.fixture
async def db(folder: Path, clock: DrivenClock) -> AsyncIterator[Database]:
    """An empty vault, open."""
    opened = Database.open(folder, PASSPHRASE, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def full(db: Database) -> Database:
    """A vault with something in every table."""
    await db.write(filling.fill)
    return db


@pytest.fixture
def conn(folder: Path) -> Iterator[Connection]:
    """A connection to an empty vault inside one transaction: for what does not depend on who runs it."""
    opened = connect(folder / database.NAME, keys.unlock(folder, PASSPHRASE))
    opened.execute("BEGIN")
    yield opened
    opened.close()


@pytest.fixture
def full_conn(conn: Connection) -> Connection:
    """The same, with something in every table."""
    filling.fill(conn)
    return conn
