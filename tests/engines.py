"""A small engine for tests of the engine host; it runs in a real worker process."""

from __future__ import annotations

import os
import socket
import threading

from omi_edge.errors import EnginePermanent, EngineTransient


class Parrot:
    """Does what it is told."""

    def __init__(self, greeting: str = "") -> None:
        self._greeting = greeting
        self._calls = 0

    def say(self, text: str) -> str:
        self._calls += 1
        return f"{self._greeting}{text}"

    def calls(self) -> int:
        return self._calls

    def pid(self) -> int:
        return os.getpid()

    def size(self, pcm: bytes) -> int:
        return len(pcm)

    def print_out(self, text: str) -> str:
        os.write(1, text.encode())  # as a C library prints
        print(text)
        return text

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def die(self) -> None:
        os._exit(3)

    def hang(self) -> None:
        threading.Event().wait()

    def refuse(self) -> None:
        raise EnginePermanent("content that must not leave")

    def stumble(self) -> None:
        raise EngineTransient("content that must not leave")

    def run_out(self) -> None:
        raise MemoryError

    def connect(self, family: int) -> str:
        try:
            socket.socket(family, socket.SOCK_STREAM).close()
        except OSError as error:
            return type(error).__name__
        return "made"
