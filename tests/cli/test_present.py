"""How results are shown."""

from __future__ import annotations

from unicodedata import category
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.cli.present import aligned, due, laid_out, length, moment, plain, print_table, size

BERLIN = ZoneInfo("Europe/Berlin")


def test_times_are_the_wearers() -> None:
    assert moment("2026-03-02T09:00:00.000Z", BERLIN) == "2026-03-02 10:00"
    assert moment("2026-07-02T22:30:15.000Z", BERLIN, seconds=True) == "2026-07-03 00:30:15"
    assert moment(None, BERLIN) == "–"


def test_due_shows_a_time_only_when_one_was_said() -> None:
    assert due("2026-03-06T22:59:59.999Z", False, True, BERLIN) == "Fri 2026-03-06"
    assert due("2026-03-06T09:00:00.000Z", True, False, BERLIN) == "Fri 2026-03-06 10:00 ?"
    assert due(None, False, True, BERLIN) == "–"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (187, "3:07"), (3723, "1:02:03")])
def test_length(seconds: float, shown: str) -> None:
    assert length(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (14_400_000, "14.4 MB"), (5e15, "5000.0 TB")]
)
def test_size(count: float, shown: str) -> None:
    assert size(count) == shown


def test_in_a_pipe_columns_are_aligned_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    print_table(["id", "text"], [["con_1", "short"], ["con_22", long], ["c", "two\nlines\there"]], nothing="None.")
    assert capsys.readouterr().out.splitlines() == [
        "id      text",
        "con_1   short",
        "con_22  " + long.strip(),
        "c       two lines here",
    ]


def test_nothing_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["id"], [], nothing="No conversation yet.")
    assert capsys.readouterr().out == "No conversation yet.\n"


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3), min_size=1))
def test_a_row_is_a_line_without_control_characters_for_columns(rows: list[list[str]]) -> None:
    lines = aligned(rows)
    assert len(lines) == len(rows)
    assert not any(category(sign) == "Cc" for line in lines for sign in line)


def test_what_a_terminal_would_obey_is_shown_as_unknown() -> None:
    assert plain("talk\x1b]0;owned\x07.wav\r\n") == "talk\ufffd]0;owned\ufffd.wav"


def test_on_a_narrow_terminal_prose_goes_below_and_ids_stay_whole() -> None:
    headers, rows = ["id", "task", "due"], [["tsk_01k9z" * 3, "buy milk and bread for the weekend", "–"]]
    assert laid_out(headers, rows, 200) == aligned([headers, *rows])
    assert laid_out(headers, rows, 40) == [
        "id                           due",
        "tsk_01k9ztsk_01k9ztsk_01k9z  –",
        "    buy milk and bread for the weekend",
    ]
    assert laid_out(headers, rows, 24)[2:] == ["    buy milk and bread", "    for the weekend"]


def test_signs_of_two_cells_are_aligned_by_cells() -> None:
    assert aligned([["日本", "x"], ["a", "y"]]) == ["日本  x", "a     y"]
