"""`models`: what a person types and reads, against a hub of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omi_edge.cli.main import run
from tests.models.hub import COMMIT, FILES, TOKEN, Certificates, FakeHub, manifest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    hub: FakeHub,
    signed: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """Call `omi-edge --data D models …`; the exit code and what was printed on both streams."""
    for name in ("D", "E"):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "models.toml").write_text(manifest(), encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("OMI_EDGE_MODELS_ENDPOINT", hub.url)
    monkeypatch.setenv("OMI_EDGE_MODELS_CA_FILE", str(signed.authority))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, data: str = "D") -> tuple[int, str, str]:
        code = run(["--data", data, "models", *arguments])
        return code, *capsys.readouterr()

    return call


def answer(done: tuple[int, str, str]) -> Any:
    assert done[0] == 0, done
    return msgspec.json.decode(done[1])


def item(call: Call, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = answer(call("list", "--json"))
    return next(one for one in found if one["name"] == name)


def test_before_and_after_a_pull(call: Call) -> None:
    before = item(call, "open")
    assert (before["installed"], before["size"], before["revision"], before["licence"]) == (False, None, None, None)
    assert "unknown until first pull" in call("list")[1]
    code, out, err = call("pull", "pinned", "open", "--accept-licence", "MIT", "--accept-licence", "open")
    assert code == 0, err
    assert "pinned: fetched and verified" in out
    assert "connects to https://127.0.0.1" in err
    assert "pinned: licence MIT, https://127.0.0.1" in err
    after = item(call, "open")
    assert (after["installed"], after["verified"], after["revision"], after["locked"]) == (True, True, COMMIT, True)
    assert after["size"] == len(FILES["Test/open"]["model.gguf"])


def test_no_licence_without_a_terminal(call: Call, hub: FakeHub) -> None:
    code, _, err = call("pull", "pinned", "--accept-licence", "Apache-2.0")
    assert code == 3
    assert "--accept-licence MIT" in err
    assert not hub.asked


def test_a_profile_leaves_out_what_needs_a_token(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("pull", "--profile", "tests", "--accept-licence", "MIT", "--accept-licence", "CC-BY-4.0", "--json")
    code, out, err = call(*arguments)
    assert msgspec.json.decode(out) == [{"name": "pinned", "fetched": True}]
    assert "gated is left out" in err
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n", encoding="ascii")
    monkeypatch.setenv("OMI_EDGE_MODELS_TOKEN_FILE", str(token))
    token.chmod(0o644)
    code, _, err = call(*arguments)
    assert (code, "chmod 600" in err) == (2, True)
    token.chmod(0o600)
    assert answer(call(*arguments)) == [{"name": "pinned", "fetched": False}, {"name": "gated", "fetched": True}]
    assert TOKEN not in err


def test_carried_to_another_box(call: Call, hub: FakeHub) -> None:
    call("pull", "pinned", "--accept-licence", "pinned")
    assert call("bundle", "pinned", "-o", "m.tar")[0] == 0
    hub.asked.clear()
    code, out, _ = call("import", "m.tar", data="E")
    assert (code, out) == (0, "pinned: installed, licence MIT\n")
    code, out, _ = call("path", "pinned", data="E")
    assert (code, Path(out.strip()).name) == (0, "pinned")
    assert not hub.asked


def test_verify_names_what_is_not_whole(call: Call, tmp_path: Path) -> None:
    assert call("verify") == (0, "No model is installed.\n", "")
    call("pull", "pinned", "--accept-licence", "MIT")
    assert "whole" in call("verify")[1]
    (tmp_path / "D" / "models" / "pinned" / "config.json").write_bytes(b"{}")
    code, out, _ = call("verify", "--json")
    assert code == 7
    assert "omi-edge models pull pinned" in msgspec.json.decode(out)[0]["cause"]
    assert item(call, "pinned")["state"] == "damaged"
    code, _, err = call("path", "pinned")
    assert (code, "truncated" in err) == (7, True)
    code, out, _ = call("pull", "pinned")
    assert (code, out) == (0, "pinned: fetched and verified\n"), "accepted before"


def test_rm_shows_first(call: Call) -> None:
    call("pull", "pinned", "--accept-licence", "MIT")
    assert call("rm", "pinned")[1:] == ("pinned: would be removed\n", "Nothing was removed; do it with --yes.\n")
    assert item(call, "pinned")["installed"]
    assert call("rm", "pinned", "--yes", "--unlock")[:2] == (0, "pinned: removed, and its lock\n")
    assert not item(call, "pinned")["installed"]
    assert not item(call, "pinned")["locked"]


@pytest.mark.parametrize("arguments", [
    ("pull", "pined"), ("rm", "pined"), ("path", "pined"), ("verify", "pined"), ("bundle", "pined", "-o", "m.tar"),
    ("import", "D", "--as", "pined"),
])  # fmt: skip
def test_unknown_names_with_the_nearest(call: Call, arguments: tuple[str, ...]) -> None:
    code, _, err = call(*arguments)
    assert (code, "did you mean pinned?" in err) == (4, True)


def test_calls_that_say_too_little(call: Call) -> None:
    assert call("pull")[0] == 2
    code, _, err = call("import", "D")
    assert (code, "--as NAME" in err) == (2, True)
    code, _, err = call("pull", "--profile", "pi6")
    assert (code, "did you mean pi5?" in err) == (4, True)


def test_a_folder_of_another_program(call: Call, tmp_path: Path) -> None:
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched" / "model.gguf").write_bytes(b"weights")
    assert answer(call("import", "fetched", "--as", "open", "--json")) == ["open"]
    assert "from a folder" in call("list")[1]


def test_what_suits_this_machine(call: Call) -> None:
    found = answer(call("recommend", "--json"))
    assert found["profile"] in ("pi5", "m1", "x86")
    assert all(one["why"] for one in found["models"])
    assert call("recommend")[0] == 0


def test_the_folder_can_be_elsewhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("path")[1].strip() == str(tmp_path / "D" / "models")
    monkeypatch.setenv("OMI_EDGE_MODELS_FOLDER", str(tmp_path / "big disk"))
    assert call("path")[1].strip() == str(tmp_path / "big disk")


def test_a_bad_certificate_as_a_problem_document(call: Call, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_EDGE_MODELS_CA_FILE", "")
    code, _, err = call("pull", "pinned", "--accept-licence", "MIT", "--json")
    problem = msgspec.json.decode(err.splitlines()[-1])
    assert (code, problem["type"]) == (7, "urn:omi-edge:problem:hub")
    assert "issuer CN=Test Authority" in problem["detail"]
    assert not hub.asked


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "ftp://x", "https://", "https://me:{}@host", "host"])
def test_an_endpoint_without_encryption_is_no_endpoint(
    call: Call, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("OMI_EDGE_MODELS_ENDPOINT", endpoint.format("hidden"))
    code, _, err = call("list")
    assert (code, "models.endpoint must" in err, "hidden" in err) == (2, True, False)
