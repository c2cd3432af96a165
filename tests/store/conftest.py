"""Real encrypted files. One is made for the session; each test opens a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.store import database, keys
from omi_edge.store.database import Connection, Database
from tests.helpers import START_US
from tests.store import filling

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


@pytest.fixture(scope="session")
def empty_vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new vault; each slot names its own cost, and this one's is Argon2's least, so that opening takes no time."""
    folder = tmp_path_factory.mktemp("vaults") / "empty"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "ARGON2_MEMORY_KIB", 8)
        patch.setattr(keys, "ARGON2_ROUNDS", 1)
        patch.setattr(keys, "ARGON2_LANES", 1)
        Database.create(folder, PASSPHRASE, DrivenClock(START_US))
    return folder


@pytest.fixture
def folder(empty_vault: Path, tmp_path: Path) -> Path:
    """A vault of the test's own, closed."""
    return Path(shutil.copytree(empty_vault, tmp_path / "vault"))


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
    connection = database._connect(folder / database.NAME, keys.unlock(folder, PASSPHRASE))
    connection.execute("BEGIN")
    yield connection
    connection.close()


@pytest.fixture
def full_conn(conn: Connection) -> Connection:
    """The same, with something in every table."""
    filling.fill(conn)
    return conn
