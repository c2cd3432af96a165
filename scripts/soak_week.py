"""Lives a week with a pendant in simulated time: scripts/soak week [--seed S] [--walks 200] [--profile P] [--days 7].

A real daemon and vault with scripted models, real Opus and VAD, and a virtual pendant in process whose storage is
drained after every walk. Each day the pendant crashes, the daemon crashes, the wall clock is stepped and the pendant's
clock is wrong or unset; the owner mutes, links break, another phone takes the pendant. Between what is said nothing is
played: a microphone that sleeps costs nothing. Afterwards every frame that was said is looked for, and the ledger is
held against what really happened (``week_truth``). Without --profile each pendant with storage has a turn of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from omi_edge.capture.replay import Recording
from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig, Config, ListenConfig, LogConfig, MemoryConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE, Withholding
from omi_edge.observe import set_up
from omi_edge.store import offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.offline import RunState
from omi_edge.virtual.encode import encoder
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import PROFILES, Pendant
from omi_edge.virtual.profiles import StorageKind
from omi_edge.virtual.script import recording_path
from scripts.week_truth import Diary, Walk, compare
from tests.helpers import drive
from tests.scripted import register

START_US = 1_772_442_000_000_000
PASSPHRASE = "a passphrase for a soak"
DAY_SECONDS = 86_400.0
DEFAULT_PROFILES = ("cv1-3.0.21", "cv1-custody", "cv1-3.0.18", "cv1-3.0.16", "cv1-3.0.15", "devkit2-2.0.10")
STORAGE_SPEED = 8.0
"""Times as fast as a real pendant: a drain still takes seconds, in which things happen."""
DRAINED_SECONDS = 600.0
"""So long after it streams again everything that is to be heard must have been."""
BLOCK_US = 100_000
CONFIG = Config(
    audio=AudioConfig(keep_silence=864_000),
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    log=LogConfig(level="error"),
)
CLOCK_FAULTS = ("unset", "behind", "ahead", "back on the way")


class Speech:
    """Codec frames of talk with a little noise in it, so that no two are alike."""

    def __init__(self, pendant: Pendant, seed: int) -> None:
        self._pcm = np.concatenate(list(Recording(recording_path()).read()))
        self._rng = np.random.default_rng(seed)
        self._encode = encoder(pendant.profile.codec)
        self._frame_us = pendant.profile.codec.frame_us

    def frames(self, seconds: float, *, quiet: bool = False) -> list[bytes]:
        """Return talk, or next to nothing, in whole microphone blocks."""
        count = max(1, round(seconds * 1_000_000 / BLOCK_US)) * BLOCK_US * SAMPLE_RATE // 1_000_000
        at = int(self._rng.integers(0, len(self._pcm) - count)) if count < len(self._pcm) else 0
        pcm = np.resize(self._pcm[at : at + count], count).astype(np.float64)
        noisy = np.clip(pcm * (0 if quiet else 1) + self._rng.normal(0, 60, count), -32768, 32767).astype(np.int16)
        return [self._encode(frame) for frame in noisy.reshape(-1, self._frame_us * SAMPLE_RATE // 1_000_000)]


class Week:
    """The machine, the daemon on it, the pendant and its wearer."""

    def __init__(self, folder: Path, profile: str, seed: int) -> None:
        self.chance = random.Random(f"{profile} {seed}")
        self.clock = DrivenClock(START_US)
        self.folder = folder
        known = PROFILES[profile]
        # charge is told less often, which is what a week without audio would mostly consist of
        self.pendant = Pendant(
            self.clock, msgspec.structs.replace(known, battery_seconds=15.0), first_id=65_400,
            faults=Faults(seed=seed, storage_speed=STORAGE_SPEED),
        )  # fmt: skip
        self.sleeps = self.pendant.profile.mic_sleep
        """Whether a silent microphone stores nothing, so that there may be pauses in what it stores."""
        self.speech = Speech(self.pendant, seed)
        self.radio = LoopbackRadio(self.clock, [self.pendant])
        self.daemon = self._new_daemon()
        self.diary = Diary(self.pendant, [(self.clock.boot_us(), self.clock.utc_us() - self.clock.boot_us())])

    def _new_daemon(self) -> Daemon:
        self.radio = LoopbackRadio(self.clock, [self.pendant])
        return Daemon(CONFIG, self.folder, PASSPHRASE, self.clock, serve_tcp=False, radio=self.radio)

    # --- what happens -------------------------------------------------------------------------------------------------

    async def say(self, seconds: float, *, quiet: bool = False) -> None:
        """Let the pendant hear talk, or next to nothing."""
        packets = self.speech.frames(seconds, quiet=quiet)
        self.diary.say(self.clock.boot_us(), packets)
        playing = asyncio.create_task(self.pendant.play_packets(packets))
        await self.clock.advance(len(packets) * self.pendant.profile.codec.frame_us / 1e6)
        while not playing.done():
            await self.clock.advance(0.05)

    async def rest(self, seconds: float) -> None:
        """Say nothing: after ten seconds of quiet the microphone sleeps; one that cannot is switched off."""
        began_us = self.clock.boot_us()
        if self.sleeps:
            await self.say(10.0, quiet=True)
            self.diary.asleep.append((self.clock.boot_us(), began_us + round(seconds * 1e6)))
        else:
            await self.clock.advance(2.0)
            self.pendant.power_off(seconds - 12.0)
            self.diary.off.append((self.clock.boot_us(), self.clock.boot_us() + round((seconds - 12.0) * 1e6)))
        await self.clock.advance(seconds - (self.clock.boot_us() - began_us) / 1e6)
        while not self.pendant.streaming:
            await self.clock.advance(1.0)

    async def step(self) -> None:
        """Step the machine's wall clock by minutes or hours."""
        seconds = self.chance.choice((1, -1)) * self.chance.choice((60.0, 1800.0, 7200.0)) * self.chance.uniform(1, 3)
        self.clock.step_utc(round(seconds, 3))
        self.diary.walls.append((self.clock.boot_us(), self.clock.utc_us() - self.clock.boot_us()))

    async def withhold(self, seconds: float, kind: Withholding) -> None:
        """Withhold recording while something is said."""
        began_us = self.clock.boot_us()
        await self.daemon.withhold(kind, None, "soak")
        await self.say(seconds)
        await self.daemon.resume("soak")
        self.diary.withheld.append((began_us, self.clock.boot_us(), kind))

    async def crash(self, down_seconds: float, walk: Walk | None = None) -> None:
        """Let the daemon end as with the power: the file as it lies on the disk now is all that it leaves behind."""
        await self.clock.settle()
        image = self.folder.with_name("image")
        shutil.copytree(self.folder, image, ignore=shutil.ignore_patterns("*.sock", "*.lock", "lock"))
        self.radio.pendants.clear()  # what the old one does from here on, no pendant hears
        self.pendant.cut()
        self.diary.crashes.append(self.clock.boot_us())
        await self.daemon.stop()
        shutil.rmtree(self.folder)
        image.rename(self.folder)
        await self._down(down_seconds, walk)

    async def restart(self, down_seconds: float, walk: Walk | None = None) -> None:
        """Stop the daemon in order, and start it again."""
        await self.daemon.stop()
        await self._down(down_seconds, walk)

    async def _down(self, seconds: float, walk: Walk | None) -> None:
        began_us = self.clock.boot_us()
        if walk is not None:  # nobody listens, and yet something is said
            await self.say(self.chance.uniform(2, 8))
        if walk is None or self.sleeps:
            await self.clock.advance(seconds)
        self.diary.downs.append((began_us, self.clock.boot_us()))
        self.daemon = self._new_daemon()
        await self.daemon.start()

    async def taken(self) -> None:
        """Let another phone listen until ids are about to begin anew."""
        count = (65_536 - 80 - self.pendant._voice.next_id) % 65_536
        packets = [b"\xb8" + bytes(20)] * (count - count % 10)
        self.pendant.hold(consuming=True)
        await drive(self.clock, self.pendant.play_packets(packets), step=10.0)
        self.pendant.let_go()

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def drained(self, walk: Walk) -> None:
        """Wait until the pendant streams, and until what it stored is here and heard."""
        began_us = self.clock.boot_us()
        while not (self.pendant.streaming and await self._all_here()):
            if self.clock.boot_us() - began_us > DRAINED_SECONDS * 1e6:
                still = await self.daemon.db.read(self._open)
                walk.wrong.append(f"not drained within {DRAINED_SECONDS:.0f} s: {still}")
                return
            await self.clock.advance(1.0)

    async def _all_here(self) -> bool:
        if any(block.fate is StoredFate.STORED for block in self.pendant.storage.blocks[-3000:]):
            return False
        return not await self.daemon.db.read(self._open)

    def _open(self, conn: Connection) -> str:
        source = sources.for_device(conn, self.pendant.address)
        if source is None:
            return "no source"
        reading = offline.last_reading(conn, source.id)
        if reading is None or not reading.complete:
            return "not fetched"
        states = Counter(run.state.value for run in offline.open_runs(conn, source.id))
        states.pop(RunState.HELD.value, None)
        rest = len(offline.unplaced(conn, source.id, 10))
        return "" if not states and not rest else f"{dict(states)}, {rest} records without a place"

    # --- a walk -------------------------------------------------------------------------------------------------------

    async def walk(self, number: int, acts: set[str]) -> None:
        """Go away, say something, come back, be drained; ``acts`` name what else happens."""
        walk = Walk(number, self.clock.boot_us(), sorted(acts))
        self.diary.walks.append(walk)
        await self.say(self.chance.uniform(1, 4))
        if "clock ahead" in acts or "clock behind" in acts:
            hours = self.chance.uniform(0.5, 40) * (1 if "clock ahead" in acts else -1)
            self.pendant.clock.set((self.pendant.clock.now() or 0) + 3600 * hours)
        if "clock unset" in acts:
            self.pendant.clock.set(None)
            self.pendant.clock.saved = None
        self.pendant.go_away()
        await self.clock.advance(self.chance.uniform(5.0, 6.0))  # until the link is over
        bursts = self.chance.randint(1, 3)
        if "pendant crash" in acts or "clock back on the way" in acts or "step" in acts or "mute" in acts:
            bursts = max(2, bursts)
        middle = self.chance.randint(1, bursts - 1) if bursts > 1 else 0
        for burst in range(bursts):
            if burst == middle:
                await self._in_the_middle(walk, acts)
            await self.say(self.chance.choice((1.0, 5.0, 12.0)) * self.chance.uniform(1, 2))
            if self.sleeps:
                await self.clock.advance(self.chance.choice((0.0, 5.0, 60.0, 1000.0)) * self.chance.random())
        if not self.sleeps:
            await self.say(1.0)  # what is not a full block stays behind
        self.pendant.come_back()
        walk.back_us = self.clock.boot_us()
        if acts & {"cut", "daemon crash in the drain", "restart in the drain"}:
            for _ in range(300):
                await self.clock.advance(0.1)
                if self.pendant.storage.sending:
                    break
            await self.clock.advance(self.chance.uniform(0, 2))
            if "cut" in acts:
                self.pendant.cut()
            if "daemon crash in the drain" in acts:
                await self.crash(self.chance.uniform(5, 60))
            if "restart in the drain" in acts:
                await self.restart(self.chance.uniform(5, 60))
        await self.drained(walk)
        await self.say(self.chance.uniform(1, 4))
        await self.say(self.chance.uniform(3, 6), quiet=True)
        walk.end_us = self.clock.boot_us()

    async def _in_the_middle(self, walk: Walk, acts: set[str]) -> None:
        if "pendant crash" in acts:
            self.pendant.reboot()
            await self.clock.advance(2.5)
        if "clock back on the way" in acts:
            self.pendant.clock.set((self.pendant.clock.now() or 0) - self.chance.uniform(600, 40_000))
        if "step" in acts:
            await self.step()
        if "mute" in acts:
            kind = self.chance.choice(list(Withholding))
            await self.withhold(self.chance.uniform(2, 12), kind)
        if "daemon crash away" in acts:
            await self.crash(self.chance.uniform(5, 60), walk)

    # --- the days -----------------------------------------------------------------------------------------------------

    async def live(self, days: int, walks: int) -> list[str]:
        """Live so many days with so many walks in all; return what is wrong."""
        await asyncio.to_thread(Database.create, self.folder, PASSPHRASE, self.clock)
        await self.daemon.start()
        await drive(self.clock, self.daemon.pair_device(self.pendant.address, None))
        await self.clock.advance(3.0)
        number = 0
        for day in range(days):
            began = time.monotonic()
            ends_us = self.clock.boot_us() + round(DAY_SECONDS * 1e6)
            today = walks * (day + 1) // days - walks * day // days
            for acts in self._plan(today):
                number += 1
                await self.walk(number, acts)
                if "taken" in acts:
                    await self.taken()
                    await self.clock.advance(30.0)
                if "step at home" in acts:
                    await self.step()
                left = (ends_us - self.clock.boot_us()) / 1e6
                rest = max(10.0, left / max(1, today) * self.chance.uniform(0, 1.5))
                await self.rest(max(20.0, min(rest, left)))
            await self.rest(max(20.0, (ends_us - self.clock.boot_us()) / 1e6))
            print(f"  day {day + 1}: {today} walks, {time.monotonic() - began:.0f} s", flush=True)
        await self.say(3.0)  # what was missing is settled when frames come again
        await self.clock.advance(5.0)
        wrong = await compare(self.daemon, self.clock, self.diary)
        await self.daemon.stop()
        self.pendant.close()
        return wrong

    def _plan(self, count: int) -> list[set[str]]:
        """Say what happens on each walk of a day."""
        plan: list[set[str]] = [set() for _ in range(count)]
        once = [
            "pendant crash", self.chance.choice(("daemon crash away", "daemon crash in the drain")),
            "step", "clock " + self.chance.choice(CLOCK_FAULTS), "restart in the drain", "step at home", "taken",
        ]  # fmt: skip
        for acts, act in zip(self.chance.sample(plan, min(count, len(once))), once, strict=False):
            acts.add(act)
        for acts in plan:
            if not acts and self.chance.random() < 0.3:
                acts.add(self.chance.choice(("mute", "cut")))
        return plan


async def run(profile: str, days: int, walks: int, seed: int) -> list[str]:
    """Live a week with one kind of pendant."""
    with tempfile.TemporaryDirectory(prefix="omi-edge-soak-") as name:
        week = Week(Path(name) / "data", profile, seed)
        try:
            return await week.live(days, walks)
        finally:
            with contextlib.suppress(Exception):
                await week.daemon.stop()


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--walks", type=int, default=200)
    parser.add_argument("--days", type=int, default=7)
    stored = [name for name, profile in PROFILES.items() if profile.storage is not StorageKind.NONE]
    parser.add_argument("--profile", choices=stored, action="append")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    set_up(style="text", level="critical")
    register()
    failed = False
    for profile in options.profile or DEFAULT_PROFILES:
        print(f"week: {profile}, {options.walks} walks in {options.days} days, seed {seed}", flush=True)
        began = time.monotonic()
        wrong = asyncio.run(run(profile, options.days, options.walks, seed))
        for line in wrong[:40]:
            print(f"  WRONG: {line}")
        failed |= bool(wrong)
        seconds = time.monotonic() - began
        print(f"week: {profile} {'FAILED' if wrong else 'ok'}, {seconds:.0f} s, seed {seed}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
