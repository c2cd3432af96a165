"""Corrections, versions and reprocessing over the API, each act with its audit row."""

from __future__ import annotations

import pytest

from omi_edge.config import Config, ListenConfig
from omi_edge.domain import ConversationState, Outcome, SpeechSegment, Stage
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import conversations, jobs, segments
from omi_edge.store.connection import Connection
from omi_edge.web import wire
from tests.helpers import START_US
from tests.web.conftest import CONVERSATION, SECOND_UTTERANCE, SOURCE, UTTERANCE, Site

PATH = f"/v1/conversations/{CONVERSATION}"


async def complete(site: Site) -> None:
    def work(conn: Connection) -> None:
        conversations.set_state(conn, CONVERSATION, ConversationState.COMPLETED, closed_by="hand", finished_us=START_US)
        segments.put(conn, SpeechSegment("seg_s", SOURCE, START_US + 1_000_000, START_US + 3_000_000, 2_000_000))
        segments.settle(conn, "seg_s", outcome=Outcome.TEXT, reason=None, engine="t", conversation_id=CONVERSATION)

    await site.controls.opened.write(work)


async def queued(site: Site) -> dict[str, dict[str, int]]:
    return await site.controls.opened.read(jobs.counts)


async def correct(site: Site, text: str, **where: object) -> wire.Corrected:
    new = wire.CorrectionNew(text=text, **where)  # type: ignore[arg-type]
    return await site.unix.request("POST", "/v1/corrections", body=new, returns=wire.Corrected)


async def said(site: Site) -> list[str]:
    text = await site.unix.request("GET", PATH + "/transcript", returns=wire.Transcript)
    return [one.text for one in text.utterances]


async def test_a_correction_is_made_listed_and_undone(site: Site) -> None:
    await complete(site)
    with site.controls.bus.subscribe() as told:
        done = await correct(site, "pears", utterance_id=UTTERANCE, word=5)
        assert (await told.get()).data["id"] == CONVERSATION
    assert [one.text for one in done.utterances] == ["I will bring the pears on Friday"]
    assert (await said(site))[0] == "I will bring the pears on Friday"
    assert (await queued(site))["extract"] == {"queued": 1}
    assert ("poke",) in site.controls.asked
    page = await site.unix.request(
        "GET", "/v1/corrections", query={"conversation": CONVERSATION}, returns=wire.Page[wire.Correction]
    )
    (one,) = page.items
    assert (one, one.before, one.state) == (done.correction, "I will bring the apples on Friday", "shown")
    assert one.by.startswith("uid:")
    undone = await site.unix.request("POST", f"/v1/corrections/{one.id}/undo", returns=wire.Corrected)
    assert (undone.correction.state, (await said(site))[0]) == ("undone", "I will bring the apples on Friday")
    acts = [row[1:] for row in await site.rows()]
    assert [act for act in acts if act[0].startswith("correction")] == [
        ("correction.create", "ok"), ("correction.list", "ok"), ("correction.undo", "ok"),
    ]  # fmt: skip


async def test_a_time_is_put_right_and_an_open_conversation_is_not_understood_yet(site: Site) -> None:
    done = await correct(
        site, "the doctor", conversation_id=CONVERSATION, start="2026-03-02T09:00:13Z", end="2026-03-02T09:00:14.500Z"
    )
    assert done.utterances[0].text != "the dentist is at nine"
    assert "extract" not in await queued(site)


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ({}, "utterance_id"),
        ({"conversation_id": CONVERSATION, "start": "2026-03-02T09:00:13Z"}, "utterance_id"),
        ({"utterance_id": UTTERANCE, "start": "2026-03-02T09:00:13Z"}, "start"),
        ({"utterance_id": UTTERANCE, "to_word": 2}, "word"),
        ({"utterance_id": UTTERANCE, "word": 99}, "word"),
        ({"utterance_id": UTTERANCE, "conversation_id": "con_other"}, "utterance_id"),
    ],
)
async def test_a_correction_that_names_nothing_is_refused(site: Site, where: dict[str, object], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        await correct(site, "x", **where)
    assert caught.value.field == field
    assert (await site.rows())[-1][1:] == ("correction.create", "failed")


async def test_versions_are_listed_shown_compared_and_chosen(site: Site) -> None:
    await complete(site)
    await correct(site, "the doctor is in", utterance_id=SECOND_UTTERANCE)
    found = await site.unix.request("GET", PATH + "/versions", returns=wire.Versions)
    assert [(one.kind, one.active) for one in found.versions][1:] == [("final", False), ("edited", True)]
    assert found.previous == "ver_1"
    edited = found.versions[-1]
    assert edited.base_id == "ver_1"
    old = await site.unix.request("GET", PATH + "/versions/ver_1", returns=wire.Transcript)
    assert [one.text for one in old.utterances][1] == "the dentist is at nine"
    diff = await site.unix.request("GET", PATH + "/diff", returns=wire.Diff)
    assert (diff.before.id, diff.after.id, diff.removed, diff.added) == ("ver_1", edited.id, 3, 2)
    assert next((part.kind, part.text) for part in diff.parts if part.kind != "equal") == ("removed", "dentist")
    with pytest.raises(NotFound):
        await site.unix.request("GET", PATH + "/diff", query={"before": "ver_x"}, returns=wire.Diff)
    await site.unix.request("POST", PATH + "/versions/ver_1/activate", returns=wire.Versions)
    assert (await said(site))[1] == "the dentist is at nine"
    hits = await site.unix.request("GET", "/v1/search", query={"q": "doctor"}, returns=wire.SearchResult)
    assert [hit for hit in hits.hits if hit.kind == "utterance"] == []
    back = await site.unix.request("POST", PATH + "/rollback", returns=wire.Versions)
    assert [one.id for one in back.versions if one.active] == [edited.id]
    assert (await said(site))[1] == "the doctor is in"
    assert (await queued(site))["extract"] == {"queued": 1}
    acts = [act for _, act, _ in await site.rows()]
    assert {"transcript.versions", "transcript.diff", "transcript.activate", "transcript.rollback"} <= set(acts)


async def test_no_version_is_chosen_before_the_conversation_is_complete(site: Site) -> None:
    with pytest.raises(BadInput, match="is open"):
        await site.unix.request("POST", PATH + "/rollback", returns=wire.Versions)


async def test_a_reprocessing_is_asked_for_told_and_called_off(site: Site) -> None:
    await complete(site)
    new = wire.ReprocessNew(conversation_id=CONVERSATION, engine="other", keep=True)
    asked = await site.unix.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)
    assert (asked.state, asked.engine, asked.keep, asked.total) == ("queued", "other", True, 1)
    assert (await queued(site))[Stage.REPROCESS.value] == {"queued": 1}
    assert await site.unix.request("GET", f"/v1/reprocess/{asked.id}", returns=wire.Reprocessing) == asked
    with pytest.raises(BadInput, match="being transcribed anew"):
        await site.unix.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)
    off = await site.unix.request("DELETE", f"/v1/reprocess/{asked.id}", returns=wire.Reprocessing)
    assert (off.state, await queued(site)) == ("cancelled", {"reprocess": {"cancelled": 1}})
    with pytest.raises(BadInput, match="has ended"):
        await site.unix.request("DELETE", f"/v1/reprocess/{asked.id}", returns=wire.Reprocessing)
    page = await site.unix.request("GET", "/v1/reprocess", returns=wire.Page[wire.Reprocessing])
    assert [item.state for item in page.items] == ["cancelled"]


@pytest.mark.parametrize(("final", "engine"), [("", "pocketsphinx"), ("other", "other")])
async def test_the_best_that_is_configured_transcribes_anew(site: Site, final: str, engine: str) -> None:
    site.controls.config = Config(listen=ListenConfig(final=final))
    await complete(site)
    new = wire.ReprocessNew(conversation_id=CONVERSATION)
    assert (await site.unix.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)).engine == engine


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (wire.ReprocessNew(), "conversation_id"),
        (wire.ReprocessNew(conversation_id=CONVERSATION, all=True), "conversation_id"),
        (wire.ReprocessNew(all=True, engine="nobody"), "engine"),
        (wire.ReprocessNew(since="2026-03-03T00:00:00Z", until="2026-03-02T00:00:00Z"), "until"),
        (wire.ReprocessNew(until="2026-03-01T00:00:00Z"), None),
    ],
)
async def test_a_reprocessing_of_nothing_is_refused(site: Site, new: wire.ReprocessNew, field: str | None) -> None:
    with pytest.raises(BadInput) as caught:
        await site.unix.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)
    assert caught.value.field == field
