"""`run` beside commands that work on the folder by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omi_edge.cli import run as verb
from omi_edge.cli.session import _Users, _users_file, used
from omi_edge.config import Config
from omi_edge.errors import AlreadyRunning


class Held:
    """A daemon whose folder is held for its first ``times`` starts."""

    times = 0
    starts = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def run_until_signal(self) -> None:
        """See Daemon."""
        Held.starts += 1
        if Held.starts <= Held.times:
            raise AlreadyRunning("another omi-edge works on it.")


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The socket of a folder, of whose daemon this process is a user."""
    monkeypatch.setattr(verb, "Daemon", Held)
    monkeypatch.setattr(verb, "socket_path", lambda folder: tmp_path / "a.sock")
    monkeypatch.setattr(verb, "LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(Held, "starts", 0)
    return tmp_path / "a.sock"


async def start(folder: Path) -> None:
    await verb._run(Config(), folder, "secret", Config)


async def test_a_command_that_is_under_way_is_waited_for(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Held, "times", 2)
    with _Users(_users_file(users)) as other:
        assert other.share()
        assert used(users)
        await start(tmp_path)
    assert Held.starts == 3
    assert not used(users)


async def test_another_daemon_is_told_at_once(users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Held, "times", 2)
    with pytest.raises(AlreadyRunning):
        await start(tmp_path)
    assert Held.starts == 1


async def test_a_command_that_does_not_end_is_not_waited_for_for_ever(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Held, "times", 1_000_000)
    monkeypatch.setattr(verb, "WAIT_SECONDS", 0.0)
    with _Users(_users_file(users)) as other:
        assert other.share()
        with pytest.raises(AlreadyRunning):
            await start(tmp_path)
