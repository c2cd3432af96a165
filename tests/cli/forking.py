"""Processes of ``omi-edge`` that need not load its libraries first: forked from one that has loaded them.

Loading takes most of the time of a verb. Each call is a process of its own all the same, with the environment, folder,
session and standard streams that are asked for; it ends as an interpreter does. Linux alone: elsewhere a process that
has loaded the system's libraries may not be forked.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

PRELOADED = ("omi_edge.cli.main", "omi_edge.cli.own")
"""With what these import: nearly all that a verb needs. A verb's own module is loaded by its process."""
LONGEST = 1 << 20
"""Bytes of one message."""


class Call(NamedTuple):
    """What a process is asked to be."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]


class Forked:
    """A process, with as much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, line: socket.socket, stdout: IO[str], stderr: IO[str] | None) -> None:
        self._line = line
        self.pid = int(line.recv(LONGEST))
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("omi-edge", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what is left of both streams at the end; TimeoutExpired kills it, unlike Popen's."""
        late = threading.Timer(timeout or 1e6, self.kill)
        late.start()
        began = time.monotonic()
        errors: list[str] = []
        reading = threading.Thread(target=lambda: errors.append(self.stderr.read() if self.stderr else ""))
        reading.start()
        out = self.stdout.read()
        reading.join()
        self._close_streams()
        self.wait()
        late.cancel()
        late.join()
        if timeout is not None and time.monotonic() - began >= timeout:
            raise subprocess.TimeoutExpired("omi-edge", timeout, out, "".join(errors))
        return out, "".join(errors)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = int(self._line.recv(LONGEST))
            except (TimeoutError, BlockingIOError):
                return None
            self._line.close()
        return self.returncode

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_streams()
        self.wait()

    def _close_streams(self) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


class Forker:
    """This side of the process that forks; it ends with this one."""

    def __init__(self) -> None:
        self._asking, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            code = f"from tests.cli.forking import main; main({served.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], cwd=Path(__file__).parents[2], pass_fds=[served.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        atexit.register(self.close)

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stderr: IO[str] | int
    ) -> Forked:
        """Start ``omi-edge ARGUMENTS``; ``stderr`` is a file, its descriptor or ``subprocess.PIPE``."""
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out, out_end = os.pipe()
        given = stderr if isinstance(stderr, int) else stderr.fileno()
        err, err_end = os.pipe() if given == subprocess.PIPE else (None, os.dup(given))
        call = Call(list(arguments), str(folder), dict(environment))
        with theirs:
            socket.send_fds(self._asking, [json.dumps(call).encode()], [theirs.fileno(), out_end, err_end])
        os.close(out_end)
        os.close(err_end)
        streams = os.fdopen(out, encoding="utf-8"), None if err is None else os.fdopen(err, encoding="utf-8")
        return Forked(line, *streams)

    def close(self) -> None:
        """End it."""
        self._asking.close()
        self._process.wait()


@functools.cache
def forker() -> Forker:
    """The one of this process."""
    return Forker()


def main(descriptor: int) -> None:
    """Load, fork a process for each call that comes, and tell how it ended; each of these processes runs the verb."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=descriptor) as asked:
        call = _serve(asked)
    if call is not None:
        sys.argv[1:] = call.arguments
        importlib.import_module(PRELOADED[0]).main()


def _serve(asked: socket.socket) -> Call | None:
    """Return None when nobody asks any more, and a call in the process that was forked for it."""
    lines: dict[int, socket.socket] = {}
    ended, wake = socket.socketpair()
    ended.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([asked, ended], [], [])
        if ended in ready:
            ended.recv(LONGEST)
            _tell_ended(lines)
        if asked not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(asked, LONGEST, 3)
        if not message:
            return None
        call = Call(*json.loads(message))
        pid = os.fork()
        if pid == 0:
            _become(call, *descriptors)
            for ours in (*lines.values(), ended, wake):
                ours.close()
            return call
        line = lines[pid] = socket.socket(fileno=descriptors[0])
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        line.send(str(pid).encode())


def _tell_ended(lines: dict[int, socket.socket]) -> None:
    """Say of each process that has ended how it did."""
    while lines:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with lines.pop(pid) as line, contextlib.suppress(BrokenPipeError):
            line.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(call: Call, line: int, out: int, err: int) -> None:
    """Take on what was asked for, with no terminal anywhere near: not as standard input, and none to open."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.chdir(call.folder)
    os.environ.clear()
    os.environ.update(call.environment)
    time.tzset()
    os.close(line)
    for descriptor, standard in ((out, 1), (err, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
