"""`bench engines` with real recognisers: the built-in one, and a Whisper that knows nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from omi_edge.cli.main import run
from tests.listen.tiny_whisper import NAME, shelved


def test_what_is_installed_is_measured_and_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "D").mkdir()
    shelved(tmp_path / "D" / "models")
    assert run(["--data", str(tmp_path / "D"), "bench", "engines", "--seconds", "5", "--json"]) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    names = [one["configuration"] for one in told["tried"]]
    assert names[0] == "pocketsphinx"
    assert f"{NAME},threads=1,compute_type=int8,beam=1" in names
    assert all(one["real_time_factor"] > 0 and one["memory"] > 10e6 for one in told["tried"])
    assert (told["live"] or told["final"])["name"] in ("pocketsphinx", NAME)
    assert run(["--data", str(tmp_path / "D"), "bench", "engines", "--engine", "whisper-small"]) == 2
    assert f"there is: pocketsphinx, {NAME}" in capsys.readouterr().err
