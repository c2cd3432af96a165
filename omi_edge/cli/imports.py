"""`import`: recordings, decoded here and run through the pipeline as if they had been heard."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from omi_edge.capture.replay import Recording, Samples
from omi_edge.cli.present import length, moment, plain, print_json, print_table, wants_progress
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.cli.timetext import parse, rfc3339
from omi_edge.clock import Clock, SystemClock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import AudioError, EnginePermanent, NotReady
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

PIECE_SAMPLES = SAMPLE_RATE
"""One second of audio is sent at once."""
LONGEST_NAME = 255
"""Characters of a name that the daemon takes; a longer one is cut."""
LOOK_SECONDS = 0.3
"""How often the state of an import is asked for."""


class Taken(msgspec.Struct, frozen=True):
    """What became of one file."""

    file: str
    state: wire.ImportState | None
    """None when nothing could be taken."""
    start_from: str
    """Where the start time comes from: option, tag or file."""
    damage: str | None = None
    problem: str | None = None


@verb(
    "import",
    examples=(
        "omi-edge import talk.wav",
        "omi-edge import talk.m4a --start '2026-03-02 10:00'",
        "omi-edge import --no-wait *.mp3",
    ),
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--start", metavar="TIME", help="When the recording began, as the wearer's clock shows it (one file).")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Return when every stage is done, or when the audio is safe.",
)
@pass_settings
def import_(settings: Settings, files: tuple[Path, ...], start: str | None, wait: bool) -> int:
    """Take recordings in, as if they had been heard: WAV, FLAC, MP3, M4A, Ogg and others.

    A recording began at --start, else when its creation_time tag says, else by its file's time less its length.
    Of a damaged file, what can be read is kept and said, and the exit code is 6.
    """
    if start is not None and len(files) > 1:
        raise click.UsageError("--start is for one file; several cannot have begun at once.")
    began = parse(start, settings.zone) if start else None
    return run_verb(_import(settings, files, began, wait))


async def _import(settings: Settings, files: tuple[Path, ...], began: datetime | None, wait: bool) -> int:
    async with api(settings) as client:
        taken = [await _one(settings, client, path, began, wait) for path in files]
    if settings.json:
        print_json({"items": taken})
    else:
        _print(settings, taken)
    if any(one.damage or one.problem for one in taken):
        return AudioError.exit_code
    return EnginePermanent.exit_code if any(one.state and one.state.state == "failed" for one in taken) else 0


async def _one(settings: Settings, client: ApiClient, path: Path, began: datetime | None, wait: bool) -> Taken:
    try:
        recording = await asyncio.to_thread(Recording, path)
        blocks = await _with_audio(recording)
    except AudioError as error:
        settings.warn(f"{_shown(path)}: {error}")
        return Taken(_shown(path), None, "", problem=str(error))
    start, start_from = _start(recording, path, began)
    told = {
        "option": "as told",
        "tag": "from its creation_time tag",
        "file": "from the file's time; --start corrects it",
    }
    settings.say(f"{_shown(path)}: began {moment(rfc3339(start), settings.zone, seconds=True)}, {told[start_from]}.")
    query = {"name": _shown(Path(path.name))[:LONGEST_NAME], "start": rfc3339(start)}
    with _progress(settings, recording) as progress:
        pieces = _pieces(blocks, progress)
        try:
            state = await client.upload("/v1/imports", pieces, query=query, returns=wire.ImportState)
            if wait:
                state = await _wait(client, state, progress, SystemClock())
        except asyncio.CancelledError:
            settings.warn(f"{_shown(path)}: stopped; what was taken in of it is kept, see `omi-edge list --by-source`.")
            raise
        except NotReady as error:
            raise NotReady(
                f"omi-edge ended while it took {_shown(path)} in. What it had is kept, and worked through when it "
                "starts again; `omi-edge list --by-source` and `omi-edge notices` then say how much that is."
            ) from error
    if recording.damage:
        settings.warn(f"{_shown(path)}: {recording.damage} What could be read was kept.")
    return Taken(_shown(path), state, start_from, recording.damage)


async def _with_audio(recording: Recording) -> Iterator[Samples]:
    """Return the blocks of a recording, after making sure that there is a first one."""
    blocks = iter(recording)
    first = await asyncio.to_thread(next, blocks, None)
    assert first is not None  # it raises when there is no audio
    return _after(first, blocks)


def _after(first: Samples, rest: Iterator[Samples]) -> Iterator[Samples]:
    yield first
    yield from rest


def _start(recording: Recording, path: Path, began: datetime | None) -> tuple[datetime, str]:
    if began is not None:
        return began, "option"
    if recording.info.start_us is not None:
        return datetime.fromtimestamp(recording.info.start_us / 1e6, UTC), "tag"
    return datetime.fromtimestamp(path.stat().st_mtime - (recording.info.seconds or 0.0), UTC), "file"


class _Watched:
    """A progress bar that can be fed from anywhere; without a terminal it does nothing."""

    def __init__(self, bar: Progress | None, seconds: float | None) -> None:
        self._bar = bar
        self._task: TaskID | None = bar.add_task("taking in", total=seconds) if bar else None

    def to(self, what: str, done: float | None = None, total: float | None = None) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what, completed=done, total=total)


@contextlib.contextmanager
def _progress(settings: Settings, recording: Recording) -> Iterator[_Watched]:
    if not wants_progress(settings):
        yield _Watched(None, None)
        return
    console = Console(stderr=True)
    columns = (
        TextColumn(plain(recording.info.name), markup=False),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Watched(bar, recording.info.seconds)


async def _pieces(blocks: Iterator[Samples], progress: _Watched) -> AsyncIterator[bytes]:
    """Yield s16le PCM, a second at once; decoding runs in a thread, so that the event loop stays free."""
    sent = 0
    while piece := await asyncio.to_thread(_gather, blocks):
        yield piece
        sent += len(piece) // 2
        progress.to("taking in", sent / SAMPLE_RATE)


def _gather(blocks: Iterator[Samples]) -> bytes:
    samples: list[bytes] = []
    count = 0
    for block in blocks:
        samples.append(block.astype("<i2", copy=False).tobytes())
        count += len(block)
        if count >= PIECE_SAMPLES:
            break
    return b"".join(samples)


async def _wait(client: ApiClient, state: wire.ImportState, progress: _Watched, clock: Clock) -> wire.ImportState:
    most = 0
    while state.state not in ("done", "failed"):
        await clock.sleep(LOOK_SECONDS)
        state = await client.request("GET", f"/v1/imports/{state.source_id}", returns=wire.ImportState)
        most = max(most, state.jobs_left)
        progress.to(f"understanding, {state.jobs_left} left", most - state.jobs_left, most or None)
    return state


def _shown(path: Path) -> str:
    """A path as text: whatever bytes its name holds, and nothing that a terminal would obey."""
    return plain(os.fsencode(path).decode("utf-8", "replace"))


def _print(settings: Settings, taken: list[Taken]) -> None:
    rows = [
        [one.file, one.state.state, length(one.state.seconds), one.state.source_id, ", ".join(one.state.conversations)]
        for one in taken
        if one.state is not None
    ]
    if rows:
        print_table(["file", "state", "length", "source", "conversations"], rows, nothing="")
    for one in taken:
        if one.state is None:
            continue
        if one.state.jobs_failed:
            settings.warn(f"{one.file}: {one.state.jobs_failed} jobs failed; `omi-edge status` names the causes.")
        elif one.state.state == "done" and not one.state.conversations:
            settings.say(f"{one.file}: no speech was found in it.")
        elif one.state.state == "processing":
            settings.say(f"{one.file}: its audio is kept; the rest is done while `omi-edge run` runs.")
