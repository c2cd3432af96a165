"""`omi-edge demo`: the main job, from notifications to proven search hits, on a vault that is thrown away."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import signal
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from omi_edge.capture.ble import BleRadio
from omi_edge.capture.link import Radio
from omi_edge.capture.replay import Recording
from omi_edge.cli.present import plain, print_json
from omi_edge.cli.settings import Number, Settings, pass_settings, verb
from omi_edge.clock import Clock, DrivenClock, SystemClock
from omi_edge.config import Config, ConversationConfig, LogConfig, WebConfig, load, zone
from omi_edge.daemon import Daemon
from omi_edge.errors import LinkUnavailable, OmiEdgeError
from omi_edge.observe import set_up
from omi_edge.paths import socket_path
from omi_edge.store.database import Database
from omi_edge.virtual import bus
from omi_edge.virtual.escort import EscortedRadio
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.script import load_script, recording_path
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

if sys.platform == "linux":  # dbus-fast comes with bleak there and only there
    from omi_edge.virtual.bluez import BluezAdapter

SILENCE_SECONDS = 8.0
"""Silence that ends a conversation in the demo: the shipped recording pauses longer than this once."""
STEP_SECONDS = 0.5
PAIRING_PACE = 50.0
"""Times real time: the request goes over a socket, which knows nothing of simulated time."""
SETTLE_SECONDS = 120.0
"""Simulated time within which the last conversation must have ended and been understood."""
SHIPPED_QUERY = "when is the dentist"
TOKEN_NAME = "demo"  # noqa: S105 a name, not a token


class DemoFailed(OmiEdgeError):
    """Something that the demo promises did not happen."""

    slug = "demo-failed"


@verb(
    "demo",
    examples=("omi-edge demo", "omi-edge demo --audio interview.m4a --duration 120", "omi-edge demo --speed 1 --keep"),
)
@click.option(
    "--audio",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Play this recording instead of the one that ships.",
)
@click.option("--duration", type=Number(1), metavar="S", help="Play only the first S seconds.")
@click.option(
    "--speed", type=Number(0.1), metavar="X", help="Play X times as fast as people speak. Default: as fast as it goes."
)
@click.option("--keep", is_flag=True, help="Stay up afterwards, with the API's address and a token.")
@pass_settings
def demo(settings: Settings, audio: Path | None, duration: float | None, speed: float | None, keep: bool) -> None:
    """Watch a spoken conversation arrive over a pendant's wire format and come out as text, tasks and memories.

    The vault is made in a temporary folder and thrown away. The exit code is 0 only if all of it really happened.
    """
    # what the reader's own settings say has no part in it
    config = msgspec.structs.replace(
        load(None, {}),
        conversation=ConversationConfig(silence=SILENCE_SECONDS),
        web=WebConfig(port=0),
        log=LogConfig(level="error"),
    )
    set_up(style="text", level="error")
    console = Console(stderr=settings.json, quiet=settings.quiet and settings.json, highlight=False)
    shown = asyncio.run(_until_told(_demo(console, config, audio, duration, speed, keep)))
    if settings.json:
        print_json(shown)


class Shown(msgspec.Struct, frozen=True):
    """What came out, for ``--json``."""

    seconds: float
    conversations: list[wire.Conversation]
    hits: list[wire.Hit]
    rows: dict[str, int]


async def _until_told(work: Coroutine[None, None, Shown]) -> Shown:
    """Run ``work``; SIGTERM ends it as Ctrl-C does, so that the vault is thrown away in any case."""
    task = asyncio.create_task(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _demo(
    console: Console, config: Config, audio: Path | None, duration: float | None, speed: float | None, keep: bool
) -> Shown:
    """Run the main job, show it, and return what came out. Raises DemoFailed."""
    recording = Recording(audio if audio is not None else recording_path())
    # simulated time runs ahead: it begins so long ago that it does not pass the present
    ahead = min(duration or math.inf, recording.info.seconds or 0.0) + SETTLE_SECONDS
    clock = DrivenClock(SystemClock().utc_us() - round(ahead * 1e6))
    with tempfile.TemporaryDirectory(prefix="omi-edge-demo-") as name:
        folder = Path(name) / "data"
        passphrase = secrets.token_urlsafe(16)
        await asyncio.to_thread(Database.create, folder, passphrase, clock)
        pendant = Pendant(clock)
        async with (
            in_range(pendant, clock) as radio,
            Daemon(config, folder, passphrase, clock, serve_tcp=keep, radio=radio) as daemon,
            ApiClient(socket=socket_path(folder)) as client,
        ):
            console.rule("[bold]omi-edge demo")
            device = pendant.profile.device
            console.print(f"pendant    a virtual {device.model} {device.firmware}")
            console.print(f"link       {radio.transport}")
            console.print(f"recording  {escape(plain(recording.info.name))}")
            console.print(f"vault      {folder} (thrown away afterwards)\n")
            await _pair(console, clock, client)
            seconds = await _play(console, clock, pendant, recording, client, duration, speed)
            found, said = await _show(console, client, zone(config))
            whole = audio is None and duration is None
            hits = await _search(console, client, SHIPPED_QUERY if whole else " ".join(said.split()[:8]))
            rows = await _prove_encrypted(console, client, folder, found)
            if whole:
                _check_promises(found)
            console.print("\n[bold green]All of that really happened.[/]")
            if keep:
                await _stay(console, client, clock, daemon)
            return Shown(seconds, found, hits, rows)


@contextlib.asynccontextmanager
async def in_range(pendant: Pendant, clock: Clock) -> AsyncIterator[Radio]:
    """Have ``pendant`` near a radio: real bleak over a D-Bus of our own where there can be one, else in process."""
    async with contextlib.AsyncExitStack() as stack:
        radio: Radio = LoopbackRadio(clock, [pendant])
        if sys.platform == "linux" and bus.available():
            with contextlib.suppress(LinkUnavailable):  # a daemon that may not run here: the other link shows as much
                await stack.enter_async_context(bus.PrivateBus(clock))
                await stack.enter_async_context(BluezAdapter(pendant))
                radio = EscortedRadio(BleRadio(clock), [pendant], clock)
        yield radio


async def _pair(console: Console, clock: DrivenClock, client: ApiClient) -> None:
    """Pair the only pendant in sight, as its owner would."""
    pairing = asyncio.create_task(client.request("POST", "/v1/devices", body=wire.DeviceNew(), returns=wire.DeviceItem))
    while not pairing.done():
        await clock.advance(STEP_SECONDS, pace=PAIRING_PACE)
    paired = pairing.result()
    console.print(f"paired     {escape(plain(paired.name))}, {escape(paired.id)}, link {paired.link}\n")


async def _play(
    console: Console,
    clock: DrivenClock,
    pendant: Pendant,
    recording: Recording,
    client: ApiClient,
    duration: float | None,
    speed: float | None,
) -> float:
    """Let the pendant hear the recording, and show the text as it is recognised; return the seconds it heard."""
    total = recording.info.seconds
    if duration is not None:
        total = min(duration, total or duration)
    screen = _Screen(console, total)
    told = asyncio.create_task(screen.follow(client))
    with screen:
        # subscribed before the first word: the pendant throws away what nobody listens to
        await clock.advance(2.0)
        playing = asyncio.create_task(pendant.play(recording.read(), seconds=duration))
        while not playing.done():
            await clock.advance(STEP_SECONDS, pace=speed)
            screen.heard(pendant.heard_seconds)
        seconds = playing.result()
        screen.heard(seconds)
        waited = 0.0
        while waited < SETTLE_SECONDS and (waited < 2 * SILENCE_SECONDS or not await _finished(client)):
            await clock.advance(STEP_SECONDS)
            waited += STEP_SECONDS
    told.cancel()
    await asyncio.gather(told, return_exceptions=True)
    console.print(f"heard      {seconds:.0f} s in {pendant.sent} notifications\n")
    if recording.damage:
        console.print(f"[yellow]{recording.damage}[/]\n")
    return seconds


async def _finished(client: ApiClient) -> bool:
    page = await client.request("GET", "/v1/conversations", returns=wire.Page)
    return bool(page.items) and all(item["state"] == "completed" for item in page.items)


async def _show(console: Console, client: ApiClient, time_zone: ZoneInfo) -> tuple[list[wire.Conversation], str]:
    """Print every conversation with what was made of it; return them and the longest thing that was said."""
    page = await client.request("GET", "/v1/conversations", returns=wire.Page)
    if not page.items:
        raise DemoFailed("no speech was understood in this recording, so there is no conversation to show.")
    found = []
    said = ""
    for item in reversed(page.items):
        conversation = await client.request("GET", f"/v1/conversations/{item['id']}", returns=wire.Conversation)
        transcript = await client.request("GET", conversation.transcript, returns=wire.Transcript)
        found.append(conversation)
        said = max([said, *(utterance.text for utterance in transcript.utterances)], key=len)
        console.print(Panel(_body(conversation, transcript, time_zone), title=_title(conversation), title_align="left"))
    return found, said


def _title(conversation: wire.Conversation) -> str:
    title = f"[bold]{conversation.emoji} {escape(conversation.title)}[/]"
    return f"{title}  {conversation.category}, {conversation.seconds:.0f} s"


def _body(conversation: wire.Conversation, transcript: wire.Transcript, time_zone: ZoneInfo) -> Table:
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", no_wrap=True)
    body.add_column()
    body.add_row("summary", escape(conversation.overview))
    who = ", ".join(f"{s.label or 'unknown'} {s.seconds:.0f} s" for s in conversation.speakers)
    body.add_row("who spoke", who)
    for task in conversation.tasks:
        due = f"  [cyan]due {_day(task.due, time_zone, task.due_has_time)}[/]" if task.due else ""
        body.add_row("task", f"☐ {escape(task.description)}{due}  {_chips(task.evidence)}")
    for memory in conversation.memories:
        body.add_row("memory", f"• {escape(memory.content)}  {_chips(memory.evidence)}")
    body.add_row("", "")
    for utterance in transcript.utterances:
        style = _colour(utterance.speaker)
        body.add_row(
            Text(f"{_clock(utterance.offset)} {utterance.speaker or 'unknown'}", style=style), Text(utterance.text)
        )
    return body


async def _search(console: Console, client: ApiClient, query: str) -> list[wire.Hit]:
    """Search once, and print each hit with the second of audio that proves it."""
    result = await client.request("GET", "/v1/search", query={"q": query, "limit": 5}, returns=wire.SearchResult)
    console.print(f"search: [bold]{escape(query)}[/]", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("kind", "text", "proof"):
        table.add_column(heading, overflow="fold")
    for hit in result.hits:
        proof = f"▸ {_clock(hit.span.offset)} of {escape(hit.conversation_title)}" if hit.span is not None else ""
        table.add_row(hit.kind, escape(hit.text), proof)
    console.print(table)
    proven = [hit for hit in result.hits if hit.span is not None]
    if not proven:
        raise DemoFailed("the search found nothing that points at audio.")
    span = proven[0].span
    assert span is not None
    size = 0
    async for piece in client.stream(span.audio):
        size += len(piece)
    if size == 0:
        raise DemoFailed("the audio behind the first hit cannot be played.")
    console.print(f"[dim]the first proof plays: {size} bytes of Ogg Opus[/]\n")
    return result.hits


async def _prove_encrypted(
    console: Console, client: ApiClient, folder: Path, found: list[wire.Conversation]
) -> dict[str, int]:
    """Print what is in the file, and that its bytes say nothing; return the rows of each table."""
    tables = await client.request("GET", "/v1/vault", returns=dict[str, int])
    words = {word for conversation in found for word in conversation.overview.split() if len(word) > 6}
    words |= {task.description for conversation in found for task in conversation.tasks}
    readable = await asyncio.to_thread(_readable, folder, sorted(words))
    table = Table(title="in the one encrypted file", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("rows", justify="right")
    table.add_column("table")
    for name, count in tables.items():
        if count:
            table.add_row(str(count), name)
    console.print(table)
    vault = folder / "vault.db"
    data = await asyncio.to_thread(vault.read_bytes)
    ratio = len(zlib.compress(data)) / max(1, len(data))
    console.print(
        f"{vault.name}: {len(data)} bytes, begins {data[:16].hex(' ')}; compresses to {ratio:.0%}: noise "
        "to a reader without the key"
    )
    if readable or not data or data.startswith(b"SQLite format 3") or ratio < 0.97:
        raise DemoFailed(f"the files on disk can be read: {', '.join(readable) or vault.name}.")
    return tables


def _readable(folder: Path, phrases: list[str]) -> list[str]:
    """Return the names of files that hold any of ``phrases``."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes().lower()
        if any(form in data for phrase in phrases for form in _forms(phrase.lower())):
            found.append(path.name)
    return found


def _forms(phrase: str) -> Iterator[bytes]:
    yield phrase.encode()
    yield phrase.encode("utf-16-le")


def _check_promises(found: list[wire.Conversation]) -> None:
    """The shipped recording holds two conversations of two voices, with tasks, a due date and memories."""
    tasks = [task for conversation in found for task in conversation.tasks]
    expected = load_script().conversations
    wrong = []
    if len(found) != expected:
        wrong.append(f"{len(found)} conversations instead of {expected}")
    if any(len([s for s in conversation.speakers if s.label]) != 2 for conversation in found):
        wrong.append("not two speakers in each conversation")
    if not all(conversation.title and conversation.overview for conversation in found):
        wrong.append("a conversation without title or summary")
    if not any(task.due for task in tasks):
        wrong.append("no task with a due date")
    if not any(conversation.memories for conversation in found):
        wrong.append("no memory")
    if wrong:
        raise DemoFailed(f"the demo did not come out as promised: {'; '.join(wrong)}.")


async def _stay(console: Console, client: ApiClient, clock: DrivenClock, daemon: Daemon) -> None:
    made = await client.request("POST", "/v1/tokens", body=wire.TokenNew(name=TOKEN_NAME), returns=wire.TokenMade)
    console.print(f"\nThe API is at [bold]{daemon.address}[/] until you press Ctrl-C. Try:\n")
    console.print(f"  curl -H 'Authorization: Bearer {made.token}' {daemon.address}/v1/conversations", soft_wrap=True)
    with contextlib.suppress(asyncio.CancelledError):
        await clock.run_real()


class _Screen:
    """The live part: what is being said, and how far the recording is. Plain lines where there is no terminal."""

    def __init__(self, console: Console, total: float | None) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("playing"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
            TimeElapsedColumn(), console=console,
        )  # fmt: skip
        self._bar = self._progress.add_task("", total=total)
        self._partial = ""
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> _Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def heard(self, seconds: float) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=seconds)

    async def follow(self, client: ApiClient) -> None:
        """Print what the daemon tells."""
        first: datetime | None = None
        async for event in client.events():
            if event.kind == "partial":
                self._partial = str(event.data["text"])
            elif event.kind == "segment":
                self._partial = ""
                began = datetime.fromisoformat(event.data["start"])
                first = began if first is None else first
                self._console.print(Text(f"{_clock((began - first).total_seconds())}  {event.data['text']}"))
            elif event.kind == "conversation" and event.data["state"] == "completed":
                self._console.print(f"[green]conversation complete:[/] {event.data['title']}")

    def _render(self) -> Table:
        grid = Table.grid()
        grid.add_row(Text(self._partial[-self._console.width :], style="italic dim"))
        grid.add_row(self._progress)
        return grid


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _day(moment: str, time_zone: ZoneInfo, with_time: bool) -> str:
    local = datetime.fromisoformat(moment).astimezone(time_zone)
    return local.strftime("%a %d %b %H:%M" if with_time else "%a %d %b")


def _chips(evidence: list[wire.Span]) -> str:
    return " ".join(f"[dim]▸ {_clock(span.offset)}[/]" for span in evidence)


def _colour(speaker: str | None) -> str:
    return {"SPEAKER_00": "cyan", "SPEAKER_01": "magenta", None: "dim"}.get(speaker, "green")
