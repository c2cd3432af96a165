"""What is known of pendants in the words of `devices`: tables, a battery's line, which one is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from omi_edge.cli.named import named
from omi_edge.cli.present import length, moment
from omi_edge.errors import NotFound
from omi_edge.web import wire

BARS = "▁▂▃▄▅▆▇█"
LINE_CELLS = 48
"""Half an hour each for a day."""
LIST_HEADERS = ["name", "address", "model", "firmware", "battery", "RSSI", "codec", "link", "state", "since"]
SIGHTING_HEADERS = ["name", "address", "RSSI", "remembered"]
CONNECTION_HEADERS = ["began", "length", "link", "how it ended"]
_ENDINGS = {
    "timeout": "not heard any more: out of range, or without power",
    "remote": "the pendant ended it",
    "local": "omi-edge ended it",
    "authentication": "the two sides had different keys",
    "radio": "Bluetooth of this machine went away",
    "stale": "it did not answer any more",
    "unknown": "not known",
}
_STATES = {"off": "not listened to"}


def meant(text: str, known: Sequence[wire.DeviceItem]) -> wire.DeviceItem:
    """Return the pendant of this name or address, or the only one whose name or address begins so.

    Raises NotFound with the nearest name, BadInput when several begin so.
    """
    if not known:
        raise NotFound("no pendant is remembered; `omi-edge devices pair` pairs one.")
    return named(text, known, "pendant")


def list_row(item: wire.DeviceItem, zone: ZoneInfo) -> list[str]:
    """Return a pendant as a row below LIST_HEADERS."""
    return [
        *(item.name, item.id, item.model or "–", item.firmware or "–", battery(item), rssi(item.rssi)),
        *(item.codec or "–", item.link, _STATES.get(item.state, item.state), moment(item.since, zone)),
    ]


def sighting_row(item: wire.SightingItem) -> list[str]:
    """Return what advertises as a row below SIGHTING_HEADERS."""
    return [item.name, item.address, rssi(item.rssi), item.remembered_as or "no"]


def connection_row(item: wire.ConnectionItem, zone: ZoneInfo) -> list[str]:
    """Return a connection as a row below CONNECTION_HEADERS."""
    lasted = "–" if item.seconds is None else length(item.seconds)
    ending = "it is up" if item.ending is None else _ENDINGS.get(item.ending, item.ending)
    return [moment(item.began, zone, seconds=True), lasted, item.link, ending]


def battery(item: wire.DeviceItem) -> str:
    """Return the level: ``61 %``, ``61 % (charging)``."""
    return "–" if item.battery is None else f"{item.battery} %" + (" (charging)" if item.charging else "")


def rssi(value: int | None) -> str:
    """Return a signal's strength."""
    return "–" if value is None else f"{value} dBm"


def about(item: wire.DeviceItem, zone: ZoneInfo) -> list[str]:
    """Return what is known of a pendant, a line each."""
    hours = f", about {item.hours_left:.1f} h left" if item.hours_left is not None else ""
    made = ", ".join(part for part in (item.model, item.hardware, item.manufacturer) if part)
    times = "once" if item.connects == 1 else f"{item.connects} times"
    lines = {
        "address": item.id,
        "name": item.name + (f" (it calls itself {item.own_name})" if item.own_name not in ("", item.name) else ""),
        "state": f"{_STATES.get(item.state, item.state)} since {moment(item.since, zone)}" + _dash(item.message),
        "link": {"bonded": "bonded: encrypted at connect", "open": "open: not encrypted"}.get(item.link, item.link),
        "model": made or "–",
        "firmware": item.firmware or "–",
        "battery": battery(item) + hours,
        "signal": rssi(item.rssi),
        "codec": item.codec or "–",
        "features": ", ".join(item.features) or "–",
        "settings": settings(item),
        "storage": item.storage or "–",
        "clock": clock(item, zone),
        "seen": f"{moment(item.seen, zone)}; connected {times} since {moment(item.remembered, zone)}",
    }
    return [f"{name:<10}{text}" for name, text in lines.items()]


def settings(item: wire.DeviceItem) -> str:
    """Return what can be set, as it is known."""
    led = "not known" if item.led is None else f"{item.led} %"
    gain = "not known" if item.mic_gain is None else f"level {item.mic_gain} of 8"
    return f"LED {led}, microphone {gain}"


def clock(item: wire.DeviceItem, zone: ZoneInfo) -> str:
    """Say how far a pendant's clock was off."""
    if item.clock_measured is None:
        return "not known"
    if item.clock_offset is None:
        return f"was not set at {moment(item.clock_measured, zone)}"
    way = "ahead" if item.clock_offset > 0 else "behind"
    return f"was {abs(item.clock_offset):.1f} s {way} at {moment(item.clock_measured, zone)}"


def battery_line(history: Sequence[wire.BatteryItem], cells: int = LINE_CELLS) -> str:
    """Draw a battery's history from its first reading to its last: a cell is its last level there, a dot is none."""
    if not history:
        return ""
    at = [datetime.fromisoformat(item.at).timestamp() for item in history]
    width = max(at[-1] - at[0], 1.0)
    drawn = ["·"] * cells
    for when, item in zip(at, history, strict=True):
        level = min(max(item.percent, 0), 100) * (len(BARS) - 1) // 100
        drawn[min(int((when - at[0]) / width * cells), cells - 1)] = BARS[level]
    return "".join(drawn)


def gap_row(item: wire.GapTotal) -> list[str]:
    """Return what is missing for the same causes: causes, how often, how long, frames known to be lost."""
    return [
        " or ".join(cause.replace("_", " ") for cause in item.causes), str(item.count), length(item.seconds),
        str(item.frames),
    ]  # fmt: skip


def event_line(event: wire.EventItem, names: dict[str, str], zone: ZoneInfo) -> str:
    """Return one event of `devices watch`; ``names`` knows devices and sources by their ids."""
    data = dict(event.data)
    who = next((names[str(data[key])] for key in ("id", "source_id") if str(data.get(key)) in names), "")
    told = [
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in data.items()
        if value not in (None, "", []) and not (name in ("id", "source_id") and str(value) in names)
    ]
    at = moment(event.at, zone, seconds=True)
    if event.kind == "offline":
        return "  ".join(part for part in (at, "stored audio", who, stored_audio(data, zone)) if part)
    return "  ".join(part for part in (at, event.kind, who, ", ".join(told)) if part)


def stored_audio(data: Mapping[str, Any], zone: ZoneInfo) -> str:
    """Return what an event ``offline`` says, in words."""
    state = data.get("state")
    share = f"{100 * data['done_bytes'] / data['total_bytes']:.0f} %" if data.get("total_bytes") else ""
    if state == "fetching":
        if not share:
            return "is asked for"
        of = f"{length(data['done_seconds'])} of {length(data['total_seconds'])}"
        return f"fetched {share}, {of}" + left(data.get("left_seconds"))
    if state == "done":
        return f"all of it is here, {length(data['done_seconds'])}" if share else "nothing new"
    if state == "waiting":
        return "waits; `omi-edge devices offline` says why"
    if state == "heard":
        out = data.get("left_out_seconds") or 0.0
        besides = f", {length(out)} of it left out: withheld by you, or there already" if out else ""
        span = f"{moment(data.get('start'), zone, seconds=True)} to {moment(data.get('end'), zone, seconds=True)}"
        return f"heard {span}{besides}"
    told = {"away": "the pendant is away", "placed": "a held recording is kept",
            "discarded": "a held recording is let go of"}  # fmt: skip
    return told.get(str(state), str(state))


def left(seconds: float | None) -> str:
    """Return how long something will take: ``, about 2:10 left``."""
    return "" if seconds is None else f", about {length(seconds)} left"


def _dash(text: str) -> str:
    return f" – {text}" if text else ""
