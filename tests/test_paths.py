"""Where the socket of a data folder is, and that nobody else can put one there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from omi_edge import paths
from omi_edge.errors import DaemonError
from omi_edge.paths import socket_path


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(paths, "_SOCKET_PATH_LIMIT", 1000)  # folders of tests are long
    return tmp_path


def test_the_same_folder_by_any_name_has_one_socket(runtime: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    path = socket_path(data)
    assert path == socket_path(tmp_path / "link") == socket_path(data / ".." / "data")
    assert path.parent == runtime / "omi-edge"
    assert path.suffix == ".sock"
    assert socket_path(tmp_path / "other") != path


def test_the_folder_around_it_is_ours_alone(runtime: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(socket_path(tmp_path).parent.stat().st_mode) == 0o700


def test_a_folder_that_others_may_enter_is_refused(runtime: Path, tmp_path: Path) -> None:
    (runtime / "omi-edge").mkdir(mode=0o755)
    (runtime / "omi-edge").chmod(0o755)
    with pytest.raises(DaemonError, match="chmod 700"):
        socket_path(tmp_path)


def test_a_link_in_its_place_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (runtime / "omi-edge").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DaemonError):
        socket_path(tmp_path)


@pytest.mark.parametrize("base", ["", "/nowhere/at/all", "/" + "long/" * 30])
def test_without_a_usable_runtime_folder_it_is_in_tmp(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", base)
    path = socket_path(tmp_path)
    assert path.parent == Path("/tmp") / f"omi-edge-{os.getuid()}"
    assert len(os.fsencode(path)) <= 100
