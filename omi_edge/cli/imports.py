"""`import`: recordings, decoded here and run through the pipeline as if they had been heard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from omi_edge.capture.replay import Recording, Samples
from omi_edge.capture.wal import WalRecording, framed, is_wal
from omi_edge.cli import folders
from omi_edge.cli.present import length, moment, plain, print_json, print_table, wants_progress
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.cli.timetext import parse, rfc3339
from omi_edge.clock import Clock, SystemClock
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError, BadInput, EnginePermanent, NotReady
from omi_edge.web import wire
from omi_edge.web.client import ApiClient, Query

PIECE_SECONDS = 1.0
"""So much audio is sent at once."""
LONGEST_NAME = 255
"""Characters of a name that the daemon takes; a longer one is cut."""
LOOK_SECONDS = 0.3
"""How often the state of an import is asked for."""
WATCH_SECONDS = 2.0
"""Between two looks into watched folders."""
THERE = "already-there"

_TOLD = {
    "option": "as told",
    "name": "from its name",
    "tag": "from its creation_time tag",
    "file": "estimated from the file's time; --start corrects it",
}
_UNKNOWN = "when it began is not known, since its name does not tell; --start does."
_CODECS = {None: "pcm", Codec.OPUS_10MS: "opus", Codec.OPUS_20MS: "opus_fs320"}

AnyRecording = Recording | WalRecording


class Taken(msgspec.Struct, frozen=True):
    """What became of one file."""

    file: str
    state: wire.ImportState | None
    """None when nothing could be taken. Its ``state`` is already-there when the same audio had been taken before."""
    start_from: str
    """Where the start time comes from: option, name, tag, or file when it is estimated from the file's time."""
    damage: str | None = None
    problem: str | None = None


class Wanted(msgspec.Struct, frozen=True):
    """What was asked for, for every file."""

    began: datetime | None = None
    device: str | None = None
    again: bool = False
    wait: bool = True


@verb(
    "import",
    examples=(
        "omi-edge import talk.wav",
        "omi-edge import talk.m4a --start '2026-03-02 10:00'",
        "omi-edge import --no-wait *.mp3",
        "omi-edge import ~/omi --device grey",
        "omi-edge import ~/Recordings --watch",
    ),
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…")
@click.option("--start", metavar="TIME", help="When the recording began, as the wearer's clock shows it (one file).")
@click.option("--device", metavar="NAME", help="It is of this remembered pendant: put it at its place among its audio.")
@click.option("--again", is_flag=True, help="Take in what was taken in before.")
@click.option("--watch", is_flag=True, help="Go on taking in what is put into the folders, until stopped.")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Return when every stage is done, or when the audio is safe.",
)
@pass_settings
def import_(
    settings: Settings,
    paths: tuple[Path, ...],
    start: str | None,
    device: str | None,
    again: bool,
    watch: bool,
    wait: bool,
) -> int:
    """Take recordings in, as if they had been heard: WAV, FLAC, MP3, M4A, Ogg and others, and Omi's own .bin files.

    Of a folder all files in it and below are taken, but no hidden ones and none that end like .part or .tmp.

    A recording began at --start, else when its name says (.bin), else its creation_time tag, else by its file's time
    less its length, which is an estimate. A .bin file without the name that Omi's app gave it has no known time.

    The same audio is taken once, whatever its file is called and whatever its tags say. An import that broke off goes
    on where it ended when it is repeated. With --device, and for a .bin file that is named after a remembered pendant,
    nothing is stored on top of what is there: frames are left out where the pendant was heard already, and where
    recording was withheld; how much that was is told.

    With --watch a file is taken when two looks, 2 s apart, find it unchanged. No file is ever changed or deleted.

    Of a damaged file, what can be read is kept and said, and the exit code is 6.
    """
    if start is not None and (watch or len(paths) > 1 or paths[0].is_dir()):
        raise click.UsageError("--start is for one file; several cannot have begun at once.")
    if watch and again:
        raise click.UsageError("--again would take everything anew at each start; leave it out with --watch.")
    wanted = Wanted(parse(start, settings.zone) if start else None, device, again, wait and not watch)
    if watch:
        return run_verb(_watch(settings, paths, wanted, SystemClock()))
    return run_verb(_import(settings, paths, wanted))


async def _import(settings: Settings, paths: tuple[Path, ...], wanted: Wanted) -> int:
    files = await asyncio.to_thread(lambda: list(folders.found(paths, settings.folder)))
    if not files:
        settings.say("There is no file in there to take in.")
    async with api(settings) as client:
        taken = [await _one(settings, client, path, wanted) for path in files]
    if settings.json:
        print_json({"items": taken})
    else:
        _print(settings, taken)
    if any(one.damage or one.problem for one in taken):
        return AudioError.exit_code
    return EnginePermanent.exit_code if any(one.state and one.state.state == "failed" for one in taken) else 0


async def _watch(settings: Settings, paths: tuple[Path, ...], wanted: Wanted, clock: Clock) -> int:
    """Take in what comes, until SIGTERM (0) or Ctrl-C, which is told as of any verb."""
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise BadInput(f"{_shown(missing)} is not there to be watched. Check the path.")
    watched = folders.Watched(paths, settings.folder)
    work = asyncio.create_task(_keep_taking(settings, watched, wanted, clock))
    told_to_end = False

    def end() -> None:
        nonlocal told_to_end
        told_to_end = True
        work.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        await work
    except asyncio.CancelledError:
        if not told_to_end:
            raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    return 0


async def _keep_taking(settings: Settings, watched: folders.Watched, wanted: Wanted, clock: Clock) -> None:
    while True:
        try:
            async with api(settings) as client:
                settings.say("Watching; what is put there is taken in. Ctrl-C ends it.")
                while True:
                    for path, mark in await asyncio.to_thread(watched.look):
                        await _watched_one(settings, client, watched, path, mark, wanted)
                    await clock.sleep(WATCH_SECONDS)
        except NotReady as error:  # it stopped, and may be started again
            settings.warn(str(error))
            await clock.sleep(WATCH_SECONDS)


async def _watched_one(
    settings: Settings, client: ApiClient, watched: folders.Watched, path: Path, mark: folders.Sign, wanted: Wanted
) -> None:
    if folders.sign(path) != mark:
        return  # it went away, or is written again
    taken = await _one(settings, client, path, wanted, quiet=True)
    state = taken.state.state if taken.state is not None else ""
    if state == "receiving":
        return  # by another one: whether that came to its end is seen later
    watched.done(path, mark)
    if settings.json:
        if state != THERE:
            print_json(taken)
    elif taken.state is not None and state != THERE:
        print(f"{taken.file}: taken in, {length(taken.state.seconds)}, source {taken.state.source_id}")
    sys.stdout.flush()


async def _one(settings: Settings, client: ApiClient, path: Path, wanted: Wanted, *, quiet: bool = False) -> Taken:
    """Take one file; ``quiet`` about one that is there already."""
    try:
        recording: AnyRecording = await asyncio.to_thread(WalRecording if is_wal(path) else Recording, path)
        body = await _body(recording)
        content = await asyncio.to_thread(recording.digest)
        start, start_from = _start(recording, path, wanted.began)
        device = await _device(client, recording, start_from, wanted.device)
    except (AudioError, OSError) as error:
        problem = str(error) if isinstance(error, AudioError) else "it could not be read, or it went away meanwhile."
        settings.warn(f"{_shown(path)}: {problem}")
        return Taken(_shown(path), None, "", problem=problem)
    check = await client.request(
        "POST", "/v1/imports/check", body=wire.ImportContent(content.hex()), returns=wire.ImportCheck
    )
    if check.known is not None and (not wanted.again or check.known.state == "receiving"):
        return _known(settings, path, recording, check.known, start_from, quiet)
    guessed = start_from == "file" and isinstance(recording, WalRecording)
    when = f"began {moment(rfc3339(start), settings.zone, seconds=True)}, {_TOLD[start_from]}"
    settings.say(f"{_shown(path)}: {when}." if not guessed else f"{_shown(path)}: {_UNKNOWN}")
    query: Query = {
        "name": _shown(Path(path.name))[:LONGEST_NAME], "start": rfc3339(start), "guessed": guessed,
        "codec": _CODECS[recording.frame_codec], "device": device, "content": check.content, "again": wanted.again,
    }  # fmt: skip
    with _progress(settings, recording) as progress:
        try:
            state = await client.upload("/v1/imports", _pieces(body, progress), query=query, returns=wire.ImportState)
            if wanted.wait:
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
    if state.left_out:
        settings.warn(
            f"{_shown(path)}: {length(state.left_out)} of it were left out, because the pendant was heard then "
            "already or recording was withheld."
        )
    return Taken(_shown(path), state, start_from, recording.damage)


def _known(
    settings: Settings, path: Path, recording: AnyRecording, known: wire.ImportState, start_from: str, quiet: bool
) -> Taken:
    """Say that a file's audio is there already."""
    if known.state == "receiving":
        if not quiet:
            settings.warn(f"{_shown(path)}: the same audio is being taken in at this moment.")
        return Taken(_shown(path), known, start_from, recording.damage)
    if not quiet:
        settings.say(
            f"{_shown(path)}: its audio is in source {known.source_id} already; nothing was stored. --again takes it "
            "in once more."
        )
    return Taken(_shown(path), msgspec.structs.replace(known, state=THERE), start_from, recording.damage)


async def _device(client: ApiClient, recording: AnyRecording, start_from: str, named: str | None) -> str | None:
    """Return the pendant that a recording is of: the one that was named, else the file's own, else None."""
    if named is not None:
        if start_from == "file":
            raise AudioError(
                "when it began is only estimated from the file's time, which is not enough to put it among a pendant's "
                "audio. Give --start."
            )
        return named
    if not recording.device or start_from == "file":
        return None
    known = await client.request("GET", "/v1/devices", returns=wire.Page[wire.DeviceItem])
    return next((one.id for one in known.items if _letters(one.id) == recording.device), None)


def _letters(address: str) -> str:
    return "".join(filter(str.isalnum, address)).lower()


async def _body(recording: AnyRecording) -> Iterator[tuple[float, bytes]]:
    """Return the pieces of what is sent, each with its seconds, after making sure that there is a first one."""
    if recording.frame_codec is not None:
        assert isinstance(recording, WalRecording)
        seconds = recording.frame_codec.frame_us / 1e6
        return ((seconds, framed(frame)) for frame in recording.frames())
    blocks = await _with_audio(recording)
    return ((len(block) / SAMPLE_RATE, block.astype("<i2", copy=False).tobytes()) for block in blocks)


async def _with_audio(recording: AnyRecording) -> Iterator[Samples]:
    """Return the blocks of a recording, after making sure that there is a first one."""
    blocks = iter(recording)
    first = await asyncio.to_thread(next, blocks, None)
    assert first is not None  # it raises when there is no audio
    return _after(first, blocks)


def _after(first: Samples, rest: Iterator[Samples]) -> Iterator[Samples]:
    yield first
    yield from rest


def _start(recording: AnyRecording, path: Path, began: datetime | None) -> tuple[datetime, str]:
    if began is not None:
        return began, "option"
    if recording.info.start_us is not None:
        named = isinstance(recording, WalRecording)
        return datetime.fromtimestamp(recording.info.start_us / 1e6, UTC), "name" if named else "tag"
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
def _progress(settings: Settings, recording: AnyRecording) -> Iterator[_Watched]:
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


async def _pieces(body: Iterator[tuple[float, bytes]], progress: _Watched) -> AsyncIterator[bytes]:
    """Yield a second at once; reading runs in a thread, so that the event loop stays free."""
    sent = 0.0
    while True:
        seconds, piece = await asyncio.to_thread(_gather, body)
        if not piece:
            return
        yield piece
        sent += seconds
        progress.to("taking in", sent)


def _gather(body: Iterator[tuple[float, bytes]]) -> tuple[float, bytes]:
    pieces: list[bytes] = []
    total = 0.0
    for seconds, piece in body:
        pieces.append(piece)
        total += seconds
        if total >= PIECE_SECONDS:
            break
    return total, b"".join(pieces)


async def _wait(client: ApiClient, state: wire.ImportState, progress: _Watched, clock: Clock) -> wire.ImportState:
    most = 0
    while state.state not in ("done", "failed"):
        await clock.sleep(LOOK_SECONDS)
        state = await client.request("GET", f"/v1/imports/{state.id}", returns=wire.ImportState)
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
        elif one.state.state == "done" and not one.state.conversations and not one.state.left_out:
            settings.say(f"{one.file}: no speech was found in it.")
        elif one.state.state == "processing":
            settings.say(f"{one.file}: its audio is kept; the rest is done while `omi-edge run` runs.")
