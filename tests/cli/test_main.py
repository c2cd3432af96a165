"""The table of verbs, the options before them, and how errors end."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec
import pytest

from omi_edge import __version__
from omi_edge.cli.main import VERBS, cli, run
from omi_edge.cli.settings import Verb
from omi_edge.errors import BadInput, ConfigError, OmiEdgeError, PassphraseError
from omi_edge.web import problems, wire


def verbs() -> list[tuple[str, click.Command]]:
    """Every verb and every verb of a verb, with the words that call it."""
    context = click.Context(cli)
    found: list[tuple[str, click.Command]] = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {child}", below) for child, below in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), verbs(), ids=[name for name, _ in verbs()])
def test_every_verb_has_help_examples_and_json(
    name: str, command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(command, Verb)
    assert command.examples
    assert all("omi-edge " in example for example in command.examples)
    assert run([*name.split(), "--help"]) == 0
    told = capsys.readouterr().out
    assert "--json" in told
    for example in command.examples:
        assert " ".join(example.split()) in " ".join(told.split())
    assert all(p.help for p in command.params if isinstance(p, click.Option))


@pytest.mark.parametrize("name", list(VERBS))
def test_the_tables_summary_is_the_verbs_own_first_line(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    first = (command.help or "").split("\n\n")[0]
    assert VERBS[name][1].removesuffix(".") in " ".join(first.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["show"],
        ["list", "--limit", "0"],
        ["import"],
        ["import", "a", "b", "--start", "x"],
    ],
)
def test_a_wrong_call_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().out == ""


def test_a_wrong_call_with_json_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "list", "--limit", "many"]) == 2
    problem = msgspec.json.decode(capsys.readouterr().err, type=wire.Problem)
    assert problem.status == 400
    assert "--limit" in problem.detail


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("final = 'whisper-smal'", "listen.final"),
        ("recognizer = 'wisper'", "did you mean whisper?"),
        ("recognizer = 'whisper'\nmodel = 'whisper-smal'", "did you mean whisper-small?"),
    ],
)
def test_a_setting_that_names_no_engine_is_found_before_the_daemon_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, told: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[listen]\n{setting}\n", encoding="utf-8")
    place = ["--config", str(path), "--data", str(tmp_path / "D")]
    assert run([*place, "config", "check"]) == 2
    assert told in capsys.readouterr().err
    assert run([*place, "doctor", "--json"]) == 1
    findings = msgspec.json.decode(capsys.readouterr().out)["findings"]
    (found,) = [one for one in findings if one["name"] == "settings"]
    assert found["state"] == "failed"
    assert told in found["detail"]


def test_an_unknown_setting_is_one_sentence_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[conversation]\nsilense = 3\n", encoding="utf-8")
    assert run(["--config", str(path), "config", "check"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "did you mean silence?" in told.err


@pytest.mark.parametrize(
    "error", [ConfigError("a key."), PassphraseError("none."), BadInput("a day.", "due"), OmiEdgeError("oh.")]
)
def test_errors_are_told_as_the_api_tells_them(
    error: OmiEdgeError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    assert run(["list", "--json"]) == error.exit_code
    problem = msgspec.json.decode(capsys.readouterr().err, type=wire.Problem)
    assert problem == problems.problem_of(error)[0]
    assert run(["list"]) == error.exit_code
    assert capsys.readouterr().err == f"omi-edge: {error}\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted_is_130(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    assert run(["list"]) == 130


def test_json_holds_before_and_after_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "config", "check"]) == 0
    assert run(["config", "check", "--json"]) == 0
    one, other = capsys.readouterr().out.splitlines()
    assert one == other
    assert json.loads(one)["ok"] is True
