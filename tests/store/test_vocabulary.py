"""The owner's words: kept as typed, once each; what is corrected twice is offered and never taken."""

from __future__ import annotations

import pytest

from omi_edge.errors import BadInput, NotFound
from omi_edge.store import corrections, transcripts, vocabulary
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
        assert vocabulary.words(conn) == ("Dr Wu", "Ada")
        vocabulary.remove(conn, "Ada")
        assert vocabulary.words(conn) == ("Dr Wu",)
        with pytest.raises(NotFound):
            vocabulary.remove(conn, "Ada")

    await db.write(work)


@pytest.mark.parametrize("text", ["", "  ", "?!", "x" * 101])
async def test_what_is_no_word_is_refused(db: Database, text: str) -> None:
    with pytest.raises(BadInput, match="has letters"):
        await db.write(lambda conn: add(conn, text))


async def test_there_is_an_end_to_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MOST", 1)
    await db.write(lambda conn: add(conn, "one"))
    with pytest.raises(BadInput, match="remove one first"):
        await db.write(lambda conn: add(conn, "two"))


async def test_a_correction_made_twice_is_offered(db: Database) -> None:
    def correct(conn: Connection, conversation_id: str, text: str) -> str:
        said = transcripts.utterances(conn, conversation_id)
        change = corrections.add(
            conn, conversation_id, Target(said[0].id, word=2), text, actor="uid:1", now_us=START_US
        )
        return change.correction_id

    def work(conn: Connection) -> None:
        filling.fill_first(conn)
        correct(conn, CONVERSATIONS[0], "Zephira")
        assert vocabulary.suggestions(conn) == []
        again = correct(conn, CONVERSATIONS[1], "zephira,")
        correct(conn, CONVERSATIONS[2], "Zeppelin")
        (one,) = vocabulary.suggestions(conn)
        assert (one.before, one.after, one.count) == ("zephyr", "zephira,", 2)
        assert vocabulary.words(conn) == ()
        corrections.undo(conn, again, actor="uid:1", now_us=START_US)
        assert vocabulary.suggestions(conn) == []
        correct(conn, CONVERSATIONS[1], "Zephira")
        add(conn, "Zephira")
        assert vocabulary.suggestions(conn) == []

    await db.write(work)
