"""Rules, people and what is offered, over the API, each act with its audit row."""

from __future__ import annotations

import pytest

from omi_edge.errors import BadInput, NotFound
from omi_edge.store import corrections, rules, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Target
from omi_edge.web import wire, wordwire
from tests.helpers import START_US
from tests.web.conftest import CONVERSATION, Site
from tests.web.test_transcripts import PATH, complete, queued, said

New = wordwire.RuleNew


async def add(site: Site, new: wordwire.RuleNew) -> wordwire.Rule:
    return await site.unix.request("POST", "/v1/rules", body=new, returns=wordwire.Rule)


async def tried(site: Site, text: str, rule: wordwire.RuleNew | None = None) -> wordwire.RuleTried:
    body = wordwire.RuleTry(text=text, rule=rule)
    return await site.unix.request("POST", "/v1/rules/try", body=body, returns=wordwire.RuleTried)


async def test_rules_are_added_tried_listed_and_removed(site: Site) -> None:
    before = await said(site)
    one = await add(site, New(pattern="see phi", replacement="Zephi"))
    two = await add(site, New(pattern=r"(\d+) euros?", replacement=r"€\1", kind="regex"))
    assert one.by.startswith("uid:")
    page = await site.unix.request("GET", "/v1/rules", returns=wire.Page[wordwire.Rule])
    assert page.items == [one, two]
    found = await tried(site, "See  phi owes 5 euros")
    assert (found.before, found.after) == ("See phi owes 5 euros", "Zephi owes €5")
    assert [(c.rule_id, c.before, c.after) for c in found.changes] == [
        (one.id, "See phi", "Zephi"), (two.id, "5 euros", "€5"),
    ]  # fmt: skip
    alone = await tried(site, "see phi now", New(pattern="now", replacement="then"))
    assert (alone.after, alone.changes[0].rule_id) == ("see phi then", "")
    await site.unix.request("DELETE", f"/v1/rules/{one.id}", returns=type(None))
    assert (await tried(site, "see phi")).changes == []
    with pytest.raises(NotFound):
        await site.unix.request("DELETE", f"/v1/rules/{one.id}", returns=type(None))
    assert await said(site) == before  # nothing of it unasked
    acts = [act for _, act, outcome in await site.rows() if outcome == "ok"]
    assert {"rules.add", "rules.list", "rules.try", "rules.remove"} <= set(acts)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (New(pattern="a(b", kind="regex"), "character 2"),
        (New(pattern="(a)", replacement=r"\2", kind="regex"), "no such group"),
        (New(pattern="?!"), "needs a letter"),
    ],
)
async def test_a_faulty_rule_is_told_with_the_place_and_without_the_text(site: Site, new: New, said: str) -> None:
    for sent in (add(site, new), tried(site, "some text", new)):
        with pytest.raises(BadInput, match=said) as caught:
            await sent
        assert caught.value.field in ("pattern", "replacement")


async def test_a_text_that_is_too_long_is_not_tried(site: Site) -> None:
    with pytest.raises(BadInput, match="shorter"):
        await tried(site, "a " * 1001)


async def test_rules_are_applied_to_what_is_there_on_command(site: Site) -> None:
    await complete(site)
    await add(site, New(pattern="apples", replacement="pears"))
    for wrong in (wordwire.RulesApply(), wordwire.RulesApply(conversation_id=CONVERSATION, all=True)):
        with pytest.raises(BadInput, match="name one of these"):
            await site.unix.request("POST", "/v1/rules/apply", body=wrong, returns=wire.Reprocessing)
    assert "reprocess" not in await queued(site)
    body = wordwire.RulesApply(conversation_id=CONVERSATION)
    asked = await site.unix.request("POST", "/v1/rules/apply", body=body, returns=wire.Reprocessing)
    assert (asked.state, asked.engine, asked.total) == ("queued", "rules", 1)
    assert (await queued(site))["reprocess"] == {"queued": 1}
    assert await site.unix.request("GET", f"/v1/reprocess/{asked.id}", returns=wire.Reprocessing) == asked
    with pytest.raises(BadInput, match="being transcribed anew"):
        await site.unix.request(
            "POST", "/v1/rules/apply", body=wordwire.RulesApply(all=True), returns=wire.Reprocessing
        )


async def test_a_transcript_tells_what_was_heard(site: Site) -> None:
    await add(site, New(pattern="apples", replacement="pears"))

    def change(conn: Connection) -> None:
        one = transcripts.utterances(conn, CONVERSATION)[0]
        rules.note(
            conn, transcripts.live_version(conn, CONVERSATION), one.segment_id, one.words,
            rules.rewritten(conn, one.segment_id, one.words),
        )  # fmt: skip

    await site.controls.opened.write(change)
    for path in (PATH + "/transcript", PATH + "/versions/ver_1"):
        found = await site.unix.request("GET", path, returns=wire.Transcript)
        (heard,) = found.heard
        assert heard.heard == "I will bring the apples on Friday"
        assert [(c.rule, c.before, c.after) for c in heard.changes] == [("apples → pears", "apples", "pears")]


async def test_people_are_added_changed_and_forgotten(site: Site) -> None:
    new = wordwire.PersonNew(name="Ada", language="fr")
    ada = await site.unix.request("POST", "/v1/people", body=new, returns=wordwire.Person)
    assert (ada.name, ada.language, ada.is_user) == ("Ada", "fr", False)
    path = f"/v1/people/{ada.id}"
    change = wordwire.PersonChange(name="Grace", language="")
    grace = await site.unix.request("PATCH", path, body=change, returns=wordwire.Person)
    assert (grace.id, grace.name, grace.language) == (ada.id, "Grace", "")
    page = await site.unix.request("GET", "/v1/people", returns=wire.Page[wordwire.Person])
    assert grace in page.items
    for wrong in (wordwire.PersonChange(language="f1"), wordwire.PersonChange(name=" ")):
        with pytest.raises(BadInput):
            await site.unix.request("PATCH", path, body=wrong, returns=wordwire.Person)
    await site.unix.request("DELETE", path, returns=type(None))
    with pytest.raises(NotFound):
        await site.unix.request("PATCH", path, body=change, returns=wordwire.Person)
    acts = [act for _, act, outcome in await site.rows() if outcome == "ok"]
    assert {"people.add", "people.change", "people.list", "people.forget"} <= set(acts)


async def test_what_is_offered_is_dismissed_for_ever(site: Site) -> None:
    def correct(conn: Connection) -> None:
        for n, word in enumerate((5, 7)):
            first = transcripts.utterances(conn, CONVERSATION)[0]
            target = Target(first.id, word=word)
            corrections.add(conn, CONVERSATION, target, f"zephyr{n}", actor="uid:1", now_us=START_US)
        for word in (5, 7):
            first = transcripts.utterances(conn, CONVERSATION)[0]
            text = f"zephyr {word}"
            corrections.add(conn, CONVERSATION, Target(first.id, word=word), text, actor="uid:1", now_us=START_US)

    await site.controls.opened.write(correct)
    body = wordwire.Dismissal("mar", "Marguerite")
    with pytest.raises(NotFound, match="not offered"):
        await site.unix.request("POST", "/v1/vocabulary/dismiss", body=body, returns=type(None))
    offered = (await site.unix.request("GET", "/v1/vocabulary", returns=wire.Vocabulary)).suggestions
    for one in offered:
        body = wordwire.Dismissal(one.before, one.after)
        await site.unix.request("POST", "/v1/vocabulary/dismiss", body=body, returns=type(None))
    assert (await site.unix.request("GET", "/v1/vocabulary", returns=wire.Vocabulary)).suggestions == []
