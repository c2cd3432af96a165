"""Rules over what is heard and, on command alone, over what is there; what recognisers are told beforehand."""

from __future__ import annotations

from omi_edge.config import Config
from omi_edge.rewrite import PLAIN, REGEX
from omi_edge.store import corrections, people, reprocessing, rules, transcripts, vocabulary
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Target
from omi_edge.store.rules import Heard
from tests.helpers import START_US
from tests.pipeline.test_reprocess import ask, correct, found, kinds, spoken, state, texts
from tests.pipeline.test_spine import Workshop, workshop  # noqa: F401 the fixture


async def rule(shop: Workshop, pattern: str, replacement: str, kind: str = PLAIN) -> str:
    row = await shop.db.write(
        lambda conn: rules.add(conn, kind, pattern, replacement, actor="uid:1", now_us=shop.clock.utc_us())
    )
    return row.rule.id


async def apply(shop: Workshop, *conversation_ids: str) -> str:
    batch_id, _ = await shop.db.write(
        lambda conn: reprocessing.ask(
            conn, conversation_ids, engine=reprocessing.RULES, keep=False, actor="uid:1", now_us=shop.clock.utc_us()
        )
    )
    shop.spine.jobs.poke()
    await shop.clock.advance(5)
    return batch_id


async def heard(shop: Workshop, conversation_id: str) -> list[Heard]:
    return list((await shop.db.read(lambda conn: rules.heard(conn, conversation_id))).values())


def said(row: Heard) -> str:
    return " ".join(word.text for word in row.words)


async def test_what_is_heard_passes_the_rules_and_the_original_is_kept(workshop: Workshop) -> None:  # noqa: F811
    rule_id = await rule(workshop, "two", "two and a half")
    conversation_id = await spoken(workshop)
    assert await texts(workshop, conversation_id) == ["one two and a half three"] * 3
    assert await kinds(workshop, conversation_id) == ["live", "final"]
    rows = await heard(workshop, conversation_id)
    assert [said(row) for row in rows] == ["one two three"] * 3
    assert {change.rule_id for row in rows for change in row.changes} == {rule_id}
    utterance = (await workshop.utterances(conversation_id))[0]
    starts = [word.start_us for word in utterance.words]
    assert starts == sorted(starts)
    assert utterance.end_us <= START_US + 3_000_000
    assert len(await workshop.db.read(lambda conn: found(conn, "half"))) == 3


async def test_a_rule_reaches_what_is_there_on_command_alone_and_can_be_taken_back(
    workshop: Workshop,  # noqa: F811
) -> None:
    conversation_id = await spoken(workshop)
    rule_id = await rule(workshop, "two", "zwei")
    await workshop.clock.advance(20)
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    row = await state(workshop, await apply(workshop, conversation_id))
    assert (row.state, row.done, row.total, row.engine) == ("done", 3, 3, "rules")
    assert await texts(workshop, conversation_id) == ["one zwei three"] * 3
    assert [one.speaker for one in await workshop.utterances(conversation_id)] == ["SPEAKER_00"] * 3
    assert [said(one) for one in await heard(workshop, conversation_id)] == ["one two three"] * 3
    assert len(await workshop.db.read(lambda conn: found(conn, "zwei"))) == 3
    versions = len(await kinds(workshop, conversation_id))
    again = await state(workshop, await apply(workshop, conversation_id))  # nothing is different: no other version
    assert (again.state, again.version_id, len(await kinds(workshop, conversation_id))) == ("done", None, versions)
    await workshop.db.write(
        lambda conn: transcripts.activate(conn, conversation_id, transcripts.previous(conn, conversation_id) or "")
    )
    assert await texts(workshop, conversation_id) == ["one two three"] * 3
    assert await heard(workshop, conversation_id) == []
    await apply(workshop, conversation_id)
    await workshop.db.write(lambda conn: rules.remove(conn, rule_id))
    await apply(workshop, conversation_id)  # from what was heard, without the rule
    assert await texts(workshop, conversation_id) == ["one two three"] * 3


async def test_rules_need_no_audio(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await workshop.db.write(lambda conn: conn.execute("DELETE FROM audio_chunks"))
    await rule(workshop, "two", "zwei")
    workshop.engines.hears = lambda _: "not asked"
    await apply(workshop, conversation_id)
    assert await texts(workshop, conversation_id) == ["one zwei three"] * 3


async def test_what_was_put_right_by_hand_is_never_changed(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await correct(workshop, conversation_id, 1, 2, "deux")
    await rule(workshop, "two", "zwei")
    await rule(workshop, "deux", "no")
    await apply(workshop, conversation_id)
    assert await texts(workshop, conversation_id) == ["one zwei three", "one deux three", "one zwei three"]
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["one zwei three", "one deux three", "one zwei three"]
    assert await workshop.codes() == []


async def rewrite_all(shop: Workshop, conversation_id: str, text: str) -> str:
    """Put the whole of the first utterance right; return the correction."""
    first = (await shop.utterances(conversation_id))[0].id
    change = await shop.db.write(
        lambda conn: corrections.add(conn, conversation_id, Target(first), text, actor="uid:1", now_us=START_US)
    )
    return change.correction_id


async def test_what_a_person_wrote_and_a_recogniser_then_hears_stays_as_written(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop, "analytical died on Montag")
    meant = "Anna will call Bob on Monday."
    correction_id = await rewrite_all(workshop, conversation_id, meant)
    await rule(workshop, "Bob", "Robert")
    await rule(workshop, "Monday", "Montag")
    workshop.engines.hears = lambda _: meant
    for _ in range(2):
        await ask(workshop, conversation_id)
        await workshop.clock.advance(5)
        assert (await texts(workshop, conversation_id))[:2] == [meant, "Anna will call Robert on Montag."]
        (row,) = await workshop.db.read(lambda conn: corrections.listed(conn, conversation_id))
        assert (row.state, await workshop.codes()) == ("shown", [])
    await workshop.db.write(lambda conn: corrections.undo(conn, correction_id, actor="uid:1", now_us=START_US))
    assert (await texts(workshop, conversation_id))[0] == meant  # nothing else was heard


async def test_no_word_of_an_utterance_that_was_put_right_is_changed(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop, "Peter and Victor will visit the zoo.")
    await rewrite_all(workshop, conversation_id, "Peter and Viktor will visit the zoo.")
    await rule(workshop, "visit", "see")
    await apply(workshop, conversation_id)
    assert (await texts(workshop, conversation_id))[:2] == [
        "Peter and Viktor will visit the zoo.", "Peter and Victor will see the zoo.",
    ]  # fmt: skip


async def test_words_made_anew_and_late_ones_pass_the_rules_too(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    await rule(workshop, "(?i)DUE (tre)", r"2 \1", REGEX)
    workshop.engines.hears = lambda _: "uno due tre"
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    assert await texts(workshop, conversation_id) == ["uno 2 tre"] * 3
    await workshop.said(12, 14)
    await workshop.clock.advance(20)
    assert await texts(workshop, conversation_id) == ["uno 2 tre"] * 4
    assert [said(row) for row in await heard(workshop, conversation_id)] == ["uno due tre"] * 4


async def test_a_segment_is_never_left_without_words(workshop: Workshop) -> None:  # noqa: F811
    await rule(workshop, "um", "")
    conversation_id = await spoken(workshop, "um um")
    assert await texts(workshop, conversation_id) == ["um um"] * 3
    assert await heard(workshop, conversation_id) == []


async def test_recognisers_are_told_what_may_be_said_from_the_next_segment_on(workshop: Workshop) -> None:  # noqa: F811
    workshop.spine.reconfigure(Config(wearer=Config().wearer.__class__(name="Mia")), "UTC")
    await workshop.said(0, 3)
    ada = await workshop.db.write(lambda conn: people.add(conn, "Ada", now_us=START_US, language="fr"))
    await workshop.db.write(lambda conn: vocabulary.add(conn, "Zephira", actor="uid:1", now_us=START_US + 1))
    await workshop.said(4, 7)
    await workshop.db.write(lambda conn: people.forget(conn, ada.id))
    await workshop.said(8, 11)
    assert [hints.words for hints in workshop.engines.hinted] == [
        ("Mia",),
        ("Mia", "Zephira", "Ada"),
        ("Mia", "Zephira"),
    ]
    assert {hints.language for hints in workshop.engines.hinted} == {""}


async def test_the_language_of_who_speaks_is_locked_once_that_is_known(workshop: Workshop) -> None:  # noqa: F811
    conversation_id = await spoken(workshop)
    first, second, third = await workshop.utterances(conversation_id)

    def name(conn: Connection) -> None:
        for person, language, one in (("Ada", "fr", first), ("Bob", "", second)):
            row = people.add(conn, person, now_us=START_US, language=language)
            conn.execute("UPDATE utterances SET person_id = ? WHERE id = ?", (row.id, one.id))

    await workshop.db.write(name)
    workshop.engines.hinted.clear()
    await ask(workshop, conversation_id)
    await workshop.clock.advance(5)
    assert [hints.language for hints in workshop.engines.hinted] == ["fr", "", ""]
    assert third.person_id is None
    assert [set(hints.words) for hints in workshop.engines.hinted] == [{"Ada", "Bob"}] * 3
