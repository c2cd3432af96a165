"""Which engine does which stage: the one place where concrete engines are chosen, and how fast each tier is."""

from __future__ import annotations

import asyncio
import difflib
import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from omi_edge.clock import Clock, held
from omi_edge.config import Config
from omi_edge.domain import SAMPLE_RATE, Turn, Understanding
from omi_edge.engine import Dialogue, Embedder, EngineProcess, EngineSpec, Recognition
from omi_edge.errors import ConfigError

RECOGNIZERS = {"pocketsphinx": EngineSpec("omi_edge.listen.transcribe:PocketSphinxRecognizer")}
DIARIZERS = {"builtin": EngineSpec("omi_edge.listen.diarize:BuiltinDiarizer")}
EXTRACTORS = {"builtin": EngineSpec("omi_edge.memory.extract:RulesExtractor")}
EMBEDDERS = {"builtin": "omi_edge.memory.embed:HashedNgrams"}

ENOUGH_SECONDS = 30.0
"""Audio that a tier must have worked on before its speed is judged."""

PartialHeard = Callable[[str], None]
T = TypeVar("T")


class Engines(Protocol):
    """What the pipeline asks of engines; tests pass scripted ones."""

    async def recognize(self, pcm: bytes) -> Recognition:
        """Recognise one whole segment."""

    async def recognize_live(self, blocks: AsyncIterator[bytes], partial: PartialHeard) -> Recognition:
        """Recognise one segment while it is being spoken."""

    async def diarize(self, segments: AsyncIterator[tuple[int, bytes]]) -> list[Turn]:
        """Say who spoke when, from (start in UTC µs, PCM) of each segment in order."""

    async def extract(self, dialogue: Dialogue) -> Understanding:
        """Understand one conversation."""

    async def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimensions)."""

    @property
    def embedder_name(self) -> str:
        """Name and revision of the embedding model."""

    @property
    def diarizer_name(self) -> str:
        """Name of the diarizer."""


class Tier:
    """How fast one kind of work is, over its last uses."""

    def __init__(self, name: str, engine: str) -> None:
        self.name = name
        self.engine = engine
        self._audio_seconds = 0.0
        self._work_seconds = 0.0

    def note(self, audio_seconds: float, work_seconds: float) -> None:
        """Count one piece of work; older ones fade."""
        self._audio_seconds = self._audio_seconds * 0.95 + audio_seconds
        self._work_seconds = self._work_seconds * 0.95 + work_seconds

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work for a second of audio; None before there was enough."""
        if self._audio_seconds < ENOUGH_SECONDS:
            return None
        return self._work_seconds / self._audio_seconds


class ChosenEngines:
    """The engines that the configuration names, in two processes: live, and batch."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._clock = clock
        self._recognizer = _choose(RECOGNIZERS, config.listen.recognizer, "listen.recognizer")
        self._diarizer = _choose(DIARIZERS, config.listen.diarizer, "listen.diarizer")
        self._extractor = _choose(EXTRACTORS, config.memory.extractor, "memory.extractor")
        self._embedder_factory = _choose(EMBEDDERS, config.memory.embedder, "memory.embedder")
        self._embedder: Embedder | None = None
        settings = config.engine
        self.live = EngineProcess(
            "live", clock, idle=settings.idle, call_limit=settings.call_limit, threads=settings.threads
        )
        self.batch = EngineProcess(
            "batch", clock, idle=settings.idle, call_limit=settings.call_limit, threads=settings.threads
        )
        self.tiers = {
            name: Tier(name, engine)
            for name, engine in (
                ("live recogniser", config.listen.recognizer),
                ("batch recogniser", config.listen.recognizer),
                ("diarizer", config.listen.diarizer),
            )
        }
        self.diarizer_name = config.listen.diarizer

    @property
    def processes(self) -> tuple[EngineProcess, EngineProcess]:
        """Both processes, for status."""
        return self.live, self.batch

    async def recognize(self, pcm: bytes) -> Recognition:
        """See Engines."""
        async with self.batch.session() as call:
            await call(self._recognizer, "start", returns=type(None))
            await call(self._recognizer, "accept", pcm, returns=str)
            recognition = await call(self._recognizer, "finish", returns=Recognition)
            self.tiers["batch recogniser"].note(_seconds(pcm), call.seconds)
        return recognition

    async def recognize_live(self, blocks: AsyncIterator[bytes], partial: PartialHeard) -> Recognition:
        """See Engines."""
        heard_seconds = 0.0
        async with self.live.session() as call:
            await call(self._recognizer, "start", returns=type(None))
            async for pcm in blocks:
                heard_seconds += _seconds(pcm)
                partial(await call(self._recognizer, "accept", pcm, returns=str))
            recognition = await call(self._recognizer, "finish", returns=Recognition)
            self.tiers["live recogniser"].note(heard_seconds, call.seconds)
        return recognition

    async def diarize(self, segments: AsyncIterator[tuple[int, bytes]]) -> list[Turn]:
        """See Engines."""
        heard_seconds = 0.0
        async with self.batch.session() as call:
            await call(self._diarizer, "start", returns=type(None))
            async for start_us, pcm in segments:
                heard_seconds += _seconds(pcm)
                await call(self._diarizer, "add", start_us, pcm, returns=type(None))
            turns = await call(self._diarizer, "finish", returns=list[Turn])
            self.tiers["diarizer"].note(heard_seconds, call.seconds)
        return turns

    async def extract(self, dialogue: Dialogue) -> Understanding:
        """See Engines."""
        async with self.batch.session() as call:
            return await call(self._extractor, "extract", dialogue, returns=Understanding)

    async def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """See Engines. The built-in embedder is a few microseconds a text: a thread will do."""
        with held(self._clock):
            return await asyncio.to_thread(self._loaded_embedder().embed, texts)

    @property
    def embedder_name(self) -> str:
        """See Engines."""
        return self._loaded_embedder().name

    async def close(self) -> None:
        """End both processes."""
        await self.live.close()
        await self.batch.close()

    def _loaded_embedder(self) -> Embedder:
        if self._embedder is None:
            module, _, name = self._embedder_factory.partition(":")
            embedder: Embedder = getattr(importlib.import_module(module), name)()
            self._embedder = embedder
        return self._embedder


def _choose(table: Mapping[str, T], name: str, key: str) -> T:
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(table))}."
        raise ConfigError(f"{key}: there is no engine {name!r}; {hint}")
    return table[name]


def _seconds(pcm: bytes) -> float:
    return len(pcm) / 2 / SAMPLE_RATE
