"""The audit only grows, and an act that cannot be audited does not happen."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.errors import BadInput, DiskFull, VaultError
from omi_edge.store import audit, memories
from omi_edge.store.audit import AuditEntry
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from tests.helpers import START_US
from tests.store.filling import undone

ENTRY = AuditEntry("uid:1000", "owner", "memory.read", ("mem_a", "mem_b"), "done", 7, "req_1")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.lists(
        st.builds(
            AuditEntry, texts, texts, texts, st.lists(texts, max_size=3).map(tuple), texts, st.integers(0, 1 << 40),
            st.none() | texts,
        ),
        max_size=6,
    )
)  # fmt: skip
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_come_back_as_they_were_the_newest_first(conn: Connection, entries: list[AuditEntry]) -> None:
    with undone(conn):
        numbers = [audit.append(conn, entry, START_US + n) for n, entry in enumerate(entries)]
        rows = audit.recent(conn)
    assert [(row.id, row.at_us - START_US, row.entry) for row in reversed(rows)] == [
        (number, n, entry) for n, (number, entry) in enumerate(zip(numbers, entries, strict=True))
    ]


def test_recent_is_bounded(conn: Connection) -> None:
    numbers = [audit.append(conn, ENTRY, START_US + n) for n in range(5)]
    assert [row.id for row in audit.recent(conn, 2)] == [numbers[4], numbers[3]]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET act = 'nothing'",
        "UPDATE audit SET at_us = at_us",
        "UPDATE OR IGNORE audit SET id = id + 1",
        "UPDATE OR REPLACE audit SET id = 2 WHERE id = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 1",
        "INSERT OR REPLACE INTO audit VALUES (1, 0, 'x', 'x', 'x', '[]', 'x', 0, NULL)",
        "REPLACE INTO audit VALUES (1, 0, 'x', 'x', 'x', '[]', 'x', 0, NULL)",
        "INSERT INTO audit VALUES (1, 0, 'x', 'x', 'x', '[]', 'x', 0, NULL) ON CONFLICT DO UPDATE SET act = 'x'",
        "INSERT INTO audit VALUES (1, 0, 'x', 'x', 'x', '[]', 'x', 0, NULL)",
    ],
)
async def test_no_row_is_ever_changed_or_deleted(db: Database, statement: str) -> None:
    await db.write(lambda conn: [audit.append(conn, ENTRY, START_US + n) for n in range(2)])
    before = await db.read(audit.recent)
    with pytest.raises(VaultError):
        await db.write(lambda conn: conn.execute(statement))
    assert await db.read(audit.recent) == before


async def test_numbers_have_no_gaps_that_a_rolled_back_act_would_leave(db: Database) -> None:
    first = await db.write(lambda conn: audit.append(conn, ENTRY, START_US))

    def fail(conn: Connection) -> None:
        audit.append(conn, ENTRY, START_US)
        raise BadInput("on purpose.")

    with pytest.raises(BadInput):
        await db.write(fail)
    assert await db.write(lambda conn: audit.append(conn, ENTRY, START_US)) == first + 1


async def test_an_act_whose_entry_cannot_be_written_does_not_happen(db: Database) -> None:
    def act(conn: Connection) -> None:
        memories.create_memory(conn, content="The key is under the pot", now_us=START_US)
        audit.append(conn, AuditEntry("\ud800", "owner", "memory.create"), START_US)

    with pytest.raises(BadInput):
        await db.write(act)
    assert (await db.read(memories.list_memories)).items == []
    assert await db.read(audit.recent) == []


async def test_on_a_full_disk_neither_the_act_nor_its_entry_is_there(db: Database) -> None:
    await db.write(lambda conn: conn.execute("PRAGMA max_page_count = 1"))
    done = 0

    def act(conn: Connection) -> None:
        memories.create_memory(conn, content="x" * 500, now_us=START_US)
        audit.append(conn, ENTRY, START_US)

    with pytest.raises(DiskFull):
        for done in range(1000):  # noqa: B007
            await db.write(act)
    assert done < 999
    assert len((await db.read(lambda conn: memories.list_memories(conn, limit=1000))).items) == done
    assert len(await db.read(lambda conn: audit.recent(conn, 1000))) == done
