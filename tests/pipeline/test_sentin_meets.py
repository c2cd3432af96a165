"""Recordings that were sent in, beside the final pass, what recognisers are told, and correction rules."""

from __future__ import annotations

import asyncio

import pytest

from omi_edge.errors import EnginePermanent
from omi_edge.store import notices, people, reprocessing, rules, segments, transcripts, uploads, vocabulary
from omi_edge.store.connection import Connection
from omi_edge.store.reprocessing import SUPERSEDED
from omi_edge.web import shapes
from tests.helpers import START_US
from tests.pipeline.test_final import Halting, last, shop, waiting  # noqa: F401 the fixture
from tests.pipeline.test_reprocess import ask, correct, kinds, spoken, state, texts
from tests.pipeline.test_rules import apply, heard, rule, said
from tests.pipeline.test_sentin import SECOND, pcm, send  # noqa: F401 the fixture
from tests.pipeline.test_spine import Workshop, workshop  # noqa: F401 the fixture


async def ask_final(shop: Workshop, conversation_id: str) -> bool:  # noqa: F811
    return await shop.db.write(
        lambda conn: reprocessing.ask_final(conn, conversation_id, engine="large", now_us=shop.clock.utc_us())
    )


async def test_it_comes_before_a_final_pass_that_waits_and_none_is_asked_behind_it(
    shop: Workshop, pcm: bytes  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(shop)
    assert await waiting(shop) == 1
    shop.engines.hears = lambda _: "uno due"
    batch_id, _ = await send(shop, conversation_id, pcm)
    await shop.clock.advance(5)
    assert (await state(shop, batch_id)).state == "done"
    row = await last(shop, conversation_id)
    assert (row.state, row.cause, await waiting(shop)) == ("cancelled", SUPERSEDED, 0)
    shop.engines.hears = lambda _: "late"
    await shop.said(15, 17)  # it grows, and is complete again
    await shop.clock.advance(120)
    assert await texts(shop, conversation_id) == ["uno due", "uno due", "late"]
    assert not await ask_final(shop, conversation_id)
    assert shop.engines.final_calls == []


async def test_it_stops_a_final_pass_that_runs(shop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(shop)
    halting = Halting(shop, 2)
    advancing = asyncio.create_task(shop.clock.advance(60))
    await halting.there.wait()
    shop.engines.hears = lambda _: "uno due"
    await send(shop, conversation_id, pcm)
    halting.go.set()
    await advancing
    assert (await last(shop, conversation_id)).state == "cancelled"
    assert await texts(shop, conversation_id) == ["uno due"] * 2
    assert await kinds(shop, conversation_id) == ["live", "final", "reprocessed"]


@pytest.mark.parametrize("broken", [True, False])
async def test_one_of_which_nothing_came_lets_the_final_pass_go_on(
    shop: Workshop, pcm: bytes, broken: bool  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(shop)
    if not broken:
        shop.engines.trouble["decode"] = [EnginePermanent("x")]
    with shop.bus.subscribe() as told:
        batch_id, _ = await send(shop, conversation_id, pcm + b"no audio" * broken)
        await shop.clock.advance(5)
        events = [await told.get() for _ in range(told.waiting)]
    ended = [event.data for event in events if event.kind == "reprocess"][-1]
    assert (ended["id"], ended["state"], ended["final"]) == (batch_id, "failed", False)
    (notice,) = await shop.db.read(notices.active)  # of what was sent in, though a final pass waits behind it
    cure = "--audio FILE` sends another in" if broken else "--upload` tries it again"
    assert cure in notice.message
    shown = await shop.db.read(lambda conn: shapes.postprocessing(conn, conversation_id))
    assert (shown.id, shown.status, shown.model) == (batch_id, "failed", "scripted")
    assert (await last(shop, conversation_id)).state == "queued"
    await shop.clock.advance(60)
    # the final pass hears the conversation's own segments alone, also where the recording is kept
    row = await last(shop, conversation_id)
    assert (row.state, row.done, row.total) == ("done", 3, 3)
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 3


async def test_a_final_pass_does_not_hear_what_was_sent_in(shop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(shop)
    shop.engines.hears = lambda _: "uno due"
    _, upload_id = await send(shop, conversation_id, pcm)
    await shop.clock.advance(5)

    def mixed(conn: Connection) -> set[str]:
        own = {one.segment.id for one in reprocessing.spoken(conn, conversation_id)}
        return own & {one.segment.id for one in uploads.spoken(conn, uploads.get(conn, upload_id))}

    assert await shop.db.read(mixed) == set()
    own = await shop.db.read(lambda conn: reprocessing.spoken(conn, conversation_id))
    assert [one.engine for one in own] == ["scripted"] * 3


async def keep_upload(shop: Workshop, conversation_id: str, pcm: bytes) -> str:  # noqa: F811
    """Have the words of a recording kept beside those that are shown; return their version."""
    shop.engines.trouble["decode"] = [EnginePermanent("x")]
    _, upload_id = await send(shop, conversation_id, pcm)
    await shop.clock.advance(5)
    shop.engines.hears = lambda _: "uno due"
    batch_id, _ = await shop.db.write(
        lambda conn: reprocessing.ask(
            conn, [conversation_id], engine="other", keep=True, actor="uid:1", now_us=shop.clock.utc_us(),
            upload_id=upload_id,
        )
    )  # fmt: skip
    shop.spine.jobs.poke()
    await shop.clock.advance(1)
    row = await state(shop, batch_id)
    assert row.state == "done"
    assert row.version_id is not None
    return row.version_id


async def test_one_that_is_kept_and_chosen_by_hand_stays_though_a_final_pass_waits(
    shop: Workshop, pcm: bytes  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(shop)
    version_id = await keep_upload(shop, conversation_id, pcm)
    assert (await last(shop, conversation_id)).state == "queued"
    await shop.db.write(lambda conn: transcripts.activate(conn, conversation_id, version_id))
    await shop.clock.advance(90)
    row = await last(shop, conversation_id)
    assert (row.state, row.version_id is not None) == ("done", True)  # its words are there to be chosen
    assert await texts(shop, conversation_id) == ["uno due"] * 2
    calls = len(shop.engines.final_calls)
    shop.engines.hears = lambda _: "late"
    await shop.said(15, 17)
    await shop.clock.advance(120)
    assert await texts(shop, conversation_id) == ["uno due", "uno due", "late"]
    assert len(shop.engines.final_calls) == calls  # nor is another asked when it has grown


async def test_a_recording_that_is_coming_is_in_no_final_pass_s_way(shop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(shop)
    batch_id = (await last(shop, conversation_id)).batch_id

    def begin(conn: Connection) -> None:
        reprocessing.cancel(conn, batch_id, START_US)
        conn.execute("DELETE FROM reprocessings")
        uploads.begin(conn, conversation_id, name="talk", start_us=None, client_id=None, now_us=START_US)

    await shop.db.write(begin)
    assert await ask_final(shop, conversation_id)


async def test_recognisers_are_told_of_it_what_they_are_told_of_any(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await workshop.db.write(lambda conn: vocabulary.add(conn, "Zephira", actor="uid:1", now_us=START_US))
    workshop.engines.hinted.clear()
    _, upload_id = await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    assert [(hints.words, hints.language) for hints in workshop.engines.hinted] == [(("Zephira",), "")] * 2

    def name(conn: Connection) -> None:
        row = people.add(conn, "Ada", now_us=START_US, language="fr")
        conn.execute("UPDATE utterances SET person_id = ?", (row.id,))

    await workshop.db.write(name)
    workshop.engines.hinted.clear()
    await workshop.db.write(
        lambda conn: reprocessing.ask(
            conn, [conversation_id], engine="other", keep=False, actor="uid:1", now_us=workshop.clock.utc_us(),
            upload_id=upload_id,
        )
    )  # fmt: skip
    workshop.spine.jobs.poke()
    await workshop.clock.advance(5)
    assert [hints.language for hints in workshop.engines.hinted] == ["fr", "fr"]


async def test_rules_go_over_its_words_and_over_those_beside_it(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    await rule(workshop, "two", "2")
    conversation_id = await spoken(workshop)
    await rule(workshop, "due", "2")
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm[: len(pcm) // 2], start_us=START_US + int(3.5 * SECOND))
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["one 2 three", "uno 2"]
    # of the segments that are not shown nothing is told
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["one two three", "uno due"]
    assert [said(one) for one in await reassembled(workshop, conversation_id)] == ["one two three", "uno due"]


async def reassembled(shop: Workshop, conversation_id: str) -> list[rules.Heard]:  # noqa: F811
    """Return what was heard where rules changed it, once late audio has made another version of the shown one."""
    shop.engines.hears = lambda _: "late"
    await shop.said(15, 17)
    await shop.clock.advance(20)
    assert (await kinds(shop, conversation_id))[-1] == "final"
    return await heard(shop, conversation_id)


async def test_rules_are_applied_to_a_recording_that_is_shown_and_to_what_is_beside_it(
    workshop: Workshop, pcm: bytes  # noqa: F811
) -> None:  # fmt: skip
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm[: len(pcm) // 2], start_us=START_US + int(3.5 * SECOND))
    await workshop.clock.advance(5)
    await correct(workshop, conversation_id, 0, 1, "ONE")
    before = await workshop.db.read(lambda conn: segments.of_conversation(conn, conversation_id))
    speakers = [one.speaker for one in await workshop.utterances(conversation_id)]
    await workshop.db.write(lambda conn: conn.execute("DELETE FROM audio_chunks"))  # they need none
    rule_ids = [await rule(workshop, *one) for one in (("one", "1"), ("two", "2"), ("due", "zwei"))]
    workshop.engines.hears = lambda _: "not asked"
    row = await state(workshop, await apply(workshop, conversation_id))
    assert (row.state, row.done, row.total, row.engine) == ("done", 2, 2, "rules")
    assert await texts(workshop, conversation_id) == ["ONE 2 three", "uno zwei"]
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == speakers == ["SPEAKER_00"] * 2
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["one two three", "uno due"]
    # segments stay as and where they are
    assert await workshop.db.read(lambda conn: segments.of_conversation(conn, conversation_id)) == before
    assert {one.engine for one in before} == {"scripted"}
    told = await workshop.db.read(lambda conn: shapes.postprocessing(conn, conversation_id))
    assert (told.model, told.status) == ("scripted", "completed")  # rules are no second pass
    again = await state(workshop, await apply(workshop, conversation_id))  # nothing is different: no other version
    assert (again.state, again.version_id) == ("done", None)
    for rule_id in rule_ids:
        await workshop.db.write(lambda conn, one=rule_id: rules.remove(conn, one))  # type: ignore[misc]
    await apply(workshop, conversation_id)  # from what was heard, without the rules
    assert await texts(workshop, conversation_id) == ["ONE two three", "uno due"]
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == speakers


async def test_rules_go_over_late_words_beside_it_and_outlive_them(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    workshop.engines.hears = lambda _: "very late"
    await workshop.said(15, 17)
    await workshop.clock.advance(20)
    await rule(workshop, "late", "early")
    row = await state(workshop, await apply(workshop, conversation_id))
    assert (row.state, row.total) == ("done", 3)
    assert await texts(workshop, conversation_id) == ["uno due", "uno due", "very early"]
    await workshop.said(19, 21)
    await workshop.clock.advance(20)
    assert await texts(workshop, conversation_id) == ["uno due", "uno due", "very early", "very early"]


async def test_rules_that_are_called_off_leave_the_recording(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    _, upload_id = await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    await rule(workshop, "due", "zwei")
    await workshop.spine.stop()

    def call_off(conn: Connection) -> int:
        batch_id, _ = reprocessing.ask(
            conn, [conversation_id], engine=reprocessing.RULES, keep=False, actor="uid:1", now_us=START_US
        )
        return reprocessing.cancel(conn, batch_id, START_US)

    assert await workshop.db.write(call_off) == 1
    assert (await workshop.db.read(lambda conn: uploads.get(conn, upload_id))).state == "heard"
    assert await texts(workshop, conversation_id) == ["uno due"] * 2


async def test_its_own_audio_heard_again_replaces_what_was_sent_in(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    await rule(workshop, "two", "2")
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    assert await heard(workshop, conversation_id) == []
    workshop.engines.hears = lambda _: "one two three"
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["one 2 three"] * 3
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["one two three"] * 3
