"""Ends a pendant's link in every way, over and over, in simulated time: scripts/soak link --times N [--seed S].

A real daemon and vault with scripted models, and a virtual pendant in process. Afterwards every gap that the daemon
noted is held against what the pendant knows became of its audio: its length, and that no certain cause is a wrong one.
The daemon learns nothing from the simulator but what a link tells.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import secrets
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from omi_edge.clock import DrivenClock
from omi_edge.config import Config, DeviceConfig, ListenConfig, LogConfig, MemoryConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE, Cause, Codec, Gap
from omi_edge.observe import set_up
from omi_edge.opus import Encoder
from omi_edge.store import gaps
from omi_edge.store.database import Database
from omi_edge.virtual.faults import Fate
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import CV1_3_0_21, Pendant
from omi_edge.virtual.profiles import StorageKind
from tests.helpers import drive
from tests.scripted import register

START_US = 1_772_442_000_000_000
PASSPHRASE = "a passphrase for a soak"
STREAMS_SECONDS = 30.0
"""The stated time: so long after the pendant can be reached again it streams. The longest wait between two looks is
12 s, a look lasts 10, and audio starts 1.3 s after the connection."""
LENGTH_SECONDS = 0.1
"""How exact the length of a gap must be."""
HOLE_US = 320_000
"""Shorter holes are concealed and counted as lost frames; they are no gaps."""
CERTAIN_SHARE = 0.95
GROWTH_LIMIT = 1_500_000
"""Bytes of Python memory that may be held more at the end than after the first tenth, in which each way was
seen once: vectors, the pendant's own record."""
CONFIG = Config(
    device=DeviceConfig(require_encryption="prefer"),
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    log=LogConfig(level="error"),
)


class Kind(msgspec.Struct, frozen=True):
    """One way to lose a link."""

    name: str
    begin: Callable[[World, float], None]
    cause: Cause
    seconds: tuple[float, float] = (0.0, 0.0)
    """How long it lasts, at least and at most."""
    observable: bool = True
    """Whether a client can tell its cause for certain."""
    end: Callable[[World], None] = lambda _: None


class World:
    """What the kinds act on."""

    def __init__(self, clock: DrivenClock) -> None:
        self.clock = clock
        # without storage: what a simulated pendant keeps while away is memory of the simulator, and grows
        self.pendant = Pendant(clock, msgspec.structs.replace(CV1_3_0_21, storage=StorageKind.NONE))
        self.radio = LoopbackRadio(clock, [self.pendant])


def _tap_off(world: World, seconds: float) -> None:
    world.pendant.press()
    world.pendant.power_off(seconds)


def _forget(world: World, _: float) -> None:
    world.pendant.forget_bonds()
    world.pendant.end()


def _hang(world: World, seconds: float) -> None:
    world.pendant.stall(seconds)
    world.radio.hanging = True


def _go_on(world: World) -> None:
    world.radio.hanging = False


KINDS = (
    Kind("cut", lambda w, _: w.pendant.cut(), Cause.DISCONNECTED, observable=False),
    Kind("ended by the pendant", lambda w, _: w.pendant.end(), Cause.DISCONNECTED),
    Kind("away", lambda w, s: w.pendant.go_away(s), Cause.OUT_OF_RANGE, (5, 90), observable=False),
    Kind("held, not listening", lambda w, s: w.pendant.hold(s), Cause.DISCONNECTED, (5, 60), observable=False),
    Kind("held and listened to", lambda w, s: w.pendant.hold(s, consuming=True), Cause.DISCONNECTED, (5, 60)),
    Kind("crash", lambda w, _: w.pendant.reboot(), Cause.PENDANT_OFF),
    Kind("switched off", lambda w, s: w.pendant.power_off(s), Cause.PENDANT_OFF, (5, 60)),
    Kind("battery empty", lambda w, s: w.pendant.power_off(s, graceful=False), Cause.PENDANT_OFF, (5, 60)),
    Kind("switched off by a tap", _tap_off, Cause.PENDANT_OFF, (5, 60)),
    Kind("bond forgotten", _forget, Cause.DISCONNECTED),
    Kind("hanging, not ended", _hang, Cause.DISCONNECTED, (45, 60), observable=False, end=_go_on),
    Kind(
        "Bluetooth off", lambda w, _: w.radio.power(False), Cause.DISCONNECTED, (1, 60),
        end=lambda w: w.radio.power(True),
    ),
    Kind(
        "service restarted", lambda w, _: w.radio.service(False), Cause.DISCONNECTED, (1, 20),
        end=lambda w: w.radio.service(True),
    ),
    Kind(
        "adapter unplugged", lambda w, _: w.radio.adapter(False), Cause.DISCONNECTED, (1, 60),
        end=lambda w: w.radio.adapter(True),
    ),
)  # fmt: skip


class Happened(msgspec.Struct):
    """One loss of the link."""

    kind: Kind
    at_us: int
    """Boot time."""
    back_seconds: float = 0.0
    """From when it could be reached again until it streamed."""


class Broken(Exception):
    """Something that must hold did not."""


async def run(times: int, seed: int) -> list[str]:
    """Lose the link so often; return what is wrong."""
    chance = random.Random(seed)
    clock = DrivenClock(START_US)
    world = World(clock)
    happened: list[Happened] = []
    with tempfile.TemporaryDirectory(prefix="omi-edge-soak-") as name:
        folder = Path(name) / "data"
        await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
        async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, radio=world.radio) as daemon:
            await drive(clock, daemon.pair_device(world.pendant.address, None))
            noise = asyncio.create_task(_noise(world.pendant, times * 200))
            await clock.advance(12.0)
            kinds: list[Kind] = []
            first: tuple[int, int, int] | None = None
            for number in range(times):
                if not kinds:
                    kinds = chance.sample(KINDS, len(KINDS))
                happened.append(await lose(world, kinds.pop(), chance))
                if number + 1 == max(len(KINDS), times // 10):
                    first = _held()
                if (number + 1) % 100 == 0:
                    print(f"  {number + 1} of {times}", flush=True)
            last = _held()
            noise.cancel()
            await asyncio.gather(noise, return_exceptions=True)
            found = await _gaps(daemon)
        wrong = compare(world, happened, found)
        if first is not None and last[:2] != first[:2]:
            wrong.append(f"tasks and file handles went from {first[:2]} to {last[:2]}")
        if first is not None and last[2] > first[2] + GROWTH_LIMIT:
            wrong.append(f"memory grew from {first[2]} to {last[2]} bytes")
    return wrong


async def lose(world: World, kind: Kind, chance: random.Random) -> Happened:
    """Lose the link in one way, and wait until audio flows again."""
    clock = world.clock
    event = Happened(kind, clock.boot_us())
    seconds = chance.uniform(*kind.seconds)
    kind.begin(world, seconds)
    await clock.advance(max(seconds, 0.1))
    kind.end(world)
    reachable_us: int | None = None
    while not world.pendant.streaming:
        if reachable_us is None and (world.pendant.advertising or world.pendant.connected):
            reachable_us = clock.boot_us()
        if reachable_us is not None and clock.boot_us() - reachable_us > STREAMS_SECONDS * 1e6:
            raise Broken(f"{kind.name}: not streaming {STREAMS_SECONDS} s after it could be reached again")
        if clock.boot_us() - event.at_us > 600e6:
            raise Broken(f"{kind.name}: the link never came back")
        await clock.advance(0.1)
    event.back_seconds = 0.0 if reachable_us is None else (clock.boot_us() - reachable_us) / 1e6
    await clock.advance(chance.uniform(1.0, 25.0))
    return event


def compare(world: World, happened: list[Happened], found: list[Gap]) -> list[str]:
    """Hold the gaps that were noted against what became of the audio."""
    boot_minus_utc = world.clock.boot_us() - world.clock.utc_us()
    truth = [hole for hole in _holes(world.pendant) if hole[0] >= happened[0].at_us - 1_000_000]
    wrong = []
    if len(truth) != len(found):
        wrong.append(f"{len(found)} gaps were noted, there were {len(truth)}")
    certain: Counter[str] = Counter()
    uncertain: Counter[str] = Counter()
    errors = []
    for (start_us, end_us), gap in zip(truth, found, strict=False):
        error = abs((gap.end_us - gap.start_us) - (end_us - start_us)) / 1e6
        errors.append(error)
        event = max((e for e in happened if e.at_us <= end_us), key=lambda e: e.at_us)
        if error > LENGTH_SECONDS or abs(gap.start_us + boot_minus_utc - start_us) > 500_000:
            wrong.append(f"{event.kind.name}: a gap of {(gap.end_us - gap.start_us) / 1e6:.2f} s was "
                         f"{(end_us - start_us) / 1e6:.2f} s")  # fmt: skip
        if event.kind.cause not in gap.causes and gap.causes != (Cause.UNKNOWN,):
            wrong.append(f"{event.kind.name}: noted as {', '.join(gap.causes)}")
        if event.kind.observable:
            certain["observable"] += 1
            certain["certain"] += gap.causes == (event.kind.cause,)
            if len(gap.causes) > 1:
                uncertain[event.kind.name] += 1
        certain["unknown"] += gap.causes == (Cause.UNKNOWN,)
    share = certain["certain"] / max(1, certain["observable"])
    if share < CERTAIN_SHARE:
        wrong.append(f"only {share:.1%} of the observable causes are certain; not those of {dict(uncertain)}")
    back = [event.back_seconds for event in happened]
    print(f"  {len(found)} gaps, lengths off by {max(errors, default=0) * 1000:.0f} ms at most; "
          f"{certain['certain']} of {certain['observable']} observable causes certain, {certain['unknown']} unknown; "
          f"streaming again after {statistics.median(back):.1f} s (median), {max(back):.1f} s (longest)")  # fmt: skip
    return wrong


def _holes(pendant: Pendant) -> list[tuple[int, int]]:
    """Stretches that were not delivered, in boot time, between stretches that were."""
    holes: list[tuple[int, int]] = []
    start_us: int | None = None
    delivered = False
    for truth in pendant.record:
        if truth.fate is Fate.DELIVERED:
            if start_us is not None and delivered and truth.start_us - start_us > HOLE_US:
                holes.append((start_us, truth.start_us))
            start_us, delivered = truth.end_us, True
    return holes


async def _gaps(daemon: Daemon) -> list[Gap]:
    found: list[Gap] = []
    cursor: str | None = None
    while True:
        page = await daemon.db.read(lambda conn: gaps.listed(conn, limit=100, cursor=cursor))  # noqa: B023
        found += page.items
        cursor = page.next
        if cursor is None:
            return list(reversed(found))


async def _noise(pendant: Pendant, seconds: int) -> None:
    """Let the pendant send noise that was encoded once."""
    encoder = Encoder(Codec.OPUS_20MS)
    rng = np.random.default_rng(1)
    minute = [encoder.encode(rng.normal(0, 2000, SAMPLE_RATE // 50).astype(np.int16)) for _ in range(3000)]
    for _ in range(seconds // 60 + 1):
        await pendant.play_packets(minute)


def _held() -> tuple[int, int, int]:
    """Return tasks, file handles and bytes of Python memory."""
    gc.collect()
    open_files = Path("/proc/self/fd")
    handles = len(list(open_files.iterdir())) if open_files.is_dir() else 0
    return len(asyncio.all_tasks()), handles, tracemalloc.get_traced_memory()[0]


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"link: {options.times} disconnections, seed {seed}", flush=True)
    set_up(style="text", level="critical")
    register()
    began = time.monotonic()
    tracemalloc.start()
    try:
        wrong = asyncio.run(run(options.times, seed))
    except Broken as error:
        wrong = [str(error)]
    for line in wrong[:20]:
        print(f"  WRONG: {line}")
    seconds = time.monotonic() - began
    print(f"link: {'FAILED' if wrong else 'ok'}, {options.times} disconnections, {seconds:.0f} s, seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
