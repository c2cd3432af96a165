"""The second pass: what is heard again when there is leisure, and what makes it stand back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from omi_edge.capture.absence import Witness
from omi_edge.cli.data import final_pass
from omi_edge.cli.service import final_line
from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig, Config, ConversationConfig, EngineConfig, ListenConfig
from omi_edge.domain import Codec, ConversationState, Stage
from omi_edge.engine import Recognition
from omi_edge.errors import BadInput, EngineTransient
from omi_edge.pipeline.final import LOOK_SECONDS
from omi_edge.pipeline.spine import Spine
from omi_edge.store import jobs, reprocessing, sources, transcripts
from omi_edge.store.database import Database
from omi_edge.store.reprocessing import ReprocessingRow
from omi_edge.store.vectors import VectorIndex
from omi_edge.web import shapes, wire
from tests.helpers import START_US
from tests.pipeline.test_reprocess import correct, found, kinds, spoken, texts
from tests.pipeline.test_spine import SOURCE, Workshop

MISSING = "the model large is not installed; fetch it with: omi-edge models pull large"


def settings(final: str = "large", **engine: Any) -> Config:
    return Config(
        conversation=ConversationConfig(silence=5.0, max_length=60.0),
        audio=AudioConfig(keep_silence=60.0),
        listen=ListenConfig(final=final),
        engine=EngineConfig(**{"quiet": 30.0, "on_battery": True} | engine),
    )


def spine(shop: Workshop, config: Config) -> Spine:
    return Spine(shop.db, shop.clock, shop.bus, config, shop.engines, VectorIndex(), "UTC")


@pytest.fixture
async def shop(db: Database, clock: DrivenClock) -> AsyncIterator[Workshop]:
    await db.write(
        lambda conn: sources.add(
            conn, id=SOURCE, kind="pendant", name="Omi", device_id="dev", client_id=None, codec=Codec.OPUS_20MS,
            created_us=START_US,
        )
    )  # fmt: skip
    shop = Workshop(db, clock, settings())
    shop.engines.final_hears = lambda _: "eins zwei drei"
    await shop.spine.start()
    yield shop
    await shop.spine.stop()


async def again(shop: Workshop, config: Config) -> None:
    """Restart with other settings."""
    await shop.spine.stop()
    shop.spine = spine(shop, config)
    await shop.spine.start()


async def last(shop: Workshop, conversation_id: str) -> ReprocessingRow:
    row = await shop.db.read(lambda conn: reprocessing.last_final(conn, conversation_id))
    assert row is not None
    return row


async def waiting(shop: Workshop) -> int:
    return await shop.db.read(reprocessing.waiting_final)


async def ask(shop: Workshop, conversation_id: str, *, keep: bool = False) -> str:
    batch_id, _ = await shop.db.write(
        lambda conn: reprocessing.ask(
            conn, [conversation_id], engine="other", keep=keep, actor="uid:1", now_us=shop.clock.utc_us()
        )
    )
    shop.spine.jobs.poke()
    await shop.clock.advance(1)
    return batch_id


class Halting:
    """The final recogniser, which stops before a segment until it may go on."""

    def __init__(self, shop: Workshop, at: int) -> None:
        self.there, self.go = asyncio.Event(), asyncio.Event()
        self.heard = 0
        self._at = at
        self._inner = shop.engines.recognize_final
        shop.engines.recognize_final = self._hear  # type: ignore[method-assign]

    async def _hear(self, name: str, pieces: Any) -> list[Recognition]:
        self.heard += len(pieces)
        if self.heard == self._at:
            self.there.set()
            await self.go.wait()
        return await self._inner(name, pieces)


async def test_a_completed_conversation_is_heard_again_when_it_has_been_quiet(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    assert (await shop.conversations())[0].state is ConversationState.COMPLETED
    assert (await last(shop, conversation_id)).state == "queued"
    assert await texts(shop, conversation_id) == ["one two three"] * 3
    assert "quiet for 30 s" in shop.spine.final.why
    await shop.clock.advance(60)
    row = await last(shop, conversation_id)
    assert (row.state, row.done, row.total, row.actor) == ("done", 3, 3, "final")
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 3
    assert [one.speaker for one in await shop.utterances(conversation_id)] == ["SPEAKER_00"] * 3
    assert len(await shop.db.read(lambda conn: found(conn, "zwei"))) == 3
    assert await kinds(shop, conversation_id) == ["live", "final", "reprocessed"]
    assert await waiting(shop) == 0
    await shop.clock.advance(60)  # what was built anew on it asks for no other
    assert shop.engines.final_calls == [1, 1, 1]


async def test_without_a_final_recogniser_there_is_none(shop: Workshop) -> None:
    await again(shop, settings(final=""))
    conversation_id = await spoken(shop)
    await shop.clock.advance(60)
    assert await shop.db.read(lambda conn: reprocessing.last_final(conn, conversation_id)) is None
    assert shop.engines.final_calls == []


async def test_what_was_put_right_survives(shop: Workshop) -> None:
    shop.engines.final_hears = lambda _: "one two four"
    conversation_id = await spoken(shop)
    await correct(shop, conversation_id, 1, 2, "zwei")
    await shop.clock.advance(60)
    assert await texts(shop, conversation_id) == ["one two four", "one zwei four", "one two four"]
    assert await shop.codes() == []


async def test_grown_it_is_heard_again_as_a_whole(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    await shop.clock.advance(60)
    await shop.said(12, 14)
    await shop.clock.advance(90)
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 4
    assert shop.engines.final_calls == [1] * 7


async def test_it_stands_back_between_two_segments_when_somebody_speaks(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    halting = Halting(shop, 2)
    advancing = asyncio.create_task(shop.clock.advance(60))
    await halting.there.wait()
    witness: Any = object.__new__(Witness) if isinstance(Witness, type) else None
    intake = await shop.spine.open_pendant("dev", "Omi", Codec.OPUS_20MS, witness)
    intake.speaking = True
    halting.go.set()
    await advancing
    row = await last(shop, conversation_id)
    assert (row.state, row.done) == ("running", 2)
    assert shop.spine.final.why == "somebody is speaking"
    assert await texts(shop, conversation_id) == ["one two three"] * 3
    (job,) = await shop.db.read(lambda conn: jobs.due(conn, shop.clock.utc_us(), [Stage.FINAL]))
    assert job.attempts == 0
    intake.speaking = False
    await shop.clock.advance(30 - LOOK_SECONDS - 1)
    assert (await last(shop, conversation_id)).state == "running"
    await shop.clock.advance(3 * LOOK_SECONDS)
    assert (await last(shop, conversation_id)).state == "done"
    assert halting.heard == 3


async def test_opened_again_in_the_middle_it_goes_on_when_it_is_complete(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    halting = Halting(shop, 2)
    advancing = asyncio.create_task(shop.clock.advance(45))
    await halting.there.wait()
    release = shop.clock.hold()
    halting.go.set()
    await shop.db.write(lambda conn: conn.execute("UPDATE conversations SET state = 'open'"))
    release()
    await advancing
    assert (await last(shop, conversation_id)).state == "running"
    shop.spine._watch(conversation_id)
    await shop.clock.advance(90)
    assert (await last(shop, conversation_id)).state == "done"
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 3
    assert halting.heard == 3


async def test_a_restart_goes_on_behind_the_last_segment(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    halting = Halting(shop, 3)
    advancing = asyncio.create_task(shop.clock.advance(60))
    await halting.there.wait()
    await shop.spine.stop()
    await advancing
    shop.engines.final_hears = lambda _: "after"
    halting.go.set()
    shop.spine = spine(shop, settings())
    await shop.spine.start()
    await shop.clock.advance(60)
    assert (await last(shop, conversation_id)).state == "done"
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 2 + ["after"]
    assert halting.heard == 4


async def test_a_model_that_is_missing_is_waited_for(shop: Workshop) -> None:
    shop.engines.final_unusable = MISSING
    with shop.bus.subscribe() as told:
        conversation_id = await spoken(shop)
        await shop.clock.advance(600)
        events = [await told.get() for _ in range(told.waiting)]
    assert (await last(shop, conversation_id)).state == "queued"
    assert shop.spine.final.trouble == MISSING
    assert {"waiting": 1, "why": MISSING} in [event.data for event in events if event.kind == "final"]
    assert await texts(shop, conversation_id) == ["one two three"] * 3
    assert await shop.codes() == []
    shop.engines.final_unusable = ""
    await shop.clock.advance(20)
    assert (await last(shop, conversation_id)).state == "done"
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 3


async def test_a_model_that_goes_in_the_middle_costs_no_try(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    halting = Halting(shop, 2)
    advancing = asyncio.create_task(shop.clock.advance(60))
    await halting.there.wait()
    shop.engines.final_unusable = MISSING
    halting.go.set()
    await advancing
    await shop.clock.advance(600)
    row = await last(shop, conversation_id)
    assert (row.state, row.done) == ("running", 1)
    (job,) = await shop.db.read(lambda conn: jobs.due(conn, shop.clock.utc_us(), [Stage.FINAL]))
    assert job.attempts == 0
    shop.engines.final_unusable = ""
    await shop.clock.advance(20)
    assert (await last(shop, conversation_id)).state == "done"


async def test_the_owners_own_wish_waits_for_no_leisure_and_comes_before(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    shop.engines.hears = lambda _: "uno due tre"
    batch_id = await ask(shop, conversation_id)
    assert (await shop.db.read(lambda conn: reprocessing.batch(conn, batch_id)))[0].state == "done"
    assert (await last(shop, conversation_id)).state == "cancelled"
    await shop.clock.advance(90)
    assert await texts(shop, conversation_id) == ["uno due tre"] * 3
    await shop.said(12, 14)
    await shop.clock.advance(90)
    assert shop.engines.final_calls == []  # the owner has chosen


async def test_it_stops_a_pass_that_is_under_way(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    halting = Halting(shop, 2)
    advancing = asyncio.create_task(shop.clock.advance(60))
    await halting.there.wait()
    shop.engines.hears = lambda _: "uno due tre"
    await shop.db.write(
        lambda conn: reprocessing.ask(
            conn, [conversation_id], engine="other", keep=False, actor="uid:1", now_us=shop.clock.utc_us()
        )
    )
    shop.spine.jobs.poke()
    halting.go.set()
    await advancing
    assert (await last(shop, conversation_id)).state == "cancelled"
    assert await texts(shop, conversation_id) == ["uno due tre"] * 3
    assert await kinds(shop, conversation_id) == ["live", "final", "reprocessed"]
    assert halting.heard == 2


async def test_one_that_gave_way_for_nothing_that_is_shown_is_asked_again(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    await ask(shop, conversation_id, keep=True)
    assert (await last(shop, conversation_id)).state == "queued"
    await shop.clock.advance(60)
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 3


async def test_rolled_back_it_stays(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    await shop.clock.advance(60)
    await shop.db.write(
        lambda conn: transcripts.activate(conn, conversation_id, transcripts.previous(conn, conversation_id) or "")
    )
    await shop.said(12, 14)
    await shop.clock.advance(90)
    assert await texts(shop, conversation_id) == ["one two three"] * 4


async def test_what_waits_is_called_off_like_any_and_not_listed_as_the_owners(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    batch_id = (await last(shop, conversation_id)).batch_id
    assert await shop.db.read(reprocessing.batches) == []
    assert await shop.db.write(lambda conn: reprocessing.cancel(conn, batch_id, shop.clock.utc_us())) == 1
    await shop.clock.advance(60)
    assert (shop.engines.final_calls, await waiting(shop)) == ([], 0)


async def test_other_settings_hold_for_what_waits(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    await again(shop, settings(final="larger"))
    assert (await last(shop, conversation_id)).engine == "larger"
    await again(shop, settings(final=""))
    assert ((await last(shop, conversation_id)).state, await waiting(shop)) == ("cancelled", 0)


async def test_another_recogniser_begins_anew(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    halting = Halting(shop, 2)
    advancing = asyncio.create_task(shop.clock.advance(60))
    await halting.there.wait()
    await shop.spine.stop()
    await advancing
    halting.go.set()
    shop.engines.final_hears = lambda _: "better"
    shop.spine = spine(shop, settings(final="larger"))
    await shop.spine.start()
    await shop.clock.advance(60)
    assert await texts(shop, conversation_id) == ["better"] * 3
    assert await kinds(shop, conversation_id) == ["live", "final", "reprocessed"]


async def test_several_segments_go_in_one_call(shop: Workshop) -> None:
    config = settings()
    await again(shop, Config(**{s: getattr(config, s) for s in config.__struct_fields__} | {
        "listen": ListenConfig(final="large", batch=2)
    }))  # fmt: skip
    conversation_id = await spoken(shop)
    await shop.clock.advance(60)
    assert shop.engines.final_calls == [2, 1]
    assert ((await last(shop, conversation_id)).done, len(await texts(shop, conversation_id))) == (3, 3)


async def test_what_fails_for_good_leaves_the_text_and_is_told(shop: Workshop) -> None:
    shop.engines.trouble["final"] = [EngineTransient("x")] * 3
    conversation_id = await spoken(shop)
    await shop.clock.advance(90)
    assert (await last(shop, conversation_id)).state == "failed"
    assert await texts(shop, conversation_id) == ["one two three"] * 3
    assert await shop.codes() == ["reprocess-failed"]


async def test_audio_that_is_let_go_of_meanwhile_ends_it_quietly(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    await shop.db.write(lambda conn: conn.execute("DELETE FROM audio_chunks"))
    await shop.clock.advance(60)
    row = await last(shop, conversation_id)
    assert (row.state, row.cause) == ("cancelled", "the audio is no longer kept")
    assert (await shop.codes(), await texts(shop, conversation_id)) == ([], ["one two three"] * 3)


async def test_the_hours_hold_it_back_until_they_come(shop: Workshop) -> None:
    await again(shop, settings(when="schedule", hours="10:00-11:00"))  # the clock of the tests begins at nine
    conversation_id = await spoken(shop)
    await shop.clock.advance(3000)
    assert (await last(shop, conversation_id)).state == "queued"
    assert "10:00-11:00" in shop.spine.final.why
    await shop.clock.advance(600)
    assert (await last(shop, conversation_id)).state == "done"


async def test_a_second_wish_of_the_owner_is_refused_as_before(shop: Workshop) -> None:
    conversation_id = await spoken(shop)

    def twice(conn: Any) -> None:
        for _ in range(2):
            reprocessing.ask(conn, [conversation_id], engine="other", keep=False, actor="uid:1", now_us=START_US)

    with pytest.raises(BadInput, match="being transcribed anew"):
        await shop.db.write(twice)


async def test_an_import_does_not_wait_for_it(shop: Workshop) -> None:
    await spoken(shop)
    assert await waiting(shop) == 1
    assert await shop.db.read(lambda conn: jobs.of_source(conn, SOURCE)) == (0, 0)


async def test_a_conversation_tells_how_far_it_is(shop: Workshop) -> None:
    conversation_id = await spoken(shop)
    row = (await shop.conversations())[0]
    shown = await shop.db.read(lambda conn: shapes.conversation(conn, row, (), ()).final)
    assert shown is not None
    assert (shown.id, shown.engine) == ((await last(shop, conversation_id)).batch_id, "large")
    assert final_pass(shown) == "final pass with large: waits"
    half = msgspec.structs.replace(shown, state="running", done=2)
    assert final_pass(half) == "final pass with large: 2 of 3 segments done"
    assert final_line(wire.FinalPass("large", 2, None, "somebody is speaking", "")) == (
        "large, 2 wait, somebody is speaking"
    )
