from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.errors import BadInput
from omi_edge.evaluation.references import MOST_BYTES, Cue, Reference, read

VTT = """WEBVTT - a visit

NOTE nobody says
this

STYLE
::cue { color: red }

first
00:01.500 --> 00:04.000 align:start
<v Anna>Hello <i>there</i>
you &amp; me

1:00:05.000 --> 1:00:06.250
late

00:00.100 --> 00:00.900
early
"""
STM = """;; a comment
visit 1 anna 3.5 4.25 <o,f0,female> good morning
visit 1 bob 1 2 hello
visit 1 inter_segment_gap 5 9 ignore_time_segment_in_scoring
other 1 bob 0 1 nothing of this

visit 1 anna 9 9.5
"""


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_each_line_of_a_text_is_a_piece(tmp_path: Path) -> None:
    path = written(tmp_path, "a.TXT", "\ufeffgood morning\r\n\n  how are you \n")
    assert read(path) == Reference((Cue("good morning"), Cue("how are you")))


def test_webvtt_in_order_of_time_without_what_nobody_says(tmp_path: Path) -> None:
    assert read(written(tmp_path, "a.vtt", VTT)) == Reference(
        (Cue("early", 0.1, 0.9), Cue("Hello there you & me", 1.5, 4.0), Cue("late", 3605.0, 3606.25))
    )


def test_stm_of_one_recording_among_several(tmp_path: Path) -> None:
    path = written(tmp_path, "a.stm", STM)
    assert read(path, "visit") == Reference(
        (Cue("hello", 1, 2), Cue("good morning", 3.5, 4.25), Cue("", 9, 9.5)), ((5, 9),)
    )
    assert read(path, "other").cues == (Cue("nothing of this", 0, 1),)
    one = written(tmp_path, "one.stm", "visit 1 a 0 1 hello")
    assert read(one, "by another name").cues == (Cue("hello", 0, 1),)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.docx", "hello", "ends in .txt, .stm or .vtt"),
        ("a.txt", " \n", "holds no words"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.vtt", "hello", "does not begin with WEBVTT"),
        ("a.vtt", "WEBVTTX", "does not begin with WEBVTT"),
        ("a.vtt", "WEBVTT\n\n1 --> 2\nhello", "line 3: a cue's times"),
        ("a.stm", "visit 1 anna 2 1 hello", "line 1: an STM line"),
        ("a.stm", "\nvisit 1 anna", "line 2: an STM line"),
        ("a.stm", "visit 1 anna 0 inf hello", "line 1: an STM line"),
        ("a.stm", "visit 1 anna nan 1 hello", "line 1: an STM line"),
        ("a.stm", STM, "none of them is called wanted; it names other, visit"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read(written(tmp_path, name, content), "wanted")


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Check the path"):
        read(tmp_path / "none.txt")
    with pytest.raises(BadInput, match="divide it"):
        read(written(tmp_path, "large.txt", b"a" * (MOST_BYTES + 1)))


LINES = st.lists(
    st.one_of(
        st.sampled_from(["WEBVTT", "", "00:01.500 --> 00:04.000", "-->", "NOTE", "f 1 s 0 1 word", ";;", "f 1 s 1"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
    max_size=12,
).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.sampled_from(["txt", "stm", "vtt"]))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str, ending: str) -> None:
    try:
        found = read(written(tmp_path, f"any.{ending}", text), "f")
    except BadInput:
        return
    assert found.cues
    assert all(cue.start is None or cue.start >= 0 for cue in found.cues)
