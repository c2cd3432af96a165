"""The engine process: loads engines by name, answers calls on its pipes, can open no network connection.

Started by ``engine.EngineProcess``; it holds no key, gets no environment worth having, and is the first to go when
memory is short.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import typing
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from omi_edge.engine import FRAME_LIMIT, HEADER, Answer, Call, EngineSpec
from omi_edge.errors import EnginePermanent
from omi_edge.sandbox import die_with_parent, refuse_network


class Usage:
    """What this process takes; asked as an engine is."""

    def peak_memory(self) -> int:
        """Return the most resident memory so far, in bytes."""
        with contextlib.suppress(OSError):  # Linux; getrusage there counts the parent's too (getrusage(2), ru_maxrss)
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


NOTHING = msgspec.Raw(msgspec.msgpack.encode(None))


def main() -> None:
    """Serve until standard input ends."""
    die_with_parent()
    refuse_network()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the pipe
    engines: dict[bytes, object] = {}
    while call := _read(calls):
        message = msgspec.msgpack.encode(_answer(call, engines))
        answers.write(HEADER.pack(len(message)) + message)
        answers.flush()


def _read(calls: BinaryIO) -> Call | None:
    header = calls.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    size = HEADER.unpack(header)[0]
    if size > FRAME_LIMIT:
        return None
    return msgspec.msgpack.decode(calls.read(size), type=Call)


def _answer(call: Call, engines: dict[bytes, object]) -> Answer:
    try:
        key = msgspec.msgpack.encode(call.engine)
        if key not in engines:
            engines[key] = _load(call.engine)
        result = _call(engines[key], call)
        return Answer(msgspec.Raw(msgspec.msgpack.encode(result)))
    except MemoryError:
        os._exit(1)  # a fresh process is the only safe way on
    except (EnginePermanent, ImportError, AttributeError, TypeError, ValueError) as error:
        return Answer(NOTHING, type(error).__name__, permanent=True)
    except Exception as error:  # noqa: BLE001 any library may raise anything: the host decides, content stays here
        return Answer(NOTHING, type(error).__name__)


def _load(spec: EngineSpec) -> object:
    module, _, name = spec.factory.partition(":")
    return getattr(importlib.import_module(module), name)(**spec.options)


def _call(engine: object, call: Call) -> Any:
    method = getattr(engine, call.method)
    hints = typing.get_type_hints(method)
    hints.pop("return", None)
    arguments = msgspec.msgpack.decode(call.arguments, type=tuple[*hints.values()])  # type: ignore[misc]
    return method(*arguments)


if __name__ == "__main__":
    main()
