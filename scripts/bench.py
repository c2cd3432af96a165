"""Measures the spine on this machine. Ratios within one run are what counts; each part says its bar.

scripts/bench [--json FILE] [--minutes 5]

front end   replay through reassembly, gate and storage, without ASR, against the bare Opus + VAD loop, one core
idle        CPU of the daemon while a pendant streams silence in real time, against the bare loop on the same audio
over bleak  CPU of the main process while a pendant streams speech, and silence, over real bleak on a private D-Bus (the
            pendant is a process of its own), above the bare loop on the same audio
lag         how late the event loop runs while all engines are busy and a pendant streams over real bleak
latency     end of phrase to a stored, searchable utterance, minus the engine's own time
asr         text through the daemon against the engine alone on the same segments, what the daemon adds to its time, and
            the word error rate of the shipped recording
drain       how fast stored audio is fetched while the pendant streams as well, against a client that does nothing with
            it; and how late the event loop runs meanwhile
start       from a fresh process to the first audio taken
memory      resident memory of the main process with engines unloaded
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from omi_edge.capture.ble import BleRadio
from omi_edge.capture.replay import Recording
from omi_edge.clock import DrivenClock, SystemClock
from omi_edge.config import Config, ConversationConfig, LogConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Codec, Notification
from omi_edge.errors import LinkError
from omi_edge.listen.gate import SpeechGate
from omi_edge.listen.vad import SileroVad
from omi_edge.observe import set_up
from omi_edge.opus import Decoder, Encoder
from omi_edge.pipeline.hearing import Hearing
from omi_edge.pipeline.intake import Intake
from omi_edge.store import devices, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.virtual import bus
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.script import recording_path
from scripts import bench_asr, bench_drain
from tests.helpers import drive

START_US = 1_772_442_000_000_000
IDLE_SECONDS = 20
BLEAK_SECONDS = 30
LAG_SECONDS = 60
PASSPHRASE = secrets.token_urlsafe(12)
CONFIG = Config(conversation=ConversationConfig(silence=8.0), log=LogConfig(level="error"))


class Figure(msgspec.Struct):
    """One measurement and what it is held to."""

    name: str
    value: float
    unit: str
    bar: str
    ok: bool
    detail: str = ""


def packets_of(pcm: npt.NDArray[np.int16], codec: Codec = Codec.OPUS_20MS) -> list[bytes]:
    """Encode as a pendant does."""
    encoder, samples = Encoder(codec), codec.frame_us * 16 // 1000
    return [encoder.encode(frame) for frame in pcm[: len(pcm) // samples * samples].reshape(-1, samples)]


def bare_loop(packets: list[bytes]) -> float:
    """CPU seconds of Opus and VAD and nothing else."""
    decoder, vad = Decoder(Codec.OPUS_20MS), SileroVad()
    vad.probabilities(np.zeros(512, np.int16))
    began = time.process_time()
    for first in range(0, len(packets), 5):
        vad.probabilities(np.concatenate([decoder.decode(packet) for packet in packets[first : first + 5]]))
    return time.process_time() - began


async def front_end(packets: list[bytes], folder: Path) -> tuple[float, float]:
    """CPU and wall seconds from notifications to durable chunks and segments."""
    clock = SystemClock()
    await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
    database = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    source = await database.write(
        lambda conn: sources.add(
            conn, id="src_bench", kind="pendant", name="bench", device_id="bench", client_id=None,
            codec=Codec.OPUS_20MS, created_us=START_US,
        )
    )  # fmt: skip
    vad = SileroVad()
    vad.probabilities(np.zeros(512, np.int16))
    count = iter(range(1 << 30))

    def gate() -> SpeechGate:
        vad.reset()
        return SpeechGate(vad)

    async def nothing(_: object) -> None:
        return

    hearing = Hearing(source.id, Codec.OPUS_20MS, gate, lambda _: f"seg_{next(count)}", live=False)
    with ThreadPoolExecutor(1) as thread:
        intake = Intake(
            source.id, hearing, Codec.OPUS_20MS, db=database, clock=clock, thread=thread, on_stored=lambda _: None,
            on_live=lambda _: None, on_missing=nothing, on_disk=nothing,
        )  # fmt: skip
        boot_us = clock.boot_us()
        began, cpu = time.perf_counter(), time.process_time()
        for number, packet in enumerate(packets):
            value = (number & 0xFFFF).to_bytes(2, "little") + b"\0" + packet
            intake.notify(Notification(value, boot_us + (number // 5 + 1) * 100_000))
            if number % 500 == 499:
                await asyncio.sleep(0)
        await intake.finish()
        wall, used = time.perf_counter() - began, time.process_time() - cpu
        await intake.close()
    await database.close()
    return used, wall


def measure_front_end(pcm: npt.NDArray[np.int16], minutes: float) -> Figure:
    """One core for both."""
    packets = packets_of(pcm)
    packets = packets * max(1, round(minutes * 60 * 50 / len(packets)))
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        bare = bare_loop(packets)
        with tempfile.TemporaryDirectory() as name:
            used, wall = asyncio.run(front_end(packets, Path(name) / "data"))
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    share = bare / wall
    seconds = len(packets) / 50
    detail = f"{seconds / wall:.0f}x real time; bare loop {seconds / bare:.0f}x; CPU alone {bare / used:.2f} of it"
    return Figure("front end against the bare loop", share, "of its speed", ">= 0.60", share >= 0.60, detail)


async def idle_cost() -> Figure:
    """Silence in real time."""
    silence = np.random.default_rng(1).normal(0, 8, 16_000 * IDLE_SECONDS).astype(np.int16)
    packets = packets_of(silence)
    bare = bare_loop(packets)
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name) / "data", SystemClock()
        await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
        pendant = Pendant(clock, mic_sleep=False)
        radio = LoopbackRadio(clock, [pendant])
        async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, radio=radio) as daemon:
            await daemon.pair_device(pendant.address, None)
            await pendant.wait_streaming()
            began, cpu = time.perf_counter(), time.process_time()
            await pendant.play_packets(packets)
            wall, used = time.perf_counter() - began, time.process_time() - cpu
    share = used / bare
    detail = f"{used / wall:.2%} of a core; the bare loop takes {bare / wall:.2%}"
    return Figure("silence streaming, CPU against the bare loop", share, "times", "<= 2", share <= 2, detail)


@contextlib.asynccontextmanager
async def streaming(pcm: npt.NDArray[np.int16], folder: Path, clock: SystemClock) -> AsyncIterator[Daemon]:
    """Have a daemon that hears ``pcm``, again and again, from a pendant in another process, over real bleak."""
    await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
    recording = folder.parent / "heard.wav"
    with wave.open(str(recording), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm.tobytes())
    async with bus.PrivateBus(clock):
        # a firmware whose microphone never sleeps, so that silence is streamed
        command = [
            str(Path(sys.executable).with_name("omi-edge")), "virtual-pendant", "--profile", "cv1-3.0.15",
            "--bus", os.environ[bus.ADDRESS_VARIABLE], "--audio", str(recording), "--repeat",
        ]  # fmt: skip
        pendant = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, radio=BleRadio(clock)) as daemon:
                await _pair(daemon, clock)
                while not await daemon.db.read(_heard_anything):
                    await clock.sleep(0.2)
                yield daemon
        finally:
            pendant.terminate()
            await pendant.wait()


async def _pair(daemon: Daemon, clock: SystemClock) -> None:
    for _ in range(20):  # the pendant's process takes a moment to come up
        try:
            await daemon.pair_device(None, None)
        except LinkError:
            await clock.sleep(0.5)
        else:
            return
    raise SystemExit("the virtual pendant did not show itself")


def _heard_anything(conn: Connection) -> bool:
    return any(row.heard_until_us for row in sources.list_all(conn))


async def over_bleak(name: str, pcm: npt.NDArray[np.int16], bar: float) -> Figure:
    """Real time."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as place:
        async with streaming(pcm, Path(place) / "data", clock):
            began, cpu = time.perf_counter(), time.process_time()
            await clock.sleep(BLEAK_SECONDS)
            wall, used = time.perf_counter() - began, time.process_time() - cpu
    packets = packets_of(pcm[: 16_000 * BLEAK_SECONDS])
    bare = bare_loop(packets) / (len(packets) / 50)
    above = (used / wall - bare) * 100
    detail = f"{used / wall:.2%} of a core; the bare loop takes {bare:.2%}"
    return Figure(f"{name} over real bleak, main process above the bare loop", above, "% of a core",
                  f"<= {bar:.0f}", above <= bar, detail)  # fmt: skip


async def lag(pcm: npt.NDArray[np.int16]) -> list[Figure]:
    """A tick each 10 ms, while recordings are imported (batch engines) and the pendant talks (live engine)."""
    clock = SystemClock()
    late: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await clock.sleep(0.01)
            late.append((time.perf_counter() - before - 0.01) * 1000)

    async def pieces() -> AsyncIterator[bytes]:
        for offset in range(0, len(pcm), 16_000):
            yield pcm[offset : offset + 16_000].tobytes()

    with tempfile.TemporaryDirectory() as place:
        async with streaming(pcm, Path(place) / "data", clock) as daemon:
            ticking = asyncio.create_task(tick())
            until = time.perf_counter() + LAG_SECONDS
            while time.perf_counter() < until:
                source = await daemon.begin_import("bench", START_US, True, None)
                await daemon.take_import(source, pieces())
                while (await daemon.import_state(source)).state != "done" and time.perf_counter() < until:
                    await clock.sleep(0.2)
            ticking.cancel()
            busy = [process.busy_us / 1e6 for process in daemon.engines.processes]
    late.sort()
    p999, most = late[int(len(late) * 0.999)], late[-1]
    detail = f"{len(late)} ticks; engines busy for {', '.join(f'{seconds:.0f} s' for seconds in busy)}"
    return [
        Figure("event loop late with engines busy, p99.9", p999, "ms", "< 100", p999 < 100, detail),
        Figure("event loop late with engines busy, longest", most, "ms", "< 1000", most < 1000),
    ]


async def latency(pcm: npt.NDArray[np.int16]) -> Figure:
    """From the commit of a segment to its searchable text, without the engine's time."""
    clock = DrivenClock(START_US)
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
        pendant = Pendant(clock)
        radio = LoopbackRadio(clock, [pendant])
        async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, radio=radio) as daemon:
            await drive(clock, daemon.pair_device(pendant.address, None))
            ended: dict[str, tuple[int, int]] = {}
            offer = daemon.spine.live.offer

            def offered(source_id: str, piece: Any) -> None:
                if piece.last:
                    ended[piece.segment_id] = (clock.work_us(), daemon.engines.live.busy_us)
                offer(source_id, piece)

            daemon.spine.live.offer = offered  # type: ignore[method-assign, assignment]
            with daemon.bus.subscribe(limit=100_000) as events:
                reader = asyncio.create_task(_note(events, ended, waits, clock, daemon))
                await clock.advance(2.0)
                playing = asyncio.create_task(pendant.play(iter([pcm])))
                while not playing.done():
                    await clock.advance(0.1)
                await clock.advance(5.0)
                reader.cancel()
    p95 = statistics.quantiles(waits, n=20)[-1] if len(waits) > 1 else float("nan")
    detail = f"{len(waits)} phrases, median {statistics.median(waits):.0f} ms"
    return Figure("end of phrase to searchable, beyond the engine, p95", p95, "ms", "<= 100", p95 <= 100, detail)


async def _note(
    events: Any, ended: dict[str, tuple[int, int]], waits: list[float], clock: DrivenClock, daemon: Daemon
) -> None:
    while True:
        event = await events.get()
        began = ended.pop(event.data.get("segment_id", ""), None) if event.kind == "segment" else None
        if began is not None:
            engine_us = daemon.engines.live.busy_us - began[1]
            waits.append((clock.work_us() - began[0] - engine_us) / 1000)


def asr_figures(pcm: npt.NDArray[np.int16]) -> list[Figure]:
    """What lies between the built-in engine and its text in the vault."""
    found = asyncio.run(bench_asr.measure(pcm))
    detail = f"{found.segments} segments, {found.engine_seconds:.1f} s of the engine alone"
    wrong = found.word_error_rate
    return [
        Figure("segments whose text is not the engine's", found.different, "", "0", found.different == 0, detail),
        Figure(
            "transcription through the daemon, by engine time", found.share, "times", "<= 1.05", found.share <= 1.05
        ),
        Figure("words wrong in the shipped recording, built-in", wrong, "", "<= 0.20", wrong <= 0.20),
    ]


def drain_figures(pcm: npt.NDArray[np.int16]) -> list[Figure]:
    """All generations of stored audio."""
    figures = []
    for one in bench_drain.measure(
        {codec.frame_us: packets_of(pcm, codec) for codec in (Codec.OPUS_10MS, Codec.OPUS_20MS)}
    ):
        p999, most = one.late[int(len(one.late) * 0.999)], one.late[-1]
        whole = one.lost == 0 and one.live > 0
        detail = (
            f"{one.taken:.1f} s, offered {one.offered:.1f}; {one.lost} live frames lost of {one.live}; event loop late "
            f"by p99.9 {p999:.0f} ms, at most {most:.0f}"
        )
        ok = one.share >= 0.95 and whole and p999 < 100 and most < 1000
        figures.append(
            Figure(f"stored audio of {one.profile}, of the offered speed", one.share, "", ">= 0.95", ok, detail)
        )
    return figures


CHILD = """
import asyncio, resource, sys, time
from pathlib import Path
from omi_edge.clock import SystemClock
from omi_edge.config import Config, LogConfig
from omi_edge.daemon import Daemon
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
import numpy as np

async def main():
    clock = SystemClock()
    pendant = Pendant(clock)
    config = Config(log=LogConfig(level="error"))
    folder, radio = Path(sys.argv[1]), LoopbackRadio(clock, [pendant])
    async with Daemon(config, folder, sys.argv[2], clock, serve_tcp=False, radio=radio):
        while not pendant.connected:
            await asyncio.sleep(0.005)
        print("subscribed", flush=True)
        await pendant.wait_streaming()
        playing = asyncio.ensure_future(pendant.play(iter([np.zeros(16000 * 4, np.int16)])))
        await playing
        rss = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")]
        print("rss", rss[0] if rss else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)

asyncio.run(main())
"""


async def _with_a_pendant(folder: Path) -> None:
    """Make a vault that remembers the virtual pendant."""
    clock = SystemClock()
    await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
    database = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    address = Pendant(clock).address
    await database.write(
        lambda conn: devices.remember(conn, address=address, name="Omi", own_name="Omi", now_us=clock.utc_us())
    )
    await database.close()


def start_and_memory() -> list[Figure]:
    """A fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        asyncio.run(_with_a_pendant(folder))
        began = time.perf_counter()
        command = [sys.executable, "-c", CHILD, str(folder), PASSPHRASE]
        seconds, kilobytes = float("nan"), float("nan")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("subscribed"):
                    seconds = time.perf_counter() - began
                elif line.startswith("rss"):
                    kilobytes = float(line.split()[1])
    megabytes = kilobytes / 1024
    return [
        Figure("fresh process to capturing", seconds, "s", "<= 3", seconds <= 3),
        Figure("main process, engines unloaded", megabytes, "MB resident", "<= 150", megabytes <= 150),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--minutes", type=float, default=5.0, help="audio for the front end")
    parser.add_argument("--only", metavar="PART", help="front, idle, latency, asr, drain, start, bleak or lag")
    options = parser.parse_args()
    set_up(style="text", level="error")
    pcm = np.concatenate(list(Recording(recording_path()).read()))
    silence = np.random.default_rng(1).normal(0, 8, 16_000 * 60).astype(np.int16)
    parts: list[tuple[str, Callable[[], list[Figure]]]] = [
        ("front", lambda: [measure_front_end(pcm, options.minutes)]),
        ("idle", lambda: [asyncio.run(idle_cost())]),
        ("latency", lambda: [asyncio.run(latency(pcm))]),
        ("asr", lambda: asr_figures(pcm)),
        ("drain", lambda: drain_figures(pcm)),
        ("start", start_and_memory),
        ("bleak", lambda: [asyncio.run(over_bleak("speech", pcm, 3))]),
        ("bleak", lambda: [asyncio.run(over_bleak("silence", silence, 2))]),
        ("lag", lambda: asyncio.run(lag(pcm))),
    ]
    if not bus.available():
        print("not measured without dbus-daemon: bleak, lag", file=sys.stderr)
        parts = [part for part in parts if part[0] not in ("bleak", "lag")]
    figures: list[Figure] = []
    console = Console()
    for name, part in parts:
        if options.only in (None, name):
            with console.status(f"measuring {name} …"):
                figures += part()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {_processor()}"
    table = Table(title=f"{datetime.now(UTC).date()}: {machine}", title_justify="left")
    for heading in ("figure", "value", "bar", "", "detail"):
        table.add_column(heading)
    for figure in figures:
        value = f"{figure.value:.2f} {figure.unit}"
        table.add_row(figure.name, value, figure.bar, "ok" if figure.ok else "MISSED", figure.detail)
    console.print(table)
    document = {"machine": machine, "date": str(datetime.now(UTC).date()), "figures": msgspec.to_builtins(figures)}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    else:
        print(json.dumps(document))
    return 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else "unknown processor"


if __name__ == "__main__":
    sys.exit(main())
