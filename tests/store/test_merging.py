"""Two sources made one: all that was there is there, under the other; or nothing moved and it is said why."""

from __future__ import annotations

from typing import Any

import pytest

from omi_edge.domain import Cause, ConversationState, Gap, LedgerState, Outcome, SpeechSegment, Stage
from omi_edge.errors import NotFound
from omi_edge.store import audio, conversations, gaps, jobs, ledger, merging, segments, sources
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Filters
from omi_edge.store.ledger import Moment, Span
from tests.helpers import START_US
from tests.store.filling import MINUTE, SECOND, SOURCES, add_conversation, add_source, chunk

OLD, KEPT = SOURCES[0], "src_kept"
EVER_US = 1 << 62
LEFT = {"sources", "senders"}
"""Tables that name a source and are no part of what it holds."""
PENDANTS = "offline_"
"""Tables of what a pendant stored; only sources of sockets are merged."""


def settled(conn: Connection) -> None:
    """Let everything that was to be worked on be done."""
    conn.execute("UPDATE segments SET outcome = 'text' WHERE outcome = 'pending'")
    conn.execute("UPDATE conversations SET state = 'completed'")
    conn.execute("UPDATE jobs SET state = 'done' WHERE state IN ('queued', 'running')")


def held(conn: Connection, source_id: str) -> dict[str, int]:
    """Rows of each table that name a source, whatever tables there are."""
    found = {}
    tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        names = {row[1] for row in conn.execute(f"SELECT * FROM pragma_table_info('{table}')")}
        if "source_n" in names and table not in LEFT and not table.startswith(PENDANTS):
            where = (sources.number(conn, source_id),)
            count = conn.execute(f"SELECT count(*) FROM {table} WHERE source_n = ?", where).fetchone()[0]
            if count:
                found[table] = count
    return found


def said(conn: Connection) -> list[tuple[Any, ...]]:
    rows = conn.execute("SELECT ref_id, kind, at_us, text FROM documents ORDER BY ref_id")
    return [tuple(row) for row in rows]


def test_everything_moves_and_nothing_is_left_behind(full_conn: Connection) -> None:
    conn = full_conn
    settled(conn)
    add_source(conn, KEPT, device_id=None)
    before, row, texts = held(conn, OLD), sources.get(conn, OLD), said(conn)
    packets = [one.packets for one in audio.between(conn, OLD, 0, EVER_US)]
    talks = conversations.listing(conn, filters=Filters(source=OLD), limit=50).items
    assert before
    assert packets
    assert talks
    assert merging.move(conn, OLD, KEPT, START_US) == ""
    assert held(conn, OLD) == {}
    assert held(conn, KEPT) == before
    assert [one.packets for one in audio.between(conn, KEPT, 0, EVER_US)] == packets
    after = conversations.listing(conn, filters=Filters(source=KEPT), limit=50).items
    assert [one.id for one in after] == [one.id for one in talks]
    assert said(conn) == texts
    kept, emptied = sources.get(conn, KEPT), sources.get(conn, OLD)
    for name in ("first_us", "heard_until_us", "lost_frames", "audio_bytes", "dropped_bytes", "dropped_us"):
        assert getattr(kept, name) == getattr(row, name), name
    assert (emptied.audio_bytes, emptied.first_us, emptied.ended_us) == (0, None, START_US)
    assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
    assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def speak(conn: Connection, source_id: str, at_us: int) -> str:
    """Put one whole conversation into a source."""
    conversation_id, segment_id = f"con_{source_id}_{at_us}", f"seg_{source_id}_{at_us}"
    for n in range(5):
        audio.put(conn, chunk(source_id, at_us + n * 2 * SECOND))
    sources.advance(conn, source_id, heard_until_us=at_us + 10 * SECOND)
    add_conversation(conn, conversation_id, source_id, at_us)
    segments.put(conn, SpeechSegment(segment_id, source_id, at_us, at_us + 10 * SECOND, SECOND))
    segments.settle(conn, segment_id, outcome=Outcome.TEXT, reason=None, engine=None, conversation_id=conversation_id)
    conversations.set_state(conn, conversation_id, ConversationState.COMPLETED)
    return conversation_id


@pytest.fixture
def two(conn: Connection) -> Connection:
    """Two sources, the first heard before the second."""
    for source_id in (OLD, KEPT):
        add_source(conn, source_id, device_id=None)
    speak(conn, OLD, START_US)
    speak(conn, KEPT, START_US + 10 * MINUTE)
    return conn


def test_one_that_was_heard_before_goes_before(two: Connection) -> None:
    assert merging.move(two, OLD, KEPT, START_US) == ""
    starts = [one.start_us for one in audio.between(two, KEPT, 0, EVER_US)]
    assert len(starts) == 10
    assert starts == sorted(starts)
    row = sources.get(two, KEPT)
    assert (row.first_us, row.heard_until_us) == (START_US, START_US + 10 * MINUTE + 10 * SECOND)
    assert merging.move(two, OLD, KEPT, START_US) == ""  # again: nothing is there any more


@pytest.mark.parametrize("at_us", [START_US + 5 * SECOND, START_US + 20 * MINUTE])
def test_what_was_heard_at_the_same_time_or_in_turns_stays(two: Connection, at_us: int) -> None:
    speak(two, OLD if at_us > START_US + MINUTE else KEPT, at_us)
    before = held(two, OLD), held(two, KEPT)
    assert "mix" in merging.move(two, OLD, KEPT, START_US)
    assert (held(two, OLD), held(two, KEPT)) == before
    assert sources.get(two, OLD).ended_us is None


def test_what_is_being_worked_on_stays(two: Connection) -> None:
    segments.put(two, SpeechSegment("seg_late", OLD, START_US, START_US + 1, 1))
    assert "not complete" in merging.move(two, OLD, KEPT, START_US)
    two.execute("UPDATE segments SET outcome = 'text'")
    jobs.enqueue(two, Stage.EMBED, f"con_{OLD}_{START_US}", now_us=START_US)
    assert "not complete" in merging.move(two, OLD, KEPT, START_US)
    two.execute("UPDATE jobs SET state = 'done'")
    conversations.set_state(two, f"con_{OLD}_{START_US}", ConversationState.OPEN)
    assert "not complete" in merging.move(two, OLD, KEPT, START_US)
    conversations.set_state(two, f"con_{OLD}_{START_US}", ConversationState.COMPLETED)
    assert merging.move(two, OLD, KEPT, START_US) == ""


def test_more_than_can_be_moved_at_once_stays(two: Connection) -> None:
    two.execute("UPDATE sources SET audio_bytes = ? WHERE id = ?", (merging.MOST_BYTES + 1, OLD))
    assert "more audio" in merging.move(two, OLD, KEPT, START_US)


def test_gaps_and_accounts_are_one(two: Connection) -> None:
    for source_id, at_us in ((OLD, START_US), (KEPT, START_US + 10 * MINUTE)):
        gaps.put(two, Gap(source_id, at_us + 4 * SECOND, at_us + 5 * SECOND, (Cause.DISCONNECTED,), 0))
        ledger.begin(two, source_id, at_us)
        ledger.write(two, source_id, Span(at_us, at_us + 10 * SECOND, LedgerState.SPEECH))
    assert merging.move(two, OLD, KEPT, START_US) == ""
    assert len(gaps.listed(two, source_id=KEPT).items) == 2
    assert ledger.known_sources(two) == [KEPT]
    now = Moment("b", 1, START_US + 11 * MINUTE)
    spans = ledger.account(two, KEPT, 0, EVER_US, now)
    assert sum(span.length_us for span in spans) == 11 * MINUTE
    sums = {row.state: row.total_us for row in ledger.sums(spans)}
    assert sums[LedgerState.SPEECH] == 20 * SECOND


def test_a_source_that_is_not_there_is_not_found(two: Connection) -> None:
    with pytest.raises(NotFound):
        merging.move(two, OLD, "src_none", START_US)
