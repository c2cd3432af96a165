"""Which pendant is meant, and what is told of it."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.cli import pendants
from omi_edge.cli.offline import stored
from omi_edge.errors import BadInput, NotFound
from omi_edge.web import wire
from omi_edge.web.times import iso
from tests.helpers import START_US

BERLIN = ZoneInfo("Europe/Berlin")
SECOND = 1_000_000


def item(address: str = "C0:FF:EE:00:00:01", name: str = "grey", **known: object) -> wire.DeviceItem:
    empty = wire.DeviceItem(
        id=address, name=name, own_name="Omi", model="", firmware="", hardware="", manufacturer="", state="off",
        since=None, cause="", message="", link="unknown", codec=None, battery=None, charging=None, hours_left=None,
        rssi=None, features=[], led=None, mic_gain=None, storage="", clock_offset=None, clock_measured=None,
        remembered=iso(START_US), seen=None, connects=0,
    )  # fmt: skip
    return msgspec.structs.replace(empty, **known)


KNOWN = [item(), item("C0:FF:EE:00:00:02", "green"), item("D0:FF:EE:00:00:02", "Grey pendant")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("grey", "grey"),  # exact, though another begins so
        ("GREY ", "grey"),
        ("gre", None),
        ("gree", "green"),
        ("grey p", "Grey pendant"),
        ("c0:ff:ee:00:00:02", "green"),
        ("d0", "Grey pendant"),
        ("c0", None),
    ],
)
def test_a_pendant_is_meant_by_name_address_or_the_beginning_of_either(text: str, name: str | None) -> None:
    if name is not None:
        assert pendants.meant(text, KNOWN).name == name
    else:
        with pytest.raises(BadInput, match=r"green.*; write more"):
            pendants.meant(text, KNOWN)


@pytest.mark.parametrize(
    ("text", "hint"), [("graey", "did you mean grey"), ("xyzzy", "known: grey, green, Grey pendant"), ("", "known")]
)
def test_an_unknown_one_is_told_with_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(NotFound, match=hint):
        pendants.meant(text, KNOWN)


def test_without_any_it_says_how_to_pair_one() -> None:
    with pytest.raises(NotFound, match="devices pair"):
        pendants.meant("grey", [])


def test_a_row_has_a_cell_for_each_header() -> None:
    full = item(
        model="Omi CV 1", firmware="3.0.21", battery=61, charging=True, rssi=-60, codec="opus-20ms", link="bonded",
        state="connected", since=iso(START_US),
    )  # fmt: skip
    assert pendants.list_row(full, BERLIN) == [
        "grey", "C0:FF:EE:00:00:01", "Omi CV 1", "3.0.21", "61 % (charging)", "-60 dBm", "opus-20ms", "bonded",
        "connected", "2026-03-02 10:00",
    ]  # fmt: skip
    assert len(pendants.LIST_HEADERS) == len(pendants.list_row(item(), BERLIN))
    assert pendants.list_row(item(), BERLIN)[2:] == ["–", "–", "–", "–", "–", "unknown", "not listened to", "–"]


def test_a_scan_tells_who_is_a_stranger() -> None:
    seen = [wire.SightingItem("C0:FF", "Omi", -50, "grey"), wire.SightingItem("D0:FF", "Omi", None, None)]
    assert [pendants.sighting_row(one) for one in seen] == [
        ["Omi", "C0:FF", "-50 dBm", "grey"],
        ["Omi", "D0:FF", "–", "no"],
    ]


def test_all_that_is_known_is_told_in_words() -> None:
    known = item(
        message="Bluetooth is off. Switch it on.", cause="bluetooth-off", state="unavailable", battery=40,
        hours_left=5.25, features=["button", "haptic"], led=30, mic_gain=6, clock_offset=-2.04,
        clock_measured=iso(START_US), storage="ring", link="open",
    )  # fmt: skip
    text = "\n".join(pendants.about(known, BERLIN))
    for told in (
        "unavailable since – – Bluetooth is off. Switch it on.", "it calls itself Omi", "open: not encrypted",
        "40 %, about 5.2 h left", "button, haptic", "LED 30 %, microphone level 6 of 8", "ring",
        "was 2.0 s behind at 2026-03-02 10:00",
    ):  # fmt: skip
        assert told in text
    assert "was not set at" in pendants.clock(item(clock_measured=iso(START_US)), BERLIN)
    assert pendants.clock(item(), BERLIN) == "not known"


def levels(*points: tuple[int, int]) -> list[wire.BatteryItem]:
    return [wire.BatteryItem(iso(START_US + at * SECOND), percent, None) for at, percent in points]


def test_a_battery_is_drawn_from_its_first_reading_to_its_last() -> None:
    assert pendants.battery_line([]) == ""
    assert pendants.battery_line(levels((0, 100)), 4) == "█···"
    assert pendants.battery_line(levels((0, 100), (10, 50), (11, 43), (30, 0)), 3) == "█▄▁"
    assert pendants.battery_line(levels((0, 100), (30, 0)), 3) == "█·▁"


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-5, 300)), max_size=30))
def test_a_line_has_its_cells_whatever_was_told(points: list[tuple[int, int]]) -> None:
    line = pendants.battery_line(levels(*sorted(points)))
    assert len(line) == (pendants.LINE_CELLS if points else 0)
    assert set(line) <= set(pendants.BARS + "·")


def test_connections_tell_how_they_ended() -> None:
    over = wire.ConnectionItem(iso(START_US), iso(START_US + 187 * SECOND), 187.0, "bonded", "authentication")
    assert pendants.connection_row(over, BERLIN) == [
        "2026-03-02 10:00:00", "3:07", "bonded", "the two sides had different keys",
    ]  # fmt: skip
    assert pendants.connection_row(wire.ConnectionItem(iso(START_US), None, None, "open", None), BERLIN)[1:] == [
        "–", "open", "it is up",
    ]  # fmt: skip


def test_missing_and_stored_audio_in_words() -> None:
    total = wire.GapTotal(["out_of_range", "pendant_off"], 2, 90.0, 0)
    assert pendants.gap_row(total) == ["out of range or pendant off", "2", "1:30", "0"]
    ring = wire.DeviceStorage("ring", 14_400, 5_000_000, 7, False)
    assert stored(ring) == [
        "protocol  ring",
        "waiting   7 records",
        "used      0 % used, 14.4 kB of 5.0 MB",
        "clock     not set: the times of its audio are guesses",
    ]
    assert stored(wire.DeviceStorage("none", message="It stores none.")) == [
        "protocol  none", "It stores none.",
    ]  # fmt: skip


def test_events_name_whom_they_concern() -> None:
    names = {"C0:FF": "grey", "src_1": "grey"}
    device = wire.EventItem(1, "device", iso(START_US), {"id": "C0:FF", "state": "connected", "cause": ""})
    assert pendants.event_line(device, names, BERLIN) == "2026-03-02 10:00:00  device  grey  state connected"
    gap = wire.EventItem(2, "gap", iso(START_US), {"source_id": "src_1", "causes": ["muted", "lost"], "frames": 0})
    assert pendants.event_line(gap, names, BERLIN).endswith("gap  grey  causes muted, lost, frames 0")
    notice = wire.EventItem(3, "notice", iso(START_US), {"id": "ntc_1", "message": "m"})
    assert pendants.event_line(notice, names, BERLIN).endswith("notice  id ntc_1, message m")
