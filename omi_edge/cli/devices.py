"""`devices`: find, pair, list, show, forget, rename, set and watch pendants."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console

from omi_edge.cli import offline, pendants
from omi_edge.cli.offline import known, path_of, plain_line, section
from omi_edge.cli.present import plain, print_json, print_table, wants_progress
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.cli.timetext import rfc3339
from omi_edge.clock import SystemClock
from omi_edge.errors import UsageError
from omi_edge.paths import socket_path
from omi_edge.web import offlinewire, wire
from omi_edge.web.client import ApiClient

WATCHED = ("device", "offline", "gap", "notice", "bookmark", "recording")
ABOUT_PENDANTS = ("device", "offline")
"""Events whose ``id`` is a pendant's."""
HISTORY_HOURS = 24
LAST_CONNECTIONS = 10
_device = click.argument("device", metavar="DEVICE")


@verb_group(
    "devices",
    examples=("omi-edge devices scan", "omi-edge devices pair", "omi-edge devices list", "omi-edge devices show omi"),
)
def devices() -> None:
    """Find, pair, show and set pendants.

    DEVICE is a pendant's address, what you call it, or the beginning of either.
    """


@devices.command("scan", cls=Verb, examples=("omi-edge devices scan --seconds 20",))
@click.option(
    "--seconds", type=click.FloatRange(1, 60), metavar="N", default=10, show_default=True, help="Look for so long."
)
@pass_settings
def scan(settings: Settings, seconds: float) -> None:
    """Look for pendants nearby."""
    run_verb(_scan(settings, seconds))


@devices.command("pair", cls=Verb, examples=("omi-edge devices pair", "omi-edge devices pair C0:FF:EE:12:34:56"))
@click.argument("address", metavar="[ADDRESS]", required=False)
@click.option("--name", metavar="NAME", help="Call it NAME; without this it keeps the name that it advertises.")
@pass_settings
def pair(settings: Settings, address: str | None, name: str | None) -> None:
    """Pair a pendant and remember it; without ADDRESS the only one nearby."""
    run_verb(_pair(settings, wire.DeviceNew(address, name)))


@devices.command("list", cls=Verb, examples=("omi-edge devices list --json",))
@pass_settings
def list_(settings: Settings) -> None:
    """List the remembered pendants and how their links stand."""
    run_verb(_list(settings))


@devices.command("show", cls=Verb, examples=("omi-edge devices show omi",))
@_device
@pass_settings
def show(settings: Settings, device: str) -> None:
    """Show all that is known of a pendant."""
    run_verb(_show(settings, device))


@devices.command("forget", cls=Verb, examples=("omi-edge devices forget omi --yes",))
@_device
@click.option("--yes", is_flag=True, help="Forget it; without this it is only shown.")
@pass_settings
def forget(settings: Settings, device: str, yes: bool) -> None:
    """Forget a pendant, its battery and its connections; what was heard through it stays."""
    run_verb(_forget(settings, device, yes))


@devices.command("rename", cls=Verb, examples=("omi-edge devices rename omi 'grey pendant'",))
@_device
@click.argument("name", metavar="NAME")
@pass_settings
def rename(settings: Settings, device: str, name: str) -> None:
    """Call a pendant otherwise; what it advertises stays."""
    run_verb(_change(settings, device, "", wire.DeviceChange(name)))


@devices.command(
    "settings", cls=Verb, examples=("omi-edge devices settings omi", "omi-edge devices settings omi --led 20")
)
@_device
@click.option("--led", type=click.IntRange(0, 100), metavar="N", help="Brightness in percent.")
@click.option("--mic-gain", type=click.IntRange(0, 8), metavar="N", help="Microphone level; 0 is muted.")
@click.option("--own-name", metavar="NAME", help="What it advertises; few pendants can change it.")
@pass_settings
def settings_(settings: Settings, device: str, led: int | None, mic_gain: int | None, own_name: str | None) -> None:
    """Set a connected pendant; without options show what is set."""
    wanted = wire.DeviceSettings(led, mic_gain, own_name)
    run_verb(_change(settings, device, "/settings", wanted if wanted != wire.DeviceSettings() else None))


for _verb in offline.VERBS:
    devices.add_command(_verb)


@devices.command("watch", cls=Verb, examples=("omi-edge devices watch", "omi-edge devices watch omi --json"))
@click.argument("device", metavar="[DEVICE]", required=False)
@pass_settings
def watch(settings: Settings, device: str | None) -> None:
    """Follow what happens to pendants until Ctrl-C; needs a daemon that runs."""
    run_verb(_watch(settings, device))


async def _scan(settings: Settings, seconds: float) -> None:
    async with api(settings) as client:
        with _waiting(settings, f"looking for pendants for {seconds:g} s"):
            page = await client.request(
                "POST", "/v1/devices/scan", body=wire.ScanNew(seconds), returns=wire.Page[wire.SightingItem]
            )
    if settings.json:
        return print_json(page)
    nothing = (
        "No pendant in sight. Is it charged and near? One that another phone or computer is connected to does not show."
    )
    return print_table(pendants.SIGHTING_HEADERS, [pendants.sighting_row(item) for item in page.items], nothing=nothing)


async def _pair(settings: Settings, new: wire.DeviceNew) -> None:
    async with api(settings) as client:
        with _waiting(settings, "pairing; keep the pendant near"):
            item = await client.request("POST", "/v1/devices", body=new, returns=wire.DeviceItem)
    _print(settings, item)
    if item.state == "off":
        settings.say(f"{plain(item.name)} is paired and remembered; `omi-edge run` listens to it.")
    else:
        settings.say(f"{plain(item.name)} is paired and remembered; audio follows in a moment.")


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        items = await known(client)
    if settings.json:
        return print_json(wire.Page(items, None))
    rows = [pendants.list_row(item, settings.zone) for item in items]
    nothing = "No pendant is remembered; `omi-edge devices pair` pairs one."
    return print_table(pendants.LIST_HEADERS, rows, nothing=nothing)


async def _show(settings: Settings, text: str) -> None:
    since = datetime.fromtimestamp(SystemClock().utc_us() / 1e6, UTC) - timedelta(hours=HISTORY_HOURS)
    async with api(settings) as client:
        path = path_of(pendants.meant(text, await known(client)))
        item = await client.request("GET", path, returns=wire.Device)
        if settings.json:
            return print_json(item)
        stored = await client.request("GET", path + "/offline", query={"limit": 1}, returns=offlinewire.Offline)
        holds = await offline.storage(client, item)
        history = await client.request(
            "GET", path + "/battery", query={"since": rfc3339(since)}, returns=wire.Page[wire.BatteryItem]
        )
        last = await client.request(
            "GET",
            path + "/connections",
            query={"limit": LAST_CONNECTIONS},
            returns=wire.Page[wire.ConnectionItem],
        )
    print("\n".join(map(plain_line, pendants.about(item, settings.zone))))
    print("\n".join(map(plain_line, offline.in_short(stored, holds))))
    if history.items:
        first, final = history.items[0], history.items[-1]
        line = pendants.battery_line(history.items)
        print(f"\nBattery of the last {HISTORY_HOURS} hours\n{line}  {first.percent} % → {final.percent} %")
    section("Last connections", pendants.CONNECTION_HEADERS,
             [pendants.connection_row(one, settings.zone) for one in last.items])  # fmt: skip
    missing = [pendants.gap_row(one) for one in item.gaps_today]
    section("Not heard today", ["because", "times", "length", "frames lost"], missing)
    section("Notices", ["severity", "times", "message"],
             [[one.severity, str(one.count), one.message] for one in item.notices])  # fmt: skip
    return None


async def _forget(settings: Settings, text: str, yes: bool) -> None:
    async with api(settings) as client:
        item = pendants.meant(text, await known(client))
        if yes:
            await client.request("DELETE", path_of(item), returns=type(None))
    _print(settings, item)
    if yes:
        settings.say("Forgotten; what was heard through it stays.")
    else:
        raise UsageError("nothing was forgotten: give --yes to forget this pendant.")


async def _change(
    settings: Settings, text: str, below: str, wanted: wire.DeviceChange | wire.DeviceSettings | None
) -> None:
    async with api(settings) as client:
        item = pendants.meant(text, await known(client))
        if wanted is not None:
            item = await client.request("PATCH", path_of(item) + below, body=wanted, returns=wire.DeviceItem)
    if settings.json:
        print_json(item)
    elif below:
        print(plain_line(f"{item.name}: {pendants.settings(item)}; it advertises as {item.own_name or '–'}"))
    else:
        _print(settings, item)


async def _watch(settings: Settings, text: str | None) -> None:
    async with ApiClient(socket=socket_path(settings.folder)) as client:
        remembered = await known(client)
        chosen = None if text is None else pendants.meant(text, remembered).id
        sources = await client.request("GET", "/v1/sources", returns=wire.Page[wire.SourceItem])
        devices_of = {source.id: source.device_id or source.id for source in sources.items}
        names = {item.id: item.name for item in remembered}
        names |= {source_id: names[device] for source_id, device in devices_of.items() if device in names}
        sieve = offline.Sieve()
        async for event in client.events(kinds=WATCHED, on_open=lambda: settings.say("Following; Ctrl-C ends it.")):
            subject = str(event.data.get("source_id") or (event.data.get("id") if event.kind in ABOUT_PENDANTS else ""))
            if chosen is not None and subject and devices_of.get(subject, subject) != chosen:
                continue
            if settings.json:
                print_json(event)
            else:
                for shown in sieve.let_through(event):
                    print(plain_line(pendants.event_line(shown, names, settings.zone)))
            sys.stdout.flush()  # a pipe must not wait for more of them
    settings.say("The daemon has stopped.")


def _print(settings: Settings, item: wire.DeviceItem) -> None:
    if settings.json:
        print_json(item)
    else:
        print_table(pendants.LIST_HEADERS, [pendants.list_row(item, settings.zone)], nothing="")


@contextlib.contextmanager
def _waiting(settings: Settings, what: str) -> Iterator[None]:
    """Show that something goes on, to somebody who watches."""
    if not wants_progress(settings):
        yield
        return
    with Console(stderr=True).status(what):
        yield
