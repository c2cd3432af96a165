"""How fast stored audio is fetched, and whether what is said meanwhile suffers; a part of scripts/bench."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from omi_edge.capture.blocks import Record
from omi_edge.capture.device import storage_of
from omi_edge.capture.offline import drain
from omi_edge.capture.stored import Cursor, Loss
from omi_edge.clock import SystemClock
from omi_edge.config import Config, LogConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import FetchState
from omi_edge.store import audio, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import PROFILES, Pendant

PASSPHRASE = "bench"
SPEED = 4
"""Times as fast as a real pendant hands over: what each transfer costs beside the waiting weighs four times as much."""
GENERATIONS = (("cv1-3.0.21", 300), ("cv1-custody", 300), ("cv1-3.0.18", 300), ("devkit2-2.0.10", 120))
"""Profile, and seconds of audio that it holds."""
CONFIG = Config(log=LogConfig(level="error"))


class Speed(msgspec.Struct):
    """One generation."""

    profile: str
    offered: float
    """Seconds that the fetching takes a client that does nothing with what it gets,"""
    taken: float
    """and the daemon, which makes it durable, hears it, and listens to what is said meanwhile."""
    late: list[float]
    """Milliseconds by which each tick of the event loop came late meanwhile."""
    lost: int
    """Live frames that are missing."""
    live: int
    """Live frames that came meanwhile."""

    @property
    def share(self) -> float:
        """Of the offered speed."""
        return self.offered / self.taken


class _Nobody:
    """A keeper that keeps nothing."""

    async def keep(self, records: Sequence[Record], cursor: Cursor) -> None:
        """See Keeper."""

    async def freed(self, cursor: Cursor) -> None:
        """See Keeper."""

    async def lost(self, loss: Loss, cursor: Cursor) -> None:
        """See Keeper."""

    async def kept(self, store: int, since: int, most: int) -> Sequence[tuple[int, bytes]]:
        """See Keeper."""
        return ()

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """See Keeper."""


def measure(packets: dict[int, list[bytes]]) -> list[Speed]:
    """Measure all generations; ``packets`` are speech, by the length of their frames in microseconds."""
    return [asyncio.run(_measure(profile, seconds, packets)) for profile, seconds in GENERATIONS]


def _pendant(clock: SystemClock, profile: str, seconds: int, packets: dict[int, list[bytes]]) -> Pendant:
    pendant = Pendant(clock, PROFILES[profile], faults=Faults(storage_speed=SPEED), mic_sleep=False)
    frame_us = pendant.profile.codec.frame_us
    spoken = packets[frame_us]
    began_us = clock.boot_us() - (seconds + 5) * 1_000_000
    for index in range(seconds * 1_000_000 // frame_us):
        start_us = began_us + index * frame_us
        pendant.storage.take(
            spoken[index % len(spoken)], (start_us, start_us + frame_us), start_us + frame_us, (index, index + 1)
        )
    return pendant


async def _measure(profile: str, seconds: int, packets: dict[int, list[bytes]]) -> Speed:
    clock = SystemClock()
    pendant = _pendant(clock, profile, seconds, packets)
    link = LoopbackRadio(clock, [pendant]).link(pendant.address)
    await link.connect()
    began = time.perf_counter()
    await drain(link, storage_of(pendant.profile.device), clock, _Nobody())
    offered = time.perf_counter() - began
    await link.close()
    pendant = _pendant(clock, profile, seconds, packets)
    late: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await clock.sleep(0.01)
            late.append((time.perf_counter() - before - 0.01) * 1000)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
        radio = LoopbackRadio(clock, [pendant])
        async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, radio=radio) as daemon:
            with daemon.bus.subscribe(limit=100_000) as events:
                await daemon.pair_device(pendant.address, None)
                spoken = packets[pendant.profile.codec.frame_us]
                playing = asyncio.create_task(pendant.play_packets(spoken * 20))
                ticking = asyncio.create_task(tick())
                times: dict[FetchState, int] = {}
                while FetchState.DONE not in times:
                    event = await events.get()
                    if event.kind == "offline" and "total_bytes" in event.data:
                        times.setdefault(FetchState(event.data["state"]), event.at_us)
                ticking.cancel()
                playing.cancel()
                await clock.sleep(2.0)
            lost, live = await daemon.db.read(lambda conn: _live(conn, pendant.address, times[FetchState.FETCHING]))
    taken = (times[FetchState.DONE] - times[FetchState.FETCHING]) / 1e6
    return Speed(profile, offered, taken, sorted(late), lost, live)


def _live(conn: Connection, address: str, since_us: int) -> tuple[int, int]:
    source = sources.for_device(conn, address)
    assert source is not None
    chunks = audio.between(conn, source.id, since_us, 1 << 62)
    return source.lost_frames, sum(len(chunk.packets) for chunk in chunks)
