"""The owner's words: kept as typed, once each; what is corrected twice is offered and never taken."""

from __future__ import annotations

import pytest

from omi_edge.errors import BadInput, NotFound
from omi_edge.rewrite import PLAIN
from omi_edge.store import corrections, people, rules, transcripts, vocabulary
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Target
from omi_edge.store.database import Database
from tests.helpers import START_US
from tests.store import filling
from tests.store.filling import CONVERSATIONS


def add(conn: Connection, text: str) -> None:
    vocabulary.add(conn, text, actor="uid:1", now_us=START_US)


async def test_words_are_kept_once_and_the_newest_come_first(db: Database) -> None:
    def work(conn: Connection) -> None:
        for text in ("Ada", " Dr   Wu ", "Ada"):
            add(conn, text)
        assert [row.text for row in vocabulary.listed(conn)] == ["Ada", "Dr Wu"]
        assert vocabulary.expected(conn) == ("Dr Wu", "Ada")
        vocabulary.remove(conn, "Ada")
        assert vocabulary.expected(conn) == ("Dr Wu",)
        with pytest.raises(NotFound):
            vocabulary.remove(conn, "Ada")

    await db.write(work)


@pytest.mark.parametrize("text", ["", "  ", "?!", "x" * 101])
async def test_what_is_no_word_is_refused(db: Database, text: str) -> None:
    with pytest.raises(BadInput, match="has letters"):
        await db.write(lambda conn: add(conn, text))


async def test_case_makes_no_other_word(db: Database) -> None:
    def work(conn: Connection) -> None:
        for text in ("Zephira", "zephira", "ZEPHIRA"):
            add(conn, text)
        assert [row.text for row in vocabulary.listed(conn)] == ["Zephira"]
        vocabulary.remove(conn, " zephIRA")
        assert vocabulary.listed(conn) == []

    await db.write(work)


@pytest.mark.parametrize("text", ["Zephi\x1bra", "a\nb", "\x00a"])
async def test_control_characters_are_refused(db: Database, text: str) -> None:
    with pytest.raises(BadInput, match="no control characters; leave out"):
        await db.write(lambda conn: add(conn, text))


async def test_there_is_an_end_to_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MOST", 1)
    await db.write(lambda conn: add(conn, "one"))
    with pytest.raises(BadInput, match="remove one first"):
        await db.write(lambda conn: add(conn, "two"))


def correct(conn: Connection, conversation_id: str, text: str, *, n: int = 0, now_us: int = START_US) -> str:
    said = transcripts.utterances(conn, conversation_id)
    change = corrections.add(conn, conversation_id, Target(said[n].id, word=2), text, actor="uid:1", now_us=now_us)
    return change.correction_id


async def test_a_correction_made_twice_is_offered(db: Database) -> None:
    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        correct(conn, CONVERSATIONS[0], "Zephira")
        assert vocabulary.suggestions(conn) == []
        again = correct(conn, CONVERSATIONS[1], "zephira,")
        correct(conn, CONVERSATIONS[2], "Zeppelin")
        (one,) = vocabulary.suggestions(conn)
        assert (one.before, one.after, one.count) == ("zephyr", "zephira,", 2)
        assert "Zephira" not in vocabulary.expected(conn)
        corrections.undo(conn, again, actor="uid:1", now_us=START_US)
        assert vocabulary.suggestions(conn) == []
        correct(conn, CONVERSATIONS[1], "Zephira")
        add(conn, "Zephira")
        assert vocabulary.suggestions(conn) == []

    await db.write(work)


async def test_what_is_offered_can_be_taken_as_a_rule_or_dismissed_for_ever(db: Database) -> None:
    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        for conversation_id in CONVERSATIONS[:2]:
            correct(conn, conversation_id, "Zephira")
        with pytest.raises(NotFound, match="not offered"):
            vocabulary.dismiss(conn, "zephyr", "Zeppelin", actor="uid:1", now_us=START_US)
        row = rules.add(conn, PLAIN, "Zephyr", "Zephira", actor="uid:1", now_us=START_US)
        assert vocabulary.suggestions(conn) == []
        rules.remove(conn, row.rule.id)
        assert [one.as_word for one in vocabulary.suggestions(conn)] == [True]
        vocabulary.dismiss(conn, "zephyr", "Zephira", actor="uid:1", now_us=START_US)
        assert vocabulary.suggestions(conn) == []
        correct(conn, CONVERSATIONS[2], "Zephira")
        assert vocabulary.suggestions(conn) == []

    await db.write(work)


async def test_a_word_that_does_not_help_is_offered_as_a_rule_alone(db: Database) -> None:
    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        add(conn, "Zephira")
        correct(conn, CONVERSATIONS[0], "Zephira")
        for conversation_id in CONVERSATIONS[1:3]:
            assert vocabulary.suggestions(conn) == []
            correct(conn, conversation_id, "Zephira", now_us=START_US + 1)
        (one,) = vocabulary.suggestions(conn)
        assert (one.count, one.as_word) == (2, False)

    await db.write(work)


async def test_recognisers_expect_words_people_and_the_wearer(db: Database) -> None:
    def work(conn: Connection) -> None:
        vocabulary.add(conn, "Zephira", actor="uid:1", now_us=START_US)
        ada = people.add(conn, "Ada", now_us=START_US + 1)
        vocabulary.add(conn, "ada", actor="uid:1", now_us=START_US + 2)
        vocabulary.add(conn, "Bob", actor="uid:1", now_us=START_US + 2)
        assert vocabulary.expected(conn, " Mia ") == ("Mia", "Bob", "ada", "Zephira")
        vocabulary.remove(conn, "ada")
        assert vocabulary.expected(conn, "Mia") == ("Mia", "Bob", "Ada", "Zephira")
        people.rename(conn, ada.id, "Grace")
        assert vocabulary.expected(conn) == ("Bob", "Grace", "Zephira")
        people.forget(conn, ada.id)
        assert vocabulary.expected(conn) == ("Bob", "Zephira")

    await db.write(work)
