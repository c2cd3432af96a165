"""Where the passphrase comes from: a file, a file descriptor, a command, or the person at the terminal.

Never an argument: every process on the machine can read those.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
from pathlib import Path

from omi_edge.cli.settings import Settings
from omi_edge.errors import PassphraseError

COMMAND_LIMIT_SECONDS = 60.0
"""A password manager may ask a person first; one that never answers must not hang a service for ever."""
_SOURCES = "--passphrase-file, --passphrase-fd, --passphrase-command, or vault.passphrase_file in config.toml"


def passphrase(settings: Settings, *, new: bool = False) -> str:
    """Return the passphrase from the first source that is given; ``new`` asks a person twice.

    Raises PassphraseError when there is no source, or when the source is unsafe, empty or fails.
    """
    vault = settings.config.vault
    if settings.passphrase_fd is not None:
        return _kept(_read_descriptor(settings.passphrase_fd))
    if settings.passphrase_file is not None:
        return _kept(read_file(settings.passphrase_file))
    if settings.passphrase_command is not None:
        return _kept(_run(settings.passphrase_command))
    if vault.passphrase_file:
        return _kept(read_file(Path(vault.passphrase_file).expanduser()))
    if vault.passphrase_command:
        return _kept(_run(vault.passphrase_command))
    return _kept(_ask(new=new))


def read_file(path: Path) -> str:
    """Return the first line of ``path``. Raises PassphraseError when others may read it."""
    problem = file_problem(path)
    if problem:
        raise PassphraseError(problem)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PassphraseError(f"the passphrase file {path} holds no text that can be read; write it anew.") from error


def file_problem(path: Path) -> str:
    """Return why ``path`` cannot be used as a passphrase file, empty when it can."""
    try:
        found = path.stat()
    except OSError as error:
        return f"the passphrase file {path} cannot be read: {error.strerror}. Check its path."
    if found.st_mode & 0o077:
        return f"others may read the passphrase file {path}; run: chmod 600 {path}"
    return ""


def _read_descriptor(number: int) -> str:
    try:
        with os.fdopen(number, "r", encoding="utf-8") as stream:
            return stream.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise PassphraseError(
            f"no passphrase can be read from file descriptor {number}; open it for reading, as in: {number}<FILE"
        ) from error


def _run(command: str) -> str:
    try:
        words = shlex.split(command)
        done = subprocess.run(
            words, stdout=subprocess.PIPE, timeout=COMMAND_LIMIT_SECONDS, check=True, encoding="utf-8"
        )
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        raise PassphraseError("the passphrase command failed; run it by hand to see why.") from error
    return done.stdout


def _ask(*, new: bool) -> str:
    if not sys.stdin.isatty():
        raise PassphraseError(f"a passphrase is needed, and there is no terminal to ask at; give {_SOURCES}.")
    first = getpass.getpass("New passphrase: " if new else "Passphrase: ")
    if new and getpass.getpass("Once more: ") != first:
        raise PassphraseError("the two passphrases differ, and nothing was made; try again.")
    return first


def _kept(text: str) -> str:
    line = text.split("\n", 1)[0].rstrip("\r")
    if not line:
        raise PassphraseError("the passphrase is empty; its source must give it on the first line.")
    return line
