"""`pause`, `off-record`, `resume`, `bookmarks`: what is recorded, and what the wearer marked."""

from __future__ import annotations

import click

from omi_edge.cli.data import NOTHING_MATCHES, Query, filters, limited, narrowed, pages
from omi_edge.cli.present import moment, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb, verb_group
from omi_edge.cli.timetext import duration
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

_LENGTH = click.argument("length", metavar="[LENGTH]", required=False)


@verb("pause", examples=("omi-edge pause", "omi-edge pause 30m", "omi-edge pause 1h30m"))
@_LENGTH
@pass_settings
def pause(settings: Settings, length: str | None) -> None:
    """Record nothing for a while.

    LENGTH is like 90s, 30m, 2h or 1h30m; without it nothing is recorded until `omi-edge resume`. It survives a
    restart.
    """
    run_verb(_say(settings, "pause", wire.RecordingPause(duration(length) if length is not None else None)))


@verb("off-record", examples=("omi-edge off-record", "omi-edge off-record 2h"))
@_LENGTH
@pass_settings
def off_record(settings: Settings, length: str | None) -> None:
    """Be off the record for a while.

    LENGTH is like 90s, 30m, 2h or 1h30m; without it device.off_record of the settings. It survives a restart.
    """
    run_verb(_say(settings, "off-record", wire.RecordingOff(duration(length) if length is not None else None)))


@verb("resume", examples=("omi-edge resume",))
@pass_settings
def resume(settings: Settings) -> None:
    """Record again."""
    run_verb(_say(settings, "resume", None))


@verb_group("bookmarks", lists=True, examples=("omi-edge bookmarks --since 2026-03-02", "omi-edge bookmarks add"))
@narrowed("source", "since", "until")
@limited(10_000, default=50)
@click.pass_context
def bookmarks(ctx: click.Context, /, limit: int, **where: str | None) -> None:
    """List the moments that the wearer marked, and mark one.

    Without a further verb: list them.
    """
    if ctx.invoked_subcommand is None:
        settings = ctx.ensure_object(Settings)
        run_verb(_list(settings, filters(settings, **where), limit))


@bookmarks.command("add", cls=Verb, examples=("omi-edge bookmarks add",))
@click.option("--source", metavar="ID", help="Mark it in this source; without this in the one that is heard.")
@pass_settings
def add(settings: Settings, source: str | None) -> None:
    """Mark this moment."""
    run_verb(_add(settings, wire.BookmarkNew(source)))


def recording_line(now: wire.Recording, settings: Settings) -> str:
    """Say whether it records."""
    if now.state == "recording":
        return "on"
    word = {"muted": "paused", "off_record": "off the record"}.get(now.state, now.state)
    until = f"until {moment(now.until, settings.zone)}" if now.until else "until `omi-edge resume`"
    return f"{word} since {moment(now.since, settings.zone)}, {until}"


async def _say(settings: Settings, act: str, body: wire.RecordingPause | wire.RecordingOff | None) -> None:
    async with api(settings) as client:
        now = await client.request("POST", f"/v1/recording/{act}", body=body, returns=wire.Recording)
        daemon = settings.json or await _daemon_runs(client)
    if settings.json:
        return print_json(now)
    print(f"recording {recording_line(now, settings)}")
    if not daemon:
        settings.say("No daemon runs, so nothing is recorded now; this holds when `omi-edge run` starts one.")
    return None


async def _daemon_runs(client: ApiClient) -> bool:
    """Say whether this is a daemon of its own: only that of a verb has no port."""
    return bool((await client.request("GET", "/v1/status", returns=wire.Status)).web)


async def _list(settings: Settings, query: Query, limit: int) -> None:
    async with api(settings) as client:
        items, cursor = await pages(client, "/v1/bookmarks", query, limit, wire.BookmarkItem)
    if settings.json:
        return print_json(wire.Page(items, cursor))
    nothing = NOTHING_MATCHES if query else "No bookmark yet; `omi-edge bookmarks add` or a tap sets one."
    print_table(_HEADERS, [_row(item, settings) for item in items], nothing=nothing)
    if cursor:
        settings.say(f"There are more; give --limit above {limit}.")
    return None


async def _add(settings: Settings, new: wire.BookmarkNew) -> None:
    async with api(settings) as client:
        item = await client.request("POST", "/v1/bookmarks", body=new, returns=wire.BookmarkItem)
    if settings.json:
        print_json(item)
    else:
        print_table(_HEADERS, [_row(item, settings)], nothing="")


_HEADERS = ["id", "at", "set by", "source", "conversation"]


def _row(item: wire.BookmarkItem, settings: Settings) -> list[str]:
    at = moment(item.at, settings.zone, seconds=True)
    return [item.id, at, item.by, item.source_id, item.conversation_id or "–"]
