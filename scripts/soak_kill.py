"""SIGKILL at random moments while audio flows: what was acknowledged is there, nothing twice, every job ends.

    scripts/soak kill [--times 200] [--longest 3.0] [--seed N]

--times counts kills after audio had flowed; --longest is the most seconds from what a kill is counted from to the kill:
one in four is counted from the start, the others from the first chunk of that start, however slow the machine is.

Each round forks a daemon on the same vault, lets a virtual pendant play from a random place, and kills the daemon
after a random time. It tells every committed chunk over a pipe before anything else happens. At the end the daemon
starts once more, without a pendant, until no job is left; then file and acknowledgements are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import secrets
import signal
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from omi_edge.capture.replay import Recording
from omi_edge.clock import DrivenClock
from omi_edge.config import Config, ConversationConfig, ListenConfig, LogConfig, MemoryConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import AudioChunk
from omi_edge.observe import set_up
from omi_edge.pipeline.intake import Stored
from omi_edge.store import audio
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.script import recording_path
from tests.helpers import drive, least_cost
from tests.scripted import register

START_US = 1_772_442_000_000_000
ROUND_US = 1_000_000_000
"""Simulated time between the beginnings of two rounds."""
FLOWING = 0.75
"""Share of the kills that are counted from the first chunk."""
CONFIG = Config(
    conversation=ConversationConfig(silence=5.0),
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    log=LogConfig(level="error"),
)


async def live(folder: Path, passphrase: str, number: int, pcm: npt.NDArray[np.int16], pipe: int) -> None:
    """Be a daemon with a pendant until somebody kills us."""
    clock = DrivenClock(START_US + number * ROUND_US)
    pendant = Pendant(clock)
    radio = LoopbackRadio(clock, [pendant])
    async with Daemon(CONFIG, folder, passphrase, clock, serve_tcp=False, radio=radio) as daemon:

        def acknowledge(stored: Stored) -> None:
            if stored.chunk is not None:
                start_us, crc = _told(stored.chunk)
                os.write(pipe, f"{stored.chunk.id} {start_us} {crc}\n".encode())

        daemon.spine.on_stored = acknowledge
        if number == 0:
            await drive(clock, daemon.pair_device(pendant.address, None))
        os.write(pipe, b"ready\n")
        await clock.advance(2.0)
        playing = asyncio.create_task(pendant.play(iter(np.split(pcm, range(16_000, len(pcm), 16_000)))))
        while not playing.done():
            await clock.advance(1.0)


def _told(chunk: AudioChunk) -> tuple[int, int]:
    return chunk.start_us, zlib.crc32(b"".join(chunk.packets))


async def finish(folder: Path, passphrase: str, rounds: int, acknowledged: dict[int, tuple[int, int]]) -> list[str]:
    """Let every job come to its end; return what is wrong."""
    clock = DrivenClock(START_US + rounds * ROUND_US)
    async with Daemon(CONFIG, folder, passphrase, clock, serve_tcp=False) as daemon:
        for _ in range(600):
            await clock.advance(5.0)
            status = await daemon.status()
            left = sum(states.get("queued", 0) + states.get("running", 0) for states in status.jobs.values())
            open_left = await daemon.db.read(_open_conversations)
            if not left and not open_left:
                break
        return await daemon.db.read(lambda conn: _compare(conn, acknowledged))


def _open_conversations(conn: Connection) -> int:
    row = conn.execute("SELECT count(*) FROM conversations WHERE state <> 'completed'").fetchone()
    return int(row[0])


def _compare(conn: Connection, acknowledged: dict[int, tuple[int, int]]) -> list[str]:
    wrong = []
    for check in ("integrity_check", "cipher_integrity_check"):
        answer = [row[0] for row in conn.execute(f"PRAGMA {check}") if row[0] != "ok"]
        wrong += [f"{check}: {line}" for line in answer]
    found = {
        chunk.id: chunk
        for row in conn.execute("SELECT id FROM sources").fetchall()
        for chunk in audio.between(conn, row[0], 0, 1 << 62)
    }
    lost = acknowledged.keys() - found.keys()
    if lost:
        wrong.append(f"{len(lost)} acknowledged chunks are gone")
    changed = [number for number in acknowledged.keys() & found.keys() if acknowledged[number] != _told(found[number])]
    if changed:
        wrong.append(f"{len(changed)} acknowledged chunks are not what they were")
    spans = sorted((chunk.start_us, chunk.end_us) for chunk in found.values())
    twice = sum(end > following for (_, end), (following, _) in itertools.pairwise(spans))
    if twice:
        wrong.append(f"{twice} chunks overlap the next")
    for what, query in (
        ("jobs without an end", "SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'failed', 'cancelled')"),
        ("failed jobs", "SELECT count(*) FROM jobs WHERE state = 'failed'"),
        ("segments without an outcome", "SELECT count(*) FROM segments WHERE outcome = 'pending'"),
        ("conversations without an end", "SELECT count(*) FROM conversations WHERE state <> 'completed'"),
    ):
        count = conn.execute(query).fetchone()[0]
        if count:
            wrong.append(f"{count} {what}")
    if not conn.execute("SELECT count(*) FROM conversations").fetchone()[0]:
        wrong.append("no conversation at all: the run proves nothing")
    return wrong


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--longest", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    set_up(style="text", level="error")
    register()
    pcm = np.concatenate(list(Recording(recording_path()).read()))
    began = time.monotonic()
    acknowledged: dict[int, tuple[int, int]] = {}
    killed_while_flowing = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        passphrase = secrets.token_urlsafe(12)
        with least_cost():  # a start is to spend its time on audio
            Database.create(folder, passphrase, DrivenClock(START_US))
        number = 0
        while killed_while_flowing < options.times:  # a kill before the first chunk counts as none
            before = len(acknowledged)
            from_sample = chance.randrange(len(pcm) // 2)
            seconds, flowing = chance.uniform(0.05, options.longest), chance.random() < FLOWING
            _round(folder, passphrase, number, pcm[from_sample:], seconds, acknowledged, flowing=flowing)
            killed_while_flowing += len(acknowledged) > before
            number += 1
            if number % 20 == 0:
                print(f"{number} kills, {len(acknowledged)} chunks acknowledged", flush=True)
            if number > 3 * options.times + 20:
                print("audio hardly ever flows: this run proves nothing")
                return 1
        wrong = asyncio.run(finish(folder, passphrase, number, acknowledged))
    seconds = time.monotonic() - began
    print(
        f"{number} kills ({killed_while_flowing} after audio had flowed), {len(acknowledged)} chunks told, "
        f"{seconds:.0f} s: {'; '.join(wrong) or 'nothing lost, nothing twice, every job ended'}"
    )
    return 1 if wrong or not acknowledged else 0


def _round(
    folder: Path, passphrase: str, number: int, pcm: npt.NDArray[np.int16], seconds: float,
    acknowledged: dict[int, tuple[int, int]], *, flowing: bool,
) -> None:  # fmt: skip
    """``seconds`` after the start, or after the first chunk when ``flowing``, the daemon is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setpgid(0, 0)
        try:
            asyncio.run(live(folder, passphrase, number, pcm, writer))
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        if lines.readline() == "ready\n" and not flowing:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        for line in lines:
            if flowing:
                flowing = False
                signal.setitimer(signal.ITIMER_REAL, seconds)
            if line.endswith("\n"):  # a line that the kill cut was not told
                chunk, start_us, crc = map(int, line.split())
                acknowledged[chunk] = (start_us, crc)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    sys.exit(main())
