"""`ledger`: the bar, the sums and the sentence."""

from __future__ import annotations

import asyncio
import shutil
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.cli import ledger as cli_ledger
from omi_edge.clock import SystemClock
from omi_edge.domain import Cause, LedgerState
from omi_edge.store import ledger, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Moment, Span
from omi_edge.web import wire
from tests.cli.conftest import Place
from tests.helpers import PASSPHRASE

D = ("--data", "D", "--passphrase-file", "F")
S = 1_000_000


def account(*sums: tuple[str, float, int], causes: list[str] | None = None) -> wire.LedgerAccount:
    rows = [wire.LedgerSum(state, causes or [], seconds, places) for state, seconds, places in sums]
    return wire.LedgerAccount("src_1", "Omi", sum(row.seconds for row in rows), rows, [])


def day(text: str = "2026-03-03") -> wire.LedgerDay:
    return wire.LedgerDay(text, "UTC", f"{text}T00:00:00Z", f"{text[:-1]}{int(text[-1]) + 1}T00:00:00Z", [])


@pytest.mark.parametrize(("sums", "said"), [
    ((("muted", 7200, 1), ("speech", 20000, 9), ("silence", 13120, 9), ("lost", 38, 4)),
     "Tuesday: 9 h 12 min heard, 38 s lost in 4 places, 2 h muted by you."),
    ((("recovered", 600, 1), ("speech", 60, 1), ("unknown", 90, 2)),
     "Tuesday: 11 min heard (10 min of it recovered from the pendant), nothing lost, 1 min 30 s unknown."),
    ((("lost", 0.4, 1), ("daemon_down", 86399.6, 1)),
     "Tuesday: 0 s heard, less than 1 s lost in 1 place, 24 h while omi-edge did not run."),
])  # fmt: skip
def test_a_day_in_one_sentence(sums: tuple[tuple[str, float, int], ...], said: str) -> None:
    assert cli_ledger.sentence(day(), account(*sums)) == said


def test_a_client_has_no_microphone_that_sleeps() -> None:
    item = account(("speech", 60, 1), ("device_silent", 120, 1), ("disconnected", 30, 1))
    assert "2 min with the microphone asleep" in cli_ledger.sentence(day(), item)
    client = msgspec.structs.replace(item, kind="socket")
    said = "Tuesday: 1 min heard, nothing lost, 2 min connected with nothing sent, 30 s disconnected."
    assert cli_ledger.sentence(day(), client) == said


@given(st.floats(0, 400_000))
def test_durations_never_say_sixty(seconds: float) -> None:
    said = cli_ledger.spoken(seconds)
    assert "60 " not in f" {said}".replace(" 60 h", "").replace("160 h", "")
    assert len(said.split()) <= 5


def test_the_bar_shows_what_fills_most_of_each_cell() -> None:
    spans = [
        wire.LedgerSpan("2026-03-03T06:00:00Z", "2026-03-03T11:00:00Z", 18000, "speech", [], 0),
        wire.LedgerSpan("2026-03-03T11:00:00Z", "2026-03-03T13:59:00Z", 10740, "muted", [], 0),
    ]
    item = wire.LedgerAccount("src_1", "Omi", 28740, [], spans)
    assert cli_ledger.bar(day(), item, 8) == ["", "", "speech", "speech", "muted", "", "", ""]
    assert cli_ledger.hours(day(), 96, ZoneInfo("UTC")).split() == ["00", "03", "06", "09", "12", "15", "18", "21"]


def test_every_state_has_a_look_and_words() -> None:
    assert set(cli_ledger.LOOKS) == {state.value for state in LedgerState}
    signs = [sign for sign, _, _ in cli_ledger.LOOKS.values()]
    assert len(set(signs)) == len(signs)


async def _fill(place: Place) -> None:
    clock = SystemClock()
    now = Moment(clock.boot_id(), clock.boot_us(), clock.utc_us())

    def work(conn: Connection) -> None:
        sources.add(
            conn, id="src_grey", kind="pendant", name="grey", device_id="d", client_id=None, codec=21,
            created_us=now.utc_us,
        )  # fmt: skip
        start_us = now.boot_us + ledger.tick(conn, now) - 30 * S
        ledger.write(conn, "src_grey", Span(start_us, start_us + 20 * S, LedgerState.SPEECH))
        causes = (Cause.OUT_OF_RANGE, Cause.DISCONNECTED)
        ledger.write(conn, "src_grey", Span(start_us + 20 * S, start_us + 30 * S, LedgerState.UNKNOWN, causes))

    vault = await asyncio.to_thread(Database.open, place.home / "D", PASSPHRASE, clock)
    await vault.write(work)
    await vault.close()


def test_a_person_sees_bar_sums_and_sentence_plain_in_a_pipe(place: Place, empty_vault: object) -> None:
    shutil.copytree(str(empty_vault), place.home / "D")
    asyncio.run(_fill(place))
    shown, as_json, wrong, long_ago = place.each([
        (*D, "ledger"), (*D, "ledger", "--json"), (*D, "ledger", "--day", "someday"),
        (*D, "ledger", "--day", "1999-01-01"),
    ])  # fmt: skip
    assert (shown.code, shown.err) == (0, "")
    assert "\x1b" not in shown.out
    assert "unknown (out of range or disconnected)" in shown.out
    assert "00" in shown.out.splitlines()[1]
    last = shown.out.splitlines()[-1]
    assert "heard, nothing lost" in last
    assert last.endswith("unknown.")
    (item,) = as_json.json["items"]
    assert item["source_id"] == "src_grey"
    assert sum(row["seconds"] for row in item["sums"]) == pytest.approx(item["seconds"], abs=0.01)
    assert (wrong.code, "is not a time" in wrong.err) == (2, True)
    assert long_ago.out == "Nothing that streams was known that day.\n"
