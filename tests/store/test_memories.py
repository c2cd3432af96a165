"""Tasks and memories: derived, edited, made by hand, listed, and proved by the seconds they were heard in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.domain import Evidence, Memory, Task, TaskOwner
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import memories, search, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Filters, Page
from omi_edge.store.memories import MemoryRow, TaskRow
from tests.helpers import START_US
from tests.store.filling import (
    CONVERSATIONS,
    MODEL,
    SECOND,
    SOURCES,
    add_conversation,
    add_source,
    understanding,
    undone,
    utterance,
    vector,
)

CONVERSATION = CONVERSATIONS[0]
HEARD = Evidence("utt_1", START_US + 10 * SECOND, START_US + 12 * SECOND)
CALL = Task(
    "Call the plumber", TaskOwner.OTHER, "Ada", START_US + 99 * SECOND, True, False, "high", "direct_request",
    "remind me", 0.75, (HEARD, Evidence("utt_2", START_US + 20 * SECOND, START_US + 21 * SECOND)),
)  # fmt: skip
WALNUTS = Memory("Ada is allergic to walnuts", "Ada", "health", 0.5, (HEARD,))
LATER_US = START_US + 1000 * SECOND


@pytest.fixture
def conn(conn: Connection) -> Connection:
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    for n in range(2):
        add_conversation(conn, CONVERSATIONS[n], SOURCES[n])
        said = [utterance(f"utt_{n}_{m}", CONVERSATIONS[n], START_US, "x", f"SPEAKER_0{n}") for m in range(2)]
        transcripts.append(conn, transcripts.live_version(conn, CONVERSATIONS[n]), said)
    return conn


def derive(
    conn: Connection, *things: Task | Memory, now_us: int = START_US, conversation_id: str = CONVERSATION
) -> tuple[list[TaskRow], list[MemoryRow]]:
    tasks = tuple(one for one in things if isinstance(one, Task))
    facts = tuple(one for one in things if isinstance(one, Memory))
    return memories.replace_derived(conn, conversation_id, understanding(tasks, facts), now_us=now_us)


def found(conn: Connection, text: str) -> list[str]:
    return [hit.ref_id for hit in search.search(conn, None, text, None)]


def rows(conn: Connection, table: str) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# --- derived ------------------------------------------------------------------------------------------------------


def test_what_was_derived_comes_back_with_all_its_fields_and_its_evidence(conn: Connection) -> None:
    (task,), (fact,) = derive(conn, CALL, WALNUTS)
    assert memories.get_task(conn, task.id) == task
    assert memories.get_memory(conn, fact.id) == fact
    assert (task.description, task.owner, task.owner_name, task.due_us) == (
        "Call the plumber", "other", "Ada", START_US + 99 * SECOND
    )  # fmt: skip
    assert (task.due_has_time, task.due_certain, task.priority, task.kind) == (True, False, "high", "direct_request")
    assert (task.trigger, task.confidence, task.state, task.origin, task.engine) == (
        "remind me", 0.75, "open", "derived", "rules"
    )  # fmt: skip
    assert (task.conversation_id, task.source_id, task.created_us) == (CONVERSATION, SOURCES[0], START_US)
    assert [(e.utterance_id, e.conversation_id, e.source_id, e.offset_s) for e in task.evidence] == [
        ("utt_1", CONVERSATION, SOURCES[0], 10.0), ("utt_2", CONVERSATION, SOURCES[0], 20.0)
    ]  # fmt: skip
    assert (fact.content, fact.subject, fact.category, fact.confidence) == (WALNUTS.content, "Ada", "health", 0.5)
    assert memories.evidence_of(conn, fact.id) == fact.evidence


def test_deriving_again_replaces_what_is_gone_and_keeps_the_id_and_age_of_what_is_the_same(conn: Connection) -> None:
    (task,), (fact,) = derive(conn, CALL, WALNUTS)
    other = Task("Buy stamps", evidence=(HEARD,))
    tasks, facts = derive(conn, other, Task("call THE plumber", evidence=(HEARD,)), now_us=LATER_US)
    assert facts == []
    assert [(one.description, one.id == task.id, one.created_us) for one in tasks] == [
        ("Buy stamps", False, LATER_US), ("call THE plumber", True, START_US)
    ]  # fmt: skip
    assert tasks[1].updated_us == LATER_US
    assert len(tasks[1].evidence) == 1
    with pytest.raises(NotFound):
        memories.get_memory(conn, fact.id)
    assert found(conn, "walnuts") == []
    assert rows(conn, "evidence") == 2


def test_a_task_that_was_ticked_off_is_not_opened_again_by_deriving(conn: Connection) -> None:
    (task,), _ = derive(conn, CALL)
    done = memories.update_task(conn, task.id, LATER_US, state="completed")
    assert (done.origin, done.completed_us) == ("derived", LATER_US)
    (again,), _ = derive(conn, CALL, now_us=LATER_US + SECOND)
    assert (again.id, again.state, again.completed_us) == (task.id, "completed", LATER_US)


def test_what_a_person_edited_or_made_survives_deriving(conn: Connection) -> None:
    (task,), (fact,) = derive(conn, CALL, WALNUTS)
    edited = memories.update_task(conn, task.id, LATER_US, description="Call the electrician")
    assert edited.origin == "edited"
    assert edited.evidence == task.evidence
    changed = memories.update_memory(conn, fact.id, LATER_US, content="Ada is allergic to nuts")
    by_hand = memories.create_memory(conn, content="The key is under the pot", now_us=START_US)
    tasks, facts = derive(conn, msgspec.structs.replace(CALL, description="CALL  the plumber"), WALNUTS)
    assert (tasks, facts) == ([], [])  # a person knew better
    assert memories.get_task(conn, task.id) == edited
    assert memories.get_memory(conn, fact.id) == changed
    assert memories.get_memory(conn, by_hand.id) == by_hand


def test_what_a_person_deleted_is_not_derived_again(conn: Connection) -> None:
    (task,), (fact,) = derive(conn, CALL, WALNUTS)
    memories.delete_task(conn, task.id)
    memories.delete_memory(conn, fact.id)
    assert derive(conn, CALL, WALNUTS) == ([], [])
    assert found(conn, "plumber walnuts") == []
    (elsewhere,), _ = derive(conn, CALL, conversation_id=CONVERSATIONS[1])
    assert elsewhere.description == CALL.description


def test_two_that_say_the_same_leave_nothing_behind_when_derived_again(conn: Connection) -> None:
    derive(conn, CALL, CALL, WALNUTS, WALNUTS)
    assert (rows(conn, "tasks"), rows(conn, "memories")) == (2, 2)
    derive(conn, CALL)
    assert (rows(conn, "tasks"), rows(conn, "memories"), rows(conn, "evidence")) == (1, 0, 2)


def test_deriving_touches_no_other_conversation(conn: Connection) -> None:
    (other,), _ = derive(conn, CALL, conversation_id=CONVERSATIONS[1])
    derive(conn, CALL)
    derive(conn)
    assert memories.get_task(conn, other.id) == other


# --- by hand ------------------------------------------------------------------------------------------------------


def test_a_thing_made_by_hand_needs_no_conversation(conn: Connection) -> None:
    task = memories.create_task(
        conn, description="Buy stamps", now_us=START_US, due_us=LATER_US, due_has_time=True, priority="low"
    )
    assert (task.origin, task.conversation_id, task.source_id, task.evidence) == ("manual", None, None, ())
    assert (task.owner, task.due_us, task.due_has_time, task.priority) == ("user", LATER_US, True, "low")
    fact = memories.create_memory(conn, content="The key is under the pot", now_us=START_US, subject="key")
    assert (fact.origin, fact.subject, fact.category, fact.evidence) == ("manual", "key", "other", ())
    assert found(conn, "stamps") == [task.id]
    assert found(conn, "pot") == [fact.id]


def test_changing_a_text_changes_what_finds_it_and_drops_its_vector(conn: Connection) -> None:
    task = memories.create_task(conn, description="Buy stamps", now_us=START_US)
    number = conn.execute("SELECT id FROM documents WHERE ref_id = ?", (task.id,)).fetchone()[0]
    search.put_vectors(conn, MODEL, [(number, vector(1))])
    changed = memories.update_task(conn, task.id, LATER_US, description="Buy envelopes", due_us=None)
    assert (changed.origin, changed.created_us, changed.updated_us) == ("manual", START_US, LATER_US)
    assert found(conn, "stamps") == []
    assert found(conn, "envelopes") == [task.id]
    assert [text for _, text in search.without_vectors(conn, MODEL, 10)] == ["Buy envelopes"]


def test_completing_and_opening_a_task_keeps_the_moment(conn: Connection) -> None:
    task = memories.create_task(conn, description="Buy stamps", now_us=START_US)
    assert memories.update_task(conn, task.id, LATER_US, state="completed").completed_us == LATER_US
    assert memories.update_task(conn, task.id, LATER_US + 5, state="completed").completed_us == LATER_US
    assert memories.update_task(conn, task.id, LATER_US, state="open").completed_us is None


def test_deleting_takes_evidence_and_index_along(conn: Connection) -> None:
    (task,), (fact,) = derive(conn, CALL, WALNUTS)
    memories.delete_task(conn, task.id)
    memories.delete_memory(conn, fact.id)
    assert {table: rows(conn, table) for table in ("tasks", "memories", "evidence", "documents")} == dict.fromkeys(
        ("tasks", "memories", "evidence", "documents"), 0
    )
    assert found(conn, "plumber walnuts") == []
    for act in (memories.delete_task, memories.get_task):
        with pytest.raises(NotFound):
            act(conn, task.id)
    for act in (memories.delete_memory, memories.get_memory):  # type: ignore[assignment]
        with pytest.raises(NotFound):
            act(conn, fact.id)


@pytest.mark.parametrize(
    "changes",
    [
        {"description": ""}, {"description": " \n"}, {"description": None}, {"state": "half"}, {"owner": "nobody"},
        {"priority": "urgent"}, {"id": "tsk_x"}, {"created_us": 0}, {"state; --": 1},
    ],
)  # fmt: skip
def test_what_a_task_cannot_be_is_refused_and_named(conn: Connection, changes: dict[str, Any]) -> None:
    task = memories.create_task(conn, description="Buy stamps", now_us=START_US)
    with pytest.raises(BadInput) as refused:
        memories.update_task(conn, task.id, LATER_US, **changes)
    assert refused.value.field == next(iter(changes))
    assert memories.get_task(conn, task.id) == task


def test_what_cannot_be_made_is_refused(conn: Connection) -> None:
    with pytest.raises(BadInput):
        memories.create_task(conn, description="  ", now_us=START_US)
    with pytest.raises(BadInput):
        memories.create_task(conn, description="x", owner="nobody", now_us=START_US)
    with pytest.raises(BadInput):
        memories.create_memory(conn, content="", now_us=START_US)
    with pytest.raises(BadInput):
        memories.update_memory(
            conn, memories.create_memory(conn, content="x", now_us=START_US).id, LATER_US, evidence=()
        )
    with pytest.raises(NotFound):
        memories.update_memory(conn, "mem_other", LATER_US, content="x")


# --- lists --------------------------------------------------------------------------------------------------------


def task_ids(conn: Connection, state: str | None = None, **filters: Any) -> list[str]:
    page = memories.list_tasks(conn, filters=Filters(**filters), state=state)
    return [task.id for task in page.items]


def test_lists_are_newest_first_and_every_filter_narrows_them(conn: Connection) -> None:
    (a,), (fact,) = derive(
        conn,
        Task("a", evidence=(Evidence("utt_0_1", START_US, START_US + 1),)),
        Memory("f", "s", evidence=(Evidence("utt_0_0", START_US, START_US + 1),)),
        now_us=LATER_US,  # when it was derived is not when it was said
    )
    (b,), _ = derive(
        conn,
        Task("b", evidence=(Evidence("utt_1_1", START_US + 1, START_US + 2),)),
        now_us=LATER_US,
        conversation_id=CONVERSATIONS[1],
    )
    c = memories.create_task(conn, description="c", now_us=START_US + 2)
    memories.update_task(conn, a.id, LATER_US, state="completed")
    assert task_ids(conn) == [c.id, b.id, a.id]
    assert task_ids(conn, "open") == [c.id, b.id]
    assert task_ids(conn, "completed") == [a.id]
    assert task_ids(conn, source=SOURCES[0]) == [a.id]
    assert task_ids(conn, device="AA:BB") == [a.id]
    assert task_ids(conn, client="cli_x") == []
    assert task_ids(conn, since_us=START_US + 1, until_us=START_US + 2) == [b.id]
    assert task_ids(conn, conversation=CONVERSATIONS[1]) == [b.id]
    assert task_ids(conn, speaker="SPEAKER_01") == [b.id]
    facts = [
        [one.id for one in memories.list_memories(conn, filters=filters).items]
        for filters in (Filters(), Filters(speaker="SPEAKER_00"), Filters(source=SOURCES[1]), Filters(conversation="x"))
    ]
    assert facts == [[fact.id], [fact.id], [], []]


def make_task(conn: Connection, at: int) -> str:
    return memories.create_task(conn, description="x", now_us=START_US + at).id


def make_memory(conn: Connection, at: int) -> str:
    return memories.create_memory(conn, content="x", now_us=START_US + at).id


@pytest.mark.parametrize(("make", "page_of"), [(make_task, memories.list_tasks), (make_memory, memories.list_memories)])
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5), st.lists(st.integers(-2, 6), max_size=6))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_return_each_row_once_even_while_rows_are_added(
    conn: Connection, make: Callable[[Connection, int], str], page_of: Callable[..., Page[Any]], times: list[int],
    limit: int, added: list[int],
) -> None:  # fmt: skip
    with undone(conn):
        made = [make(conn, at) for at in times]
        order = sorted(range(len(times)), key=lambda n: (-times[n], -n))
        seen: list[str] = []
        cursor = None
        for extra in itertools.chain(added, itertools.repeat(None, len(times) + 1)):
            page = page_of(conn, limit=limit, cursor=cursor)
            seen += [one.id for one in page.items]
            cursor = page.next
            if cursor is None:
                break
            if extra is not None:
                make(conn, extra)
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in set(made)] == [made[n] for n in order]


def test_a_page_has_at_least_one_item(conn: Connection) -> None:
    for page_of in (memories.list_tasks, memories.list_memories):
        with pytest.raises(BadInput):
            page_of(conn, limit=0)
