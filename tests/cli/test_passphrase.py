"""Where the passphrase comes from."""

from __future__ import annotations

import getpass
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omi_edge.cli.passphrase import passphrase
from omi_edge.cli.settings import Settings
from omi_edge.errors import PassphraseError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def kept(folder: Path, text: str = "correct horse\n", mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from standard input\n"))


def test_file(tmp_path: Path) -> None:
    assert passphrase(Settings(passphrase_file=kept(tmp_path))) == "correct horse"


def test_the_first_line_counts_and_blanks_belong_to_it(tmp_path: Path) -> None:
    assert passphrase(Settings(passphrase_file=kept(tmp_path, " a b \r\nnote\n"))) == " a b "


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = kept(tmp_path, mode=mode)
    with pytest.raises(PassphraseError, match=f"chmod 600 {path}"):
        passphrase(Settings(passphrase_file=path))


@pytest.mark.parametrize("text", ["", "\n", "\nsecond line\n"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PassphraseError, match="empty"):
        passphrase(Settings(passphrase_file=kept(tmp_path, text)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError, match="none"):
        passphrase(Settings(passphrase_file=tmp_path / "none"))


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = kept(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PassphraseError):
        passphrase(Settings(passphrase_file=path))


@pytest.fixture
def pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, b"correct horse\n")
    os.close(writer)
    yield reader


def test_descriptor(pipe: int) -> None:
    assert passphrase(Settings(passphrase_fd=pipe)) == "correct horse"


def test_a_descriptor_that_is_closed_is_named() -> None:
    with pytest.raises(PassphraseError, match="987"):
        passphrase(Settings(passphrase_fd=987))


def test_command() -> None:
    assert passphrase(Settings(passphrase_command="printf 'correct horse\\nmore\\n'")) == "correct horse"


@pytest.mark.parametrize("command", ["false", "/no/such/program", "'unclosed", ""])
def test_a_command_that_fails_is_told_without_its_output(command: str) -> None:
    with pytest.raises(PassphraseError, match="command failed"):
        passphrase(Settings(passphrase_command=command))


def test_settings_name_sources_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_EDGE_VAULT_PASSPHRASE_FILE", str(kept(tmp_path)))
    assert passphrase(Settings()) == "correct horse"
    monkeypatch.delenv("OMI_EDGE_VAULT_PASSPHRASE_FILE")
    monkeypatch.setenv("OMI_EDGE_VAULT_PASSPHRASE_COMMAND", "echo from a command")
    assert passphrase(Settings()) == "from a command"


def test_an_option_wins_over_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_EDGE_VAULT_PASSPHRASE_COMMAND", "echo from settings")
    assert passphrase(Settings(passphrase_file=kept(tmp_path))) == "correct horse"


def test_without_terminal_and_source_the_sources_are_named() -> None:
    with pytest.raises(PassphraseError, match="--passphrase-file"):
        passphrase(Settings())


def typing(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[str]:
    """Let a person type ``lines``; return what they were asked."""
    asked: list[str] = []
    typed = iter(lines)

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return next(typed)

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", ask)
    return asked


def test_a_person_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = typing(monkeypatch, "correct horse")
    assert passphrase(Settings()) == "correct horse"
    assert len(asked) == 1


def test_a_new_passphrase_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = typing(monkeypatch, "correct horse", "correct horse")
    assert passphrase(Settings(), new=True) == "correct horse"
    assert len(asked) == 2


def test_two_different_new_passphrases_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    typing(monkeypatch, "correct horse", "correct hose")
    with pytest.raises(PassphraseError, match="differ"):
        passphrase(Settings(), new=True)
