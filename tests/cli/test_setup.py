"""`init` and `config`, in this process."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path

import pytest

from omi_edge.cli.main import run
from omi_edge.config import known_keys


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_init_makes_a_vault_that_is_ours_alone(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    assert run(["--data", str(folder), "--passphrase-file", str(secret), "init", "--yes"]) == 0
    assert "omi-edge import" in capsys.readouterr().err
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"vault.db", "keyslots.json"} <= {path.name for path in folder.iterdir()}


def test_init_leaves_an_existing_vault_alone(tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--data", str(tmp_path / "data"), "--passphrase-file", str(secret), "init", "--yes"]
    assert run(call) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert run(call) == 5
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before
    assert "already" in capsys.readouterr().err


def test_init_without_a_terminal_wants_yes(tmp_path: Path, secret: Path) -> None:
    assert run(["--data", str(tmp_path / "data"), "--passphrase-file", str(secret), "init"]) == 2
    assert not (tmp_path / "data").exists()


def test_init_without_a_passphrase_makes_nothing(tmp_path: Path) -> None:
    assert run(["--data", str(tmp_path / "data"), "init", "--yes"]) == 3
    assert not (tmp_path / "data").exists()


def test_config_show_says_where_each_value_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[web]\nport = 9000\n[log]\nlevel = 'debug'\n", encoding="utf-8")
    monkeypatch.setenv("OMI_EDGE_LOG_LEVEL", "error")
    assert run(["--config", str(path), "config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == set(known_keys())
    assert shown["web.port"] == {"value": 9000, "from": "file"}
    assert shown["log.level"] == {"value": "error", "from": "environment"}
    assert shown["audio.chunk"] == {"value": 2.0, "from": "default"}


def test_config_show_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(known_keys()) + 1
    assert any(line.split() == ["web.host", "127.0.0.1", "default"] for line in lines)
