"""`evaluate`, with the real built-in recogniser and one that hears nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omi_edge.cli.main import run
from omi_edge.engine import NO_HINTS, EngineSpec, Hints, Recognition
from omi_edge.pipeline import engines
from tests.listen.sound import WORDS, script

Call = Callable[..., tuple[int, str, str]]


class Deaf:
    """Hears nothing."""

    def __init__(self, **options: Any) -> None:
        pass

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""

    def accept(self, pcm: bytes) -> str:
        """See Recognizer."""
        return ""

    def finish(self) -> Recognition:
        """See Recognizer."""
        return Recognition((), "deaf 1")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `omi-edge --data D evaluate …` beside a recording with its reference."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setitem(engines.RECOGNIZERS, "deaf", EngineSpec("tests.cli.test_evaluate:Deaf"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(WORDS[0], tmp_path / "words.flac")
    (tmp_path / "words.txt").write_text(script(WORDS[0]).text().replace(" ", "\n"), encoding="utf-8")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["--data", "D", "evaluate", *arguments])
        return code, *capsys.readouterr()

    return call


def test_two_side_by_side_kept_and_held_against_the_next(call: Call, tmp_path: Path) -> None:
    code, out, err = call(
        "words.flac", "--reference", "words.txt", "--engine", "pocketsphinx", "--engine", "deaf", "--save", "spring"
    )
    assert code == 0, err
    assert "deaf makes more errors than pocketsphinx: +" in out
    assert "100.0 %" in out
    assert "omi-edge evaluate --again spring" in err
    kept = tmp_path / "D" / "evaluations" / "spring.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.parent.stat().st_mode & 0o777 == 0o700
    words = {word for word in script(WORDS[0]).text().split() if len(word) > 4}
    assert words
    assert not any(word in kept.read_text(encoding="utf-8") for word in words)

    code, out, err = call("--again", "spring", "--json")
    assert code == 0, err
    told = msgspec.json.decode(out)
    assert [(one["beside"][:9], one["verdict"], one["difference"]["value"]) for one in told["comparisons"]] == [
        ("spring of", "equal", 0.0)
    ] * 2
    assert [one["engine"] for one in told["trials"]][1] == "deaf 1"

    found = msgspec.json.decode(kept.read_bytes())
    found["trials"][1]["pieces"] = found["trials"][0]["pieces"]  # as if it had heard as well as the other one
    kept.write_bytes(msgspec.json.encode(found))
    code, out, err = call("--again", "spring")
    assert code == 1
    assert "deaf makes more errors than spring of" in out
    before = kept.read_bytes()
    code, out, err = call("words.flac", "--reference", "words.txt", "--engine", "deaf", "--save", "spring")
    assert (code, "--replace" in err, kept.read_bytes()) == (2, True, before)
    arguments = ("words.flac", "--reference", "words.txt", "--engine", "deaf", "--save", "spring", "--replace")
    assert (call(*arguments)[0], kept.read_bytes() != before) == (0, True)
    (tmp_path / "words.txt").write_text("changed", encoding="utf-8")
    code, out, err = call("--again", "spring")
    assert (code, "only the same can be compared" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name at least one recording"),
        (("words.flac",), "must be as many, not 1 and 0"),
        (("words.flac", "--reference", "none.txt"), "none.txt cannot be read"),
        (("none.ogg", "--reference", "words.txt"), "none.ogg cannot be read"),
        (("words.txt", "--reference", "words.txt"), "not audio that can be read"),
        (("words.flac", "--reference", "words.flac"), "ends in .txt, .stm or .vtt"),
        (("words.flac", "--reference", "words.txt", "--engine", "deff"), "did you mean deaf"),
        (("words.flac", "--reference", "words.txt", "--engine", "deaf", "--engine", "deaf"), "named twice"),
        (("words.flac", "--reference", "words.txt", "--save", "../x"), "the name of an evaluation"),
        (("--again", "spring"), "no evaluation is kept as spring; none is kept here yet"),
        (("--again", "../x"), "the name of an evaluation"),
    ],
)
def test_bad_input_is_told_before_any_work(call: Call, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = call(*arguments)
    assert code != 0
    assert told in err
    assert out == ""
    assert not (tmp_path / "D").exists()


def test_again_takes_nothing_else(call: Call, tmp_path: Path) -> None:
    assert call("words.flac", "--reference", "words.txt", "--engine", "deaf", "--save", "a")[0] == 0
    code, _, err = call("words.flac", "--again", "a")
    assert (code, "name neither recordings" in err) == (2, True)
    (tmp_path / "D" / "evaluations" / "a.json").write_text("{}", encoding="utf-8")
    assert "remove it and measure anew" in call("--again", "a")[2]


def test_a_recording_that_is_not_whole_and_words_that_are_none(call: Call, tmp_path: Path) -> None:
    whole = (tmp_path / "words.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dots.txt").write_text("..., !!\n", encoding="utf-8")
    code, _, err = call("cut.flac", "--reference", "words.txt", "--engine", "deaf")
    assert (code, "Only a whole recording" in err) == (6, True)
    code, _, err = call("words.flac", "--reference", "dots.txt", "--engine", "deaf")
    assert (code, "holds no words" in err) == (2, True)


def test_an_engine_that_cannot_be_run_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.RECOGNIZERS, "broken", EngineSpec("tests.cli.test_evaluate:Missing"))
    code, out, err = call("words.flac", "--reference", "words.txt", "--engine", "broken")
    assert (code, out) == (7, "")
    assert "broken cannot be tried" in err
