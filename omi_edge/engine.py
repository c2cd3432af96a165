"""Engines: what a model must be able to do, and the process that does it away from the key and the network.

An engine is a class named by an ``EngineSpec``. The host starts ``python -m omi_edge.worker``, which loads it and
answers calls over a pipe. One call at a time; a call that crashes, hangs or outgrows its limit ends the process, raises
EngineTransient, and the next call starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.clock import Clock, Timer, held
from omi_edge.domain import Turn, Understanding, Utterance
from omi_edge.errors import EnginePermanent, EngineTransient

log = logging.getLogger(__name__)

HEADER = struct.Struct("<I")
FRAME_LIMIT = 64 * 1024 * 1024
"""Largest message between host and worker in bytes; ten minutes of PCM are 19 MB."""


class HeardWord(msgspec.Struct, frozen=True, array_like=True):
    """One word as a recogniser gives it; times in milliseconds from the first sample it was given."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float


class Rejected(msgspec.Struct, frozen=True, array_like=True):
    """Words that a recogniser wrote and that were not believed: where, why and how many; never which."""

    start_ms: int
    end_ms: int
    reason: str
    words: int = 0


class Recognition(msgspec.Struct, frozen=True):
    """What a recogniser made of one segment."""

    words: tuple[HeardWord, ...]
    engine: str
    """Name and model revision, for the record of every result."""
    language: str = "en"
    rejected: tuple[Rejected, ...] = ()


class Hints(msgspec.Struct, frozen=True):
    """What is known before a segment is heard; it may differ from one segment to the next."""

    words: tuple[str, ...] = ()
    """Names and terms that may be said, those that matter most first. A recogniser that cannot use them does not."""
    language: str = ""
    """ISO 639-1 code of what is spoken, "" for the recogniser's own rule; so is one that it does not know."""


NO_HINTS = Hints()


class Recognizer(Protocol):
    """ASR of one segment in one pass: start, accept any number of blocks, finish.

    The same samples with the same hints give the same words, however they are cut into blocks.
    """

    def start(self, hints: Hints = NO_HINTS) -> None:
        """Begin a segment, forgetting everything of the one before."""

    def accept(self, pcm: bytes) -> str:
        """Take s16le mono 16 kHz samples; return the partial text so far."""

    def finish(self) -> Recognition:
        """End the segment."""


class Diarizer(Protocol):
    """Who speaks when, over one conversation, fed segment by segment in order of time."""

    def start(self) -> None:
        """Begin a conversation."""

    def add(self, start_us: int, pcm: bytes) -> None:
        """Take one speech segment, s16le mono 16 kHz, beginning at UTC ``start_us``."""

    def finish(self) -> list[Turn]:
        """Return turns in order of time, labels SPEAKER_NN by first appearance; None where uncertain."""


class Dialogue(msgspec.Struct, frozen=True):
    """What an extractor is given."""

    utterances: tuple[Utterance, ...]
    time_zone: str
    wearer_name: str
    people: dict[str, str]
    """Known names by speaker label or person id."""
    trigger_phrases: tuple[str, ...]


class Extractor(Protocol):
    """Title, overview, tasks and memories of one conversation; each with evidence."""

    def extract(self, dialogue: Dialogue) -> Understanding:
        """Return what can be supported by the utterances, and nothing else."""


class Embedder(Protocol):
    """Vectors of texts."""

    name: str
    """Name and revision; vectors of different names are never compared."""
    dimensions: int

    def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimensions)."""


class EngineSpec(msgspec.Struct, frozen=True):
    """Which class to load in a worker, and how."""

    factory: str
    """``package.module:Class``"""
    options: dict[str, Any] = {}


class Call(msgspec.Struct, frozen=True, array_like=True):
    """Host to worker."""

    engine: EngineSpec
    method: str
    arguments: msgspec.Raw
    """A msgpack array, decoded by the method's own annotations."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Worker to host."""

    result: msgspec.Raw
    error: str = ""
    """Class name of an exception; its text may quote content and stays in the worker."""
    permanent: bool = False


T = TypeVar("T")


class EngineProcess:
    """One worker process: started by the first call, ended when idle, replaced when it fails.

    ``call_limit`` and ``idle`` are seconds. The child gets no key, no environment beyond what Python needs, and on
    Linux no sockets but AF_UNIX.
    """

    def __init__(self, name: str, clock: Clock, *, idle: float, call_limit: float, threads: int = 2) -> None:
        self.name = name
        self._clock = clock
        self._idle_seconds = idle
        self._call_limit = call_limit
        self._threads = threads
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._session_lock = asyncio.Lock()
        self._idle_timer: Timer | None = None
        self.starts = 0
        self.failures = 0
        self.busy_us = 0
        """Machine time spent in calls."""

    @property
    def pid(self) -> int | None:
        """Process id while the worker lives."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def state(self) -> str:
        """``unloaded``, ``idle`` or ``busy``."""
        if self.pid is None:
            return "unloaded"
        return "busy" if self._lock.locked() else "idle"

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Have the process for several calls in a row that build on one another.

        The calls raise EngineTransient when the process was replaced in between, since what it knew is gone.
        """
        async with self._session_lock:
            yield Session(self)

    async def call(self, spec: EngineSpec, method: str, *arguments: object, returns: type[T]) -> T:
        """Run one method and return its result.

        Raises EngineTransient when the process died, hung or ran out of memory, EnginePermanent when the engine
        itself refused.
        """
        async with self._lock:
            self._stop_idle_timer()
            began_us = self._clock.work_us()
            try:
                with held(self._clock):
                    answer = await self._exchange(Call(spec, method, msgspec.Raw(msgspec.msgpack.encode(arguments))))
            finally:
                self.busy_us += self._clock.work_us() - began_us
                if self.pid is not None:
                    self._idle_timer = self._clock.call_later(self._idle_seconds, self._end_when_idle)
        if answer.error:
            kind = EnginePermanent if answer.permanent else EngineTransient
            raise kind(f"engine {self.name} could not run {method}: {answer.error}.")
        return msgspec.msgpack.decode(answer.result, type=returns)

    async def close(self) -> None:
        """End the process and wait for it."""
        self._stop_idle_timer()
        await self._end()

    async def _exchange(self, call: Call) -> Answer:
        try:
            async with self._clock.time_limit(self._call_limit):
                process = await self._running()
                assert process.stdin is not None
                assert process.stdout is not None
                message = msgspec.msgpack.encode(call)
                process.stdin.write(HEADER.pack(len(message)) + message)
                await process.stdin.drain()
                size = HEADER.unpack(await process.stdout.readexactly(HEADER.size))[0]
                if size > FRAME_LIMIT:
                    raise EngineTransient(f"engine {self.name} sent nonsense and is restarted.")
                return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=Answer)
        except TimeoutError as error:
            self.failures += 1
            await self._end()
            raise EngineTransient(
                f"engine {self.name} did not answer in {self._call_limit:.0f} s; it is restarted."
            ) from error
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError, EngineTransient) as error:
            self.failures += 1
            await self._end()
            raise EngineTransient(f"engine {self.name} ended in the middle of a call and is restarted.") from error
        except asyncio.CancelledError:
            await self._end()  # the answer on its way would be taken for the next call's
            raise

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self.starts += 1
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "omi_edge.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # recognisers print what they heard
            env=_worker_environment(self._threads),
            start_new_session=True,  # Ctrl-C is for the daemon, which then ends its engines in order
        )
        log.info("engine started", extra={"engine": self.name, "pid": self._process.pid})
        return self._process

    def _end_when_idle(self) -> None:
        if self._session_lock.locked():  # somebody thinks between two calls: look again later
            self._idle_timer = self._clock.call_later(self._idle_seconds, self._end_when_idle)
        elif not self._lock.locked() and self.pid is not None:
            log.info("engine unloaded", extra={"engine": self.name, "pid": self.pid})
            self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)  # it keeps nothing that could be lost
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        await process.wait()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None


class Session:
    """Calls to one and the same life of an engine process."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._life: int | None = None
        self._began_us = process.busy_us

    @property
    def seconds(self) -> float:
        """Machine time that the calls of this session took."""
        return (self._process.busy_us - self._began_us) / 1e6

    async def __call__(self, spec: EngineSpec, method: str, *arguments: object, returns: type[T]) -> T:
        """See EngineProcess.call."""
        if self._life is not None and (self._process.pid is None or self._process.starts != self._life):
            raise EngineTransient(f"engine {self._process.name} ended between two calls and is restarted.")
        result = await self._process.call(spec, method, *arguments, returns=returns)
        if self._life is None:
            self._life = self._process.starts
        elif self._process.starts != self._life:
            raise EngineTransient(f"engine {self._process.name} ended between two calls and is restarted.")
        return result


def _worker_environment(threads: int) -> dict[str, str]:
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "PYANNOTE_METRICS_ENABLED": "0",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "PYTHONWARNINGS": "ignore",
    }
    return environment
