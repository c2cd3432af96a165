"""Recordings that were sent in for a conversation: heard, shown, tried again, called off, and gone with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.config import Config
from omi_edge.domain import AudioChunk, ConversationState
from omi_edge.errors import AudioReleased, Conflict, EnginePermanent
from omi_edge.pipeline.spine import Spine
from omi_edge.store import audio, ledger, notices, reprocessing, search, sources, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.vectors import VectorIndex
from omi_edge.web import shapes
from tests.helpers import START_US
from tests.pipeline.test_reprocess import Halting, kinds, spoken, state, texts
from tests.pipeline.test_spine import SOURCE, Workshop, workshop  # noqa: F401 the fixture

SHORT = Path(__file__).parents[1] / "recordings" / "short.ogg"
SECOND = 1_000_000


@pytest.fixture(scope="module")
def pcm() -> bytes:
    """Somebody speaks twice."""
    said = np.concatenate([*Recording(SHORT), np.zeros(48_000, np.int16)])
    return np.concatenate([said, said]).tobytes()


async def send(shop: Workshop, conversation_id: str, body: bytes, *, start_us: int | None = None) -> tuple[str, str]:
    """Send a recording in; return the batch and the upload."""

    def store(conn: Connection) -> tuple[str, str]:
        now_us = shop.clock.utc_us()
        row = uploads.begin(conn, conversation_id, name="talk", start_us=start_us, client_id=None, now_us=now_us)
        for at in range(0, len(body), uploads.PIECE_BYTES):
            uploads.put_piece(conn, row, body[at : at + uploads.PIECE_BYTES])
        uploads.stored(conn, row)
        batch_id, _ = reprocessing.ask(
            conn, [conversation_id], engine="scripted", keep=False, actor="uid:1", now_us=now_us, upload_id=row.id
        )
        return batch_id, row.id

    batch_id, upload_id = await shop.db.write(store)
    shop.spine.jobs.poke()
    return batch_id, upload_id


async def rows(shop: Workshop, table: str) -> int:
    return await shop.db.read(lambda conn: int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))


async def own_sources(shop: Workshop) -> list[str]:
    return [row.kind for row in await shop.db.read(sources.list_all)]


async def test_what_is_sent_in_becomes_the_version_that_is_shown(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    before = await workshop.db.read(lambda conn: audio.between(conn, SOURCE, 0, 1 << 61))
    accounts = await workshop.db.read(ledger.known_sources)
    workshop.engines.hears = lambda _: "uno due tre"
    batch_id, upload_id = await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    row = await state(workshop, batch_id)
    assert (row.state, row.done, row.total, row.upload_id) == ("done", 2, 2, upload_id)
    assert await texts(workshop, conversation_id) == ["uno due tre"] * 2
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == ["SPEAKER_00"] * 2
    assert await kinds(workshop, conversation_id) == ["live", "final", "reprocessed"]
    upload = await workshop.db.read(lambda conn: uploads.get(conn, upload_id))
    assert (upload.state, upload.start_us) == ("heard", START_US)
    heard = await workshop.db.read(lambda conn: audio.between(conn, upload.source_id, 0, 1 << 61))
    assert sum(chunk.duration_us for chunk in heard) > 6 * SECOND
    assert await rows(workshop, "upload_pieces") == 0
    # the conversation, its own audio and the ledger are as they were
    (row_now,) = await workshop.conversations()
    assert (row_now.state, row_now.source_id) == (ConversationState.COMPLETED, SOURCE)
    assert row_now.ended_us - row_now.started_us == 11 * SECOND
    assert await workshop.db.read(lambda conn: audio.between(conn, SOURCE, 0, 1 << 61)) == before
    assert await workshop.db.read(ledger.known_sources) == accounts
    # everything that is built on it is made anew
    assert row_now.title == "2 said"
    found = await workshop.db.read(lambda conn: search.search(conn, None, "tre", None))
    hits = [hit for hit in found if hit.kind == "utterance"]
    assert len(hits) == 2
    for hit in hits:  # and is proven by the recording
        span = (await workshop.db.read(lambda conn, one=hit: shapes.hit(conn, one))).span  # type: ignore[misc]
        assert span is not None
        assert f"?source={upload.source_id}&" in span.audio


async def test_late_audio_joins_it_outside_the_time_that_it_speaks_for(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    workshop.engines.hears = lambda _: "late"
    await workshop.said(15, 17)
    await workshop.clock.advance(20)
    assert await texts(workshop, conversation_id) == ["uno due", "uno due", "late"]
    assert (await kinds(workshop, conversation_id))[-1] == "final"
    workshop.engines.hears = lambda _: "later"
    await workshop.said(19, 21)
    await workshop.clock.advance(20)
    assert await texts(workshop, conversation_id) == ["uno due", "uno due", "late", "later"]


async def test_with_a_known_beginning_it_speaks_for_its_own_time_alone(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm[: len(pcm) // 2], start_us=START_US + 3_500_000)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["one two three", "uno due"]
    (sent,) = [row for row in await workshop.db.read(sources.list_all) if row.kind == "upload"]
    assert (sent.first_us, sent.time_known) == (START_US + 3_500_000, True)


async def test_one_that_breaks_off_changes_nothing_and_is_told_until_it_is_seen(
    workshop: Workshop, pcm: bytes  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)
    with workshop.bus.subscribe() as told:
        batch_id, _ = await send(workshop, conversation_id, pcm + b"no audio")
        await workshop.clock.advance(5)
        events = [await told.get() for _ in range(told.waiting)]
    row = await state(workshop, batch_id)
    assert (row.state, row.upload_id) == ("failed", None)
    assert row.cause == "the file breaks off after 1.00 s. Send it again, whole, as WAV, FLAC, MP3, M4A or Ogg."
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert await kinds(workshop, conversation_id) == ["live", "final"]
    assert await own_sources(workshop) == ["pendant"]
    assert [await rows(workshop, table) for table in ("uploads", "upload_pieces")] == [0, 0]
    (notice,) = await workshop.db.read(notices.active)
    assert (notice.code, notice.acknowledged_us) == ("reprocess-failed", None)
    assert "breaks off after 1.00 s" in notice.message
    assert f"`omi-edge reprocess {conversation_id} --audio FILE`" in notice.message
    assert [event.data["code"] for event in events if event.kind == "notice"] == ["reprocess-failed"]
    # a later success does not hide that it happened
    workshop.engines.hears = lambda _: "uno"
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    assert await workshop.codes() == ["reprocess-failed"]


@pytest.mark.parametrize("text", [None, ""])
async def test_silence_and_words_that_nobody_makes_out_do_not_empty_a_transcript(
    workshop: Workshop, pcm: bytes, text: str | None  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: text or ""
    batch_id, _ = await send(workshop, conversation_id, bytes(320_000) if text is None else pcm)
    await workshop.clock.advance(5)
    row = await state(workshop, batch_id)
    assert (row.state, await texts(workshop, conversation_id)) == ("failed", ["one two three"] * 3)
    assert ("nobody speaks" if text is None else "no word could be made out") in (row.cause or "")
    assert (await own_sources(workshop), await rows(workshop, "uploads")) == (["pendant"], 0)
    assert await rows(workshop, "segments") == 3


@pytest.mark.parametrize(
    ("start_s", "why"), [(-3600, "ends before the conversation begins."), (11, "begins after the conversation's end.")]
)
async def test_one_of_another_time_leaves_the_transcript(
    workshop: Workshop, pcm: bytes, start_s: int, why: str  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    batch_id, _ = await send(workshop, conversation_id, pcm, start_us=START_US + start_s * SECOND)
    await workshop.clock.advance(5)
    row = await state(workshop, batch_id)
    assert (row.state, row.upload_id) == ("failed", None)
    assert row.cause == f"the recording {why} Send it again with the time at which it began, or without any."
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert await kinds(workshop, conversation_id) == ["live", "final"]
    assert (await own_sources(workshop), await rows(workshop, "uploads")) == (["pendant"], 0)
    (notice,) = await workshop.db.read(notices.active)
    assert why in notice.message
    # one that reaches into it is taken
    batch_id, _ = await send(workshop, conversation_id, pcm, start_us=START_US - 2 * SECOND)
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "done"
    (sent,) = [one for one in await workshop.db.read(sources.list_all) if one.kind == "upload"]
    said = await workshop.utterances(conversation_id)
    assert sent.heard_until_us is not None
    assert sent.heard_until_us >= max(one.end_us for one in said if one.text == "uno due")


@pytest.mark.parametrize("stage", ["decode", "recognize"])
async def test_what_failed_for_another_reason_is_kept_and_tried_again(
    workshop: Workshop, pcm: bytes, stage: str  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)
    workshop.engines.trouble[stage] = [EnginePermanent("x")]
    batch_id, upload_id = await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "failed"
    (notice,) = await workshop.db.read(notices.active)
    assert f"`omi-edge reprocess {conversation_id} --upload`" in notice.message
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    workshop.engines.hears = lambda _: "uno due"

    def again(conn: Connection) -> None:
        kept = uploads.latest(conn, conversation_id)
        assert kept is not None
        assert kept.id == upload_id
        reprocessing.ask(
            conn, [conversation_id], engine="e", keep=False, actor="a", now_us=workshop.clock.utc_us(),
            upload_id=upload_id,
        )  # fmt: skip

    await workshop.db.write(again)
    workshop.spine.jobs.poke()
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["uno due"] * 2


async def test_a_restart_before_and_in_the_middle_loses_nothing(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    halting = Halting(workshop, 2)
    await workshop.spine.stop()
    batch_id, upload_id = await send(workshop, conversation_id, pcm)

    def half(conn: Connection) -> None:  # as a kill leaves it
        upload = uploads.get(conn, upload_id)
        audio.put(conn, AudioChunk(upload.source_id, START_US, uploads.CODEC, (b"\xb8\xff\xfe",) * 10))

    await workshop.db.write(half)
    for go in (False, True):
        workshop.engines.hears = lambda _: "uno due"
        workshop.spine = Spine(
            workshop.db, workshop.clock, workshop.bus, Config(), workshop.engines, VectorIndex(), "UTC"
        )
        await workshop.spine.start()
        if not go:
            await halting.there.wait()
            await workshop.spine.stop()
            halting.go.set()
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "done"
    assert await texts(workshop, conversation_id) == ["uno due"] * 2
    assert halting.heard == 3  # the one that was under way is heard again
    upload = await workshop.db.read(lambda conn: uploads.get(conn, upload_id))
    chunks = await workshop.db.read(lambda conn: audio.between(conn, upload.source_id, 0, 1 << 61))
    assert all(one.end_us <= after.start_us for one, after in pairwise(chunks))


async def test_what_of_an_upload_came_before_a_crash_is_gone_at_the_next_start(
    workshop: Workshop, pcm: bytes  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)

    def half(conn: Connection) -> None:
        row = uploads.begin(conn, conversation_id, name="t", start_us=None, client_id=None, now_us=START_US)
        uploads.put_piece(conn, row, pcm[:1000])

    await workshop.db.write(half)
    with pytest.raises(Conflict, match="being sent in"):
        await workshop.db.write(
            lambda conn: reprocessing.ask(conn, [conversation_id], engine="e", keep=False, actor="a", now_us=START_US)
        )
    await workshop.spine.stop()
    workshop.spine = Spine(workshop.db, workshop.clock, workshop.bus, Config(), workshop.engines, VectorIndex(), "UTC")
    await workshop.spine.start()
    assert [await rows(workshop, table) for table in ("uploads", "upload_pieces")] == [0, 0]
    assert await own_sources(workshop) == ["pendant"]


async def test_called_off_its_audio_goes_too(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    halting = Halting(workshop, 1)
    batch_id, _ = await send(workshop, conversation_id, pcm)
    await halting.there.wait()
    assert await workshop.db.write(lambda conn: reprocessing.cancel(conn, batch_id, START_US)) == 1
    halting.go.set()
    await workshop.clock.advance(5)
    assert (await state(workshop, batch_id)).state == "cancelled"
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert (await own_sources(workshop), await rows(workshop, "uploads")) == (["pendant"], 0)


async def test_with_the_conversation_its_audio_is_deleted(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    assert await own_sources(workshop) == ["upload", "pendant"]
    own = await rows(workshop, "audio_chunks")

    def delete(conn: Connection) -> None:
        conn.execute("UPDATE segments SET conversation_n = NULL")
        for table in ("utterances", "transcript_versions", "turns", "evidence", "tasks", "memories", "documents"):
            conn.execute(f"DELETE FROM {table}")
        conn.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))

    await workshop.db.write(delete)
    assert (await own_sources(workshop), await rows(workshop, "uploads")) == (["pendant"], 0)
    assert 0 < await rows(workshop, "audio_chunks") < own
    assert await rows(workshop, "segments") == 3


async def test_a_conversation_whose_audio_was_released_takes_another_recording(
    workshop: Workshop, pcm: bytes  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)
    await workshop.db.write(lambda conn: conn.execute("DELETE FROM audio_chunks"))
    with pytest.raises(AudioReleased, match="--audio FILE"):
        await workshop.db.write(
            lambda conn: reprocessing.ask(conn, [conversation_id], engine="e", keep=False, actor="a", now_us=START_US)
        )
    workshop.engines.hears = lambda _: "uno"
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["uno", "uno"]
