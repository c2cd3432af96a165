"""Fuzzes the connected client: scripts/soak fuzz-link [--count N] [--bus] [--seed S] [--skip ROUNDS] [--trace].

A real daemon and vault, in simulated time, with scripted engines; only the VAD is replaced, by one that goes by
loudness, since the real one would take most of the time. In each round a hostile pendant notifies garbage on whatever
the client subscribed to, answers requests wrongly, loses connections; then a clean one takes its place. Another pendant
stays near. What must hold: no exception and no error in the log, no hang, no growth, all but the first valid packet
after garbage bit for bit in what is heard, a clean pendant streams again after each round, the other one is not
disturbed, the vault is sound. ``--bus``: unmodified bleak on a D-Bus of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import functools
import gc
import logging
import os
import random
import secrets
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge import gatt
from omi_edge.capture.ble import BleRadio
from omi_edge.capture.link import Radio
from omi_edge.clock import DrivenClock
from omi_edge.config import Config, DeviceConfig, EngineConfig, ListenConfig, LogConfig, MemoryConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Codec, Frame, LinkState
from omi_edge.listen.vad import CHUNK_SAMPLES
from omi_edge.observe import set_up
from omi_edge.opus import silence_packet
from omi_edge.pipeline import spine
from omi_edge.pipeline.hearing import Heard, Hearing
from omi_edge.pipeline.wearable import MOST_JOBS
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.virtual import bus
from omi_edge.virtual.escort import EscortedRadio
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from scripts.hostile_pendant import HostilePendant, Kind, become_clean, become_hostile
from scripts.soak_fuzz import hostile_values
from tests.helpers import drive
from tests.scripted import register

if sys.platform == "linux":  # dbus-fast comes with bleak there and only there
    from omi_edge.virtual.bluez import BluezAdapter

START_US = 1_772_442_000_000_000
PASSPHRASE = "a passphrase for a soak"
HOSTILE, NEIGHBOUR = "C0:FF:EE:66:66:66", "C0:FF:EE:00:30:21"
NOTIFYING = (gatt.BATTERY_LEVEL, gatt.CHARGING, gatt.BUTTON, gatt.STORAGE_CONTROL, gatt.STORAGE_STATUS)
"""What else notifies besides audio. Nobody subscribes to storage before stored audio is fetched."""
BURST = 400
"""Hostile notifications at one moment, at most; now and then FLOOD, which the client must throw away."""
FLOOD = 5000
VALID = 5
ROUND_SECONDS = 120.0
"""Machine time of one round, at most: what takes longer hangs; rounds take seconds."""
AGAIN_SECONDS = 120.0
"""Simulated time until a clean pendant streams: the longest wait after a refusal is 72 s, a look lasts 10."""
REPORT_EVERY = 100_000
GROWTH = {"tasks": 5, "handles": 8, "blocks": 20_000, "resident": 60_000_000, "traced": 2_000_000}
"""How much more may be held at the end than after the first report: running engines, vectors, SQLite's cache."""
CONFIG = Config(
    device=DeviceConfig(double_tap="bookmark", long_press="conversation", haptics=("bookmark:1",)),
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    engine=EngineConfig(idle=600.0),  # starting them takes a second of real time
    log=LogConfig(level="error"),
)


class Broken(Exception):
    """Something that must hold did not."""


class LoudnessVad:
    """In place of the real VAD: half of full scale is speech for certain, a hundredth of that is none."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)

    def reset(self) -> None:
        self._rest = np.zeros(0, np.int16)

    def probabilities(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        samples = np.concatenate([self._rest, pcm])
        whole = len(samples) // CHUNK_SAMPLES
        self._rest = samples[whole * CHUNK_SAMPLES :]
        chunks = samples[: whole * CHUNK_SAMPLES].reshape(whole, CHUNK_SAMPLES).astype(np.float32)
        probabilities: npt.NDArray[np.float32] = np.minimum(np.abs(chunks).mean(axis=1) / np.float32(16_384), 1)
        return probabilities


class TappedHearing(Hearing):
    """Remembers the last frames that were fed as they came, not those that the pendant had stored."""

    fed: ClassVar[deque[Frame]] = deque(maxlen=400)

    def feed(self, frames: Sequence[tuple[Frame, int]]) -> list[Heard]:
        if self._live:
            TappedHearing.fed.extend(frame for frame, _ in frames)
        return super().feed(frames)


class Complaints(logging.Handler):
    """Collects whatever should not have happened: errors in the log, exceptions that nobody caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"log: {record.name}: {record.getMessage()} {vars(record).get('cause', '')}")
        if record.exc_info and record.exc_info[1] is not None:
            traceback.print_exception(record.exc_info[1])

    def listen(self) -> None:
        logging.getLogger().addHandler(self)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._note("loop", context))
        threading.excepthook = lambda args: self._note("thread", {"exception": args.exc_value})
        sys.unraisablehook = lambda args: self._note("unraisable", {"exception": args.exc_value})

    def check(self) -> None:
        if self.found:
            raise Broken("; ".join(self.found[:5]))

    def _note(self, where: str, context: dict[str, Any]) -> None:
        self.found.append(f"{where}: {context.get('message', '')} {context.get('exception')!r}")
        if isinstance(context.get("exception"), BaseException):
            traceback.print_exception(context["exception"])


class Held(msgspec.Struct, frozen=True):
    """What the process holds."""

    tasks: int
    handles: int
    blocks: int
    """Small blocks of memory that Python has allocated; counting them costs nothing."""
    resident: int
    """Bytes of memory that the process has, whoever allocated them."""
    traced: int
    """Bytes that Python has allocated, 0 without --trace."""

    def told(self) -> str:
        resident = f"{self.tasks} tasks, {self.handles} handles, {self.blocks} blocks, {self.resident / 1e6:.0f} MB"
        return resident + (f", {self.traced / 1000:.0f} kB traced" if self.traced else "")


class Fuzz:
    """One run."""

    def __init__(self, clock: DrivenClock, seed: int) -> None:
        self.clock = clock
        self.pendant = HostilePendant(clock, HOSTILE)
        self.neighbour = Pendant(clock, address=NEIGHBOUR)
        self.radio: Radio | None = None
        self.notifications = 0
        self.checks = 0
        """Times that valid packets after garbage were looked for."""
        self.cures = 0
        """Times that the pendant had to be paired by hand, since it forgot even the bond that was just renewed."""
        self._seed = seed
        self._complaints = Complaints()
        self._daemon: Daemon | None = None
        self._packets: dict[Codec, list[bytes]] = {}

    @property
    def daemon(self) -> Daemon:
        assert self._daemon is not None
        return self._daemon

    async def run(self, count: int, folder: Path, radio: Radio, skip: int) -> int:
        """Run rounds until so many notifications were sent; return the number of rounds."""
        self.radio = radio
        self._complaints.listen()
        first: Held | None = None
        reported, number = 0, skip
        async with Daemon(CONFIG, folder, PASSPHRASE, self.clock, serve_tcp=False, radio=radio) as self._daemon:
            await self._pair(NEIGHBOUR)
            await self._pair(HOSTILE)
            while self.notifications < count:
                number += 1
                await self._round(number)
                if self.notifications // REPORT_EVERY > reported or self.notifications >= count:
                    reported = self.notifications // REPORT_EVERY
                    held = await self._held()
                    print(f"  {self.notifications} notifications, {number} rounds, {held.told()}", flush=True)
                    first = _compared(first, held)
            await self._quiet()
        self._complaints.check()
        return number - skip

    async def _pair(self, address: str) -> None:
        row = await drive(self.clock, self.daemon.pair_device(address, None))
        receiver = self.daemon.devices._wearables[row.address.lower()]._receiver
        receiver._random = random.Random(self._seed)  # its waits are random, and not by our seed

    async def _round(self, number: int) -> None:
        """Let one hostile pendant do its worst, then a clean one come."""
        chance = random.Random(f"{self._seed} {number}")
        faulthandler.dump_traceback_later(2 * ROUND_SECONDS, exit=True)  # for a loop that never comes back
        before = self.neighbour._connection
        touched = False
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                become_hostile(self.pendant, chance, number)
                policy = chance.choice(("off", "prefer", "prefer", "require"))
                self.daemon.devices.reconfigure(msgspec.structs.replace(CONFIG.device, require_encryption=policy))
                for _ in range(chance.randint(1, 3)):
                    touched |= await self._session(chance)
                self.daemon.devices.reconfigure(CONFIG.device)
                become_clean(self.pendant, chance)
                await self._streams_again(chance)
        except TimeoutError:
            stuck = f"{self.clock._held} hold the clock, {self.pendant.manners}, {self.pendant.profile.name}"
            raise Broken(f"round {number} took longer than {ROUND_SECONDS} s: {stuck}") from None
        except Exception as error:
            raise Broken(f"round {number}: {error!r}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        if not touched and self.neighbour._connection is not before:
            raise Broken(f"round {number}: the other pendant lost its connection")
        self._complaints.check()
        self._check_queues()

    async def _session(self, chance: random.Random) -> bool:
        """Garbage and losses while it plays; say whether the whole radio was touched."""
        await self.clock.advance(chance.choice((0.0, 0.2, 0.5, 2.0, 2.0)))
        playing = asyncio.create_task(self.pendant.play_packets(self._audio()))
        touched = False
        # what is wrong when connecting shows only when that is done often
        losses = 0.03 if self.pendant.manners.kind is Kind.NOTHING else 0.2
        for _ in range(chance.choice((2, 5, 20, 40))):
            await self._burst(chance)
            if chance.random() < losses:
                touched |= await self._lose(chance)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await self._recovers_at_once(chance)
        return touched

    async def _burst(self, chance: random.Random) -> None:
        number = chance.randint(1, BURST) if chance.random() > 0.02 else FLOOD
        before = self.pendant.sent
        audio = chance.choice((1.0, 1.0, 0.9, 0.3))
        for value in hostile_values(chance, number):
            if chance.random() < audio:
                self.pendant.inject(gatt.AUDIO_DATA, value)
            else:
                # half of it such that a small service may take it for its own
                small = (
                    value if chance.random() < 0.5 else bytes([chance.randrange(120)]) + bytes(chance.choice((0, 3, 7)))
                )
                self.pendant.inject(chance.choice(NOTIFYING), small)
        self.notifications += self.pendant.sent - before
        await self.clock.advance(chance.choice((0.0, 0.05, number / 1000, 2 * number / 1000)))

    async def _lose(self, chance: random.Random) -> bool:
        """End the connection in some way; say whether it was for all pendants."""
        seconds = chance.uniform(0.1, 8.0)
        kind = chance.randrange(9)
        if kind < 6:
            (
                self.pendant.cut, self.pendant.end, self.pendant.reboot, lambda: self.pendant.go_away(seconds),
                lambda: self.pendant.stall(seconds), lambda: self.pendant.hold(seconds),
            )[kind]()  # fmt: skip
        elif isinstance(self.radio, LoopbackRadio):
            if kind == 6:
                self.radio.hanging = True
            else:
                self.radio.power(False)
            await self.clock.advance(seconds)
            self.radio.hanging = False
            self.radio.power(True)
            return True
        await self.clock.advance(chance.uniform(0.0, 2 * seconds))
        return False

    async def _recovers_at_once(self, chance: random.Random) -> None:
        """After garbage, valid packets come out as they went in, all but the first at most."""
        await self.clock.advance(0.2)
        link = self.pendant.link
        if not self.pendant.listened(gatt.AUDIO_DATA) or self._state() is not LinkState.CONNECTED:
            return
        first = chance.randrange(0x10000)
        packets = [b"\xb8" + chance.randbytes(chance.randint(1, 160)) for _ in range(VALID)]
        for offset, packet in enumerate(packets):
            number = (first + offset) & 0xFFFF
            self.pendant.inject(gatt.AUDIO_DATA, number.to_bytes(2, "little") + b"\0" + packet)
            self.notifications += 1
        await self.clock.advance(4.5)  # a pendant that fragments may have to be waited for, 3 s
        if self.pendant.link is not link:
            return
        frames = list(TappedHearing.fed)[-VALID + 1 :]
        if [frame.data for frame in frames] != packets[1:] or any(frame.lost for frame in frames):
            raise Broken("valid packets after garbage did not come out bit for bit")
        self.checks += 1

    async def _streams_again(self, chance: random.Random) -> None:
        """A clean pendant in its place is connected, and what it plays is heard bit for bit."""
        waited = 0.0
        while not (self.pendant.streaming and self._state() is LinkState.CONNECTED and self.neighbour.streaming):
            if waited > AGAIN_SECONDS:
                raise Broken(f"no clean pendant streams after {waited} s: {self.daemon.device_state(HOSTILE)}")
            await self.clock.advance(0.5)
            waited += 0.5
            if self.daemon.device_state(HOSTILE).cause == "bond-lost":
                await self._pair(HOSTILE)  # as the message says
                self.cures += 1
        each = 320 if self.pendant.profile.codec is Codec.PCM16 else 160
        toc = silence_packet(self.pendant.profile.codec)[:1]
        packets = [toc + chance.randbytes(each - 1) for _ in range(20)]
        before = self.pendant.sent
        await drive(self.clock, self.pendant.play_packets(packets), step=0.2)
        self.notifications += self.pendant.sent - before
        await self.clock.advance(4.5)
        if [frame.data for frame in TappedHearing.fed][-len(packets) + 1 :] != packets[1:]:
            raise Broken("what a clean pendant played was not heard bit for bit")

    def _audio(self) -> list[bytes]:
        """Return a minute of packets, made once for each codec."""
        codec = self.pendant.profile.codec
        if codec not in self._packets:
            rng = random.Random(int(codec))
            toc, size = silence_packet(codec)[:1], 319 if codec is Codec.PCM16 else 80
            self._packets[codec] = [toc + rng.randbytes(size) for _ in range(60_000_000 // codec.frame_us)]
        return self._packets[codec]

    def _state(self) -> LinkState:
        return self.daemon.device_state(HOSTILE).state

    def _check_queues(self) -> None:
        for intake in self.daemon.spine._intakes.values():
            if intake._waiting or intake._ready.qsize():
                raise Broken(f"{len(intake._waiting)} notifications and {intake._ready.qsize()} pieces wait for nobody")
        for wearable in self.daemon.devices._wearables.values():
            if len(wearable._jobs) > MOST_JOBS or wearable.broken:
                raise Broken("a pendant's jobs pile up, or its task is dead")

    async def _quiet(self) -> None:
        """Let what was begun be done."""
        await self.clock.advance(150.0)
        await self.clock.settle()

    async def _held(self) -> Held:
        await self._quiet()
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
        return Held(len(asyncio.all_tasks()), _handles(), sys.getallocatedblocks(), _resident(), traced)


def _handles() -> int:
    """Return the number of open file handles, 0 where /proc does not tell."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _resident() -> int:
    """Return the process's resident set in bytes, 0 where /proc does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def _compared(first: Held | None, held: Held) -> Held:
    if first is None:
        return held
    for name, limit in GROWTH.items():
        if getattr(held, name) > getattr(first, name) + limit:
            raise Broken(f"{name} grew from {first.told()} to {held.told()}")
    return first


@contextlib.asynccontextmanager
async def _radio(fuzz: Fuzz, *, on_bus: bool) -> AsyncIterator[Radio]:
    if not on_bus:
        yield LoopbackRadio(fuzz.clock, [fuzz.pendant, fuzz.neighbour])
        return
    pendants = (fuzz.pendant, fuzz.neighbour)
    async with bus.PrivateBus(fuzz.clock), BluezAdapter(*pendants):
        yield EscortedRadio(BleRadio(fuzz.clock), pendants, fuzz.clock)


def _in_memory() -> Path | None:
    """Return a place for the vault: the disk is not what is tried here, and waiting for it takes half of the time."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


async def _check_vault(folder: Path, clock: DrivenClock) -> None:
    database = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    try:
        for check in ("integrity_check", "cipher_integrity_check"):
            rows = await database.read(functools.partial(_answers, check=check))
            if any(row != "ok" for row in rows):
                raise Broken(f"{check}: {rows[:3]}")
    finally:
        await database.close()


def _answers(conn: Connection, check: str) -> list[str]:
    return [row[0] for row in conn.execute(f"PRAGMA {check}").fetchall()]


async def _run(count: int, seed: int, skip: int, *, on_bus: bool) -> str:
    clock = DrivenClock(START_US)
    fuzz = Fuzz(clock, seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="omi-edge-soak-", dir=_in_memory()) as name:
        folder = Path(name) / "data"
        await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
        try:
            async with _radio(fuzz, on_bus=on_bus) as radio:
                rounds = await fuzz.run(count, folder, radio, skip)
        except BaseException:
            print(f"  after {fuzz.notifications} notifications", flush=True)
            raise
        await _check_vault(folder, clock)
    rate = fuzz.notifications / (time.monotonic() - began)
    done = f"{fuzz.notifications} notifications ({rate:.0f} per second), {rounds} rounds"
    return f"{done}, {fuzz.checks} recoveries, {fuzz.cures} cures"


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--bus", action="store_true", help="real bleak over a private D-Bus")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--skip", type=int, default=0, metavar="ROUNDS", help="begin with a later round")
    parser.add_argument("--trace", action="store_true", help="count memory with tracemalloc, which halves the speed")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(
        f"fuzz-link: {options.count} notifications, {'D-Bus' if options.bus else 'in process'}, seed {seed}", flush=True
    )
    set_up(style="text", level="error")
    register()
    vars(spine).update(Hearing=TappedHearing, SileroVad=LoudnessVad)
    began = time.monotonic()
    if options.trace:
        tracemalloc.start()
    try:
        told = asyncio.run(_run(options.count, seed, options.skip, on_bus=options.bus))
    except Exception as error:  # noqa: BLE001 whatever leaves the client is the finding
        traceback.print_exc()
        print(f"fuzz-link: FAILED, {time.monotonic() - began:.0f} s, seed {seed}: {error!r}")
        return 1
    print(f"fuzz-link: ok, {told}, {time.monotonic() - began:.0f} s, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
