"""A hub that answers, and an empty models folder that knows its three models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omi_edge.models.shelf import Shelf
from tests.models.hub import Certificates, FakeHub, certificates, manifest, serving


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def hub(signed: Certificates) -> Iterator[FakeHub]:
    with serving(FakeHub(), signed.context) as found:
        yield found


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return new_shelf(tmp_path / "models")


def new_shelf(folder: Path) -> Shelf:
    folder.mkdir()
    (folder / "models.toml").write_text(manifest(), encoding="utf-8")
    return Shelf(folder)
