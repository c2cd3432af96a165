"""`status`, `notices`: how the daemon is, and what its owner should know."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from omi_edge.cli import offline, pendants
from omi_edge.cli.present import moment, plain, print_json, print_table, size
from omi_edge.cli.recording import recording_line
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb, verb_group
from omi_edge.web import wire


@verb("status", examples=("omi-edge status", "omi-edge status --json"))
@pass_settings
def status(settings: Settings) -> None:
    """Show what works, what waits and what needs attention."""
    run_verb(_status(settings))


async def _status(settings: Settings) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/status", returns=wire.Status)
    if not found.web:  # only the daemon of a verb has no port
        found = msgspec.structs.replace(found, state="no daemon")
    if settings.json:
        return print_json(found)
    zone = settings.zone
    if found.web:
        print(f"omi-edge {found.version}, {found.state} since {moment(found.since, zone)}")
    else:
        print(f"omi-edge {found.version}, no daemon runs; `omi-edge run` starts one")
    print(f"vault     {found.vault}")
    print(f"API       {found.web or 'off'}")
    print(f"network   {found.network}")
    print(f"recording {recording_line(found.recording, settings)}")
    if found.microphone is not None:
        print(f"mic       {microphone_line(found.microphone)}")
    if found.final is not None:
        print(plain(f"2nd pass  {final_line(found.final)}"))
    if found.wyoming is not None:
        print(f"wyoming   {wyoming_line(found.wyoming)}")
    print("audio     " + ", ".join(_amount(name, value) for name, value in found.audio.items()))
    for work in found.progress:
        print(f"working   {', '.join(f'{name} {value}' for name, value in work.items())}")
    _section("Devices", pendants.LIST_HEADERS, [pendants.list_row(item, zone) for item in found.devices])
    for item in found.devices:
        if item.message:
            print(plain(f"{item.name}: {item.message}"))
    called = {item.id: item.name for item in found.devices}
    for stored in found.offline:
        print(plain(f"stored audio of {offline.line(stored, called.get(stored.id, stored.id))}"))
    _section("Sources", ["id", "kind", "name", "heard until"], [_source(row, settings) for row in found.sources])
    stages = [
        [stage, ", ".join(f"{n} {state}" for state, n in counts.items() if n)] for stage, counts in found.jobs.items()
    ]
    _section("Jobs", ["stage", "how many"], [row for row in stages if row[1]])
    if not found.web and any(counts.get("queued") or counts.get("running") for counts in found.jobs.values()):
        print("what is not done waits for `omi-edge run`")
    _section("Failed jobs", ["what"], [[", ".join(f"{k} {v}" for k, v in job.items())] for job in found.failed_jobs])
    if found.web:
        _section(
            "Engines",
            ["name", "state", "starts", "failures", "busy"],
            [[e.name, e.state, str(e.starts), str(e.failures), f"{e.busy_seconds:.1f} s"] for e in found.engines],
        )
        _section("Tiers", ["tier", "engine", "speed"], [[s.tier, s.engine, _speed(s)] for s in found.speeds])
    _section("Notices", _NOTICE_HEADERS, [_notice(item, settings) for item in found.notices])
    return None


def final_line(item: wire.FinalPass) -> str:
    """Return how the second pass stands, as a person reads it."""
    parts = [item.engine, f"{item.waiting} wait"]
    if item.working:
        parts.append(f"hears {item.working}")
    if item.why or item.trouble:
        parts.append(item.trouble or item.why)
    return ", ".join(parts)


def microphone_line(item: wire.MicrophoneItem) -> str:
    """Return how the machine's own microphone stands, as a person reads it."""
    parts = [item.state]
    if item.name:
        parts.append(plain(item.name))
    if item.level_db is not None:
        parts.append(f"{item.level_db:.0f} dB")
    if item.lost_seconds:
        parts.append(f"{item.lost_seconds:.1f} s lost")
    return ", ".join(parts) + (f": {plain(item.message)}" if item.message else "")


def wyoming_line(item: wire.WyomingItem) -> str:
    """Return how speech recognition is served to others, as a person reads it."""
    parts = [item.address, "open to everybody on the LAN" if item.lan else "this machine alone"]
    if item.announced:
        parts.append("announced")
    parts.append(f"{item.clients} connected, {item.answered} answered")
    return ", ".join(parts) + (f": {plain(item.message)}" if item.message else "")


def _amount(name: str, value: int) -> str:
    words = "kept bytes" if name == "bytes" else name.replace("_", " ")
    return f"{words.removesuffix(' bytes')} {size(value)}" if name.endswith("bytes") else f"{words} {value}"


def _source(row: dict[str, Any], settings: Settings) -> list[str]:
    return [row["id"], row["kind"], row["name"], moment(row.get("heard_until"), settings.zone)]


def _speed(speed: wire.Speed) -> str:
    if speed.real_time_factor is None:
        return "not used yet"
    slow = ", slower than people speak" if speed.real_time_factor > 1 else ""
    return f"{speed.real_time_factor:.2f} × real time{slow}"


def _section(title: str, headers: list[str], rows: list[list[str]]) -> None:
    if rows:
        print(f"\n{title}")
        print_table(headers, rows, nothing="")


_NOTICE_HEADERS = ["id", "severity", "since", "times", "message"]


def _notice(item: wire.NoticeItem, settings: Settings) -> list[str]:
    seen = " (acknowledged)" if item.acknowledged else ""
    return [item.id, item.severity, moment(item.since, settings.zone), str(item.count), item.message + seen]


@verb_group("notices", lists=True, examples=("omi-edge notices", "omi-edge notices ack ntc_01k9z…"))
@click.pass_context
def notices(ctx: click.Context) -> None:
    """Show what the owner should know, and acknowledge it.

    Without a further verb: show them.
    """
    if ctx.invoked_subcommand is None:
        run_verb(_notices(ctx.ensure_object(Settings)))


async def _notices(settings: Settings) -> None:
    async with api(settings) as client:
        page = await client.request("GET", "/v1/notices", returns=wire.Page[wire.NoticeItem])
    if settings.json:
        return print_json(page)
    return print_table(_NOTICE_HEADERS, [_notice(item, settings) for item in page.items], nothing="No notice.")


@notices.command("ack", cls=Verb, examples=("omi-edge notices ack ntc_01k9z…",))
@click.argument("notice_id", metavar="ID")
@pass_settings
def acknowledge(settings: Settings, notice_id: str) -> None:
    """Say that a notice was seen."""
    run_verb(_acknowledge(settings, notice_id))


async def _acknowledge(settings: Settings, notice_id: str) -> None:
    async with api(settings) as client:
        item = await client.request("POST", f"/v1/notices/{notice_id}/acknowledge", returns=wire.NoticeItem)
    if settings.json:
        print_json(item)
    else:
        print_table(_NOTICE_HEADERS, [_notice(item, settings)], nothing="")
