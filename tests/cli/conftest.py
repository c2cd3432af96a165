"""`omi-edge` as its users have it: a process of its own, without a terminal, in a place of its own."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import wave
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.domain import SAMPLE_RATE
from omi_edge.store import keys
from tests.cli.forking import Forked, forker
from tests.helpers import PASSPHRASE, least_cost
from tests.models.conftest import hub, signed

__all__ = ["hub", "signed"]

RECORDINGS = Path(__file__).parents[1] / "recordings"
CALL = (
    sys.executable, "-c",
    # a shell has what it runs in the background ignore Ctrl-C, and whatever that starts as well
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from omi_edge.cli.main import main; main()",
)  # fmt: skip
"""What the entry point `omi-edge` runs; the script itself need not be on the PATH."""
LIMIT_SECONDS = 60.0
"""A verb that takes longer hangs."""
AT_ONCE = 2
Started: TypeAlias = "subprocess.Popen[str] | Forked"
"""A call that runs."""


class Done(NamedTuple):
    """What one call did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        assert self.code == 0, self
        return msgspec.json.decode(self.out)


class Place:
    """A user's home: a passphrase file ``F``, a runtime folder, recordings, and calls of ``omi-edge`` from there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        runtime = home / "run"
        runtime.mkdir(mode=0o700)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("OMI_EDGE_")}
        self.environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "OMI_EDGE_WEB_PORT": "0"}
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            self.environment.pop(name, None)
        self.secret("F", PASSPHRASE + "\n")
        samples = np.concatenate(list(Recording(RECORDINGS / "short.ogg")))
        with wave.open(str(home / "talk.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.astype("<i2").tobytes())

    def secret(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a passphrase file."""
        path = self.home / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stderr: IO[str] | int = subprocess.PIPE,
        fresh: bool = False,
    ) -> Started:
        """Start a call with no terminal anywhere near: not as standard input, and none to open.

        ``fresh`` has an interpreter of its own load everything, as for a user; else that is spared where it can be.
        """
        variables = {**self.environment, **(environment or {})}
        for_interpreter = any(name.startswith(("PYTHON", "LD_")) for name in environment or ())  # read when it starts
        if not (fresh or for_interpreter) and sys.platform == "linux":
            return forker().start(arguments, self.home, variables, stderr)
        return subprocess.Popen(
            [*CALL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=self.home,
            env=variables,
            start_new_session=True,
            encoding="utf-8",
        )

    def __call__(self, *arguments: str, environment: Mapping[str, str] | None = None, fresh: bool = False) -> Done:
        """Call and wait for the end."""
        with self.start(*arguments, environment=environment, fresh=fresh) as process:
            try:
                out, err = process.communicate(timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return Done(process.wait(), out, err)

    def each(self, calls: Iterable[tuple[str, ...]]) -> list[Done]:
        """Make several calls, some at once, and return what they did in order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda call: self(*call), calls))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file below ``folder``."""
    return {
        str(path.relative_to(folder)): (stat.S_IMODE(path.stat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def cheapen(folder: Path) -> None:
    """Have a vault open in no time from now on, as the ones that no verb made."""
    key, (slots, _) = keys.unlock(folder, PASSPHRASE).key, keys.read(folder)
    with least_cost():
        keys.write(folder, msgspec.structs.replace(slots, slots=(keys._wrap(slots, key, PASSPHRASE),)))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield Place(tmp_path_factory.mktemp("home"))
