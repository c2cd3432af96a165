"""What a person puts right: the original stays, the history tells, and there is a way back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from omi_edge.domain import Utterance
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import conversations, corrections, search, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Change, Target
from omi_edge.store.database import Database
from tests.helpers import START_US
from tests.store import filling
from tests.store.filling import CONVERSATIONS, SECOND, SENTENCES

CONVERSATION = CONVERSATIONS[0]


@pytest.fixture
async def filled(db: Database) -> AsyncIterator[Database]:
    await db.write(filling.fill_first)
    yield db


def said(conn: Connection, version_id: str | None = None) -> list[Utterance]:
    return transcripts.utterances(conn, CONVERSATION, version_id)


def texts(conn: Connection) -> list[str]:
    return [one.text for one in said(conn)]


def add(conn: Connection, target: Target, text: str, now_us: int = START_US) -> Change:
    return corrections.add(conn, CONVERSATION, target, text, actor="client:phone", now_us=now_us)


def states(conn: Connection) -> list[str]:
    return [row.state for row in corrections.listed(conn, CONVERSATION)]


async def test_a_word_is_put_right_and_its_original_kept(filled: Database) -> None:
    def work(conn: Connection) -> None:
        before = said(conn)
        live_id = conversations.get(conn, CONVERSATION).version_id
        change = add(conn, Target("utt_0_1", word=4), "our plumber's")
        after = said(conn)
        assert (
            [one.text for one in change.utterances] == [after[1].text] == ["I will call our plumber's plumber tomorrow"]
        )
        assert [word.start_us for word in after[1].words if word.text in ("I", "tomorrow")] == [
            before[1].words[0].start_us, before[1].words[-1].start_us,
        ]  # fmt: skip
        assert (after[1].start_us, after[1].end_us, after[1].speaker) == (
            before[1].start_us, before[1].end_us, before[1].speaker,
        )  # fmt: skip
        assert said(conn, live_id) == before
        version = next(row for row in transcripts.versions(conn, CONVERSATION) if row.active)
        assert (version.kind, version.base_id) == ("edited", live_id)
        (row,) = corrections.listed(conn, CONVERSATION)
        assert (row.before, row.after, row.actor, row.state) == (
            SENTENCES[1], "I will call our plumber's plumber tomorrow", "client:phone", "shown",
        )  # fmt: skip
        add(conn, Target(after[0].id, word=1, to_word=2), "")
        assert said(conn)[0].text == "lighthouse needs new paint"
        assert len(transcripts.versions(conn, CONVERSATION)) == 2  # the edited one is changed, no further one made

    await filled.write(work)


async def test_what_is_found_is_what_is_shown_and_unchanged_vectors_stay(filled: Database) -> None:
    def work(conn: Connection) -> None:
        add(conn, Target("utt_0_0"), "a harbour crane")
        hits = search.search(conn, None, "crane", None)
        assert [hit.ref_id for hit in hits] == [said(conn)[0].id]
        assert "utt_0_0" not in {hit.ref_id for hit in search.search(conn, None, "zephyr", None)}
        missing = search.without_vectors(conn, filling.MODEL, 100, conversation_id=CONVERSATION)
        assert {text for _, text in missing} & {"a harbour crane", SENTENCES[3]} == {"a harbour crane"}
        add(conn, Target(said(conn)[0].id), "")
        assert search.search(conn, None, "crane", None) == []

    await filled.write(work)


async def test_a_stretch_and_a_time_are_put_right_together(filled: Database) -> None:
    def work(conn: Connection) -> None:
        add(conn, Target("utt_0_1", "utt_0_2"), "I will call the doctor tomorrow Marguerite is allergic to peanuts")
        assert texts(conn)[1:3] == ["I will call the doctor tomorrow", "Marguerite is allergic to peanuts"]
        start_us = said(conn)[3].start_us
        add(conn, Target(from_us=start_us + SECOND, to_us=start_us + 2 * SECOND), "pier café")
        assert texts(conn)[3] == "let us meet at the pier café"
        assert states(conn) == ["shown", "shown"]

    await filled.write(work)


async def test_it_is_undone_unless_another_builds_on_it(filled: Database) -> None:
    def work(conn: Connection) -> None:
        before = texts(conn)
        first = add(conn, Target("utt_0_1", word=5), "doctor").correction_id
        second = add(conn, Target(said(conn)[1].id, word=5), "dentist", START_US + 1).correction_id
        with pytest.raises(BadInput, match=second):
            corrections.undo(conn, first, actor="uid:1", now_us=START_US + 2)
        for correction_id in (second, first):
            corrections.undo(conn, correction_id, actor="uid:1", now_us=START_US + 3)
        assert texts(conn) == before
        assert [word.confidence for word in said(conn)[1].words] == [0.5] * 6
        row = corrections.get(conn, first)
        assert (row.state, row.undone_us, row.undone_by) == ("undone", START_US + 3, "uid:1")
        with pytest.raises(BadInput, match="already"):
            corrections.undo(conn, first, actor="uid:1", now_us=START_US + 4)

    await filled.write(work)


async def test_removed_words_come_back(filled: Database) -> None:
    def work(conn: Connection) -> None:
        before = [one.words for one in said(conn)]
        ids = [add(conn, Target("utt_0_0"), "").correction_id, add(conn, Target("utt_0_3"), "").correction_id]
        assert [one.text for one in said(conn)][::3] == ["", ""]
        for correction_id in ids:
            corrections.undo(conn, correction_id, actor="uid:1", now_us=START_US)
        assert [one.words for one in said(conn)] == before

    await filled.write(work)


async def test_an_id_of_the_version_before_still_leads_to_the_words(filled: Database) -> None:
    def work(conn: Connection) -> None:
        add(conn, Target("utt_0_0", word=2), "Zephyr")
        add(conn, Target("utt_0_1", word=5), "doctor")
        assert texts(conn)[:2] == ["the Zephyr lighthouse needs new paint", "I will call the doctor tomorrow"]
        with pytest.raises(BadInput, match="another version"):
            add(conn, Target("utt_0_0", word=2), "tower")

    await filled.write(work)


async def test_a_version_shown_again_is_without_corrections_and_so_is_what_follows_it(filled: Database) -> None:
    def work(conn: Connection) -> None:
        add(conn, Target("utt_0_0", word=2), "Zephyr")
        edited_id = conversations.get(conn, CONVERSATION).version_id
        plain_id = transcripts.live_version(conn, CONVERSATION)
        transcripts.activate(conn, CONVERSATION, plain_id)
        assert (transcripts.previous(conn, CONVERSATION), states(conn)) == (edited_id, ["hidden"])
        transcripts.new_version(
            conn, CONVERSATION, id="ver_final", kind="final", engine="e", now_us=START_US, utterances=(), activate=False
        )
        final = [filling.utterance("utt_f", CONVERSATION, START_US, SENTENCES[0])]
        transcripts.append(conn, "ver_final", final)
        shown = corrections.carry(conn, CONVERSATION, plain_id, "ver_final", final, now_us=START_US)
        assert (shown, texts(conn)) == (("ver_final", 0), [SENTENCES[0]])
        shown = corrections.carry(conn, CONVERSATION, edited_id, "ver_final", final, now_us=START_US)
        assert (shown[1], texts(conn), states(conn)) == (0, ["the Zephyr lighthouse needs new paint"], ["shown"])

    await filled.write(work)


def carry(conn: Connection, version_id: str, *utterances: Utterance) -> int:
    """Make a version of these, with the corrections of what is shown; return how many found no place."""
    shown = conversations.get(conn, CONVERSATION).version_id
    transcripts.new_version(
        conn, CONVERSATION, id=version_id, kind="final", engine="e", now_us=START_US, utterances=(), activate=False
    )
    transcripts.append(conn, version_id, utterances)
    return corrections.carry(conn, CONVERSATION, shown, version_id, utterances, now_us=START_US)[1]


def kind(conn: Connection) -> str:
    return next(row.kind for row in transcripts.versions(conn, CONVERSATION) if row.active)


async def test_a_version_without_a_correction_is_not_an_edited_one(filled: Database) -> None:
    def work(conn: Connection) -> None:
        add(conn, Target("utt_0_0", word=2), "Zephyr")
        other = filling.utterance("utt_a", CONVERSATION, START_US, "something else", segment_id="seg_sent")
        assert carry(conn, "ver_a", other) == 1
        assert (kind(conn), states(conn), texts(conn)) == ("final", ["unplaced"], ["something else"])
        add(conn, Target("utt_a", word=1), "anything")  # the first is not forgotten
        assert (kind(conn), states(conn), texts(conn)) == ("edited", ["unplaced", "shown"], ["anything else"])
        again = filling.utterance("utt_b", CONVERSATION, START_US, SENTENCES[0])
        assert carry(conn, "ver_b", again) == 1
        assert (states(conn), texts(conn)) == (["shown", "unplaced"], ["the Zephyr lighthouse needs new paint"])

    await filled.write(work)


async def test_what_gave_way_to_a_correction_comes_back_when_it_is_undone(filled: Database) -> None:
    def work(conn: Connection) -> None:
        ids = [
            add(conn, Target("utt_0_0"), "a harbour crane", START_US).correction_id,
            add(conn, Target(said(conn)[0].id, word=3), "ship", START_US + 1).correction_id,
        ]
        heard = filling.utterance("utt_a", CONVERSATION, START_US, "her bow rain stops at two")
        assert carry(conn, "ver_a", heard) == 0
        assert (states(conn), texts(conn)) == (["shown", "shown"], ["a harbour ship"])
        with pytest.raises(BadInput, match=ids[1]):
            corrections.undo(conn, ids[0], actor="uid:1", now_us=START_US + 2)
        for correction_id, left in zip(reversed(ids), ("a harbour crane", "her bow rain stops at two"), strict=True):
            corrections.undo(conn, correction_id, actor="uid:1", now_us=START_US + 3)
            assert texts(conn) == [left]
        assert [hit.text for hit in search.search(conn, None, "rain", None)] == ["her bow rain stops at two"]

    await filled.write(work)


async def test_corrections_from_before_stretches_were_kept_still_work(filled: Database) -> None:
    def work(conn: Connection) -> None:
        first = add(conn, Target("utt_0_0", word=2), "Zephyr").correction_id
        (whole,) = corrections.pieces_of(conn, CONVERSATION, "seg_0")
        old = [(p.segment_id, p.at_us, p.before, p.after) for p in whole.differences]
        conn.execute("UPDATE corrections SET pieces = ?", (msgspec.msgpack.encode(old),))
        carry(conn, "ver_a", filling.utterance("utt_a", CONVERSATION, START_US, "the sapphire lighthouse"))
        assert texts(conn) == ["the Zephyr lighthouse"]
        corrections.undo(conn, first, actor="uid:1", now_us=START_US)
        assert texts(conn) == ["the sapphire lighthouse"]

    await filled.write(work)


@pytest.mark.parametrize(
    ("target", "text", "words"),
    [
        (Target("utt_0_0", word=7), "x", "words 1 to 6"),
        (Target("utt_0_0", word=3, to_word=2), "x", "no such word"),
        (Target("utt_0_2", "utt_0_1"), "x", "comes before"),
        (Target("utt_0_1", "utt_0_2", word=1), "x", "one utterance"),
        (Target("utt_0_0"), f"  {SENTENCES[0]} ", "says already"),
        (Target(from_us=0, to_us=1), "x", "nothing was said"),
        (Target("utt_0_0"), "x " * 1001, "shorter stretch"),
        (Target(), "x", "an utterance, or from when"),
    ],
)
async def test_what_names_nothing_is_refused_with_a_sentence(
    filled: Database, target: Target, text: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        await filled.write(lambda conn: add(conn, target, text))
    assert await filled.read(states) == []
    with pytest.raises(NotFound):
        await filled.write(lambda conn: add(conn, Target("utt_x"), "x"))
