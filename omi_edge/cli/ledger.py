"""`ledger`: what became of every second of a day, as a bar, as sums, and in one sentence."""

from __future__ import annotations

import shutil
import sys
from datetime import date, datetime
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.text import Text

from omi_edge.cli.present import plain, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.cli.timetext import parse
from omi_edge.web import wire

CELLS = 96
"""A quarter of an hour each; half as many where the terminal is narrow."""
HOURS_EACH = 3
"""Between two hours below the bar."""
LOOKS = {
    # state: sign where there are no colours, colour, words
    "speech": ("#", "green", "speech"),
    "silence": ("=", "dark_green", "silence"),
    "recovered": ("+", "cyan", "recovered from the pendant"),
    "device_silent": ("-", "grey50", "microphone asleep"),
    "lost": ("x", "red", "lost"),
    "muted": ("m", "blue", "muted"),
    "off_record": ("o", "magenta", "off the record"),
    "disconnected": ("d", "yellow", "disconnected"),
    "out_of_range": ("r", "yellow", "out of range"),
    "pendant_off": ("p", "dark_orange3", "pendant off"),
    "daemon_down": ("!", "red3", "omi-edge not running"),
    "forgotten": ("f", "grey30", "forgotten"),
    "unknown": ("?", "grey70", "unknown"),
}
_HEARD = ("speech", "silence", "recovered")
_SAID = {
    "device_silent": "with the microphone asleep", "muted": "muted by you", "off_record": "off the record",
    "disconnected": "disconnected", "out_of_range": "out of range", "pendant_off": "with the pendant off",
    "daemon_down": "while omi-edge did not run", "forgotten": "forgotten", "unknown": "unknown",
}  # fmt: skip
"""How a sum is said, in this order, after what was heard and lost."""
_OF_CLIENTS = {"device_silent": ("connected, nothing sent", "connected with nothing sent")}
"""What states are called of sources that are no pendants, in a table and in a sentence."""


@verb("ledger", examples=("omi-edge ledger", "omi-edge ledger --day 2026-03-02", "omi-edge ledger --json"))
@click.option("--day", metavar="DAY", help="That day, like 2026-03-02, as the wearer's clock shows it; else today.")
@click.option("--source", metavar="ID", help="Only this source.")
@pass_settings
def ledger(settings: Settings, day: str | None, source: str | None) -> None:
    """Show what became of every second of a day.

    Heard, lost, muted, out of range and so on, for each pendant and each client that streams. What may have had
    several causes counts as unknown, with the causes that fit.
    """
    wanted = None if day is None else parse(day, settings.zone).astimezone(settings.zone).date().isoformat()
    query = {name: value for name, value in (("day", wanted), ("source", source)) if value is not None}
    run_verb(_show(settings, query))


async def _show(settings: Settings, query: dict[str, str]) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/ledger", query=query, returns=wire.LedgerDay)
    if settings.json:
        return print_json(found)
    if not found.items:
        print("Nothing that streams was known that day.")
    for number, item in enumerate(found.items):
        if number:
            print()
        if len(found.items) > 1:
            print(f"{plain(item.name)} ({item.source_id})")
        _draw(found, item, settings.zone)
    return None


def _draw(day: wire.LedgerDay, item: wire.LedgerAccount, zone: ZoneInfo) -> None:
    terminal = sys.stdout.isatty()
    cells = CELLS if not terminal or shutil.get_terminal_size().columns >= CELLS else CELLS // 2
    states = bar(day, item, cells)
    if terminal:
        console = Console(markup=False, highlight=False, emoji=False)
        line = Text()
        for state in states:
            line.append("█" if state else " ", style=LOOKS[state][1] if state else "")
        console.print(line, soft_wrap=True)
    else:
        print("".join(LOOKS[state][0] if state else " " for state in states).rstrip())
    print(hours(day, cells, zone))
    rows = [_row(found, item) for found in item.sums]
    if terminal:
        _legend(item)
    print_table(["sign", "state", "time", "share", "places"], rows, nothing="")
    print(sentence(day, item))


def _legend(item: wire.LedgerAccount) -> None:
    """Say which colour is which."""
    line = Text()
    for state in dict.fromkeys(found.state for found in item.sums):
        line.append("█ ", style=LOOKS[state][1])
        line.append(f"{_words(state, item)}  ")
    Console(markup=False, highlight=False, emoji=False).print(line)


def bar(day: wire.LedgerDay, item: wire.LedgerAccount, cells: int) -> list[str]:
    """Return the state that fills most of each cell of the day, "" where there is none: before or after its account."""
    start, end = (datetime.fromisoformat(text).timestamp() for text in (day.start, day.end))
    width = (end - start) / cells
    filled: list[dict[str, float]] = [{} for _ in range(cells)]
    for span in item.spans:
        low, high = (datetime.fromisoformat(text).timestamp() - start for text in (span.start, span.end))
        for index in range(max(0, int(low / width)), min(cells, int(high / width) + 1)):
            seconds = min(high, (index + 1) * width) - max(low, index * width)
            if seconds > 0:
                filled[index][span.state] = filled[index].get(span.state, 0.0) + seconds
    return [max(found, key=lambda state: found[state]) if found else "" for found in filled]


def hours(day: wire.LedgerDay, cells: int, zone: ZoneInfo) -> str:
    """Return the hours to write below a bar, as the wearer's clock shows them."""
    start, end = (datetime.fromisoformat(text) for text in (day.start, day.end))
    line = ""
    for hour in range(0, round((end - start).total_seconds() / 3600), HOURS_EACH):
        shown = datetime.fromtimestamp(start.timestamp() + hour * 3600, zone)
        line = line.ljust(round(hour * 3600 / (end - start).total_seconds() * cells)) + f"{shown.hour:02d}"
    return line


def sentence(day: wire.LedgerDay, item: wire.LedgerAccount) -> str:
    """Return a source's day in one plain sentence."""
    seconds: dict[str, float] = {}
    places: dict[str, int] = {}
    for found in item.sums:
        seconds[found.state] = seconds.get(found.state, 0.0) + found.seconds
        places[found.state] = places.get(found.state, 0) + found.places
    parts = [f"{spoken(sum(seconds.get(state, 0.0) for state in _HEARD))} heard"]
    if round(seconds.get("recovered", 0.0)):
        parts[0] += f" ({spoken(seconds['recovered'])} of it recovered from the pendant)"
    if seconds.get("lost"):
        where = "place" if places["lost"] == 1 else "places"
        parts.append(f"{spoken(seconds['lost'])} lost in {places['lost']} {where}")
    else:
        parts.append("nothing lost")
    said = _SAID if item.kind == "pendant" else _SAID | {state: words for state, (_, words) in _OF_CLIENTS.items()}
    parts += [f"{spoken(seconds[state])} {words}" for state, words in said.items() if round(seconds.get(state, 0.0))]
    return f"{date.fromisoformat(day.day):%A}: {', '.join(parts)}."


def spoken(seconds: float) -> str:
    """Return a duration in words: two units at most."""
    if 0 < seconds < 1:
        return "less than 1 s"
    whole = round(seconds)
    if whole >= 3600:
        whole = round(seconds / 60) * 60  # beside hours nobody counts seconds
    hours_, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    units = ((hours_, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in units if count) or "0 s"


def _words(state: str, item: wire.LedgerAccount) -> str:
    return LOOKS[state][2] if item.kind == "pendant" or state not in _OF_CLIENTS else _OF_CLIENTS[state][0]


def _row(found: wire.LedgerSum, item: wire.LedgerAccount) -> list[str]:
    sign, words = LOOKS[found.state][0], _words(found.state, item)
    if found.causes:
        words += " (" + " or ".join(LOOKS[cause][2] for cause in found.causes) + ")"
    share = f"{found.seconds / item.seconds:.1%}" if item.seconds else ""
    return [sign, words, spoken(found.seconds), share, str(found.places)]
