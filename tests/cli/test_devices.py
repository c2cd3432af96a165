"""`devices`, `pause`, `off-record`, `resume`, `bookmarks`, as a person types them, with and without a daemon."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omi_edge.clock import SystemClock
from omi_edge.domain import Cause, Gap
from omi_edge.store import devices, gaps, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from tests.cli.conftest import Done, Place, Started
from tests.helpers import PASSPHRASE

GREY, GREEN = "C0:FF:EE:00:00:01", "C0:FF:EE:00:00:02"
D = ("--data", "D", "--passphrase-file", "F")
QUIET = {"OMI_EDGE_DEVICE_BLUETOOTH": "false"}
"""The machine that runs the tests may have an adapter: it is left alone."""
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def home(place: Place, empty_vault: Path) -> Place:
    """A place with two remembered pendants, one of which was heard."""
    shutil.copytree(empty_vault, place.home / "D")
    place.secret("F", PASSPHRASE + "\n")
    asyncio.run(_fill(place.home / "D"))
    return place


async def _fill(folder: Path) -> None:
    clock = SystemClock()
    now_us = clock.utc_us()

    def work(conn: Connection) -> None:
        for address, name in ((GREY, "grey"), (GREEN, "green \x1b[31m")):
            devices.remember(conn, address=address, name=name, own_name="Omi", now_us=now_us)
        devices.note(conn, GREY, firmware="3.0.21", rssi=-60, codec=21, security="bonded")
        for n in range(3):
            devices.add_battery(conn, GREY, at_us=now_us - n * 60_000_000, percent=80 + n, charging=False)
        connection_id = devices.began(conn, GREY, at_us=now_us - 60_000_000, security="bonded")
        devices.ended(conn, connection_id, at_us=now_us, ending="timeout")
        sources.add(
            conn, id="src_grey", kind="pendant", name="grey", device_id=GREY, client_id=None, codec=21,
            created_us=now_us,
        )  # fmt: skip
        gaps.put(conn, Gap("src_grey", now_us - 1_000_000, now_us, (Cause.OUT_OF_RANGE, Cause.PENDANT_OFF), 4))

    vault = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    await vault.write(work)
    await vault.close()


def told(done: Done, code: int, *words: str) -> None:
    """A failure is one sentence on standard error."""
    assert (done.code, done.err.count("\n"), done.err.startswith("omi-edge: ")) == (code, 1, True), done
    for word in words:
        assert word in done.err, done


def test_pendants_are_listed_and_shown_without_a_daemon(home: Place) -> None:
    listed, shown, as_json, settings, status = home.each(
        [
            (*D, "devices", "list"),
            (*D, "devices", "show", "grey"),
            (*D, "devices", "show", GREY.lower(), "--json"),
            (*D, "devices", "settings", "c0:ff:ee:00:00:01"),
            (*D, "status"),
        ]
    )
    header, first, second = listed.out.splitlines()
    assert header.split()[:3] == ["name", "address", "model"]
    assert first.split()[:2] == ["grey", GREY]
    assert "opus-20ms" in first
    assert "bonded" in first
    assert "\x1b" not in second
    for word in (GREY, "80 %", "3.0.21", "82 % → 80 %", "out of range or pendant off", "not heard any more"):
        assert word in shown.out, shown
    assert as_json.json["gaps_today"][0]["frames"] == 4
    assert [source["id"] for source in as_json.json["sources"]] == ["src_grey"]
    assert settings.out == "grey: LED not known, microphone not known; it advertises as Omi\n"
    assert "recording on" in status.out
    assert "Devices" in status.out
    assert GREEN in status.out


def test_what_cannot_be_done_is_told_with_its_cure(home: Place) -> None:
    unknown, several, no_yes, number, duration, watch, nothing = home.each(
        [
            (*D, "devices", "show", "graey"),
            (*D, "devices", "rename", "c0", "x"),
            (*D, "devices", "forget", "green"),
            (*D, "devices", "settings", "grey", "--led", "101"),
            (*D, "pause", "half an hour"),
            (*D, "devices", "watch"),
            (*D, "devices"),
        ]
    )
    told(unknown, 4, "did you mean grey?")
    told(several, 2, "grey", "write more")
    assert (no_yes.code, GREEN in no_yes.out) == (2, True)
    assert "--yes" in no_yes.err
    told(number, 2, "--led")
    told(duration, 2, "1h30m")
    told(watch, 9, "omi-edge run")
    assert nothing.code == 2


def test_a_pendant_is_renamed_and_forgotten(home: Place) -> None:
    shutil.copytree(home.home / "D", home.home / "G")
    options = ("--data", "G", "--passphrase-file", "F")
    taken = home(*options, "devices", "rename", "green", "GREY", environment=QUIET)
    told(taken, 2, "another device")
    renamed = home(*options, "devices", "rename", "green", "kitchen", "--json", environment=QUIET)
    assert renamed.json["name"] == "kitchen"
    gone = home(*options, "devices", "forget", "kit", "--yes", environment=QUIET)
    assert (gone.code, "stays" in gone.err) == (0, True)
    left = home(*options, "devices", "list", "--json").json["items"]
    assert [item["id"] for item in left] == [GREY]


def test_a_pause_without_a_daemon_is_kept_and_says_so(home: Place) -> None:
    shutil.copytree(home.home / "D", home.home / "P")
    options = ("--data", "P", "--passphrase-file", "F")
    paused = home(*options, "pause", "30m")
    assert (paused.code, paused.out.startswith("recording paused since ")) == (0, True)
    assert "No daemon runs" in paused.err
    off = home(*options, "off-record", "2h", "--json")
    assert (off.json["state"], off.err) == ("off_record", "")
    status, marks = home.each([(*options, "status"), (*options, "bookmarks")])
    assert "recording off the record since" in status.out
    assert "No bookmark yet" in marks.out
    resumed = home(*options, "resume", "--json")
    assert resumed.json == {"state": "recording", "since": None, "until": None, "by": None}
    marked = home(*options, "bookmarks", "add", "--source", "src_grey", "--json").json
    assert [item["id"] for item in home(*options, "bookmarks", "--json").json["items"]] == [marked["id"]]
    told(home(*options, "bookmarks", "add", "--source", "src_nope"), 4, "no such source")


@pytest.mark.skipif(sys.platform != "linux", reason="the bus is a matter of Linux")
def test_without_bluetooth_a_scan_and_a_pairing_say_what_to_do(home: Place) -> None:
    nowhere = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={home.home}/nowhere"}
    for call in (("scan", "--seconds", "1"), ("pair",), ("pair", GREY)):
        told(home(*D, "devices", *call, environment=nowhere), 8, "Bluetooth")
    told(home(*D, "devices", "pair", "the grey one", environment=nowhere), 2, "address")


@pytest.fixture
def daemon(home: Place) -> Iterator[Started]:
    with (home.home / "run.log").open("w", encoding="utf-8") as log:
        process = home.start(*D, "run", environment=QUIET, stderr=log)
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)


def test_what_happens_is_watched_until_ctrl_c(home: Place, daemon: Started) -> None:
    # without the passphrase: with it a status that comes first would open the vault, and the daemon could not
    give_up = time.monotonic() + PATIENCE_SECONDS
    while home("--data", "D", "status").code != 0:
        assert time.monotonic() < give_up, (home.home / "run.log").read_text()
    with home.start("--data", "D", "devices", "watch", "grey", "--json") as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert watching.stderr.readline() == "Following; Ctrl-C ends it.\n"
        paused = home("--data", "D", "pause", "1h")
        assert (paused.code, paused.err) == (0, "")
        event: Any = Done(0, watching.stdout.readline(), "").json
        assert (event["kind"], event["data"]["state"]) == ("recording", "muted")
        assert event["data"]["until"].endswith("Z")
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=PATIENCE_SECONDS)
    assert (watching.returncode, out, err.strip()) == (130, "", "")
