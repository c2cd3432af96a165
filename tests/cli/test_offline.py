"""`devices offline | fetch | held`, as a person types them, and how events of stored audio are told."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from omi_edge.cli import pendants
from omi_edge.cli.offline import Sieve, came_later, in_short, line
from omi_edge.clock import SystemClock
from omi_edge.domain import Codec
from omi_edge.store import devices, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.offline import CursorRow, NewRun, RecordRow, RunState
from omi_edge.web import offlinewire, wire
from omi_edge.web.times import iso
from tests.cli.conftest import Done, Place
from tests.helpers import PASSPHRASE, START_US

GREY, GREEN = "C0:FF:EE:00:00:01", "C0:FF:EE:00:00:02"
D = ("--data", "D", "--passphrase-file", "F")
QUIET = {"OMI_EDGE_DEVICE_BLUETOOTH": "false", "OMI_EDGE_WEARER_TIME_ZONE": "Europe/Berlin"}
"""The machine that runs the tests may have an adapter: it is left alone."""
UTC = ZoneInfo("UTC")
SECOND = 1_000_000
MINUTE = 60 * SECOND


@pytest.fixture(scope="module")
def home(place: Place, empty_vault: Path) -> Place:
    """A place with two remembered pendants; one stored five recordings, of which two are held."""
    shutil.copytree(empty_vault, place.home / "D")
    place.secret("F", PASSPHRASE + "\n")
    asyncio.run(_fill(place.home / "D"))
    return place


async def _fill(folder: Path) -> None:
    def work(conn: Connection) -> None:
        for address, name in ((GREY, "grey"), (GREEN, "green")):
            devices.remember(conn, address=address, name=name, own_name="Omi", now_us=START_US)
        sources.add(
            conn, id="src_grey", kind="pendant", name="grey", device_id=GREY, client_id=None, codec=21,
            created_us=START_US,
        )  # fmt: skip
        reading_n = offline.begin_reading(
            conn, "src_grey", away_us=START_US, connected_us=START_US + 20 * MINUTE, read_us=START_US + 20 * MINUTE,
            offset_us=0, ledger_us=0, codec=Codec.OPUS_20MS, step=1,
        )  # fmt: skip
        records = [RecordRow(0, seq, reading_n, None, bytes(444)) for seq in range(4)]
        offline.keep(conn, "src_grey", records, CursorRow(0, 4), (0, 4))
        runs = [NewRun(False, 0, seq, 0, seq, 3000, START_US + seq * MINUTE, 2 * SECOND) for seq in range(4)]
        offline.place(conn, "src_grey", reading_n, runs, placed=(0, 4), after=None, empty=(), now_us=START_US)
        guessed, spoken, *waiting = offline.latest(conn, "src_grey", 4)[::-1]
        for run in (guessed, *waiting):
            state = RunState.HELD if run in waiting else RunState.PLACED
            offline.settle_run(
                conn, run.n, state=state, start_us=START_US + 19 * MINUTE, uncertainty_us=MINUTE, guessed=True,
                earliest_us=START_US, latest_us=START_US + 20 * MINUTE,
            )  # fmt: skip
        for run in (guessed, spoken):
            left_out_us = 5 * SECOND if run is spoken else 0
            offline.heard(conn, run, frames=3000, at_seq=run.last_seq, at_frame=3000, left_out_us=left_out_us)
        offline.lose(conn, "src_grey", reading_n, store=0, first=9, last=12, records=4, why="overwritten")
        offline.settle_loss(
            conn, offline.losses(conn, "src_grey")[0].n, START_US - 3 * MINUTE, START_US - MINUTE
        )  # fmt: skip

    vault = await asyncio.to_thread(Database.open, folder, PASSPHRASE, SystemClock())
    await vault.write(work)
    await vault.close()


def told(done: Done, code: int, *words: str) -> None:
    """A failure is one sentence on standard error."""
    assert (done.code, done.err.count("\n"), done.err.startswith("omi-edge: ")) == (code, 1, True), done
    for word in words:
        assert word in done.err, done


def test_what_a_pendant_stored_is_shown_while_it_is_away(home: Place) -> None:
    shown = home(*D, "devices", "offline", "grey", environment=QUIET)
    assert (shown.code, shown.err) == (0, "")
    for words in (
        "the pendant is not connected; what it stores comes when it is",
        "storage   not asked",
        "here      888 B not heard yet",
        "held      2 until you say whether to keep them: `omi-edge devices held`",
        "2026-03-02 10:01:00  ± 2 s            1:00    0:05      heard",
        "2026-03-02 10:19:00  latest possible  1:00    –         heard",
        "held: waits for your word",
        "2026-03-02 09:57  2:00    4       its storage was full",
    ):
        assert words in shown.out, shown.out
    as_json = home(*D, "devices", "offline", "grey", "--json", "--last", "1", environment=QUIET).json
    assert (as_json["held"], len(as_json["runs"]), as_json["storage"]) == (2, 1, None)
    nothing = home(*D, "devices", "offline", "green", environment=QUIET)
    assert "Recordings" not in nothing.out


@pytest.mark.full
def test_status_and_show_say_what_waits(home: Place) -> None:
    status, show, as_json = (
        home(*D, *call, environment=QUIET) for call in (("status",), ("devices", "show", "grey"), ("status", "--json"))
    )
    assert "stored audio of grey: 2 held until you decide (`omi-edge devices held`)\n" in status.out
    assert "green:" not in status.out
    assert "stored    888 B here and not heard yet, 2 held (`omi-edge devices held`)\n" in show.out
    assert [one["held"] for one in as_json.json["offline"]] == [2]


def test_a_pendant_that_nobody_listens_to_cannot_be_fetched_from(home: Place) -> None:
    told(home(*D, "devices", "fetch", "grey", environment=QUIET), 9, "omi-edge run")
    told(home(*D, "devices", "fetch", "graey", environment=QUIET), 4, "did you mean grey?")


@pytest.mark.full
def test_held_recordings_are_listed_kept_and_let_go_of(home: Place) -> None:
    shutil.copytree(home.home / "D", home.home / "H")

    def call(*arguments: str) -> Done:
        return home("--data", "H", "--passphrase-file", "F", "devices", "held", *arguments, environment=QUIET)

    header, *rows = call().out.splitlines()
    assert header.split()[:3] == ["recording", "pendant", "length"]
    keep, drop = (row.split()[0] for row in rows)
    assert rows[0].split()[1:] == ["grey", "1:00", "2026-03-02", "10:00", "2026-03-02", "10:20"]
    assert call("green").out == "No recording waits for your word.\n"
    told(call("--keep", keep, "--discard", keep), 2, "not both")
    told(call("--keep", "run_0"), 4, "devices held")
    told(call("green", "--discard", drop), 4, drop)
    assert len(call("--json").json["items"]) == 2  # nothing was decided so far
    done = call("--keep", keep, "--discard", drop)
    assert done.out.splitlines() == [
        f"{keep}  kept; it is heard as of 2026-03-02 10:19:00",
        f"{drop}  let go of; nobody has heard it",
    ]
    assert call("--json").json["items"] == []
    told(call("--keep", keep), 4, keep)
    status = home("--data", "H", "--passphrase-file", "F", "status", environment=QUIET)
    assert "stored-audio-held" not in status.out
    assert "recordings that grey stored" not in status.out


# --- words ------------------------------------------------------------------------------------------------------------


def event(number: int, at_us: int, kind: str = "offline", **data: Any) -> wire.EventItem:
    return wire.EventItem(number, kind, iso(at_us), data)


def fetching(number: int, at_us: int, done: int, total: int = 100, of: str = GREY) -> wire.EventItem:
    return event(
        number, at_us, id=of, state="fetching", done_bytes=done, total_bytes=total, done_seconds=float(done),
        total_seconds=float(total), left_seconds=130.0,
    )  # fmt: skip


def heard(number: int, at_us: int, end_us: int, start_us: int = START_US) -> wire.EventItem:
    return event(number, at_us, source_id="src_grey", state="heard", start=iso(start_us), end=iso(end_us))


def test_progress_is_told_every_few_seconds_and_its_end_at_once() -> None:
    sieve = Sieve()
    events = [fetching(0, START_US, 0, 0)]
    events += [fetching(n, START_US + n * SECOND, n) for n in range(1, 14)]
    events += [fetching(14, START_US + 13 * SECOND, 1, of=GREEN), event(15, START_US + 13 * SECOND, state="done")]
    shown = [one.number for given in events for one in sieve.let_through(given)]
    assert shown == [0, 5, 10, 14, 15]


def test_the_last_word_about_what_is_heard_is_always_told() -> None:
    sieve = Sieve()
    events = [heard(n, START_US + n * SECOND, START_US + n * MINUTE) for n in range(1, 4)]
    events.append(heard(4, START_US + 4 * SECOND, START_US + 9 * MINUTE, START_US + 8 * MINUTE))
    events.append(event(5, START_US + 4 * SECOND, "device", id=GREY, state="connected"))
    shown = [one.number for given in events for one in sieve.let_through(given)]
    assert shown == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (fetching(1, 0, 90, 360).data, "fetched 25 %, 1:30 of 6:00, about 2:10 left"),
        ({"state": "fetching", "done_bytes": 0, "total_bytes": 0}, "is asked for"),
        ({"state": "done", "done_bytes": 9, "total_bytes": 9, "done_seconds": 61.0}, "all of it is here, 1:01"),
        ({"state": "done", "done_bytes": 0, "total_bytes": 0, "done_seconds": 0.0}, "nothing new"),
        ({"state": "waiting", "total_bytes": 9, "done_bytes": 1}, "waits; `omi-edge devices offline` says why"),
        (heard(1, 0, START_US + 5 * SECOND).data, "heard 2026-03-02 09:00:00 to 2026-03-02 09:00:05"),
        ({"state": "discarded", "run": "run_1"}, "a held recording is let go of"),
        ({"state": "placed", "run": "run_1"}, "a held recording is kept"),
        ({"state": "of the future"}, "of the future"),
    ],
)
def test_events_are_told_in_words(data: dict[str, Any], words: str) -> None:
    assert pendants.stored_audio(data, UTC) == words
    told = pendants.event_line(event(1, START_US, **(data | {"id": GREY})), {GREY: "grey"}, UTC)
    assert told == f"2026-03-02 09:00:00  stored audio  grey  {words}"


def state(**known: Any) -> offlinewire.OfflineState:
    empty: dict[str, Any] = {
        "id": GREY, "state": "away", "since": iso(START_US), "done_bytes": 0, "total_bytes": 0, "done_seconds": 0.0,
        "total_seconds": 0.0, "left_seconds": None, "message": "", "waiting_bytes": 0, "waiting_seconds": 0.0,
        "held": 0, "event": 0,
    }  # fmt: skip
    return offlinewire.OfflineState(**(empty | known))


def test_a_line_of_status_says_what_goes_on_and_what_waits() -> None:
    at_work = state(state="fetching", done_bytes=1, total_bytes=4, done_seconds=60.0, total_seconds=240.0, held=1)
    assert line(at_work, "grey") == "grey: 25 %, 1:00 of 4:00; 1 held until you decide (`omi-edge devices held`)"
    assert line(state(state="waiting", message="Restart it."), "grey") == "grey: waits – Restart it."
    assert line(state(waiting_seconds=61.0, waiting_bytes=1), "grey") == "grey: 1:01 wait to be heard"
    assert line(state(waiting_bytes=1500), "grey") == "grey: 1.5 kB wait for their place in time"


def test_the_share_of_the_storage_is_told_where_it_is_known() -> None:
    ring = wire.DeviceStorage("ring", 250, 750, 3, True)
    assert in_short(state(), ring) == ["stored    25 % used, 250 B of 1.0 kB"]
    assert in_short(state(), wire.DeviceStorage("single-file", 250)) == ["stored    250 B used"]
    assert in_short(state(), None) == ["stored    nothing waits"]


@pytest.mark.parametrize(
    ("uncertainty", "guessed", "words"),
    [
        (2.0, False, "its time is sure to 2 s."),
        (754.0, True, "its time is the latest that it can be, up to 12:34 too late."),
        (None, True, "its time is the latest that it can be."),
    ],
)
def test_a_conversation_that_came_later_says_how_sure_its_time_is(
    uncertainty: float | None, guessed: bool, words: str
) -> None:
    talk = wire.Conversation(
        id="con_1", state="completed", title="", overview="", category="", emoji="", start="", end="", seconds=0.0,
        source=wire.SourceRef("src_1", "grey", "pendant", GREY, None), speakers=[], offline=True,
        time_uncertainty_seconds=uncertainty, time_guessed=guessed, closed_by=None, extractor="", tasks=[], memories=[],
        transcript="", audio="",
    )  # fmt: skip
    assert came_later(talk).endswith(f"; {words}")
