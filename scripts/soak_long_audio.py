"""Hours of audio in one conversation, within bounded memory: scripts/soak long-audio [--hours 4] [--engine NAME].

Speech with pauses is imported into a real daemon with a real vault and transcribed, diarized and understood by real
engines. The daemon's own memory and that of each engine process are looked at all the time: once the first quarter is
over they may not grow by more than a bound. At the end every second is there and every job has ended well.

The Whisper of tests/models/spoken hears where it is there, else the built-in recogniser, which takes a quarter of real
time and more.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from omi_edge.capture.replay import Recording
from omi_edge.clock import SystemClock
from omi_edge.config import Config, ConversationConfig, ListenConfig, LogConfig, ModelsConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE
from omi_edge.observe import set_up
from omi_edge.pipeline.recognizer import BUILT_IN, WHISPER
from omi_edge.store import jobs
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from tests.listen import spoken_whisper

START_US = 1_772_442_000_000_000
PASSPHRASE = "a passphrase for a soak"
LOOK_SECONDS = 2.0
GROWTH_BYTES = 64_000_000
"""How much a process may grow after the first quarter: what an allocator keeps for itself, and no more. A choice."""
SPARE_HOURS = 0.02
"""A conversation ends by length at four hours; this much less is imported."""


class Memory(msgspec.Struct):
    """What a process held, in bytes: the most in the first quarter, and since."""

    early: int = 0
    late: int = 0

    @property
    def growth(self) -> int:
        """How much more it held later."""
        return max(0, self.late - self.early)


def resident(pid: int | str) -> int:
    """Return the resident memory of a process in bytes, 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


async def speech(hours: float, seed: int) -> AsyncIterator[bytes]:
    """Yield sentences in any order, with pauses of up to ten seconds and a little noise under all of it."""
    lot = np.random.default_rng(seed)
    sound: npt.NDArray[np.int16] = np.concatenate(list(Recording(spoken_whisper.HELD_OUT)))
    lines = spoken_whisper.held_out().lines
    left = round(hours * 3600 * SAMPLE_RATE)
    while left > 0:
        line = lines[int(lot.integers(len(lines)))]
        said = sound[round(line.start * SAMPLE_RATE) : round(line.end * SAMPLE_RATE)]
        piece = np.concatenate([said, np.zeros(int(lot.uniform(0.3, 10) * SAMPLE_RATE), np.int16)])[:left]
        left -= len(piece)
        yield np.clip(piece + lot.normal(0, 8, len(piece)), -32_768, 32_767).astype(np.int16).tobytes()


async def live(folder: Path, config: Config, hours: float, seed: int) -> list[str]:
    """Import, and watch until the last job has ended; return what is wrong."""
    clock = SystemClock()
    await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
    seen: dict[str, Memory] = {}
    async with Daemon(config, folder, PASSPHRASE, clock, serve_tcp=False) as daemon:
        recording_id = await daemon.begin_import("long", START_US, True, None)
        taking = asyncio.create_task(daemon.take_import(recording_id, speech(hours, seed)))
        began, told = time.monotonic(), 0.0
        while True:
            heard_us, ended = await daemon.db.read(_progress)
            state = await daemon.import_state(recording_id)
            processes = {one.name: one.pid for one in daemon.engines.processes if one.pid is not None}
            watched: dict[str, int | str] = {"daemon": "self", **processes}
            for name, pid in watched.items():
                memory, held = seen.setdefault(name, Memory()), resident(pid)
                if heard_us < hours * 3600e6 / 4:
                    memory.early = max(memory.early, held)
                else:
                    memory.late = max(memory.late, held)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                sizes = ", ".join(f"{name} {(one.late or one.early) / 1e6:.0f} MB" for name, one in seen.items())
                print(f"  {told - began:.0f} s: heard up to {heard_us / 3600e6:.2f} h; {sizes}", flush=True)
            if taking.done() and ended and state.state in ("done", "failed"):
                break
            await clock.sleep(LOOK_SECONDS)
        await taking
        wrong = [
            f"{name} grew by {one.growth / 1e6:.0f} MB after the first quarter"
            for name, one in seen.items()
            if one.growth > GROWTH_BYTES
        ]
        if abs(state.seconds - hours * 3600) > 1:
            wrong.append(f"{state.seconds:.0f} s were taken of {hours * 3600:.0f} s")
        if state.jobs_failed or state.state != "done":
            wrong.append(f"{state.jobs_failed} jobs failed, the import is {state.state}")
        segments, spoken_words = await daemon.db.read(_counted)
        if not segments or (config.listen.recognizer == WHISPER and not spoken_words):
            wrong.append("nothing was heard")
        print(f"  {segments} segments, {len(state.conversations)} conversations, {spoken_words} utterances with words")
        for name, one in seen.items():
            print(f"  {name}: {one.early / 1e6:.0f} MB at most in the first quarter, {one.late / 1e6:.0f} MB since")
        return wrong


def _progress(conn: Connection) -> tuple[int, bool]:
    """How far it is heard, in microseconds from the beginning, and whether no job is left."""
    last = conn.execute("SELECT max(end_us) FROM segments WHERE outcome != 'pending'").fetchone()[0]
    left = sum(states.get(state, 0) for states in jobs.counts(conn).values() for state in ("queued", "running"))
    return (last or START_US) - START_US, left == 0


def _counted(conn: Connection) -> tuple[int, int]:
    return (
        conn.execute("SELECT count(*) FROM segments").fetchone()[0],
        conn.execute("SELECT count(*) FROM utterances WHERE text != ''").fetchone()[0],
    )


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4.0 - SPARE_HOURS)
    parser.add_argument("--engine", choices=[BUILT_IN, WHISPER], default=None)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    engine = options.engine or (WHISPER if spoken_whisper.THERE else BUILT_IN)
    set_up(style="text", level="critical")
    print(f"long-audio: {options.hours:g} h, {engine}, seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="omi-edge-soak-") as name:
        models = Path(name) / "models"
        listen = ListenConfig(recognizer=engine)
        if engine == WHISPER:
            spoken_whisper.shelved(models)
            listen = ListenConfig(recognizer=engine, model=spoken_whisper.NAME, language="en")
        config = Config(
            listen=listen, conversation=ConversationConfig(silence=30.0), models=ModelsConfig(folder=str(models)),
            log=LogConfig(level="critical"),
        )  # fmt: skip
        wrong = asyncio.run(live(Path(name) / "data", config, options.hours, seed))
    for line in wrong:
        print(f"  WRONG: {line}")
    print(f"long-audio: {'FAILED' if wrong else 'ok'}, {time.monotonic() - began:.0f} s, seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
