"""Rules are kept in order; what was heard stays beside the version that shows something else."""

from __future__ import annotations

import msgspec
import pytest
from faster_whisper import tokenizer

from omi_edge.domain import Word
from omi_edge.errors import BadInput, NotFound
from omi_edge.rewrite import PLAIN, REGEX
from omi_edge.store import corrections, people, rules, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Target
from omi_edge.store.database import Database
from omi_edge.store.rules import RuleRow
from tests.helpers import START_US
from tests.store import filling
from tests.store.filling import CONVERSATIONS


def add(conn: Connection, pattern: str, replacement: str, kind: str = PLAIN) -> RuleRow:
    return rules.add(conn, kind, pattern, replacement, actor="uid:1", now_us=START_US)


async def test_they_are_kept_once_in_order_and_removed(db: Database) -> None:
    def work(conn: Connection) -> None:
        first = add(conn, " see   phi ", "Zephi")
        second = add(conn, "a  b", "", REGEX)
        assert add(conn, "see phi", "Zephi") == first
        with pytest.raises(BadInput, match=f"already .{first.rule.id}"):
            add(conn, "see phi", "Sophie")
        for same in ("SEE phi", "see, Phi!"):  # a rule cares for neither
            with pytest.raises(BadInput, match=f"already .{first.rule.id}"):
                add(conn, same, "zephi")
        assert rules.listed(conn) == [first, second]
        assert [(row.rule.pattern, row.rule.replacement) for row in rules.listed(conn)] == [
            ("see phi", "Zephi"), ("a  b", ""),
        ]  # fmt: skip
        rules.remove(conn, first.rule.id)
        assert rules.listed(conn) == [second]
        with pytest.raises(NotFound, match="omi-edge rules list"):
            rules.remove(conn, first.rule.id)
        with pytest.raises(BadInput, match="character 1"):
            add(conn, "(", "", REGEX)

    await db.write(work)


async def test_there_is_an_end_to_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST", 1)
    await db.write(lambda conn: add(conn, "a", "b"))
    with pytest.raises(BadInput, match="remove one first"):
        await db.write(lambda conn: add(conn, "b", "c"))


@pytest.mark.parametrize(
    ("pattern", "replacement", "kind"),
    [("a\x1b[2J", "b", PLAIN), ("a", "b\tc", PLAIN), ("a\nb", "c", REGEX), ("a", "\x00", REGEX)],
)
async def test_control_characters_are_refused(db: Database, pattern: str, replacement: str, kind: str) -> None:
    with pytest.raises(BadInput, match="has a control character in it; leave out"):
        await db.write(lambda conn: add(conn, pattern, replacement, kind))


def test_the_languages_are_those_of_whisper() -> None:
    assert frozenset(tokenizer._LANGUAGE_CODES) == people.LANGUAGES


async def test_what_was_heard_is_found_from_every_version_that_shows_it(db: Database) -> None:
    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        conversation_id = CONVERSATIONS[0]
        live_id = transcripts.live_version(conn, conversation_id)
        words = (Word("zephyr", START_US, START_US + 1, 0.5),)
        row = add(conn, "zephyr", "Zephira")
        made = rules.rewritten(conn, "seg_0", words)
        assert [word.text for word in made.words] == ["Zephira"]
        rules.note(conn, live_id, "seg_0", words, made)
        rules.note(conn, live_id, "seg_none", words, rules.rewritten(conn, "seg_none", (Word("b", 0, 1, 1.0),)))
        said = transcripts.utterances(conn, conversation_id)
        corrections.add(conn, conversation_id, Target(said[0].id, word=1), "Ze", actor="uid:1", now_us=START_US)
        rules.remove(conn, row.rule.id)
        for version in transcripts.versions(conn, conversation_id):
            (heard,) = rules.heard(conn, conversation_id, version.id).values()
            assert heard.words == words
            assert [(c.rule_id, c.rule) for c in heard.changes] == [(row.rule.id, "zephyr → Zephira")]
        assert rules.heard_words(conn, conversation_id, "seg_0") == words
        transcripts.new_version(
            conn,
            conversation_id,
            id="ver_anew",
            kind="reprocessed",
            engine="e",
            now_us=START_US,
            utterances=[msgspec.structs.replace(said[0], id="utt_anew")],
        )
        assert rules.heard(conn, conversation_id) == {}  # its words of the segment are its own
        assert rules.heard_words(conn, conversation_id, "seg_0") == said[0].words
        with pytest.raises(NotFound):
            rules.note(conn, "ver_none", "seg_0", words, made)

    await db.write(work)


async def test_what_a_segment_that_came_late_said_is_taken_over(db: Database) -> None:
    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        conversation_id = CONVERSATIONS[0]
        words = (Word("zephyr", START_US, START_US + 1, 0.5),)
        add(conn, "zephyr", "Zephira")
        made = rules.rewritten(conn, "seg_late", words)
        rules.note(conn, transcripts.live_version(conn, conversation_id), "seg_late", words, made)
        transcripts.new_version(
            conn, conversation_id, id="ver_anew", kind="reprocessed", engine="e", now_us=START_US, utterances=()
        )
        assert rules.heard(conn, conversation_id)["seg_late"].words == words
        rules.inherit(conn, conversation_id, "ver_anew")
        assert rules.heard_words(conn, conversation_id, "seg_late") == words
        transcripts.append(conn, "ver_anew", [filling.utterance("utt_l", conversation_id, START_US, "Zephira")])
        assert rules.heard(conn, conversation_id)["seg_late"].words == words

    await db.write(work)


async def test_a_language_holds_where_all_who_speak_share_it(db: Database) -> None:
    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        ada, bob = (people.add(conn, name, now_us=START_US) for name in ("Ada", "Bob"))
        assert people.speaks(conn, ada.id, "fr").language == "fr"

        def language(*persons: str | None) -> str:
            said = transcripts.utterances(conn, CONVERSATIONS[0])
            for n, one in enumerate(said):
                conn.execute("UPDATE utterances SET person_id = ? WHERE id = ?", (persons[n % len(persons)], one.id))
            return people.language_of(conn, CONVERSATIONS[0], "seg_0")

        assert language(None) == ""
        assert language(ada.id) == "fr"
        assert language(ada.id, bob.id) == ""  # his is that of the settings
        assert language(ada.id, None) == ""
        people.speaks(conn, bob.id, "fr")
        assert language(ada.id, bob.id) == "fr"
        people.speaks(conn, bob.id, "de")
        assert language(ada.id, bob.id) == ""
        assert language(bob.id) == "de"
        assert people.language_of(conn, CONVERSATIONS[0], "seg_none") == ""
        people.forget(conn, bob.id)
        assert people.language_of(conn, CONVERSATIONS[0], "seg_0") == ""
        assert {one.person_id for one in transcripts.utterances(conn, CONVERSATIONS[0])} == {None}
        with pytest.raises(BadInput, match="two or three letters like en or de"):
            people.speaks(conn, ada.id, "French")
        with pytest.raises(BadInput, match="Whisper knows no language of this code"):
            people.add(conn, "Cleo", now_us=START_US, language="xx")
        with pytest.raises(NotFound):
            people.forget(conn, bob.id)

    await db.write(work)
