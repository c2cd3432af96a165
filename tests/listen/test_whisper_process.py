"""The real recogniser in real engine processes: it goes, comes back, and says the same words."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from omi_edge.clock import Clock, DrivenClock, SystemClock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import EngineProcess, EngineSpec, Recognition, Session
from omi_edge.errors import EnginePermanent, EngineTransient
from omi_edge.listen.wer import word_error_rate
from omi_edge.models.shelf import Shelf
from tests.helpers import START_US
from tests.listen.sound import Samples
from tests.listen.spoken_whisper import NAME, held_out, needed, shelved, sound_of, spec

pytestmark = needed
FIRST, SECOND = held_out().lines[1:3]
QUICK = [line for line in held_out().lines if line.conversation == 1]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelved(tmp_path / "models")


def process(clock: Clock, idle: float = 300.0) -> EngineProcess:
    return EngineProcess("asr", clock, idle=idle, call_limit=120.0, threads=1)


@pytest.fixture
async def engine() -> AsyncIterator[EngineProcess]:
    running = process(SystemClock())
    yield running
    await running.close()


async def hear(session: Session, spec: EngineSpec, samples: Samples) -> Recognition:
    """As the pipeline does: in blocks."""
    await session(spec, "start", returns=type(None))
    for first in range(0, len(samples), SAMPLE_RATE):
        await session(spec, "accept", samples[first : first + SAMPLE_RATE].tobytes(), returns=str)
    return await session(spec, "finish", returns=Recognition)


async def heard(engine: EngineProcess, spec: EngineSpec, samples: Samples) -> str:
    async with engine.session() as session:
        return text(await hear(session, spec, samples))


def text(found: Recognition) -> str:
    return " ".join(word.text for word in found.words)


def right(said: str, heard: str) -> bool:
    return word_error_rate(said, heard) <= 0.15


async def test_it_is_loaded_unloaded_when_idle_and_loaded_again(shelf: Shelf) -> None:
    clock = DrivenClock(START_US)
    engine = process(clock, idle=30.0)
    try:
        before = await heard(engine, spec(shelf), sound_of(FIRST))
        assert right(FIRST.text, before)
        await clock.advance(29.0)
        assert engine.state == "idle"
        await clock.advance(2.0)
        assert engine.state == "unloaded"
        assert await heard(engine, spec(shelf), sound_of(FIRST)) == before
        assert (engine.starts, engine.failures) == (2, 0)
    finally:
        await engine.close()


async def test_killed_in_the_middle_of_a_call_it_comes_back(engine: EngineProcess, shelf: Shelf) -> None:
    before = await heard(engine, spec(shelf), sound_of(FIRST))
    async with engine.session() as session:
        await session(spec(shelf), "start", returns=type(None))
        await session(spec(shelf), "accept", sound_of(QUICK[0], QUICK[-1]).tobytes(), returns=str)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)  # or it may have answered before the signal comes
        call = asyncio.ensure_future(session(spec(shelf), "finish", returns=Recognition))
        while engine.state != "busy":  # noqa: ASYNC110 nothing else tells
            await asyncio.sleep(0)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineTransient, match="in the middle of a call"):
            await call
        with pytest.raises(EngineTransient):  # what the process had been given is gone
            await session(spec(shelf), "finish", returns=Recognition)
    assert await heard(engine, spec(shelf), sound_of(FIRST)) == before
    assert engine.failures == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
async def test_out_of_memory_it_comes_back(engine: EngineProcess, shelf: Shelf) -> None:
    before = await heard(engine, spec(shelf), sound_of(FIRST))
    assert engine.pid is not None
    pages = int(Path(f"/proc/{engine.pid}/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE")  # what it has is all it gets
    resource.prlimit(engine.pid, resource.RLIMIT_AS, (limit, limit))
    with pytest.raises(EngineTransient):
        async with engine.session() as session:
            for _ in range(20):  # 200 MB of sound do not fit
                await session(spec(shelf), "accept", bytes(10_000_000), returns=str)
    assert await heard(engine, spec(shelf), sound_of(FIRST)) == before


def gone(weights: Path) -> None:
    weights.unlink()


def truncated(weights: Path) -> None:
    os.truncate(weights, 1000)


def altered(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


@pytest.mark.parametrize("harm", [gone, truncated, altered])
@pytest.mark.parametrize("file", ["model.bin", "tokenizer.json"])
async def test_harmed_files_are_refused_until_they_are_mended(
    engine: EngineProcess, shelf: Shelf, harm: Callable[[Path], None], file: str
) -> None:
    path = shelf.folder / NAME / file
    whole = path.read_bytes()
    harm(path)
    for _ in range(2):
        with pytest.raises(EnginePermanent, match=r"Model(Missing|Truncated|Altered)"):
            await heard(engine, spec(shelf), sound_of(FIRST))
    path.write_bytes(whole)
    assert right(FIRST.text, await heard(engine, spec(shelf), sound_of(FIRST)))
    assert (engine.starts, engine.failures) == (1, 0)


async def test_two_conversations_at_once_keep_their_words(engine: EngineProcess, shelf: Shelf) -> None:
    alone = [await heard(engine, spec(shelf), sound_of(line)) for line in (FIRST, SECOND)]
    assert right(FIRST.text, alone[0])
    assert right(SECOND.text, alone[1])
    together = await asyncio.gather(*(heard(engine, spec(shelf), sound_of(line)) for line in (FIRST, SECOND) * 2))
    assert together == alone * 2
    assert (engine.starts, engine.failures) == (1, 0)


async def test_two_processes_at_once_keep_their_words(engine: EngineProcess, shelf: Shelf) -> None:
    other = process(SystemClock())
    try:
        found = await asyncio.gather(
            heard(engine, spec(shelf), sound_of(FIRST)), heard(other, spec(shelf, beam_size=1), sound_of(SECOND))
        )
        assert right(FIRST.text, found[0])
        assert right(SECOND.text, found[1])
        assert engine.pid != other.pid
    finally:
        await other.close()
