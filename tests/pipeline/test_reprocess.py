"""Corrections that outlive a new transcript, and transcripts that are made anew beside the old."""

from __future__ import annotations

import asyncio
import functools

import pytest

from omi_edge.config import Config
from omi_edge.domain import ConversationState
from omi_edge.engine import NO_HINTS, Hints, Recognition
from omi_edge.errors import BadInput, EnginePermanent
from omi_edge.pipeline.reprocess import note_unplaced
from omi_edge.pipeline.spine import Spine
from omi_edge.store import conversations, corrections, jobs, reprocessing, search, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Target
from omi_edge.store.reprocessing import ReprocessingRow
from omi_edge.store.vectors import VectorIndex
from tests.helpers import START_US
from tests.pipeline.test_spine import Workshop, workshop  # noqa: F401 the fixture


async def spoken(shop: Workshop, text: str = "one two three") -> str:
    """Have a conversation of three segments that say ``text``; return its id."""
    shop.engines.hears = lambda _: text
    for start in (0, 4, 8):
        await shop.said(start, start + 3)
    await shop.clock.advance(20)
    (row,) = await shop.conversations()
    return row.id


async def correct(shop: Workshop, conversation_id: str, n: int, word: int, text: str) -> str:
    said = await shop.utterances(conversation_id)
    change = await shop.db.write(
        lambda conn: corrections.add(
            conn, conversation_id, Target(said[n].id, word=word), text, actor="uid:1", now_us=START_US
        )
    )
    return change.correction_id


async def ask(shop: Workshop, conversation_id: str, *, keep: bool = False) -> str:
    batch_id, _ = await shop.db.write(
        lambda conn: reprocessing.ask(
            conn, [conversation_id], engine="scripted", keep=keep, actor="uid:1", now_us=shop.clock.utc_us()
        )
    )
    shop.spine.jobs.poke()
    return batch_id


async def state(shop: Workshop, batch_id: str) -> ReprocessingRow:
    (row,) = await shop.db.read(lambda conn: reprocessing.batch(conn, batch_id))
    return row


async def texts(shop: Workshop, conversation_id: str) -> list[str]:
    return [one.text for one in await shop.utterances(conversation_id)]


async def kinds(shop: Workshop, conversation_id: str) -> list[str]:
    return [row.kind for row in await shop.db.read(lambda conn: transcripts.versions(conn, conversation_id))]


def found(conn: Connection, text: str) -> list[str]:
    return [hit.text for hit in search.search(conn, None, text, None) if hit.kind == "utterance"]


async def test_a_correction_survives_late_audio(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await correct(workshop, conversation_id, 1, 2, "zwei")
    await workshop.said(12, 14)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    assert row.state is ConversationState.COMPLETED
    assert await texts(workshop, conversation_id) == ["one two three", "one zwei three", *["one two three"] * 2]
    assert await kinds(workshop, conversation_id) == ["live", "final", "edited", "final", "edited"]
    assert await workshop.db.read(lambda conn: found(conn, "zwei")) == ["one zwei three"]
    assert await workshop.codes() == []


async def test_a_correction_made_while_it_is_still_open_survives_its_end(workshop: Workshop) -> None:  # noqa: F811
    workshop.engines.hears = lambda _: "one two three"
    await workshop.said(0, 3)
    (row,) = await workshop.conversations()
    await correct(workshop, row.id, 0, 1, "eins")
    await workshop.said(4, 7)
    assert await texts(workshop, row.id) == ["eins two three", "one two three"]
    await workshop.clock.advance(20)
    assert await texts(workshop, row.id) == ["eins two three", "one two three"]


async def test_a_transcript_is_made_anew_beside_the_old(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due tre quattro"
    with workshop.bus.subscribe() as told:
        batch_id = await ask(workshop, conversation_id)
        await workshop.clock.advance(5)
        events = [await told.get() for _ in range(told.waiting)]
    row = await state(workshop, batch_id)
    assert (row.state, row.done, row.total) == ("done", 3, 3)
    assert [event.data["done"] for event in events if event.kind == "reprocess"] == [1, 2, 3, 3]
    assert await texts(workshop, conversation_id) == ["uno due tre quattro"] * 3
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == ["SPEAKER_00"] * 3
    (conversation,) = await workshop.conversations()
    assert conversation.version_id == row.version_id
    assert await workshop.db.read(lambda conn: found(conn, "three")) == []
    assert len(await workshop.db.read(lambda conn: found(conn, "quattro"))) == 3
    missing = await workshop.db.read(
        lambda conn: search.without_vectors(conn, "scripted", 10, conversation_id=conversation_id)
    )
    assert missing == []
    await workshop.db.write(
        lambda conn: transcripts.activate(conn, conversation_id, transcripts.previous(conn, conversation_id) or "")
    )
    assert await texts(workshop, conversation_id) == ["one two three"] * 3


async def test_what_comes_late_joins_the_words_that_were_made_anew(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    workshop.engines.hears = lambda _: "late"
    await workshop.said(12, 14)
    await workshop.clock.advance(20)
    assert await texts(workshop, conversation_id) == [*["uno due"] * 3, "late"]


async def test_kept_only_it_changes_nothing_that_is_shown(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    batch_id = await ask(workshop, conversation_id, keep=True)
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "done"
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert await workshop.db.read(lambda conn: found(conn, "due")) == []
    assert await kinds(workshop, conversation_id) == ["live", "final", "reprocessed"]


async def test_corrections_win_over_whatever_is_heard_in_their_place(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    ids = [
        await correct(workshop, conversation_id, 0, 2, "zwei"),
        await correct(workshop, conversation_id, 1, 3, "drei"),
    ]
    answers = iter(["one too three", "one two three", "one two three"])
    workshop.engines.hears = lambda _: next(answers)
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["one zwei three", "one two drei", "one two three"]
    rows = await workshop.db.read(lambda conn: corrections.listed(conn, conversation_id))
    assert {row.id: row.state for row in rows} == dict.fromkeys(ids, "shown")
    assert await workshop.codes() == []
    for correction_id in ids:  # back to what was heard: in this version, or when it was put right
        undone = functools.partial(corrections.undo, correction_id=correction_id, actor="uid:1", now_us=START_US)
        await workshop.db.write(undone)
    assert await texts(workshop, conversation_id) == ["one too three", "one two three", "one two three"]


async def test_a_notice_names_the_conversation_whose_correction_found_no_place(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)

    def note(conn: Connection) -> str:
        notice = note_unplaced(conn, conversation_id, 1, START_US)
        assert notice is not None
        return notice.message

    assert f"`omi-edge corrections list {conversation_id}`" in await workshop.db.write(note)
    await workshop.db.write(lambda conn: note_unplaced(conn, conversation_id, 0, START_US))
    assert await workshop.codes() == []


async def test_a_failure_leaves_the_transcript_and_says_how_to_try_again(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.trouble["recognize"] = [EnginePermanent("x")]
    batch_id = await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    row = await state(workshop, batch_id)
    assert (row.state, row.cause, row.version_id) == ("failed", "EnginePermanent", None)
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert await kinds(workshop, conversation_id) == ["live", "final"]
    assert await workshop.codes() == ["reprocess-failed"]


class Halting:
    """Recognises until it is at a segment; that one waits for ever, or until it is let go on."""

    def __init__(self, shop: Workshop, at: int) -> None:
        self._shop, self._at = shop, at
        self.heard = 0
        self.there, self.go = asyncio.Event(), asyncio.Event()
        shop.engines.recognize_with = self.recognize  # type: ignore[method-assign]

    async def recognize(self, name: str, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        self.heard += 1
        if self.heard == self._at:
            self.there.set()
            await self.go.wait()
        return await self._shop.engines.recognize(pcm)


async def test_called_off_it_leaves_nothing(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    halting = Halting(workshop, 2)
    batch_id = await ask(workshop, conversation_id)
    await halting.there.wait()
    assert await kinds(workshop, conversation_id) == ["live", "final", "reprocessed"]
    with pytest.raises(BadInput, match="being transcribed anew"):
        await ask(workshop, conversation_id)
    unfinished = (await state(workshop, batch_id)).version_id or ""
    with pytest.raises(BadInput, match="still being made"):
        await workshop.db.write(lambda conn: transcripts.activate(conn, conversation_id, unfinished))
    assert await workshop.db.write(lambda conn: reprocessing.cancel(conn, batch_id, START_US)) == 1
    halting.go.set()
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "cancelled"
    assert halting.heard == 2
    assert await kinds(workshop, conversation_id) == ["live", "final"]
    assert await texts(workshop, conversation_id) == ["one two three"] * 3


async def test_a_restart_goes_on_behind_the_last_segment(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    halting = Halting(workshop, 3)
    batch_id = await ask(workshop, conversation_id)
    await halting.there.wait()
    await workshop.spine.stop()
    workshop.engines.hears = lambda _: "after the restart"
    halting.go.set()
    workshop.spine = Spine(workshop.db, workshop.clock, workshop.bus, Config(), workshop.engines, VectorIndex(), "UTC")
    await workshop.spine.start()
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "done"
    assert await texts(workshop, conversation_id) == ["one two three"] * 2 + ["after the restart"]
    assert halting.heard == 4  # the one that was under way is heard again, none before it


async def test_released_audio_is_refused_and_the_transcript_stays(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await workshop.db.write(
        lambda conn: conn.execute("DELETE FROM audio_chunks WHERE start_us >= ?", (START_US + 8_000_000,))
    )
    with pytest.raises(BadInput, match="audio of 1 of its 3 segments is no longer kept"):
        await ask(workshop, conversation_id)
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert "reprocess" not in await workshop.db.read(jobs.counts)


async def test_an_open_conversation_has_to_end_first(workshop: Workshop) -> None:  # noqa: F811
    await workshop.said(0, 3)
    (row,) = await workshop.conversations()
    with pytest.raises(BadInput, match="is open; end it"):
        await ask(workshop, row.id)
    assert await workshop.db.read(lambda conn: conversations.ids_between(conn, 0, 2**62)) == []
