"""Breaks off the fetching of stored audio, over and over: scripts/soak drain [--times N] [--seed S] [--generation G].

A real daemon and an encrypted file, in simulated time, with a virtual pendant that walks away and comes back. In each
round one thing happens at a random notification, transaction or write of the drain: the link is cut, the pendant
crashes or is switched off, the fetching is cancelled, the disk is full for a moment, the daemon is stopped in order, or
it dies by SIGKILL; the pendant then survives it in a file and meets the next daemon. Each frame is unique. When all is
home it is compared with what the pendant knows: every frame that it was told to free is there once and in order, what
it gave up by itself is there or named as lost, and the ledger says so to the second. Only the VAD is replaced, by one
that goes by loudness, and the engines are scripted.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import logging
import os
import pickle
import random
import secrets
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from omi_edge.capture.blocks import unpack
from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig, Config, ConversationConfig, ListenConfig, LogConfig, MemoryConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Codec, FetchState, LedgerState, LinkState
from omi_edge.errors import DiskFull
from omi_edge.observe import set_up
from omi_edge.pipeline import spine
from omi_edge.pipeline.wearable import Wearable
from omi_edge.store import audio, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.offline import LossRow
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import Block, StoredFate
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import PROFILES, Pendant
from scripts.soak_fuzz_link import LoudnessVad
from tests.helpers import PASSPHRASE, START_US, drive
from tests.scripted import register
from tests.test_ledger_day import book

GENERATIONS: dict[str, tuple[tuple[str, Faults], ...]] = {
    "single-file": (("cv1-3.0.15", Faults()), ("cv1-3.0.16", Faults()), ("devkit2-2.0.10", Faults())),
    "multi-file": (("cv1-3.0.18", Faults()),),
    "ring": (("cv1-3.0.21", Faults()),),
    "custody": (("cv1-custody", Faults()),),
    "done-crc": (("cv1-3.0.21", Faults(done_crc=True)), ("cv1-custody", Faults(done_crc=True))),
    "no-auto-advance": (("cv1-3.0.21", Faults(no_auto_advance=True)),),
}
ROUNDS = 12
"""Of one pendant with one file; then both are compared, and others take their places."""
HOME_SECONDS = 900.0
"""Simulated time in which everything is home once nothing disturbs any more."""
LIFE_SECONDS = 240
"""Machine time of one process, at most: what takes longer hangs."""
OPEN = (StoredFate.PACKING, StoredFate.STORED)
BY_ITSELF = (StoredFate.SELF_FREED, StoredFate.SELF_FREED_UNSEEN, StoredFate.OVERWRITTEN)
"""What a pendant gives up without our word."""
SECONDS_OFF = 1.0
EVER_US = 1 << 62
LOSSY = ("single-file", "multi-file", "custody", "no-auto-advance")
"""Here notifications of stored audio may get lost; a ring that frees what it has sent would give up most of a read."""
CONFIG = Config(
    audio=AudioConfig(keep_silence=864_000),  # every frame can be compared
    conversation=ConversationConfig(silence=30.0),
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    log=LogConfig(level="critical"),
)


class Told(msgspec.Struct):
    """What came of one pendant and one file."""

    fired: Counter[str]
    wrong: list[str]
    records: int = 0
    lost: int = 0
    unseen: int = 0


class State:
    """What outlives a daemon that is killed: where the run stands, and all of the pendant that lasts."""

    def __init__(self, generation: str, seed: int, rounds: int) -> None:
        self.rounds = rounds
        self.name = f"{generation}, seed {seed}"
        self.chance = random.Random(f"{generation} {seed}")
        profile, faults = self.chance.choice(GENERATIONS[generation])
        self.profile = profile
        ring = not generation.startswith(("single", "multi"))
        self.faults = msgspec.structs.replace(
            faults,
            seed=seed,
            storage_speed=self.chance.choice((0.0, 0.0, 0.0, 1.0, 4.0)),
            storage_not_ready=self.chance.choice((0.0, 0.0, 3.0, 6.0)) if ring else 0.0,
            lose_stored=self.chance.choice((0.0, 0.0, 0.0, 0.002)) if generation in LOSSY else 0.0,
        )
        self.boot_us = 1_000_000_000
        self.round = 0
        self.tries = 0
        self.fired: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lasting: bytes | None = None
        """Of the pendant: its storage, clock, bond and numbering; None at first."""
        self.bonds: dict[str, int] = {}
        """This machine's."""

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.with_suffix(".new").write_bytes(pickle.dumps(self))
        path.with_suffix(".new").rename(path)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, outside: dict[int, str]) -> None:
        super().__init__(file)
        self._outside = outside

    def persistent_id(self, obj: Any) -> str | None:
        return self._outside.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        return (itertools.count, (next(obj),)) if isinstance(obj, itertools.count) else NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, outside: dict[str, object]) -> None:
        super().__init__(file)
        self._outside = outside

    def persistent_load(self, pid: Any) -> object:
        return self._outside[pid]


def lasting(pendant: Pendant, clock: DrivenClock) -> bytes:
    """Return what a pendant keeps beyond any connection."""
    pendant.close()
    outside = {id(clock): "clock", id(pendant.clock): "device clock", id(pendant): "pendant"}
    kept = {key: value for key, value in vars(pendant.clock).items() if value is not clock}
    file = io.BytesIO()
    voice = pendant._voice
    _Pickler(file, outside).dump((vars(pendant.storage), kept, pendant.bonds, voice.next_id, voice.ledger))
    return file.getvalue()


def revived(state: State, clock: DrivenClock) -> Pendant:
    """Return the pendant as it was, on another clock that shows the same time."""
    pendant = Pendant(clock, PROFILES[state.profile], faults=state.faults, mic_sleep=False)
    if state.lasting is not None:
        outside = {"clock": clock, "device clock": pendant.clock, "pendant": pendant}
        stored, of_clock, bonds, next_id, ledger = _Unpickler(io.BytesIO(state.lasting), outside).load()
        vars(pendant.storage).update(stored)
        vars(pendant.clock).update(of_clock)
        pendant.bonds = bonds
        pendant._voice._next_id = next_id
        pendant._voice.ledger = ledger
    return pendant


class Errors(logging.Handler):
    """Remembers what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        trace = "" if record.exc_info is None or record.exc_info[1] is None else repr(record.exc_info[1])
        self.found.append(f"logged: {record.getMessage()} {trace}")


class Life:
    """One process: a daemon and a pendant, until the run is over or the daemon is killed."""

    def __init__(self, state: State, folder: Path, trace: bool) -> None:
        self.state = state
        self.folder = folder
        self.chance = state.chance
        self.clock = DrivenClock(START_US + state.boot_us - 1_000_000_000, boot_us=state.boot_us)
        self.pendant = revived(state, self.clock)
        self.radio = LoopbackRadio(self.clock, [self.pendant])
        self.radio.bonds = dict(state.bonds)
        self.errors = Errors()
        logging.getLogger().addHandler(self.errors)
        self.fired = False
        self.full_until_us = 0
        self.restart = False
        self._act: Callable[[], object] | None = None
        self._name = ""
        self._left = 0
        self._at = ""
        self._trace = trace

    async def run(self) -> Told:
        """Go on with the rounds; return what came of it all."""
        new = self.state.lasting is None
        if new:
            await asyncio.to_thread(Database.create, self.folder / "data", PASSPHRASE, self.clock)
        playing = asyncio.create_task(self._play())
        try:
            while True:
                self.restart = False
                async with Daemon(
                    CONFIG, self.folder / "data", PASSPHRASE, self.clock, serve_tcp=False, radio=self.radio
                ) as daemon:
                    self._tap(daemon)
                    if new:
                        await drive(self.clock, daemon.pair_device(self.pendant.address, None))
                        await self.clock.advance(4.0)
                        new = False
                    while self.state.round < self.state.rounds and not self.restart:
                        await self._round(daemon)
                    if not self.restart:
                        await self._home(daemon)
                        return await self._compare(daemon)
                self.radio = self._next_radio()
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            self.pendant.close()

    def _next_radio(self) -> LoopbackRadio:
        bonds = self.radio.bonds
        radio = LoopbackRadio(self.clock, [self.pendant])
        radio.bonds = bonds
        return radio

    async def _play(self) -> None:
        codec = self.pendant.profile.codec
        first = b"\xb8" if codec is Codec.OPUS_20MS else b"\xb0"  # CELT, wideband, 20 or 10 ms (RFC 6716, 3.1)
        most = 110 if codec is Codec.OPUS_20MS else 60
        while True:
            sizes = [self.chance.randrange(31, most) for _ in range(1_000_000 // codec.frame_us)]
            await self.pendant.play_packets([first + self.chance.randbytes(size - 1) for size in sizes])

    # --- what happens -------------------------------------------------------------------------------------------------

    async def _round(self, daemon: Daemon) -> None:
        chance, pendant = self.chance, self.pendant
        self.state.tries += 1
        if self.state.tries > 6 * ROUNDS + 6:
            raise RuntimeError("hardly anything ever happens in the middle of a drain: this run proves nothing")
        before = len(pendant.storage.blocks)
        away = chance.uniform(5.0, 30.0)
        pendant.go_away(away)
        await self.clock.advance(away - 0.05)
        held = len(pendant.storage.blocks) - before
        name, act = chance.choice(self._acts(daemon))
        at = chance.choice(("sent", "sent", "keeper", "kept", "write"))
        most = {"sent": 1 + held, "write": 60}.get(at, 1 + held // 16)
        if self._trace:
            print(f"  {self.state.name} {self.state.round}: {name} at {at}, {held} blocks", flush=True)
        self._arm(at, 1 + chance.randrange(most), name, act)
        for _ in range(40):
            await self.clock.advance(1.0)
            if self.fired or (self._is_home(daemon) and not await self._waiting(daemon)):
                break
        self._act = None
        if self.fired:
            self.state.round += 1
        await self.clock.advance(chance.choice((0.0, 3.0, 20.0, 60.0)))
        if chance.random() < 0.5 and not self.restart:
            await self._home(daemon)

    def _acts(self, daemon: Daemon) -> list[tuple[str, Callable[[], object]]]:
        pendant = self.pendant
        seconds = self.chance.uniform(5.0, 30.0)

        def cancel() -> None:
            running = self._wearable(daemon).fetch._running
            if running is not None:
                running.cancel()
            self.clock.call_later(seconds, pendant.end)

        def full() -> None:
            self.full_until_us = self.clock.boot_us() + round(seconds * 1e6 / 3)

        def stop() -> None:
            self.restart = True

        return [
            ("cut", pendant.cut),
            ("end", pendant.end),
            ("stall", lambda: pendant.stall(seconds / 3)),
            ("away", lambda: pendant.go_away(seconds)),
            ("crash", pendant.reboot),
            ("crash, clock back", lambda: pendant.reboot(clock_back_seconds=5.0)),
            ("switched off", lambda: pendant.power_off(seconds)),
            ("battery empty", lambda: pendant.power_off(seconds, graceful=False)),
            ("fetching cancelled", cancel),
            ("disk full", full),
            ("stopped", stop),
            *[("killed", self._die)] * 4,
        ]

    def _arm(self, at: str, count: int, name: str, act: Callable[[], object]) -> None:
        self.fired = False
        self._at, self._left, self._name, self._act = at, count, name, act

    def _happen(self, at: str) -> None:
        if self._act is None or at != self._at:
            return
        self._left -= 1
        if self._left == 0:
            act, self._act = self._act, None
            self.fired = True
            self.state.fired[self._name] += 1
            asyncio.get_running_loop().call_soon(act)

    def _die(self) -> None:
        """Let the pendant survive in a file, and be killed; the writer may be in the middle of a transaction."""
        state = self.state
        state.round += 1
        state.boot_us = self.clock.boot_us() + self.chance.randrange(1_000_000, 20_000_000)
        state.bonds = self.radio.bonds
        state.wrong += self.errors.found
        self.pendant.on_sent = lambda: None
        self.pendant.cut()
        state.lasting = lasting(self.pendant, self.clock)
        state.save(self.folder / "state")
        os.kill(os.getpid(), signal.SIGKILL)

    def _tap(self, daemon: Daemon) -> None:
        """Count what is sent, kept and written."""
        db = daemon.db
        write: Callable[[Any], Awaitable[Any]] = db.write

        async def written(work: Any) -> Any:
            if self.clock.boot_us() < self.full_until_us:
                raise DiskFull("no space.")
            self._happen("write")
            return await write(work)

        vars(db)["write"] = written
        self.pendant.on_sent = lambda: self._happen("sent") if self.pendant.storage.sending else None

    def _tap_fetch(self, daemon: Daemon) -> None:
        fetch = self._wearable(daemon).fetch
        if "keep" in vars(fetch):
            return
        keep = fetch.keep

        async def kept(*arguments: Any) -> None:
            self._happen("keeper")
            await keep(*arguments)
            self._happen("kept")

        vars(fetch)["keep"] = kept

    # --- what is so ---------------------------------------------------------------------------------------------------

    def _wearable(self, daemon: Daemon) -> Wearable:
        return daemon.devices._wearables[self.pendant.address.lower()]

    def _is_home(self, daemon: Daemon) -> bool:
        self._tap_fetch(daemon)
        address = self.pendant.address
        connected = daemon.device_state(address).state is LinkState.CONNECTED
        return connected and daemon.devices.fetching(address).state is FetchState.DONE

    async def _home(self, daemon: Daemon) -> None:
        self.full_until_us = 0
        limit_us = self.clock.boot_us() + round(HOME_SECONDS * 1e6)
        while not self._is_home(daemon) or await self._waiting(daemon):
            if self.clock.boot_us() > limit_us:
                state = daemon.devices.fetching(self.pendant.address)
                told = await daemon.db.read(self._stuck) if self._trace else ""
                raise RuntimeError(f"not home: {state}, {await self._waiting(daemon)} bytes unheard{told}")
            await self.clock.advance(1.0)

    async def _waiting(self, daemon: Daemon) -> int:
        def work(conn: Connection) -> int:
            source = sources.for_device(conn, self.pendant.address)
            return 0 if source is None else offline.waiting_bytes(conn, source.id)

        return await daemon.db.read(work)

    def _runs(self, conn: Connection) -> str:
        source = sources.for_device(conn, self.pendant.address)
        assert source is not None
        runs = offline.latest(conn, source.id, 1000)[::-1]
        return "\n".join(
            f"    run of reading {run.reading_n}: {run.store}, {run.first_seq} to {run.last_seq}, "
            f"{((run.start_us or 0) - START_US) / 1e6:.2f} s for {run.frames} frames, "
            f"+-{run.uncertainty_us / 1e6:.2f} s, {'guessed, ' if run.guessed else ''}"
            f"latest end {((run.latest_us or START_US) - START_US) / 1e6:.2f} s"
            for run in runs
        )

    def _stuck(self, conn: Connection) -> str:
        source = sources.for_device(conn, self.pendant.address)
        assert source is not None
        last = offline.last_reading(conn, source.id)
        lines = [
            offline.placing(conn, source.id), offline.cursor(conn, source.id), *offline.open_runs(conn, source.id),
            *([] if last is None else offline.readings(conn, source.id, last.n + 1)),
            *[(row.store, row.seq, row.reading_n) for row in offline.unplaced(conn, source.id, 3)],
            *conn.execute("SELECT store, reading_n, min(seq), max(seq), count(*) FROM offline_records GROUP BY 1, 2"),
        ]  # fmt: skip
        return "\n    " + "\n    ".join(map(str, lines))

    async def _compare(self, daemon: Daemon) -> Told:
        def work(conn: Connection) -> tuple[list[bytes], list[LossRow], list[str]]:
            source = sources.for_device(conn, self.pendant.address)
            assert source is not None
            packets = [p for chunk in audio.between(conn, source.id, 0, EVER_US) for p in chunk.packets]
            checks = [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
            checks += [row[0] for row in conn.execute("PRAGMA cipher_integrity_check") if row[0] != "ok"]
            return packets, offline.losses(conn, source.id), checks

        packets, losses, wrong = await daemon.db.read(work)
        ledger = await book(daemon, self.pendant)
        blocks = self.pendant.storage.blocks
        wrong += self.state.wrong + self.errors.found
        wrong += compare(blocks, packets, losses)
        lost_us, recovered_us = _truth(blocks, set(packets))
        recovered = ledger.seconds(LedgerState.RECOVERED)
        if abs(recovered - recovered_us / 1e6) > SECONDS_OFF:
            wrong.append(f"the ledger has {recovered:.2f} s recovered, there were {recovered_us / 1e6:.2f} s")
        if all(loss.start_us is not None for loss in losses):  # else of a time that nothing tells
            lost = sum((loss.end_us or 0) - (loss.start_us or 0) for loss in losses) / 1e6
            most = SECONDS_OFF * max(1, len(losses))  # of each loss
            if abs(lost - lost_us / 1e6) > most or ledger.seconds(LedgerState.LOST) < lost - most:
                wrong.append(f"{lost:.2f} s are named as lost, {ledger.seconds(LedgerState.LOST):.2f} s in the ledger, "
                             f"there were {lost_us / 1e6:.2f} s")  # fmt: skip
        total_us = sum(span.length_us for span in ledger.spans)
        if total_us != ledger.spans[-1].end_us - ledger.spans[0].start_us:
            wrong.append("the ledger does not sum to the elapsed time")
        if wrong and self._trace:
            print(await daemon.db.read(self._runs), flush=True)
        fates = Counter(block.fate for block in blocks)
        named = sum(loss.records for loss in losses)
        return Told(self.state.fired, wrong, len(blocks), named, fates[StoredFate.SELF_FREED_UNSEEN])


def compare(blocks: Sequence[Block], packets: Sequence[bytes], losses: Sequence[LossRow]) -> list[str]:
    """Hold what is in the file against what the pendant had."""
    wrong = []
    count = Counter(packets)
    place = {packet: index for index, packet in enumerate(packets)}
    missing = []
    previous = -1
    disorder = 0
    for block in blocks:
        frames = unpack(block.raw)[0]
        there = [frame for frame in frames if frame in count]
        if block.fate in (StoredFate.CRASHED, StoredFate.FULL, StoredFate.NO_CLOCK):
            if there:
                wrong.append(f"block {block.store}/{block.seq}, {block.fate}, is there")
            continue
        if block.fate in OPEN:
            wrong.append(f"block {block.store}/{block.seq} was left behind")
        if len(there) not in (0, len(frames)):
            wrong.append(f"{len(there)} of {len(frames)} frames of block {block.store}/{block.seq}, {block.fate}")
        if frames and not there:
            missing.append(block)
        for frame in there:
            disorder += place[frame] < previous
            previous = place[frame]
    twice = sum(number > 1 for number in count.values())
    if twice:
        wrong.append(f"{twice} frames are there twice")
    if disorder:
        wrong.append(f"{disorder} frames are out of order")
    unfreed = [block for block in missing if block.fate not in BY_ITSELF]
    if unfreed:
        wrong.append(f"{len(unfreed)} blocks are lost that the pendant had not freed by itself: "
                     f"{[(b.store, b.seq, b.fate.value) for b in unfreed[:5]]}")  # fmt: skip
    named = sum(loss.records for loss in losses)
    if named != len(missing):
        wrong.append(f"{named} records are named as lost, {len(missing)} are missing: "
                     f"{[(loss.store, loss.first, loss.last, loss.records, loss.why) for loss in losses[:5]]}, "
                     f"{[(b.store, b.seq, b.fate.value) for b in missing[:5]]}")  # fmt: skip
    return wrong


def _truth(blocks: Sequence[Block], there: set[bytes]) -> tuple[int, int]:
    """Return how much is lost for good, and how much came home, in microseconds."""
    lost_us = recovered_us = 0
    for block in blocks:
        for frame, (start_us, end_us) in zip(unpack(block.raw)[0], block.spans, strict=True):
            if frame in there:
                recovered_us += end_us - start_us
            elif block.fate in BY_ITSELF:
                lost_us += end_us - start_us
    return lost_us, recovered_us


# --- the processes ----------------------------------------------------------------------------------------------------


def part(generation: str, times: int, seed: int, trace: bool) -> list[str]:
    """Break off so many drains of one generation; return what is wrong."""
    began = time.monotonic()
    fired: Counter[str] = Counter()
    wrong: list[str] = []
    records = lost = unseen = 0
    pendants = 0
    while fired.total() < times and len(wrong) < 20:
        rounds = min(ROUNDS, times - fired.total())
        told = one_pendant(generation, seed + pendants, rounds, trace)
        pendants += 1
        fired += told.fired
        wrong += [f"{generation}, seed {seed + pendants - 1}: {line}" for line in told.wrong]
        records, lost, unseen = records + told.records, lost + told.lost, unseen + told.unseen
        for line in told.wrong:
            print(f"  WRONG: seed {seed + pendants - 1}: {line}", flush=True)
        if pendants % 10 == 0:
            print(f"  {fired.total()} of {times}, {time.monotonic() - began:.0f} s", flush=True)
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(fired.items()))
    print(
        f"{generation}: {'FAILED' if wrong else 'ok'}, {fired.total()} drains disturbed ({kinds}), {pendants} "
        f"pendants, {records} blocks, {lost} named as lost, {time.monotonic() - began:.0f} s, seed {seed}", flush=True
    )  # fmt: skip
    return wrong


def one_pendant(generation: str, seed: int, rounds: int, trace: bool) -> Told:
    """Let one pendant and one file live through their rounds, in as many processes as it takes."""
    with tempfile.TemporaryDirectory(prefix="omi-edge-soak-") as name:
        folder = Path(name)
        State(generation, seed, rounds).save(folder / "state")
        while True:
            child = os.fork()
            if child == 0:
                _live(folder, trace)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                continue
            if not (folder / "told").is_file():
                return Told(Counter({"broken": 1}), [f"a process ended with {status}"])
            return pickle.loads((folder / "told").read_bytes())  # type: ignore[no-any-return]


def _live(folder: Path, trace: bool) -> None:
    """Be one process of a run; does not return."""
    signal.alarm(LIFE_SECONDS)
    state: State = pickle.loads((folder / "state").read_bytes())
    try:
        try:
            told = asyncio.run(Life(state, folder, trace).run())
        except Exception as error:  # noqa: BLE001 whatever it is, it is the finding
            if trace:
                traceback.print_exc()
            told = Told(state.fired or Counter({"broken": 1}), [*state.wrong, f"round {state.round}: {error!r}"])
        (folder / "told").write_bytes(pickle.dumps(told))
        os._exit(0)
    finally:
        os._exit(1)


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=300, help="drains to be disturbed, of each generation")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--generation", choices=[*GENERATIONS], default=None)
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    chosen = [options.generation] if options.generation else [*GENERATIONS]
    print(f"drain: {options.times} of each of {', '.join(chosen)}, seed {seed}", flush=True)
    set_up(style="text", level="critical")
    register()
    vars(spine).update(SileroVad=LoudnessVad)
    began = time.monotonic()
    wrong = [line for generation in chosen for line in part(generation, options.times, seed, options.trace)]
    print(f"drain: {'FAILED' if wrong else 'ok'}, {time.monotonic() - began:.0f} s, seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
