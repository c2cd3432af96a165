"""What is shown with a recording's words outside its own time: what was shown before it came, and what came late."""

from __future__ import annotations

from omi_edge.store import notices, transcripts
from tests.helpers import START_US
from tests.pipeline.test_final import shop, waiting  # noqa: F401 the fixture
from tests.pipeline.test_reprocess import ask, correct, kinds, spoken, state, texts
from tests.pipeline.test_rules import apply, heard, rule, said
from tests.pipeline.test_sentin import SECOND, pcm, send  # noqa: F401 the fixture
from tests.pipeline.test_spine import Workshop, workshop  # noqa: F401 the fixture

MIDDLE_US = START_US + int(3.5 * SECOND)
"""Half of the recording that begins here speaks for the second and the third segment."""


async def send_half(shop: Workshop, conversation_id: str, pcm: bytes, text: str = "half") -> str:  # noqa: F811
    shop.engines.hears = lambda _: text
    batch_id, _ = await send(shop, conversation_id, pcm[: len(pcm) // 2], start_us=MIDDLE_US)
    await shop.clock.advance(5)
    row = await state(shop, batch_id)
    assert row.state == "done"
    return row.version_id or ""


async def late(shop: Workshop, start: float, text: str = "late") -> None:  # noqa: F811
    shop.engines.hears = lambda _: text
    await shop.said(start, start + 2)
    await shop.clock.advance(20)


async def test_the_words_of_a_second_pass_stay_beside_it(shop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(shop)
    await shop.clock.advance(60)
    assert await texts(shop, conversation_id) == ["eins zwei drei"] * 3
    assert await waiting(shop) == 0
    await send_half(shop, conversation_id, pcm)
    assert await texts(shop, conversation_id) == ["eins zwei drei", "half"]
    for at in (15, 19):
        await late(shop, at)
    assert await texts(shop, conversation_id) == ["eins zwei drei", "half", "late", "late"]


async def test_words_made_anew_stay_beside_it_with_their_corrections(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due tre"
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    await correct(workshop, conversation_id, 0, 1, "UNO")
    before = await workshop.db.read(lambda conn: transcripts.words_of(conn, conversation_id))
    await send_half(workshop, conversation_id, pcm)
    assert await texts(workshop, conversation_id) == ["UNO due tre", "half"]
    assert [row.code for row in await workshop.db.read(notices.active)] == []
    made = await workshop.db.read(lambda conn: transcripts.versions(conn, conversation_id))
    assert [row.base_id for row in made if row.kind == "reprocessed"] == [None, before]
    await late(workshop, 15)
    assert await texts(workshop, conversation_id) == ["UNO due tre", "half", "late"]
    # once more: with what is shown now beside it
    await send_half(workshop, conversation_id, pcm, "whole")
    assert await texts(workshop, conversation_id) == ["UNO due tre", "whole", "late"]
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == ["SPEAKER_00"] * 3


async def test_what_rules_did_to_the_words_beside_it_is_kept_with_them(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await rule(workshop, "tre", "3")
    workshop.engines.hears = lambda _: "uno due tre"
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    await send_half(workshop, conversation_id, pcm)
    assert await texts(workshop, conversation_id) == ["uno due 3", "half"]
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["uno due tre"]
    await late(workshop, 15, "tre")
    assert await texts(workshop, conversation_id) == ["uno due 3", "half", "3"]
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["uno due tre", "tre"]
    await rule(workshop, "due", "2")
    await apply(workshop, conversation_id)
    assert await texts(workshop, conversation_id) == ["uno 2 3", "half", "3"]
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["uno due tre", "tre"]


async def test_the_words_of_another_recording_stay_beside_it(workshop: Workshop, pcm: bytes) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    workshop.engines.hears = lambda _: "uno due"
    await send(workshop, conversation_id, pcm)
    await workshop.clock.advance(5)
    first = await workshop.utterances(conversation_id)
    assert [one.text for one in first] == ["uno due"] * 2
    await rule(workshop, "uno", "1")
    await apply(workshop, conversation_id)
    # it speaks for the time of the second alone
    workshop.engines.hears = lambda _: "half"
    await send(workshop, conversation_id, pcm[: len(pcm) // 2], start_us=first[1].start_us - SECOND // 10)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["1 due", "half"]
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["uno due"]
    await late(workshop, 15)
    assert await texts(workshop, conversation_id) == ["1 due", "half", "late"]
    await rule(workshop, "due", "2")
    await apply(workshop, conversation_id)
    assert await texts(workshop, conversation_id) == ["1 2", "half", "late"]
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == ["SPEAKER_00"] * 3
    assert (await kinds(workshop, conversation_id)).count("live") == 1
