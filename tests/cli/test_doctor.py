"""`doctor` on this machine, with one thing at a time put wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omi_edge.capture.ble import BleRadio
from omi_edge.cli.main import run
from omi_edge.errors import BluetoothOff, LinkUnavailable, NoAdapter, NoBluetoothPermission, NoBluetoothService
from tests.listen.tiny_whisper import NAME, shelved


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = run([*arguments, "doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (code == 0)
    return code, {finding["name"]: finding for finding in told["findings"]}


@pytest.fixture(autouse=True)
def free_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMI_EDGE_WEB_PORT", "0")


def test_a_good_machine_without_a_vault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert code == 0, found
    assert {"python", "libopus", "speech detection", "speech recognition", "encryption"} <= {
        name for name, finding in found.items() if finding["state"] == "ok"
    }
    assert "SQLCipher" in found["encryption"]["detail"]
    assert not (tmp_path / "none").exists()


def test_a_model_that_is_chosen_and_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_EDGE_LISTEN_RECOGNIZER", "whisper")
    monkeypatch.setenv("OMI_EDGE_LISTEN_MODEL", NAME)
    monkeypatch.setenv("OMI_EDGE_MODELS_FOLDER", str(tmp_path / "models"))
    shelf = shelved(tmp_path / "models")
    _, found = report(capsys, "--data", str(tmp_path / "none"))
    assert found["speech recognition"]["state"] == "ok"
    assert NAME in found["speech recognition"]["detail"]
    shelf.remove(NAME, unlock=False)
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert (code, found["speech recognition"]["state"]) == (0, "warning")
    assert f"omi-edge models pull {NAME}" in found["speech recognition"]["detail"]


def test_a_second_pass_whose_model_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report(capsys, "--data", str(tmp_path / "none"))[1]["second pass"]["detail"] == "none is configured"
    monkeypatch.setenv("OMI_EDGE_LISTEN_FINAL", NAME)
    monkeypatch.setenv("OMI_EDGE_MODELS_FOLDER", str(tmp_path / "models"))
    shelf = shelved(tmp_path / "models")
    _, found = report(capsys, "--data", str(tmp_path / "none"))
    assert found["second pass"]["state"] == "ok"
    assert found["second pass"]["detail"].startswith(f"{NAME}, idle")
    shelf.remove(NAME, unlock=False)
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert (code, found["second pass"]["state"]) == (0, "warning")
    assert f"omi-edge models pull {NAME}" in found["second pass"]["detail"]


def test_a_wyoming_server_that_is_open_to_the_lan_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = report(capsys, "--data", str(tmp_path / "none"))
    assert found["wyoming"]["state"] == "ok"
    monkeypatch.setenv("OMI_EDGE_WYOMING_SERVE", "true")
    _, found = report(capsys, "--data", str(tmp_path / "none"))
    assert (found["wyoming"]["state"], found["wyoming"]["detail"]) == (
        "ok", "asks no other server, serves this machine alone",
    )  # fmt: skip
    monkeypatch.setenv("OMI_EDGE_WYOMING_HOST", "0.0.0.0")
    monkeypatch.setenv("OMI_EDGE_WYOMING_LAN", "true")
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert (code, found["wyoming"]["state"]) == (0, "warning")
    assert "open to everybody on the LAN" in found["wyoming"]["detail"]


def test_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--data", str(tmp_path / "none"), "doctor"]) == 0
    assert "libopus" in capsys.readouterr().out


def test_a_taken_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("OMI_EDGE_WEB_PORT", str(taken.getsockname()[1]))
        code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert code == 1
    assert found["port"]["state"] == "failed"
    assert "web.port" in found["port"]["cure"]


def test_a_data_folder_that_others_may_enter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    code, found = report(capsys, "--data", str(folder))
    assert code == 1
    assert f"chmod 700 {folder}" in found["data folder"]["cure"]


def test_a_passphrase_file_that_others_may_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "passphrase"
    path.write_text("x", encoding="utf-8")
    path.chmod(0o644)
    code, found = report(capsys, "--data", str(tmp_path / "none"), "--passphrase-file", str(path))
    assert code == 1
    assert f"chmod 600 {path}" in found["passphrase file"]["detail"]


@pytest.mark.parametrize("error", [BluetoothOff, NoAdapter, NoBluetoothService, NoBluetoothPermission])
def test_bluetooth_that_cannot_be_used_is_no_failure(
    error: type[LinkUnavailable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def check(_: BleRadio) -> None:
        raise error("cause. Cure.")

    monkeypatch.setattr(BleRadio, "check", check)
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert code == 0
    assert found["bluetooth"]["state"] == "warning"
    assert found["bluetooth"]["detail"] == f"{error.slug}: cause. Cure."


def test_a_machine_without_a_bus_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if sys.platform != "linux":
        pytest.skip("D-Bus is Linux's")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert code == 0
    assert found["bluetooth"]["state"] == "warning"
    assert found["bluetooth"]["detail"].startswith("no-bluetooth-service: ")


def test_bluetooth_that_works_or_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    async def check(_: BleRadio) -> None:
        asked.append(1)

    monkeypatch.setattr(BleRadio, "check", check)
    monkeypatch.setenv("OMI_EDGE_DEVICE_ADAPTER", "hci1")
    _, found = report(capsys, "--data", str(tmp_path / "none"))
    assert found["bluetooth"]["state"] == "ok"
    assert "hci1" in found["bluetooth"]["detail"]
    monkeypatch.setenv("OMI_EDGE_DEVICE_BLUETOOTH", "false")
    _, found = report(capsys, "--data", str(tmp_path / "none"))
    assert found["bluetooth"] == {
        "name": "bluetooth", "state": "ok", "detail": "not used: device.bluetooth is false", "cure": "",
    }  # fmt: skip
    assert len(asked) == 1


def test_the_doctor_looks_at_bluetooth_without_loading_bleak() -> None:
    code = "import sys, omi_edge.cli.doctor; sys.exit('bleak' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMI_EDGE_WEB_PORT", "many")
    code, found = report(capsys, "--data", str(tmp_path / "none"))
    assert code == 1
    assert found["settings"]["state"] == "failed"
    assert found["libopus"]["state"] == "ok"
