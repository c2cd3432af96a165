"""Which engine does which stage: the one place where concrete engines are chosen, and how fast each tier is."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.capture.uploaded import Step
from omi_edge.clock import Clock, held
from omi_edge.config import Config
from omi_edge.domain import SAMPLE_RATE, Turn, Understanding
from omi_edge.engine import NO_HINTS, Dialogue, Embedder, EngineProcess, EngineSpec, Hints, Recognition, Session
from omi_edge.errors import AudioError, ConfigError, EngineError, OmiEdgeError
from omi_edge.listen.wyoming import Conversation, WyomingRecognizer
from omi_edge.pipeline.recognizer import BUILT_IN, WHISPER, WYOMING, Chosen, RecognizerChoice, SpeechModel

RECOGNIZERS = {
    BUILT_IN: EngineSpec("omi_edge.listen.transcribe:PocketSphinxRecognizer"),
    WHISPER: EngineSpec("omi_edge.listen.whisper:WhisperRecognizer"),
    WYOMING: EngineSpec("omi_edge.listen.wyoming:WyomingRecognizer"),
}
DIARIZERS = {"builtin": EngineSpec("omi_edge.listen.diarize:BuiltinDiarizer")}
EXTRACTORS = {"builtin": EngineSpec("omi_edge.memory.extract:RulesExtractor")}
EMBEDDERS = {"builtin": "omi_edge.memory.embed:HashedNgrams"}

LIVE, BATCH, FINAL = "live recogniser", "batch recogniser", "final recogniser"
"""The tiers of speech recognition."""
ENOUGH_SECONDS = 30.0
"""Audio that a tier must have worked on before its speed is judged."""

DECODER = EngineSpec("omi_edge.capture.uploaded:UploadDecoder")

PartialHeard = Callable[[str], None]
ReadBytes = Callable[[int, int], Awaitable[bytes]]
"""Takes an offset and how many bytes are wanted from there."""
T = TypeVar("T")


class Engines(Protocol):
    """What the pipeline asks of engines; tests pass scripted ones."""

    async def recognize(self, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        """Recognise one whole segment."""

    async def recognize_with(self, name: str, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        """Recognise one whole segment with the recogniser ``name``, be it the configured one or another."""

    async def recognize_final(self, name: str, pieces: Sequence[tuple[bytes, Hints]]) -> list[Recognition]:
        """Recognise whole segments of one conversation with the recogniser ``name``, for the final pass.

        Raises ModelError when its files are not what they should be.
        """

    async def check_final(self) -> str:
        """Look whether the final recogniser can be used; return what is in the way and how to mend it, or ""."""

    async def recognize_live(
        self, blocks: AsyncIterator[bytes], partial: PartialHeard, hints: Hints = NO_HINTS
    ) -> Recognition:
        """Recognise one segment while it is being spoken."""

    def decode(self, size: int, read: ReadBytes) -> AsyncGenerator[bytes, None]:
        """Yield the PCM of an audio file of ``size`` bytes. Raises AudioError unless it can be read to its end."""

    async def diarize(self, segments: AsyncIterator[tuple[int, bytes]]) -> list[Turn]:
        """Say who spoke when, from (start in UTC µs, PCM) of each segment in order."""

    async def extract(self, dialogue: Dialogue) -> Understanding:
        """Understand one conversation."""

    async def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimensions)."""

    async def check(self) -> str:
        """Look whether the chosen models can be used; return what is in the way and how to mend it, "" for nothing."""

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
        self.trouble = ""
        """Why it is another engine than the chosen one, and how to mend that."""
        self._audio_seconds = 0.0
        self._work_seconds = 0.0

    def use(self, engine: str, trouble: str = "") -> None:
        """Take another engine; what was measured of the one before says nothing of it."""
        if engine != self.engine:
            self._audio_seconds = self._work_seconds = 0.0
        self.engine, self.trouble = engine, trouble

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
    """The engines that the configuration names, in processes of their own: live, batch, and final where there is one.

    ``models`` is the models folder.

    A recogniser whose model cannot be used gives way to the built-in one, which says so in its name.
    """

    def __init__(self, config: Config, clock: Clock, models: Path) -> None:
        self._clock = clock
        wanted = _choose(RECOGNIZERS, config.listen.recognizer, "listen.recognizer")
        self._recognizer = RecognizerChoice(wanted, RECOGNIZERS[BUILT_IN], config, models, clock)
        self._remote = WyomingRecognizer(config.wyoming, config.listen.language, clock) if config.wyoming.uri else None
        """It needs the network, so no engine process could run it."""
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
        self._decoder = EngineProcess(
            "decoder", clock, idle=settings.idle, call_limit=settings.call_limit, threads=settings.threads
        )
        self._final = config.listen.final
        if self._final:
            self._recognizer.check_final(self._final, RECOGNIZERS)
        self.final = EngineProcess(
            "final", clock, idle=settings.idle, call_limit=settings.call_limit, threads=settings.threads
        )
        self.tiers = {
            name: Tier(name, engine)
            for name, engine in (
                (LIVE, self._recognizer.name),
                (BATCH, self._recognizer.name),
                ("diarizer", config.listen.diarizer),
            )
        }
        self.diarizer_name = config.listen.diarizer

    @property
    def speech_model(self) -> SpeechModel:
        """What hears now, as others are told."""
        return self._recognizer.speech_model

    @property
    def processes(self) -> tuple[EngineProcess, ...]:
        """All that there may be, for status."""
        return (self.live, self.batch, self.final) if self._final else (self.live, self.batch)

    async def recognize(self, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        """See Engines."""
        chosen = await self._chosen(live=False)
        try:
            return await self._recognize(chosen, pcm, hints)
        except EngineError as error:
            if not self._recognizer.gave_way(chosen, error):
                raise
        return await self._recognize(await self._chosen(live=False), pcm, hints)

    async def recognize_with(self, name: str, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        """See Engines."""
        spec = self._recognizer.named(name, RECOGNIZERS)
        async with self._session(spec, self.batch) as call:
            await call(spec, "start", hints, returns=type(None))
            await call(spec, "accept", pcm, returns=str)
            return await call(spec, "finish", returns=Recognition)

    async def recognize_final(self, name: str, pieces: Sequence[tuple[bytes, Hints]]) -> list[Recognition]:
        """See Engines. Several with the same hints are given to Whisper in one call."""
        with held(self._clock):
            spec = await asyncio.to_thread(self._recognizer.checked, name, RECOGNIZERS)
        found: list[Recognition] = []
        async with self._session(spec, self.final) as call:
            for hints, group in itertools.groupby(pieces, lambda piece: piece[1]):
                sounds = [pcm for pcm, _ in group]
                if len(sounds) > 1 and spec.factory == RECOGNIZERS[WHISPER].factory:
                    found += await call(spec, "recognize_many", sounds, hints, returns=list[Recognition])
                    continue
                for pcm in sounds:
                    await call(spec, "start", hints, returns=type(None))
                    await call(spec, "accept", pcm, returns=str)
                    found.append(await call(spec, "finish", returns=Recognition))
        return found

    async def check_final(self) -> str:
        """See Engines."""
        if not self._final:
            return ""
        try:
            with held(self._clock):
                await asyncio.to_thread(self._recognizer.checked, self._final, RECOGNIZERS)
        except OmiEdgeError as error:
            return str(error)
        return ""

    def check_recognizer(self, name: str) -> None:
        """Raise BadInput for a recogniser that does not exist, ModelError for one whose files are not here."""
        self._recognizer.named(name, RECOGNIZERS)

    async def _recognize(self, chosen: Chosen, pcm: bytes, hints: Hints) -> Recognition:
        async with self._session(chosen.spec, self.batch) as call:
            await call(chosen.spec, "start", hints, returns=type(None))
            await call(chosen.spec, "accept", pcm, returns=str)
            return await self._finish(call, chosen, self.tiers[BATCH], _seconds(pcm))

    async def recognize_live(
        self, blocks: AsyncIterator[bytes], partial: PartialHeard, hints: Hints = NO_HINTS
    ) -> Recognition:
        """See Engines. What fails here is heard again by ``recognize``, which falls back."""
        heard_seconds = 0.0
        chosen = await self._chosen(live=True)
        try:
            async with self._session(chosen.spec, self.live) as call:
                await call(chosen.spec, "start", hints, returns=type(None))
                async for pcm in blocks:
                    heard_seconds += _seconds(pcm)
                    partial(await call(chosen.spec, "accept", pcm, returns=str))
                return await self._finish(call, chosen, self.tiers[LIVE], heard_seconds)
        except EngineError as error:
            self._recognizer.gave_way(chosen, error)
            raise

    def _session(
        self, spec: EngineSpec, process: EngineProcess
    ) -> contextlib.AbstractAsyncContextManager[Session | Conversation]:
        if spec.factory == RECOGNIZERS[WYOMING].factory and self._remote is not None:
            return self._remote.session()
        return process.session()

    async def _finish(
        self, call: Session | Conversation, chosen: Chosen, tier: Tier, audio_seconds: float
    ) -> Recognition:
        recognition = await call(chosen.spec, "finish", returns=Recognition)
        self._recognizer.worked(chosen)
        self._show()
        tier.note(audio_seconds, call.seconds)
        if chosen.instead_of:
            name = f"{recognition.engine} (instead of {chosen.instead_of})"
            return msgspec.structs.replace(recognition, engine=name)
        return recognition

    async def _chosen(self, *, live: bool) -> Chosen:
        chosen = await self._recognizer.now(live=live)
        self._show()
        return chosen

    async def check(self) -> str:
        """See Engines."""
        await self._recognizer.check()
        return self._show()

    def _show(self) -> str:
        trouble = self._recognizer.trouble
        sentence = "" if trouble is None else trouble.sentence
        for name in (LIVE, BATCH):
            self.tiers[name].use(self._recognizer.engine, sentence)
        return sentence

    async def decode(self, size: int, read: ReadBytes) -> AsyncGenerator[bytes, None]:
        """See Engines. In a process of its own: no recogniser waits for a long file, or falls with a hostile one."""
        async with self._decoder.session() as call:
            step = await call(DECODER, "start", size, returns=Step)
            while not step.ended:
                if step.pcm:
                    yield step.pcm
                given = await read(step.offset, step.size) if step.size else b""
                step = await call(DECODER, "go_on", given, returns=Step)
        if step.problem:
            raise AudioError(step.problem)

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
        """End all processes."""
        for process in (self.live, self.batch, self.final, self._decoder):
            await process.close()

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
