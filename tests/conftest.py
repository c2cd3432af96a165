"""A clock that a test moves, and real encrypted files: one is made for the session, each test opens its own copy."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.store.database import Database
from tests.helpers import PASSPHRASE, START_US, least_cost

hypothesis.settings.register_profile("omi-edge", deadline=None)  # a busy machine is no defect
hypothesis.settings.load_profile("omi-edge")

LONGEST = ("tests/test_main_job.py", "tests/cli/test_flows.py", "tests/test_ledger_day.py")
"""What takes minutes in one process: begun first, so that no other worker waits for it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a test does to the logs ends with it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


@pytest.fixture(scope="session")
def empty_vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new vault; each slot names its own cost, and this one's is Argon2's least, so that opening takes no time."""
    folder = tmp_path_factory.mktemp("vaults") / "empty"
    with least_cost():
        Database.create(folder, PASSPHRASE, DrivenClock(START_US))
    return folder


@pytest.fixture
def folder(empty_vault: Path, tmp_path: Path) -> Path:
    """A vault of the test's own, closed."""
    return Path(shutil.copytree(empty_vault, tmp_path / "vault"))
