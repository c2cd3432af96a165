"""Conversations, and what lists have in common: filters, pages, cursors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.domain import ConversationState
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import conversations, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Filters, decode_cursor, encode_cursor
from tests.helpers import START_US
from tests.store.filling import (
    CONVERSATIONS,
    MINUTE,
    SECOND,
    SOURCES,
    add_conversation,
    add_source,
    undone,
    utterance,
)


@pytest.fixture
def conn(conn: Connection) -> Connection:
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    return conn


def listed(conn: Connection, limit: int = 50, **filters: Any) -> list[str]:
    return [row.id for row in conversations.listing(conn, filters=Filters(**filters), limit=limit).items]


def test_a_new_conversation_is_open_with_an_empty_live_transcript(conn: Connection) -> None:
    add_conversation(conn)
    row = conversations.get(conn, CONVERSATIONS[0])
    assert (row.source_id, row.device_id, row.state) == (SOURCES[0], "AA:BB", ConversationState.OPEN)
    assert (row.started_us, row.ended_us, row.title) == (START_US, START_US + MINUTE, "")
    versions = transcripts.versions(conn, row.id)
    assert [(version.kind, version.active, version.id) for version in versions] == [("live", True, row.version_id)]
    assert transcripts.utterances(conn, row.id) == []


def test_it_grows_both_ways_and_never_shrinks(conn: Connection) -> None:
    add_conversation(conn)
    conversations.extend(conn, CONVERSATIONS[0], START_US + 1, START_US + 2)
    conversations.extend(conn, CONVERSATIONS[0], START_US - SECOND, START_US)
    conversations.extend(conn, CONVERSATIONS[0], START_US, START_US + 2 * MINUTE)
    row = conversations.get(conn, CONVERSATIONS[0])
    assert (row.started_us, row.ended_us) == (START_US - SECOND, START_US + 2 * MINUTE)


@pytest.mark.parametrize(
    ("start_s", "end_s", "near"),
    [(-130, -121, False), (-130, -120, True), (10, 20, True), (180, 190, True), (181, 190, False), (-500, 500, True)],
)
def test_near_means_within_the_silence_on_either_side(conn: Connection, start_s: int, end_s: int, near: bool) -> None:
    add_conversation(conn)  # one minute
    found = conversations.near(conn, SOURCES[0], START_US + start_s * SECOND, START_US + end_s * SECOND, 120 * SECOND)
    assert [row.id for row in found] == ([CONVERSATIONS[0]] if near else [])
    assert conversations.near(conn, SOURCES[1], START_US, START_US, 120 * SECOND) == []


def test_states_and_understanding_are_kept(conn: Connection) -> None:
    add_conversation(conn, CONVERSATIONS[0])
    add_conversation(conn, CONVERSATIONS[1])
    conversations.set_state(conn, CONVERSATIONS[0], ConversationState.PROCESSING, closed_by="silence")
    assert [row.id for row in conversations.open_ones(conn)] == [CONVERSATIONS[1]]
    conversations.set_state(
        conn, CONVERSATIONS[0], ConversationState.COMPLETED, closed_by="silence", finished_us=START_US
    )
    conversations.set_understanding(
        conn, CONVERSATIONS[0], title="T", overview="O", category="work", emoji="🧠", extractor="rules"
    )
    row = conversations.get(conn, CONVERSATIONS[0])
    assert (row.state, row.closed_by, row.finished_us) == (ConversationState.COMPLETED, "silence", START_US)
    assert (row.title, row.overview, row.category, row.emoji, row.extractor) == ("T", "O", "work", "🧠", "rules")


def test_the_list_is_newest_first_and_every_filter_narrows_it(conn: Connection) -> None:
    for n, conversation_id in enumerate(CONVERSATIONS):
        add_conversation(conn, conversation_id, SOURCES[n % 2], START_US + n * MINUTE)
        speaker = "SPEAKER_01" if n == 2 else "SPEAKER_00"
        transcripts.append(
            conn, transcripts.live_version(conn, conversation_id),
            [utterance(f"utt_{n}", conversation_id, START_US, "hello", speaker)],
        )  # fmt: skip
    a, b, c, d = CONVERSATIONS
    assert listed(conn) == [d, c, b, a]
    assert listed(conn, source=SOURCES[1]) == [d, b]
    assert listed(conn, device="AA:BB") == [c, a]
    assert listed(conn, client="cli_x") == []
    assert listed(conn, since_us=START_US + MINUTE, until_us=START_US + 3 * MINUTE) == [c, b]  # until is outside
    assert listed(conn, speaker="SPEAKER_01") == [c]
    assert listed(conn, conversation=b) == [b]
    assert listed(conn, source=SOURCES[0], speaker="SPEAKER_00") == [a]


def test_a_speaker_is_looked_for_in_the_active_version(conn: Connection) -> None:
    add_conversation(conn)
    said = [utterance("utt_1", CONVERSATIONS[0], START_US, "hello", "SPEAKER_05")]
    transcripts.new_version(
        conn, CONVERSATIONS[0], id="ver_x", kind="final", engine="e", now_us=START_US, utterances=said, activate=False
    )
    assert listed(conn, speaker="SPEAKER_05") == []
    transcripts.new_version(
        conn, CONVERSATIONS[0], id="ver_y", kind="final", engine="e", now_us=START_US,
        utterances=[utterance("utt_2", CONVERSATIONS[0], START_US, "hello", "SPEAKER_05")],
    )  # fmt: skip
    assert listed(conn, speaker="SPEAKER_05") == [CONVERSATIONS[0]]


@given(
    st.lists(st.integers(0, 6), max_size=20),  # few different times, so that many are equal
    st.integers(1, 7),
    st.lists(st.integers(-3, 9), max_size=8),
    st.sampled_from([{}, {"source": SOURCES[0]}, {"since_us": START_US + 2, "until_us": START_US + 6}]),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_return_each_row_once_even_while_rows_are_added(
    conn: Connection, times: list[int], limit: int, added: list[int], narrowed: dict[str, Any]
) -> None:
    filters = Filters(**narrowed)
    with undone(conn):
        for n, at in enumerate(times):
            add_conversation(conn, f"con_{n}", SOURCES[n % 2], START_US + at)
        wanted = [row.id for row in conversations.listing(conn, filters=filters, limit=1000).items]
        seen: list[str] = []
        cursor = None
        late = iter(enumerate(added))
        for _ in range(len(times) + len(added) + 1):  # never more pages than rows
            page = conversations.listing(conn, filters=filters, limit=limit, cursor=cursor)
            seen += [row.id for row in page.items]
            assert 0 < len(page.items) <= limit or not seen
            cursor = page.next
            if cursor is None:
                break
            if (extra := next(late, None)) is not None:
                add_conversation(conn, f"con_late_{extra[0]}", SOURCES[0], START_US + extra[1])
    assert len(seen) == len(set(seen))
    assert [row_id for row_id in seen if "late" not in row_id] == wanted


@given(st.text(max_size=30))
@settings(max_examples=80, deadline=None)
def test_any_text_as_a_cursor_is_refused_or_read(text: str) -> None:
    try:
        at_us, n = decode_cursor(text)
    except BadInput as error:
        assert error.field == "cursor"
        return
    assert max(abs(at_us), abs(n)) < 1 << 63


@given(st.integers(-(1 << 62), 1 << 62), st.integers(0, 1 << 62))
@settings(max_examples=30, deadline=None)
def test_a_cursor_is_read_as_it_was_written(at_us: int, n: int) -> None:
    assert decode_cursor(encode_cursor(at_us, n)) == (at_us, n)


@pytest.mark.parametrize("cursor", ["", "x", "ünïcode", encode_cursor(1 << 63, 0), encode_cursor(0, 0)[:-2]])
def test_a_cursor_of_somebody_else_is_refused(conn: Connection, cursor: str) -> None:
    with pytest.raises(BadInput):
        conversations.listing(conn, cursor=cursor)


def test_a_page_has_at_least_one_item(conn: Connection) -> None:
    for limit in (0, -1):
        with pytest.raises(BadInput, match="at least one"):
            conversations.listing(conn, limit=limit)


def test_the_conversations_of_a_source_come_in_order_of_time(conn: Connection) -> None:
    for n in (2, 0, 1):
        add_conversation(conn, f"con_{n}", SOURCES[0], START_US + n)
    assert conversations.ids_of_source(conn, SOURCES[0]) == [("con_0", "open"), ("con_1", "open"), ("con_2", "open")]


def test_unknown_ones_are_not_found(conn: Connection) -> None:
    for look in (conversations.get, conversations.number):
        with pytest.raises(NotFound):
            look(conn, "con_other")
    with pytest.raises(NotFound):
        add_conversation(conn, "con_x", "src_other")
