"""Rules, people and offers as a person types them, with no daemon running."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Place
from tests.cli.test_transcripts import D, transcript


@pytest.fixture(scope="module")
def conversation(place: Place) -> str:
    assert place(*D, "init", "--yes").code == 0
    assert place(*D, "import", "talk.wav", "--start", "2026-03-02T09:00:00Z").code == 0
    return str(place(*D, "list", "--json").json["items"][0]["id"])


def test_a_rule_is_tried_added_applied_shown_and_taken_back(place: Place, conversation: str) -> None:
    before = transcript(place, conversation)[0]["text"]
    assert "doctor" in before
    tried = place(*D, "rules", "try", before, "--with", "doctor", "dentist")
    assert tried.out.splitlines() == [before.replace("doctor", "dentist"), "  doctor → dentist"]
    assert "No rule changes that" in place(*D, "rules", "try", before).err
    added = place(*D, "rules", "add", "doctor", "dentist")
    rule = added.err.split(":")[0]
    assert "omi-edge rules apply --all" in added.err
    assert transcript(place, conversation)[0]["text"] == before  # not unasked
    applied = place(*D, "rules", "apply", "--all")
    assert applied.code == 0, applied
    assert "changed 1 of 1 conversations" in applied.err
    assert transcript(place, conversation)[0]["text"] == before.replace("doctor", "dentist")
    task = place(*D, "show", conversation, "--json").json["conversation"]["tasks"][0]
    assert task["description"] == "Call the dentist"
    shown = place(*D, "rules", "changes", conversation)
    assert before in shown.out
    assert f"doctor → dentist  ({rule}: doctor → dentist)" in shown.out
    assert place(*D, "versions", "rollback", conversation).code == 0
    assert transcript(place, conversation)[0]["text"] == before
    assert "No rule changed anything" in place(*D, "rules", "changes", conversation).err
    assert place(*D, "rules", "list").out.splitlines()[1].startswith(rule)
    assert place(*D, "rules", "remove", rule).code == 0
    assert place(*D, "rules", "--json").json["items"] == []


def test_what_is_heard_anew_passes_the_rules(place: Place, conversation: str) -> None:
    rule = place(*D, "rules", "add", "--regex", r"(?i)\bdoctor\b", r"Dr \g<0>", "--json").json
    made = place(*D, "reprocess", conversation)
    assert made.code == 0, made
    assert "Dr doctor" in transcript(place, conversation)[0]["text"]
    assert place(*D, "versions", "rollback", conversation).code == 0
    assert place(*D, "rules", "remove", rule["id"]).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rules", "add", "--regex", "a(b", "c"), "character 2"),
        (("rules", "remove", "rul_x"), "no such rule"),
        (("rules", "apply"), "name one of these"),
        (("rules", "apply", "--conversation", "con_x"), "no such conversation"),
        (("rules", "try", "a", "--regex"), "add that"),
        (("people", "set", "nobody", "--name", "x"), "nobody"),
        (("people", "set", "nobody"), "--name or --language"),
        (("people", "add", "Bob", "--language", "12"), "two or three letters like en or de"),
        (("people", "add", "Bob", "--language", "French"), "two or three letters like en or de"),
        (("people", "add", "Bob", "--language", "xx"), "knows no language of this code"),
        (("vocabulary", "add", "a\x07"), "no control characters"),
        (("vocabulary", "take", "a", "b"), "--word, --rule"),
        (("vocabulary", "take", "a", "b", "--word"), "not offered"),
        (("vocabulary", "dismiss", "a", "b"), "not offered"),
    ],
)
def test_bad_input_gets_a_sentence(place: Place, conversation: str, arguments: tuple[str, ...], words: str) -> None:
    done = place(*D, *arguments)
    assert done.code in (2, 4), done
    assert done.out == ""
    assert words in done.err
    assert done.err.count("\n") == 1


def test_people_are_known_and_forgotten(place: Place, conversation: str) -> None:
    assert "speaks fr" in place(*D, "people", "add", "Marguerite", "--language", "fr").err
    assert place(*D, "people", "set", "marg", "--language", "de", "--json").json["language"] == "de"
    assert "Marguerite" in place(*D, "people").out
    assert "forgotten" in place(*D, "people", "forget", "Marguerite").err
    assert place(*D, "people", "--json").json["items"] == []


def test_what_is_corrected_twice_is_taken_or_dismissed(place: Place, conversation: str) -> None:
    def twice(text: str) -> None:
        for _ in range(2):
            one = transcript(place, conversation)[0]
            position = [word["text"] for word in one["words"]].index("doctor") + 1
            assert place(*D, "correct", one["id"], "--word", str(position), text).code == 0
            one = transcript(place, conversation)[0]
            assert place(*D, "correct", one["id"], "--word", str(position), "doctor").code == 0

    assert "Nothing was corrected" in place(*D, "vocabulary", "suggestions").err
    twice("dentist")
    offered = place(*D, "vocabulary", "suggestions")
    assert "  doctor → dentist  (2 times)" in offered.out
    assert place(*D, "vocabulary", "take", "doctor", "dentist", "--word", "--rule").code == 0
    assert "doctor → dentist" not in place(*D, "vocabulary", "suggestions").out
    assert place(*D, "vocabulary", "--json").json["words"][0]["text"] == "dentist"
    assert place(*D, "rules", "--json").json["items"][0]["replacement"] == "dentist"
    assert place(*D, "vocabulary", "dismiss", "dentist", "doctor").code == 0
    assert place(*D, "vocabulary", "suggestions", "--json").json == []
