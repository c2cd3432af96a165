"""One configuration of a recogniser, tried on recordings: what it hears, how fast it is and what memory it needs."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from omi_edge.capture.replay import Recording
from omi_edge.clock import Clock
from omi_edge.config import PREFIX, Config, load
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import NO_HINTS, EngineProcess, EngineSpec, Recognition
from omi_edge.errors import AudioError, EngineError, EnginePermanent, UsageError
from omi_edge.evaluation.references import Reference
from omi_edge.evaluation.scoring import Piece, score
from omi_edge.listen.gate import Closed, SpeechGate
from omi_edge.listen.vad import SileroVad
from omi_edge.pipeline.engines import RECOGNIZERS
from omi_edge.pipeline.recognizer import BUILT_IN, WYOMING, RecognizerChoice

OPTIONS = {
    "beam": "listen.beam",
    "compute_type": "listen.compute_type",
    "language": "listen.language",
    "threads": "engine.threads",
}
"""What may follow a recogniser's name, and the setting that it stands for."""
USAGE = EngineSpec("omi_edge.worker:Usage")

Advance = Callable[[float], None]
"""Told how many seconds of audio were just worked on."""


class Sample(msgspec.Struct, frozen=True):
    """A recording cut into speech, and what was said in it."""

    path: Path
    reference: Reference
    seconds: float
    segments: tuple[tuple[float, bytes], ...]
    """Where each begins, in seconds, and its samples: s16le mono 16 kHz."""


class Trial(msgspec.Struct, frozen=True):
    """What came of one configuration."""

    label: str
    engine: str
    """As every result names it: engine, version, model, revision."""
    pieces: tuple[tuple[Piece, ...], ...]
    """Of each sample."""
    audio_seconds: float
    work_seconds: float
    """In recognition, without loading."""
    load_seconds: float
    memory_bytes: int
    """The most that the engine's process held at once."""
    rejected_words: int
    """Words that were not believed."""

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of recording, silence included, as the daemon works too."""
        return self.work_seconds / self.audio_seconds


class Configuration(msgspec.Struct, frozen=True):
    """A recogniser with its settings, as ``NAME,key=value,…`` names it."""

    label: str
    spec: EngineSpec
    config: Config


def configuration(
    text: str, config_file: Path | None, models: Path, clock: Clock, environment: Mapping[str, str] = os.environ
) -> Configuration:
    """Read ``NAME,key=value,…``: a recogniser or a model of speech, with OPTIONS over the settings in force.

    Raises UsageError for a key that is none, ConfigError for a value out of range, BadInput for an unknown name and
    ModelMissing for a model that is not here.
    """
    name, *settings = (part.strip() for part in text.split(","))
    if name == WYOMING:
        raise UsageError("a Wyoming server computes elsewhere; evaluate the models of this machine.")
    over = {}
    for setting in settings:
        key, mark, value = setting.partition("=")
        if key not in OPTIONS or not mark:
            near = difflib.get_close_matches(key, OPTIONS, 1)
            hint = f"did you mean {near[0]}=…?" if near else f"there are {', '.join(OPTIONS)}."
            raise UsageError(f"{text[:80]!r}: {setting[:40]!r} is no setting of a recogniser; {hint}")
        over[PREFIX + OPTIONS[key].upper().replace(".", "_")] = value
    config = load(config_file, {**environment, **over})
    known = RECOGNIZERS[BUILT_IN]
    choice = RecognizerChoice(known, known, _built_in(config), models, clock)
    return Configuration(text, choice.named(name, RECOGNIZERS), config)


def _built_in(config: Config) -> Config:
    return msgspec.structs.replace(config, listen=msgspec.structs.replace(config.listen, recognizer=BUILT_IN))


def cut(path: Path, reference: Reference, config: Config) -> Sample:
    """Decode a recording and cut it as the daemon does. Works for a while; holds all of it.

    Raises AudioError, also for one that is damaged: its reference is of the whole.
    """
    gate = SpeechGate(SileroVad(), open=config.listen.vad_open, close=config.listen.vad_close)
    blocks, closed = [], []
    recording = Recording(path)
    for block in recording:
        blocks.append(block)
        closed += [event for event in gate.accept(block) if isinstance(event, Closed)]
    if recording.damage is not None:
        raise AudioError(f"{path.name}: {recording.damage} Only a whole recording can be held against its reference.")
    closed += [event for event in gate.finish() if isinstance(event, Closed)]
    sound = np.concatenate(blocks)
    segments = tuple((event.start / SAMPLE_RATE, sound[event.start : event.end].tobytes()) for event in closed)
    return Sample(path, reference, len(sound) / SAMPLE_RATE, segments)


async def run(one: Configuration, samples: Sequence[Sample], clock: Clock, advance: Advance) -> Trial:
    """Recognise all samples in a fresh engine process. Raises EnginePermanent when it cannot."""
    try:
        return await _run(one, samples, clock, advance)
    except EngineError as error:
        raise EnginePermanent(
            f"{one.label} cannot be tried: {str(error).rstrip('.')}. Nothing was changed. Look at its settings, at the "
            "free memory and, with `omi-edge models verify`, at its files; a revision that cannot be loaded is of no "
            "use, `omi-edge models rollback NAME` gives back the one before."
        ) from error


async def _run(one: Configuration, samples: Sequence[Sample], clock: Clock, advance: Advance) -> Trial:
    settings = one.config.engine
    process = EngineProcess("evaluation", clock, idle=86_400, call_limit=settings.call_limit, threads=settings.threads)
    try:
        async with process.session() as call:
            await call(one.spec, "start", NO_HINTS, returns=type(None))  # loads
            load_seconds = call.seconds
            pieces, engine, rejected = [], "", 0
            for sample in samples:
                heard: list[str] = []
                done = 0.0
                for start, pcm in sample.segments:
                    await call(one.spec, "start", NO_HINTS, returns=type(None))
                    await call(one.spec, "accept", pcm, returns=str)
                    recognition = await call(one.spec, "finish", returns=Recognition)
                    engine = recognition.engine
                    rejected += sum(part.words for part in recognition.rejected)
                    heard += _judged(recognition, start, sample.reference)
                    reached = start + len(pcm) / 2 / SAMPLE_RATE
                    advance(reached - done)
                    done = reached
                advance(sample.seconds - done)
                pieces.append(await asyncio.to_thread(score, sample.reference.cues, " ".join(heard)))
            work_seconds = call.seconds - load_seconds
            memory = await call(USAGE, "peak_memory", returns=int)
    finally:
        await process.close()
    audio = sum(sample.seconds for sample in samples)
    return Trial(one.label, engine, tuple(pieces), audio, work_seconds, load_seconds, memory, rejected)


def _judged(recognition: Recognition, start: float, reference: Reference) -> Iterator[str]:
    """Yield the words that are not in a stretch that is left out."""
    for word in recognition.words:
        middle = start + (word.start_ms + word.end_ms) / 2000
        if not any(low <= middle < high for low, high in reference.left_out):
            yield word.text
