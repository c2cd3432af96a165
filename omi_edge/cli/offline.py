"""`devices offline | fetch | held`: what a pendant stored while it was away."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from omi_edge.cli import pendants
from omi_edge.cli.pendants import left
from omi_edge.cli.present import length, moment, plain, print_json, print_table, size, wants_progress
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings
from omi_edge.errors import LinkError, NotFound, OmiEdgeError, UsageError
from omi_edge.web import offlinewire, wire
from omi_edge.web.client import ApiClient

TELL_SECONDS = 5.0
"""Between two lines of `devices watch` about the same progress."""
RUN_HEADERS = ["recording", "began", "sure to", "length", "left out", "state"]
HELD_HEADERS = ["recording", "pendant", "length", "not before", "not after"]
LOSS_HEADERS = ["when, about", "length", "blocks", "why"]
_WHY = {
    "overwritten": "its storage was full, and the oldest made room",
    "freed": "its firmware gave it up while the link broke off",
    "garbled": "a part of it did not arrive, and it had given it up",
}
_STATES = {
    "unknown": "its time is not known yet",
    "held": "held: waits for your word",
    "placed": "waits to be heard",
    "discarded": "let go of, undecoded",
}


@click.command("offline", cls=Verb, examples=("omi-edge devices offline omi", "omi-edge devices offline omi --watch"))
@click.argument("device", metavar="DEVICE")
@click.option("--watch", is_flag=True, help="While it is being fetched, stay and show how far it is.")
@click.option("--last", type=click.IntRange(1, 200), default=10, show_default=True, metavar="N",
              help="Show so many recordings and losses.")  # fmt: skip
@pass_settings
def offline(settings: Settings, device: str, watch: bool, last: int) -> None:
    """Show what a pendant stored while it was away.

    How far it is fetched, what of it waits, the last recordings with their times, and what was lost. A pendant that
    is connected is asked what it holds.
    """
    run_verb(_offline(settings, device, watch, last))


@click.command("fetch", cls=Verb, examples=("omi-edge devices fetch omi", "omi-edge devices fetch omi --no-wait"))
@click.argument("device", metavar="DEVICE")
@click.option("--no-wait", is_flag=True, help="Do not wait until all is here.")
@pass_settings
def fetch(settings: Settings, device: str, no_wait: bool) -> None:
    """Look again for audio that a connected pendant stored.

    What it stored is fetched by itself whenever it comes home; this asks once more, and returns when all is here.
    """
    run_verb(_fetch(settings, device, no_wait))


@click.command(
    "held",
    cls=Verb,
    examples=("omi-edge devices held", "omi-edge devices held --keep run_01k9z…", "omi-edge devices held omi --json"),
)
@click.argument("device", metavar="[DEVICE]", required=False)
@click.option("--keep", multiple=True, metavar="ID", help="Have it heard, at the latest time that it can be of.")
@click.option("--discard", multiple=True, metavar="ID", help="Let go of it; nobody ever hears it.")
@pass_settings
def held(settings: Settings, device: str | None, keep: tuple[str, ...], discard: tuple[str, ...]) -> None:
    """List stored recordings that wait for your word, and give it.

    They were recorded at a time that nobody knows for certain, and it may have been while you were muted or off the
    record. Nothing of them was decoded.
    """
    if set(keep) & set(discard):
        raise UsageError("a recording is either kept or discarded, not both.")
    run_verb(_held(settings, device, dict.fromkeys(keep, True) | dict.fromkeys(discard, False)))


VERBS = (offline, fetch, held)
"""To be put below `devices`."""


class Sieve:
    """Lets few events of the same progress through, and always the last of a recording that is being heard."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}
        self._kept: wire.EventItem | None = None

    def let_through(self, event: wire.EventItem) -> list[wire.EventItem]:
        """Return what is to be shown now."""
        state = str(event.data.get("state", ""))
        if event.kind != "offline" or state not in ("fetching", "heard"):
            return [*self._rest(None), event]
        rest = self._rest(event)
        subject = str(event.data.get("source_id" if state == "heard" else "id"))
        at = datetime.fromisoformat(event.at).timestamp()
        started = state == "fetching" and not event.data.get("total_bytes")
        if not started and at - self._told.get((subject, state), 0.0) < TELL_SECONDS:
            self._kept = event if state == "heard" else None
            return rest
        self._told[subject, state] = at
        return [*rest, event]

    def _rest(self, event: wire.EventItem | None) -> list[wire.EventItem]:
        """Return what was kept back, unless ``event`` says more about the same."""
        kept, self._kept = self._kept, None
        if kept is None:
            return []
        same = event is not None and [kept.data.get(key) for key in ("source_id", "start")] == [
            event.data.get(key) for key in ("source_id", "start")
        ]
        return [] if same else [kept]


async def known(client: ApiClient) -> list[wire.DeviceItem]:
    """Return the remembered pendants."""
    return (await client.request("GET", "/v1/devices", returns=wire.Page[wire.DeviceItem])).items


def path_of(item: wire.DeviceItem) -> str:
    """Return a pendant's path in the API."""
    return _path(item.id)


async def storage(client: ApiClient, item: wire.DeviceItem) -> wire.DeviceStorage | None:
    """Ask a connected pendant what it holds; None for one that is not, or does not answer."""
    if item.state != "connected" or item.storage in ("", "none"):
        return None
    try:
        return await client.request("GET", path_of(item) + "/storage", returns=wire.DeviceStorage)
    except LinkError:  # it left at this moment
        return None


def in_short(state: offlinewire.OfflineState, holds: wire.DeviceStorage | None) -> list[str]:
    """Return how it stands with stored audio, for `devices show`."""
    used = [] if holds is None or holds.used_bytes is None else [_used(holds)]
    here = [] if not state.waiting_bytes else [f"{size(state.waiting_bytes)} here and not heard yet"]
    waits = [] if not state.held else [f"{state.held} held (`omi-edge devices held`)"]
    return [f"{'stored':<10}{', '.join([*used, *here, *waits]) or 'nothing waits'}"]


def line(state: offlinewire.OfflineState, name: str) -> str:
    """Return how it stands with stored audio, for `status`."""
    parts = [_progress_text(state)] if state.state in ("fetching", "waiting") else []
    if state.waiting_seconds:
        parts.append(f"{length(state.waiting_seconds)} wait to be heard")
    if state.held:
        parts.append(f"{state.held} held until you decide (`omi-edge devices held`)")
    if not parts and state.waiting_bytes:
        parts.append(f"{size(state.waiting_bytes)} wait for their place in time")
    return f"{name}: {'; '.join(parts)}"


def came_later(conversation: wire.Conversation) -> str:
    """Say of a conversation that it was stored on the pendant, and how sure its time is."""
    uncertainty = conversation.time_uncertainty_seconds
    if conversation.time_guessed:
        early = "" if uncertainty is None else f", up to {length(uncertainty)} too late"
        sure = f"its time is the latest that it can be{early}"
    else:
        sure = f"its time is sure to {uncertainty or 0:.0f} s"
    return f"Stored on the pendant and fetched later, at least in part; {sure}."


def plain_line(line: str) -> str:
    """Return a line without what a terminal would obey, its columns as they are."""
    return "".join(plain(part) if part.strip() else part for part in re.split(r"( {2,})", line))


def section(title: str, headers: list[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table below a title; nothing without rows."""
    if rows:
        print(f"\n{title}")
        print_table(headers, rows, nothing="")


# --- verbs ------------------------------------------------------------------------------------------------------------


async def _offline(settings: Settings, text: str, watch: bool, last: int) -> None:
    async with api(settings) as client:
        item = pendants.meant(text, await known(client))
        found = await _state(client, item, last)
        if watch and found.state == "fetching":
            await _follow(settings, client, item, found.event)
            found = await _state(client, item, last)
        holds = await storage(client, item)
    if settings.json:
        return print_json(msgspec.to_builtins(found) | {"storage": holds})
    print("\n".join(map(plain_line, _told(found, holds, item, settings.zone))))
    section("Recordings", RUN_HEADERS, [_run_row(run, settings.zone) for run in found.runs])
    section("Lost before it was here", LOSS_HEADERS, [_loss_row(loss, settings.zone) for loss in found.losses])
    return None


async def _fetch(settings: Settings, text: str, no_wait: bool) -> None:
    async with api(settings) as client:
        item = pendants.meant(text, await known(client))
        begun = await client.request("POST", path_of(item) + "/offline/fetch", returns=offlinewire.OfflineState)
        if no_wait:
            if settings.json:
                return print_json(begun)
            settings.say(f"{plain(item.name)} is asked; `omi-edge devices offline` shows how far it is.")
            return None
        state = await _follow(settings, client, item, begun.event)
        found = await _state(client, item, 1)
    if settings.json:
        return print_json({name: getattr(found, name) for name in offlinewire.OfflineState.__struct_fields__})
    print(plain_line(f"{item.name}: {_progress_text(found)}"))
    if state == "waiting":
        raise OmiEdgeError(f"not all is here: {found.message}")
    if state == "away":
        raise LinkError(f"{plain(item.name)} went away; the rest is fetched when it is back.")
    return None


async def _held(settings: Settings, text: str | None, words: dict[str, bool]) -> None:
    async with api(settings) as client:
        items = await known(client)
        names = {item.id: item.name for item in items}
        if text is None:
            sources = await client.request("GET", "/v1/sources", returns=wire.Page[wire.SourceItem])
            for source in sources.items:  # a pendant that was forgotten left its recordings here
                if source.kind == "pendant" and source.device_id is not None:
                    names.setdefault(source.device_id, source.name)
        else:
            item = pendants.meant(text, items)
            names = {item.id: item.name}
        waiting = await _waiting(client, list(names))
        if words:
            decided = [await _decide(client, waiting, run_id, wanted) for run_id, wanted in words.items()]
            waiting = await _waiting(client, list(names))
    if settings.json:
        return print_json(wire.Page(decided if words else [run for run, _ in waiting.values()], None))
    for run in decided if words else []:
        began = moment(run.start, settings.zone, seconds=True)
        kept = run.state != "discarded"
        print(f"{run.id}  {f'kept; it is heard as of {began}' if kept else 'let go of; nobody has heard it'}")
    rows = [_held_row(run, names[address], settings.zone) for run, address in waiting.values()]
    if rows or not words:
        print_table(HELD_HEADERS, rows, nothing="No recording waits for your word.")
    return None


async def _waiting(client: ApiClient, addresses: list[str]) -> dict[str, tuple[offlinewire.OfflineRun, str]]:
    found: dict[str, tuple[offlinewire.OfflineRun, str]] = {}
    for address in addresses:
        page = await client.request(
            "GET", _path(address) + "/offline/held", returns=wire.Page[offlinewire.OfflineRun]
        )  # fmt: skip
        found |= {run.id: (run, address) for run in page.items}
    return found


async def _decide(
    client: ApiClient, waiting: dict[str, tuple[offlinewire.OfflineRun, str]], run_id: str, wanted: bool
) -> offlinewire.OfflineRun:
    if run_id not in waiting:
        raise NotFound(f"no recording {run_id} waits for a word; `omi-edge devices held` lists those that do.")
    path = f"{_path(waiting[run_id][1])}/offline/held/{quote(run_id, safe='')}"
    return await client.request(
        "POST", path, body=offlinewire.HeldDecision(wanted), returns=offlinewire.OfflineRun
    )  # fmt: skip


async def _state(client: ApiClient, item: wire.DeviceItem, last: int) -> offlinewire.Offline:
    return await client.request(
        "GET", path_of(item) + "/offline", query={"limit": last}, returns=offlinewire.Offline
    )  # fmt: skip


async def _follow(settings: Settings, client: ApiClient, item: wire.DeviceItem, after: int) -> str:
    """Show how the fetching goes on after event number ``after`` until it ends; return the state it ended in."""
    events = client.events(after=after, kinds=("offline",))
    with _bar(settings, item.name) as show:
        async with contextlib.aclosing(events):
            async for event in events:
                if event.data.get("id") != item.id:
                    continue
                show(event, settings.zone)
                if event.data["state"] != "fetching":
                    return str(event.data["state"])
    return "away"  # the daemon has stopped


@contextlib.contextmanager
def _bar(settings: Settings, name: str) -> Iterator[Callable[[wire.EventItem, ZoneInfo], None]]:
    if not wants_progress(settings):
        yield lambda event, zone: None
        return
    columns = (TextColumn(plain(name), markup=False), BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("is asked for", total=None)

        def show(event: wire.EventItem, zone: ZoneInfo) -> None:
            data = event.data
            progress.update(
                task, description=pendants.stored_audio(data, zone), completed=data.get("done_bytes", 0),
                total=data.get("total_bytes") or None,
            )  # fmt: skip

        yield show


# --- words ------------------------------------------------------------------------------------------------------------


def _told(
    found: offlinewire.Offline, holds: wire.DeviceStorage | None, item: wire.DeviceItem, zone: ZoneInfo
) -> list[str]:
    since = f", since {moment(found.since, zone)}" if found.state in ("done", "waiting") else ""
    lines = [f"fetching  {_progress_text(found)}{since}"]
    if holds is not None:
        lines += stored(holds)
    elif item.storage == "none":
        lines.append("storage   none: not this model, or not with this firmware")
    else:
        lines.append("storage   not asked: the pendant is not connected")
    if found.waiting_bytes:
        audio = f", {length(found.waiting_seconds)} of it to be heard" if found.waiting_seconds else ""
        lines.append(f"here      {size(found.waiting_bytes)} not heard yet{audio}")
    if found.held:
        lines.append(f"held      {found.held} until you say whether to keep them: `omi-edge devices held`")
    return lines


def stored(item: wire.DeviceStorage) -> list[str]:
    """Return what audio a pendant holds, a line each."""
    lines = [f"protocol  {item.protocol}"]
    if item.items is not None:
        lines.append(f"waiting   {item.items} " + ("records" if item.protocol == "ring" else "files"))
    if item.used_bytes is not None:
        lines.append(f"used      {_used(item)}")
    if item.clock_set is not None:
        lines.append(f"clock     {'set' if item.clock_set else 'not set: the times of its audio are guesses'}")
    return [*lines, *([item.message] if item.message else [])]


def _used(item: wire.DeviceStorage) -> str:
    used = item.used_bytes or 0
    if item.free_bytes is None:
        return f"{size(used)} used"
    room = used + item.free_bytes
    return f"{100 * used / room if room else 0:.0f} % used, {size(used)} of {size(room)}"


def _progress_text(state: offlinewire.OfflineState) -> str:
    if state.state == "waiting":
        return f"waits – {state.message}"
    if state.state == "away":
        return "the pendant is not connected; what it stores comes when it is"
    share = f"{100 * state.done_bytes / state.total_bytes:.0f} %" if state.total_bytes else ""
    if state.state == "done":
        return f"all of it is here ({length(state.done_seconds)})" if share else "all of it is here"
    if not share:
        return "the pendant is asked what it stores"
    return f"{share}, {length(state.done_seconds)} of {length(state.total_seconds)}{left(state.left_seconds)}"


def _run_row(run: offlinewire.OfflineRun, zone: ZoneInfo) -> list[str]:
    sure = "–" if run.start is None else "latest possible" if run.guessed else f"± {run.uncertainty_seconds:.0f} s"
    state = _STATES.get(run.state, run.state)
    if run.state == "placed" and run.heard_seconds:
        state = f"{length(run.heard_seconds)} of it heard"
    left_out = length(run.left_out_seconds) if run.left_out_seconds else "–"
    return [run.id, moment(run.start, zone, seconds=True), sure, length(run.seconds), left_out, state]


def _held_row(run: offlinewire.OfflineRun, name: str, zone: ZoneInfo) -> list[str]:
    return [run.id, name, length(run.seconds), moment(run.earliest, zone), moment(run.latest, zone)]


def _loss_row(loss: offlinewire.OfflineLoss, zone: ZoneInfo) -> list[str]:
    lasted = "–"
    if loss.start is not None and loss.end is not None:
        lasted = length((datetime.fromisoformat(loss.end) - datetime.fromisoformat(loss.start)).total_seconds())
    return [moment(loss.start, zone), lasted, str(loss.records), _WHY.get(loss.why, loss.why)]


def _path(address: str) -> str:
    return f"/v1/devices/{quote(address, safe='')}"
