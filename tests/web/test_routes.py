"""Every route over real HTTP: its good answer, and its audit row."""

from __future__ import annotations

import json

import msgspec
import pytest

from omi_edge.errors import BadInput, NotFound
from omi_edge.store import notices as store_notices
from omi_edge.web import wire
from omi_edge.web.route import Access
from omi_edge.web.table import ROUTES
from tests.web.conftest import ADDRESS, BEGAN_US, CONVERSATION, SECOND_UTTERANCE, SOURCE, UTTERANCE, Site
from tests.web.test_transcripts import complete


async def test_conversations_are_listed_with_source_and_speakers(site: Site) -> None:
    page = await site.unix.request("GET", "/v1/conversations", returns=wire.Page[wire.ConversationItem])
    (item,) = page.items
    assert page.next is None
    assert (item.id, item.title, item.seconds, item.source.device_id) == (CONVERSATION, "Apples", 18.0, ADDRESS)
    assert item.start == "2026-03-02T09:00:01.000Z"
    assert {(s.label, s.seconds) for s in item.speakers} == {("SPEAKER_00", 4.0), ("SPEAKER_01", 3.5)}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"source": SOURCE}, 1),
        ({"source": "src_other"}, 0),
        ({"device": ADDRESS}, 1),
        ({"device": "dev_2"}, 0),
        ({"client": "cli_1"}, 0),
        ({"speaker": "SPEAKER_01"}, 1),
        ({"speaker": "SPEAKER_07"}, 0),
        ({"since": "2026-03-02T09:00:00Z", "until": "2026-03-02T10:00:00+00:00"}, 1),
        ({"until": "2026-03-02T08:00:00Z"}, 0),
    ],
)
async def test_conversations_are_filtered(site: Site, query: dict[str, str], count: int) -> None:
    page = await site.unix.request("GET", "/v1/conversations", query=query, returns=wire.Page[wire.ConversationItem])
    assert len(page.items) == count


@pytest.mark.parametrize("listed", ["conversations", "tasks", "memories"])
async def test_lists_are_counted_by_source(site: Site, listed: str) -> None:
    query = {"group_by": "source"}
    page = await site.unix.request("GET", f"/v1/{listed}", query=query, returns=wire.Page[wire.Group])
    (group,) = page.items
    assert (group.source.id, group.source.kind) == (SOURCE, "pendant")
    assert (group.conversations, group.tasks, group.memories) == (1, 1, 1)
    none = await site.unix.request("GET", f"/v1/{listed}?device=other", query=query, returns=wire.Page[wire.Group])
    assert none.items == []


async def test_a_conversation_comes_with_what_was_derived(site: Site) -> None:
    found = await site.unix.request("GET", f"/v1/conversations/{CONVERSATION}", returns=wire.Conversation)
    (task,), (memory,) = found.tasks, found.memories
    assert (task.description, task.owner, task.due) == ("Bring the apples", "user", "2026-03-03T09:00:00.000Z")
    assert memory.subject == "dentist"
    (span,) = task.evidence
    assert (span.utterance_id, span.offset) == (UTTERANCE, 0.0)
    assert span.audio == f"/v1/conversations/{CONVERSATION}/audio?from=0.000&to=4.000"
    assert b"".join([piece async for piece in site.unix.stream(span.audio)]).startswith(b"OggS")


async def test_a_transcript_has_words_with_offsets(site: Site) -> None:
    text = await site.unix.request("GET", f"/v1/conversations/{CONVERSATION}/transcript", returns=wire.Transcript)
    assert (text.version.id, text.version.active) == ("ver_1", True)
    second = text.utterances[1]
    assert (second.id, second.offset, second.seconds) == (SECOND_UTTERANCE, 12.5, 3.5)
    assert [word.text for word in second.words] == "the dentist is at nine".split()
    assert second.words[1].start == 13.2


async def test_an_open_conversation_is_ended_once(site: Site) -> None:
    path = f"/v1/conversations/{CONVERSATION}/close"
    closed = await site.unix.request("POST", path, returns=wire.Conversation)
    assert (closed.state, closed.closed_by, site.controls.closed) == ("processing", "hand", [CONVERSATION])
    with pytest.raises(BadInput):
        await site.unix.request("POST", path, returns=wire.Conversation)
    assert [row[1:] for row in await site.rows()] == [("conversation.close", "ok"), ("conversation.close", "failed")]


async def test_a_task_lives_through_the_api(site: Site) -> None:
    with site.controls.bus.subscribe() as told:
        new = wire.TaskNew(description="Buy bread", due="2026-03-05", priority="high")
        made = await site.unix.request("POST", "/v1/tasks", body=new, returns=wire.TaskItem)
        assert (made.origin, made.state, made.due_has_time, made.priority) == ("manual", "open", False, "high")
        path = f"/v1/tasks/{made.id}"
        assert await site.unix.request("GET", path, returns=wire.TaskItem) == made
        change = wire.TaskChange(state="completed", due="2026-03-05T10:00:00+01:00")
        changed = await site.unix.request("PATCH", path, body=change, returns=wire.TaskItem)
        assert (changed.description, changed.state, changed.due) == (
            "Buy bread",
            "completed",
            "2026-03-05T09:00:00.000Z",
        )
        assert changed.due_has_time
        assert changed.completed is not None
        cleared = await site.unix.request("PATCH", path, body=wire.TaskChange(due=None), returns=wire.TaskItem)
        assert cleared.due is None
        await site.unix.request("DELETE", path, returns=type(None))
        with pytest.raises(NotFound):
            await site.unix.request("GET", path, returns=wire.TaskItem)
        assert [(await told.get()).data["act"] for _ in range(4)] == ["created", "changed", "changed", "deleted"]


async def test_tasks_are_listed_by_state(site: Site) -> None:
    for state, count in (("open", 1), ("completed", 0)):
        page = await site.unix.request("GET", "/v1/tasks", query={"state": state}, returns=wire.Page[wire.TaskItem])
        assert len(page.items) == count


async def test_a_memory_lives_through_the_api(site: Site) -> None:
    new = wire.MemoryNew(content="Ada likes tea", subject="Ada")
    made = await site.unix.request("POST", "/v1/memories", body=new, returns=wire.MemoryItem)
    path = f"/v1/memories/{made.id}"
    change = wire.MemoryChange(content="Ada likes coffee")
    changed = await site.unix.request("PATCH", path, body=change, returns=wire.MemoryItem)
    assert (changed.content, changed.subject) == ("Ada likes coffee", "Ada")
    assert await site.unix.request("GET", path, returns=wire.MemoryItem) == changed
    await site.unix.request("DELETE", path, returns=type(None))
    with pytest.raises(NotFound):
        await site.unix.request("GET", path, returns=wire.MemoryItem)


async def test_pages_follow_one_another_without_gap_or_repetition(site: Site) -> None:
    made = []
    for number in range(5):
        new = wire.MemoryNew(content=f"fact {number}")
        made.append((await site.unix.request("POST", "/v1/memories", body=new, returns=wire.MemoryItem)).id)
        await site.controls.clock.advance(1)
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 2, "cursor": cursor}
        page = await site.unix.request("GET", "/v1/memories", query=query, returns=wire.Page[wire.MemoryItem])
        assert len(page.items) <= 2
        seen += [item.id for item in page.items]
        if (cursor := page.next) is None:
            break
    assert seen[:5] == made[::-1]
    assert len(seen) == len(set(seen)) == 6


async def test_a_search_hit_points_at_its_audio(site: Site) -> None:
    result = await site.unix.request("GET", "/v1/search", query={"q": "dentist"}, returns=wire.SearchResult)
    hit = next(hit for hit in result.hits if hit.kind == "utterance")
    assert (hit.id, hit.conversation_title, hit.source and hit.source.id) == (SECOND_UTTERANCE, "Apples", SOURCE)
    assert hit.span is not None
    assert (hit.span.offset, hit.span.utterance_id) == (12.5, SECOND_UTTERANCE)
    memory = next(hit for hit in result.hits if hit.kind == "memory")
    assert memory.span is not None
    assert memory.span.utterance_id == UTTERANCE


async def test_a_search_text_is_never_a_syntax_error(site: Site) -> None:
    for text in ('"', "a AND", "NEAR(", "*", "x:y", "'; drop table", "-"):
        found = await site.unix.request("GET", "/v1/search", query={"q": text}, returns=wire.SearchResult)
        assert found.query == text


async def test_sources_and_vault_are_told(site: Site) -> None:
    page = await site.unix.request("GET", "/v1/sources", returns=wire.Page[wire.SourceItem])
    assert [(source.id, source.kind, source.audio_bytes > 0) for source in page.items] == [(SOURCE, "pendant", True)]
    tables = await site.unix.request("GET", "/v1/vault", returns=dict[str, int])
    assert tables["conversations"] == 1
    assert tables["utterances"] == 2


async def test_a_notice_is_acknowledged(site: Site) -> None:
    page = await site.unix.request("GET", "/v1/notices", returns=wire.Page[wire.NoticeItem])
    (notice,) = page.items
    assert (notice.code, notice.subjects, notice.acknowledged) == ("disk_full", [SOURCE], None)
    taken = await site.unix.request("POST", f"/v1/notices/{notice.id}/acknowledge", returns=wire.NoticeItem)
    assert taken.acknowledged == "2026-03-02T10:00:00.000Z"
    (active,) = await site.controls.opened.read(store_notices.active)
    assert active.acknowledged_us is not None


async def test_the_export_is_one_document(site: Site) -> None:
    pieces = [piece async for piece in site.unix.stream("/v1/export")]
    document = json.loads(b"".join(pieces))
    assert (document["schema"], document["version"]) == ("omi-edge.export", 1)
    assert CONVERSATION in json.dumps(document["conversations"])


async def test_status_is_told(site: Site) -> None:
    assert (await site.unix.request("GET", "/v1/status", returns=wire.Status)).state == "running"


async def reprocessing_of(site: Site) -> str:
    """Have something transcribed anew, as far as the store is concerned; return its id."""
    await complete(site)
    new = wire.ReprocessNew(conversation_id=CONVERSATION)
    return (await site.unix.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)).id


async def test_every_content_route_leaves_one_row(site: Site) -> None:
    gets = [
        r
        for r in ROUTES
        if r.method == "GET" and r.access is Access.CONTENT and r.path != "/v1/events" and not r.upgrade
    ]
    site.controls.begun["src_1"] = ("talk", BEGAN_US, True, None)
    task = (await site.unix.request("GET", "/v1/tasks", returns=wire.Page[wire.TaskItem])).items[0].id
    memory = (await site.unix.request("GET", "/v1/memories", returns=wire.Page[wire.MemoryItem])).items[0].id
    subjects = {
        "conversations": CONVERSATION,
        "tasks": task,
        "memories": memory,
        "imports": "src_1",
        "devices": ADDRESS,
        "reprocess": await reprocessing_of(site),
    }
    for route in gets:
        before = await site.rows()
        kind = "conversations" if route.path.endswith("/post-processing") else route.path.split("/")[2]
        path = route.path.replace("{id}", subjects.get(kind, ""))
        path = path.replace("{version}", "ver_1")
        query = {"/v1/search": {"q": "apples"}, "/v1/corrections": {"conversation": CONVERSATION}}.get(path)
        async for _ in site.unix.stream(path, query=query):
            pass
        new = (await site.rows())[len(before) :]
        assert [(act, outcome) for _, act, outcome in new] == [(route.act, "ok")], route.path
        assert new[0][0].startswith("uid:")


async def test_only_what_is_no_content_goes_unaudited(site: Site) -> None:
    unaudited = [route for route in ROUTES if route.access is not Access.CONTENT]
    assert {route.path for route in unaudited} == {"/health", "/readiness", "/openapi.json", "/api/auth/config"}
    for route in unaudited:
        await site.unix.request("GET", route.path, returns=msgspec.Raw)
    assert await site.rows() == []
