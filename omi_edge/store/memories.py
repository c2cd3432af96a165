"""Tasks and memories, each with the utterances and the seconds that prove it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from omi_edge.domain import Evidence, Memory, Task, Understanding
from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.store import conversations, search, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Clauses, Filters, Page, check_limit, encode_cursor
from omi_edge.store.search import Document

_TASKS = (
    "SELECT t.id, c.id, t.description, t.owner, t.owner_name, t.due_us, t.due_has_time, t.due_certain, t.priority,"
    " t.kind, t.trigger_phrase, t.confidence, t.state, t.completed_us, t.at_us, t.created_us, t.updated_us, t.origin,"
    " t.engine, o.id, t.n"
    " FROM tasks t LEFT JOIN conversations c ON c.n = t.conversation_n LEFT JOIN sources o ON o.n = t.source_n"
)
_MEMORIES = (
    "SELECT m.id, c.id, m.content, m.subject, m.category, m.confidence, m.at_us, m.created_us, m.updated_us, m.origin,"
    " m.engine, o.id, m.n FROM memories m LEFT JOIN conversations c ON c.n = m.conversation_n"
    " LEFT JOIN sources o ON o.n = m.source_n"
)
STATES = ("open", "completed")
OWNERS = ("user", "other", "unknown")
PRIORITIES = ("low", "medium", "high")


class EvidenceRow(msgspec.Struct, frozen=True):
    """The seconds of audio that prove something."""

    utterance_id: str
    conversation_id: str
    source_id: str
    start_us: int
    end_us: int
    offset_s: float
    """Seconds from the start of the conversation; negative where a recording that was sent in began before."""
    sent_in: str | None = None
    """The source of the recording in which it was said; None for the conversation's own audio."""


class TaskRow(msgspec.Struct, frozen=True):
    """A task as it is stored."""

    id: str
    conversation_id: str | None
    description: str
    owner: str
    owner_name: str | None
    due_us: int | None
    due_has_time: bool
    due_certain: bool
    priority: str
    kind: str
    trigger: str | None
    confidence: float
    state: str
    completed_us: int | None
    at_us: int
    """UTC of the words that prove it; of what a person made, when it was made."""
    created_us: int
    updated_us: int
    origin: str
    """derived, edited or manual."""
    engine: str
    source_id: str | None
    evidence: tuple[EvidenceRow, ...]


class MemoryRow(msgspec.Struct, frozen=True):
    """A memory as it is stored."""

    id: str
    conversation_id: str | None
    content: str
    subject: str
    category: str
    confidence: float
    at_us: int
    """UTC of the words that prove it; of what a person made, when it was made."""
    created_us: int
    updated_us: int
    origin: str
    """derived, edited or manual."""
    engine: str
    source_id: str | None
    evidence: tuple[EvidenceRow, ...]


class _Known(msgspec.Struct, frozen=True):
    """What stays of a derived thing when it is derived again."""

    id: str
    created_us: int
    completed_us: int | None = None


def replace_derived(
    conn: Connection, conversation_id: str, understanding: Understanding, *, now_us: int
) -> tuple[list[TaskRow], list[MemoryRow]]:
    """Put what was derived from a conversation in the place of what was derived before.

    What a person made or edited stays, and what a person edited or deleted is not derived again. A thing that says the
    same as before keeps its id and its age, and a task that was ticked off stays so.
    """
    conversation_n = conversations.number(conn, conversation_id)
    source_id = conversations.get(conn, conversation_id).source_id
    known_tasks = _take_derived(conn, "tasks", "description", conversation_n)
    known_memories = _take_derived(conn, "memories", "content", conversation_n)
    rows = conn.execute("SELECT digest FROM overruled WHERE conversation_n = ?", (conversation_n,))
    overruled = {row[0] for row in rows}
    tasks, memories = [], []
    for task in understanding.tasks:
        if _digest(task.description) not in overruled:
            known = known_tasks.pop(task.description.casefold(), None) or _Known(new_id("tsk", now_us), now_us)
            _insert_task(conn, known, task, conversation_n, understanding.engine, now_us)
            _add_evidence(conn, known.id, conversation_n, task.evidence)
            tasks.append(_indexed_task(conn, known.id, conversation_id, source_id))
    for memory in understanding.memories:
        if _digest(memory.content) not in overruled:
            kept = known_memories.pop(memory.content.casefold(), None) or _Known(new_id("mem", now_us), now_us)
            _insert_memory(conn, kept, memory, conversation_n, understanding.engine, now_us)
            _add_evidence(conn, kept.id, conversation_n, memory.evidence)
            memories.append(_indexed_memory(conn, kept.id, conversation_id, source_id))
    return tasks, memories


def create_task(
    conn: Connection,
    *,
    description: str,
    now_us: int,
    owner: str = "user",
    owner_name: str | None = None,
    due_us: int | None = None,
    due_has_time: bool = False,
    priority: str = "medium",
    client_id: str | None = None,
) -> TaskRow:
    """Make a task by hand. Raises BadInput."""
    _check({"description": description, "owner": owner, "priority": priority})
    thing_id = new_id("tsk", now_us)
    conn.execute(
        "INSERT INTO tasks (id, description, owner, owner_name, due_us, due_has_time, due_certain, priority, kind,"
        " confidence, at_us, created_us, updated_us, origin, engine, client_id)"
        " VALUES (?, ?, ?, ?, ?, ?, 1, ?, 'explicit_command', 1.0, ?, ?, ?, 'manual', '', ?)",
        (
            thing_id,
            description,
            owner,
            owner_name,
            due_us,
            int(due_has_time),
            priority,
            now_us,
            now_us,
            now_us,
            client_id,
        ),
    )
    return _indexed_task(conn, thing_id, None, None)


def create_memory(
    conn: Connection,
    *,
    content: str,
    now_us: int,
    subject: str = "",
    category: str = "other",
    client_id: str | None = None,
) -> MemoryRow:
    """Make a memory by hand. Raises BadInput."""
    _check({"content": content})
    thing_id = new_id("mem", now_us)
    conn.execute(
        "INSERT INTO memories (id, content, subject, category, confidence, at_us, created_us, updated_us, origin,"
        " engine, client_id) VALUES (?, ?, ?, ?, 1.0, ?, ?, ?, 'manual', '', ?)",
        (thing_id, content, subject, category, now_us, now_us, now_us, client_id),
    )
    return _indexed_memory(conn, thing_id, None, None)


def get_task(conn: Connection, task_id: str) -> TaskRow:
    """Return a task. Raises NotFound."""
    row = conn.execute(f"{_TASKS} WHERE t.id = ?", (task_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such task.")
    return _task(conn, row)


def get_memory(conn: Connection, memory_id: str) -> MemoryRow:
    """Return a memory. Raises NotFound."""
    row = conn.execute(f"{_MEMORIES} WHERE m.id = ?", (memory_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such memory.")
    return _memory(conn, row)


def update_task(conn: Connection, task_id: str, now_us: int, **changes: Any) -> TaskRow:
    """Change fields of a task. Raises NotFound or BadInput."""
    before = get_task(conn, task_id)
    _check(changes)
    if "state" in changes and changes["state"] != before.state:
        changes["completed_us"] = now_us if changes["state"] == "completed" else None
    if "description" in changes:
        _overrule(conn, before.conversation_id, before.origin, before.description)
    _update(conn, "tasks", task_id, now_us, changes, before.origin)
    return _indexed_task(conn, task_id, before.conversation_id, before.source_id)


def update_memory(conn: Connection, memory_id: str, now_us: int, **changes: Any) -> MemoryRow:
    """Change fields of a memory. Raises NotFound or BadInput."""
    before = get_memory(conn, memory_id)
    _check(changes)
    if "content" in changes:
        _overrule(conn, before.conversation_id, before.origin, before.content)
    _update(conn, "memories", memory_id, now_us, changes, before.origin)
    return _indexed_memory(conn, memory_id, before.conversation_id, before.source_id)


def delete_task(conn: Connection, task_id: str) -> None:
    """Delete a task with its evidence, full-text entry and vector. Raises NotFound."""
    before = get_task(conn, task_id)
    _overrule(conn, before.conversation_id, before.origin, before.description)
    _remove(conn, "tasks", task_id)


def delete_memory(conn: Connection, memory_id: str) -> None:
    """Delete a memory with its evidence, full-text entry and vector. Raises NotFound."""
    before = get_memory(conn, memory_id)
    _overrule(conn, before.conversation_id, before.origin, before.content)
    _remove(conn, "memories", memory_id)


def evidence_of(conn: Connection, thing_id: str) -> tuple[EvidenceRow, ...]:
    """Return what proves a task or a memory, in order; nothing for what was written by hand."""
    rows = conn.execute(
        "SELECT e.utterance_id, c.id, o.id, e.start_us, e.end_us, c.started_us FROM evidence e"
        " JOIN conversations c ON c.n = e.conversation_n JOIN sources o ON o.n = c.source_n"
        " WHERE e.thing_id = ? ORDER BY e.n",
        (thing_id,),
    )
    return tuple(
        EvidenceRow(
            utterance_id, conversation_id, source_id, start_us, end_us, (start_us - started_us) / 1e6,
            uploads.said_in(conn, utterance_id),
        )
        for utterance_id, conversation_id, source_id, start_us, end_us, started_us in rows
    )  # fmt: skip


def list_tasks(
    conn: Connection, *, filters: Filters = Filters(), state: str | None = None, limit: int = 50,  # noqa: B008 frozen
    cursor: str | None = None,
) -> Page[TaskRow]:  # fmt: skip
    """Return a page of tasks, the newest first. Raises BadInput for a cursor or limit that cannot be."""
    check_limit(limit)
    clauses = _list_clauses("t", filters, cursor)
    if state is not None:
        clauses.add("t.state = ?", state)
    rows = conn.execute(
        f"{_TASKS} {clauses.where()} ORDER BY t.at_us DESC, t.n DESC LIMIT ?", (*clauses.values, limit + 1)
    ).fetchall()
    items = [_task(conn, row) for row in rows[:limit]]
    return Page(items, encode_cursor(items[-1].at_us, rows[limit - 1][-1]) if len(rows) > limit else None)


def list_memories(
    conn: Connection, *, filters: Filters = Filters(), limit: int = 50, cursor: str | None = None  # noqa: B008 frozen
) -> Page[MemoryRow]:  # fmt: skip
    """Return a page of memories, the newest first. Raises BadInput for a cursor or limit that cannot be."""
    check_limit(limit)
    clauses = _list_clauses("m", filters, cursor)
    rows = conn.execute(
        f"{_MEMORIES} {clauses.where()} ORDER BY m.at_us DESC, m.n DESC LIMIT ?", (*clauses.values, limit + 1)
    ).fetchall()
    items = [_memory(conn, row) for row in rows[:limit]]
    return Page(items, encode_cursor(items[-1].at_us, rows[limit - 1][-1]) if len(rows) > limit else None)


def _overrule(conn: Connection, conversation_id: str | None, origin: str, text: str) -> None:
    """Note that a person knows better than what was derived."""
    if origin == "derived" and conversation_id is not None:
        conn.execute(
            "INSERT OR IGNORE INTO overruled (conversation_n, digest) VALUES (?, ?)",
            (conversations.number(conn, conversation_id), _digest(text)),
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).digest()


def _list_clauses(table: str, filters: Filters, cursor: str | None) -> Clauses:
    clauses = Clauses()
    clauses.add_source(f"{table}.source_n", filters)
    clauses.add_times(f"{table}.at_us", filters)
    clauses.add_cursor(f"{table}.at_us, {table}.n", cursor)
    if filters.conversation is not None:
        clauses.add(f"{table}.conversation_n = (SELECT n FROM conversations WHERE id = ?)", filters.conversation)
    if filters.speaker is not None:
        clauses.add(
            f"EXISTS (SELECT 1 FROM evidence e JOIN utterances u ON u.id = e.utterance_id WHERE e.thing_id = {table}.id"
            " AND u.speaker = ?)",
            filters.speaker,
        )
    return clauses


def _take_derived(conn: Connection, table: str, column: str, conversation_n: int) -> dict[str, _Known]:
    """Remove what was derived; return what stays of it by its text."""
    completed = "completed_us" if table == "tasks" else "NULL"
    rows = conn.execute(
        f"SELECT {column}, id, created_us, {completed} FROM {table} WHERE conversation_n = ? AND origin = 'derived'"
        " ORDER BY n DESC",  # of several that say the same the oldest is the one that is known
        (conversation_n,),
    ).fetchall()
    for row in rows:
        _remove(conn, table, row[1])
    return {text.casefold(): _Known(thing_id, created_us, done_us) for text, thing_id, created_us, done_us in rows}


def _insert_task(conn: Connection, known: _Known, task: Task, conversation_n: int, engine: str, now_us: int) -> None:
    conn.execute(
        "INSERT INTO tasks (id, conversation_n, source_n, description, owner, owner_name, due_us, due_has_time,"
        " due_certain, priority, kind, trigger_phrase, confidence, state, completed_us, at_us, created_us, updated_us,"
        " origin, engine) VALUES (?, ?, (SELECT source_n FROM conversations WHERE n = ?),"
        " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'derived', ?)",
        (
            known.id, conversation_n, conversation_n, task.description, task.owner.value, task.owner_name, task.due_us,
            int(task.due_has_time), int(task.due_certain), task.priority, task.kind, task.trigger, task.confidence,
            "open" if known.completed_us is None else "completed", known.completed_us,
            _said_us(task.evidence, known.created_us), known.created_us, now_us, engine,
        ),
    )  # fmt: skip


def _insert_memory(
    conn: Connection, known: _Known, memory: Memory, conversation_n: int, engine: str, now_us: int
) -> None:
    conn.execute(
        "INSERT INTO memories (id, conversation_n, source_n, content, subject, category, confidence, at_us, created_us,"
        " updated_us, origin, engine) VALUES (?, ?, (SELECT source_n FROM conversations WHERE n = ?),"
        " ?, ?, ?, ?, ?, ?, ?, 'derived', ?)",
        (
            known.id, conversation_n, conversation_n, memory.content, memory.subject, memory.category,
            memory.confidence, _said_us(memory.evidence, known.created_us), known.created_us, now_us, engine,
        ),
    )  # fmt: skip


def _said_us(evidence: Sequence[Evidence], otherwise_us: int) -> int:
    return evidence[0].start_us if evidence else otherwise_us


def _add_evidence(conn: Connection, thing_id: str, conversation_n: int, evidence: Sequence[Evidence]) -> None:
    conn.executemany(
        "INSERT INTO evidence (thing_id, n, utterance_id, conversation_n, start_us, end_us) VALUES (?, ?, ?, ?, ?, ?)",
        [(thing_id, n, e.utterance_id, conversation_n, e.start_us, e.end_us) for n, e in enumerate(evidence)],
    )


def _indexed_task(conn: Connection, thing_id: str, conversation_id: str | None, source_id: str | None) -> TaskRow:
    row = get_task(conn, thing_id)
    _index(conn, thing_id, "task", row.description, row.created_us, row.evidence, conversation_id, source_id)
    return row


def _indexed_memory(conn: Connection, thing_id: str, conversation_id: str | None, source_id: str | None) -> MemoryRow:
    row = get_memory(conn, thing_id)
    _index(conn, thing_id, "memory", row.content, row.created_us, row.evidence, conversation_id, source_id)
    return row


def _index(
    conn: Connection,
    thing_id: str,
    kind: str,
    text: str,
    created_us: int,
    evidence: Sequence[EvidenceRow],
    conversation_id: str | None,
    source_id: str | None,
) -> None:
    start_us, end_us = (evidence[0].start_us, evidence[0].end_us) if evidence else (created_us, created_us)
    search.put_documents(conn, [Document(thing_id, kind, conversation_id, source_id, start_us, end_us, None, text)])


def _remove(conn: Connection, table: str, thing_id: str) -> None:
    search.remove_documents(conn, [thing_id])
    conn.execute("DELETE FROM evidence WHERE thing_id = ?", (thing_id,))
    conn.execute(f"DELETE FROM {table} WHERE id = ?", (thing_id,))


_CHANGEABLE = {
    "tasks": ("description", "owner", "owner_name", "due_us", "due_has_time", "due_certain", "priority", "state",
              "completed_us"),
    "memories": ("content", "subject", "category"),
}  # fmt: skip


def _update(conn: Connection, table: str, thing_id: str, now_us: int, changes: dict[str, Any], origin: str) -> None:
    unknown = set(changes) - set(_CHANGEABLE[table])
    if unknown:
        raise BadInput(f"{', '.join(sorted(unknown))} cannot be changed.", sorted(unknown)[0])
    names = ["updated_us", "origin", *changes]
    # ticking a task off is not editing it: what it says is still what was derived
    told = "edited" if origin == "derived" and set(changes) - {"state", "completed_us"} else origin
    conn.execute(
        f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?",
        (now_us, told, *changes.values(), thing_id),
    )


def _check(fields: dict[str, Any]) -> None:
    for name in ("description", "content"):
        if name in fields and not (isinstance(fields[name], str) and fields[name].strip()):
            raise BadInput(f"{name} must hold some text.", name)
        if "\0" in str(fields.get(name, "")):
            raise BadInput(f"{name} must not hold a NUL character.", name)
    for name, allowed in (("state", STATES), ("owner", OWNERS), ("priority", PRIORITIES)):
        if name in fields and fields[name] not in allowed:
            raise BadInput(f"{name} must be one of {', '.join(allowed)}.", name)


def _task(conn: Connection, row: Sequence[Any]) -> TaskRow:
    fields = dict(zip(TaskRow.__struct_fields__, row[:-1], strict=False))
    return msgspec.convert({**fields, "evidence": evidence_of(conn, row[0])}, TaskRow, strict=False)


def _memory(conn: Connection, row: Sequence[Any]) -> MemoryRow:
    fields = dict(zip(MemoryRow.__struct_fields__, row[:-1], strict=False))
    return msgspec.convert({**fields, "evidence": evidence_of(conn, row[0])}, MemoryRow, strict=False)
