"""What transcription through the daemon costs and changes against its engine alone: a part of scripts/bench.

The shipped recording is imported into a real daemon with a real vault; afterwards the same engine hears the same
segments, from the vault, with nothing around it. Text must be the same, word for word, and so must times and
confidences; the daemon may take little longer than its engine.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.clock import SystemClock
from omi_edge.config import Config, ConversationConfig, LogConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE, SpeechSegment, Word
from omi_edge.engine import NO_HINTS, EngineProcess, Recognition
from omi_edge.listen.wer import word_error_rate
from omi_edge.pipeline.engines import RECOGNIZERS
from omi_edge.pipeline.hearing import WARM_UP_US, decode_span
from omi_edge.pipeline.recognizer import BUILT_IN
from omi_edge.store import audio, segments, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.virtual.script import load_script

CONFIG = Config(conversation=ConversationConfig(silence=8.0), log=LogConfig(level="error"))
PASSPHRASE = secrets.token_urlsafe(12)
START_US = 1_772_442_000_000_000
BLOCK_SAMPLES = SAMPLE_RATE // 10

Said = tuple[SpeechSegment, bytes, tuple[Word, ...]]
"""A segment, its samples as the vault has them, and the words that the daemon stored for it."""


class Asr(msgspec.Struct, frozen=True):
    """What was measured."""

    segments: int
    different: int
    """Segments whose stored words are not exactly the engine's."""
    share: float
    """Time from the first byte to the last segment's text, by what the engines worked meanwhile: for the same segments,
    and for who spoke in what had ended already."""
    engine_seconds: float
    """Of the engine alone, for the same segments."""
    word_error_rate: float


async def measure(pcm: npt.NDArray[np.int16]) -> Asr:
    """Import, wait for the text, then hear the same segments with the engine alone."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
        async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False) as daemon:
            await daemon.engines.recognize(bytes(3200))  # loads
            began_us, busy_us = clock.work_us(), _busy_us(daemon)
            recording_id = await daemon.begin_import("bench", START_US, True, None)
            with daemon.bus.subscribe(limit=100_000) as events:
                await daemon.take_import(recording_id, _blocks(pcm))
                heard = await daemon.db.read(_said)
                while any(words is None for _, _, words in heard):
                    await events.get()
                    heard = await daemon.db.read(_said)
            through_us, busy_us = clock.work_us() - began_us, _busy_us(daemon) - busy_us
        said = [(segment, sound, words) for segment, sound, words in heard if words is not None]
        different, engine_seconds = await _alone(said, clock)
    text = " ".join(word.text for _, _, words in said for word in words)
    rate = word_error_rate(load_script().text(), text)
    return Asr(len(said), different, through_us / busy_us, engine_seconds, rate)


def _busy_us(daemon: Daemon) -> int:
    return sum(process.busy_us for process in daemon.engines.processes)


async def _blocks(pcm: npt.NDArray[np.int16]) -> AsyncIterator[bytes]:
    for first in range(0, len(pcm), BLOCK_SAMPLES):
        yield pcm[first : first + BLOCK_SAMPLES].tobytes()


def _said(conn: Connection) -> list[tuple[SpeechSegment, bytes, tuple[Word, ...] | None]]:
    """Return every segment with its sound, and its words once there are any."""
    found = []
    ids = [row[0] for row in conn.execute("SELECT id FROM segments ORDER BY start_us")]
    texts = {
        one.segment_id: one.words
        for (conversation_id,) in conn.execute("SELECT id FROM conversations")
        for one in transcripts.utterances(conn, conversation_id, transcripts.live_version(conn, conversation_id))
    }
    for segment_id in ids:
        row = segments.get(conn, segment_id)
        one = row.segment
        chunks = audio.between(conn, one.source_id, one.start_us - 2 * WARM_UP_US, one.end_us)
        sound = decode_span(chunks, one.start_us, one.end_us).tobytes()
        settled = row.outcome.value != "pending"
        found.append((one, sound, texts.get(segment_id, ()) if settled else None))
    return found


async def _alone(said: list[Said], clock: SystemClock) -> tuple[int, float]:
    """Return how many segments the engine alone hears otherwise, and its seconds for all."""
    process = EngineProcess("bench", clock, idle=3600, call_limit=3600, threads=CONFIG.engine.threads)
    spec, different = RECOGNIZERS[BUILT_IN], 0
    try:
        async with process.session() as call:
            await call(spec, "start", NO_HINTS, returns=type(None))  # loads
            loaded = call.seconds
            for segment, sound, words in said:
                await call(spec, "start", NO_HINTS, returns=type(None))
                await call(spec, "accept", sound, returns=str)
                found = await call(spec, "finish", returns=Recognition)
                heard = tuple(
                    (w.text, segment.start_us + w.start_ms * 1000, segment.start_us + w.end_ms * 1000, w.confidence)
                    for w in found.words
                )
                different += heard != tuple((w.text, w.start_us, w.end_us, w.confidence) for w in words)
            return different, call.seconds - loaded
    finally:
        await process.close()
