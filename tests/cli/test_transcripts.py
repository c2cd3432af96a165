"""Transcripts put right, compared and made anew as a person types it, with no daemon running."""

from __future__ import annotations

from typing import Any

import pytest

from omi_edge.cli.settings import Settings
from omi_edge.cli.transcripts import _blocks
from omi_edge.web import wire
from tests.cli.conftest import Place

D = ("--data", "D", "--passphrase-file", "F")


@pytest.fixture(scope="module")
def conversation(place: Place) -> str:
    assert place(*D, "init", "--yes").code == 0
    assert place(*D, "import", "talk.wav", "--start", "2026-03-02T09:00:00Z").code == 0
    return str(place(*D, "list", "--json").json["items"][0]["id"])


def transcript(place: Place, conversation_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place(*D, "show", conversation_id, "--json").json["transcript"]["utterances"]
    return found


def test_a_word_is_put_right_told_undone_and_put_right_again(place: Place, conversation: str) -> None:
    (one,) = transcript(place, conversation)
    assert one["text"].split()[5] == "doctor"
    assert one["id"] in place(*D, "show", conversation, "--ids").out
    done = place(*D, "correct", one["id"], "--word", "6", "dentist")
    assert done.code == 0, done
    new = one["text"].replace("doctor", "dentist")
    assert done.out.splitlines()[1:] == [f"- {one['text']}", f"+ {new}"]
    correction = done.out.split()[0]
    conversation_now = place(*D, "show", conversation, "--json").json["conversation"]
    assert [task["description"] for task in conversation_now["tasks"]] == ["Call the dentist"]
    assert place(*D, "search", "dentist", "--json").json["hits"]
    diff = place(*D, "versions", "diff", conversation)
    assert diff.out.splitlines()[1] == "7 words the same, 1 removed, 1 added."
    assert "[-doctor-] {+dentist+}" in diff.out
    assert "\x1b" not in diff.out
    undone = place(*D, "corrections", "undo", correction)
    assert undone.out.splitlines()[1:] == [f"- {new}", f"+ {one['text']}"]
    history = place(*D, "corrections", "list", conversation)
    assert [line.split()[0] for line in history.out.splitlines()] == ["id", correction]
    assert "undone" in history.out
    assert place(*D, "correct", transcript(place, conversation)[0]["id"], "--word", "6", "dentist").code == 0


def test_it_is_made_anew_and_the_corrections_with_it(place: Place, conversation: str) -> None:
    before = [one["text"] for one in transcript(place, conversation)]
    made = place(*D, "reprocess", conversation, "--json").json
    assert (made["state"], made["done"], made["total"]) == ("done", 1, 1)
    assert [one["text"] for one in transcript(place, conversation)] == before
    versions = place(*D, "versions", "list", conversation, "--json").json
    assert [one["id"] for one in versions["versions"] if one["active"]] == [made["conversations"][0]["version_id"]]
    kinds = [one["kind"] for one in versions["versions"]]
    assert kinds[-2:] == ["reprocessed", "edited"]
    back = place(*D, "versions", "rollback", conversation, "--json").json
    assert [one["id"] for one in back["versions"] if one["active"]] == [versions["previous"]]
    kept = place(*D, "reprocess", "--all", "--keep")
    assert (kept.code, kept.out) == (0, "")
    assert "kept beside the one that is shown" in kept.err
    assert "2" in place(*D, "reprocess", "--list").out


def test_another_recording_of_it_is_sent_in(place: Place, conversation: str) -> None:
    before = [one["text"] for one in transcript(place, conversation)]
    made = place(*D, "reprocess", conversation, "--audio", "talk.wav", "--json").json
    assert (made["state"], made["done"], made["total"]) == ("done", 1, 1)
    assert [one["text"] for one in transcript(place, conversation)] == [before[0].replace("dentist", "doctor")]
    shown = place(*D, "show", conversation, "--json").json["conversation"]
    told = shown["postprocessing"]
    assert (told["status"], told["version_id"]) == ("completed", made["conversations"][0]["version_id"])
    assert shown["source"]["id"] != told["source_id"]
    groups = place(*D, "list", "--by-source", "--json").json["items"]
    assert [one["source"]["id"] for one in groups if one["source"]["kind"] == "upload"] == [told["source_id"]]
    assert place(*D, "versions", "rollback", conversation).code == 0
    assert [one["text"] for one in transcript(place, conversation)] == before
    again = place(*D, "reprocess", conversation, "--upload", "--keep", "--json").json
    assert (again["state"], again["keep"]) == ("done", True)
    assert [one["text"] for one in transcript(place, conversation)] == before


def test_a_recording_that_breaks_off_leaves_all_as_it_was(place: Place, conversation: str) -> None:
    whole = (place.home / "talk.wav").read_bytes()
    (place.home / "half.wav").write_bytes(whole[: len(whole) // 2])
    (place.home / "none.wav").write_text("not a recording")
    before = [one["text"] for one in transcript(place, conversation)]
    half = place(*D, "reprocess", conversation, "--audio", "half.wav")
    assert (half.code, "Send it again, whole" in half.err) == (6, True)
    none = place(*D, "reprocess", conversation, "--audio", "none.wav")
    assert (none.code, "is no recording" in none.err) == (6, True)
    assert [one["text"] for one in transcript(place, conversation)] == before
    notices = place(*D, "notices").out
    assert "reprocess-failed" in notices or "transcribed anew" in notices


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reprocess",), "name one of these"),
        (("reprocess", "con_x", "--all"), "name one of these"),
        (("reprocess", "--all", "--model", "pocketsfinx"), "did you mean pocketsphinx?"),
        (("reprocess", "con_x"), "no such conversation"),
        (("reprocess", "con_x", "--audio", "talk.wav"), "no such conversation"),
        (("reprocess", "con_x", "--audio", "talk.wav", "--keep"), "neither --upload nor --keep"),
        (("reprocess", "--all", "--audio", "talk.wav"), "name it"),
        (("reprocess", "con_x", "--start", "2026-03-02"), "name that too"),
        (("correct", "con_x", "text"), "--from TIME and --until TIME"),
        (("correct", "utt_x", "text"), "no such utterance"),
        (("correct", "utt_x", "--word", "0", "text"), "the first word is 1"),
        (("corrections", "undo", "cor_x"), "no such correction"),
        (("vocabulary", "remove", "nobody"), "no such word"),
    ],
)
def test_bad_input_gets_a_sentence(place: Place, conversation: str, arguments: tuple[str, ...], words: str) -> None:
    done = place(*D, *arguments)
    assert done.code in (2, 4), done
    assert done.out == ""
    assert words in done.err
    assert done.err.count("\n") == 1


def test_the_vocabulary_takes_and_gives(place: Place, conversation: str) -> None:
    assert place(*D, "vocabulary", "add", "Marguerite").code == 0
    assert place(*D, "vocabulary").out.splitlines()[1].startswith("Marguerite")
    assert place(*D, "vocabulary", "remove", "Marguerite").code == 0
    assert place(*D, "vocabulary", "--json").json["words"] == []


def test_differences_are_coloured_on_a_terminal_and_marked_elsewhere() -> None:
    version = wire.TranscriptVersion("ver_1", "final", "", "2026-03-02T09:00:00Z", True)
    at = "2026-03-02T09:00:00Z"
    parts = [
        wire.DiffPart("equal", "a b c d e f g h", 8, at),
        wire.DiffPart("removed", "x", 1, at),
        wire.DiffPart("added", "y z", 2, at),
        wire.DiffPart("equal", "i j k l m n o p q r s t u v", 14, at),
        wire.DiffPart("added", "w", 1, at),
    ]
    found = wire.Diff("con_1", version, version, parts, 22, 1, 3)
    first, second = _blocks(found, Settings(), colour=False)
    assert first.plain[8:] == "  … c d e f g h [-x-] {+y z+} i j k l m n …"
    assert second.plain[8:] == "  … q r s t u v {+w+}"
    first, _ = _blocks(found, Settings(), colour=True)
    assert first.plain[8:] == "  … c d e f g h x y z i j k l m n …"
    assert [span.style for span in first.spans] == ["red", "green"]
