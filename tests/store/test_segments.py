"""Segments and their outcomes."""

from __future__ import annotations

import pytest

from omi_edge.domain import Outcome, SpeechSegment
from omi_edge.errors import NotFound
from omi_edge.store import segments
from omi_edge.store.connection import Connection
from tests.helpers import START_US
from tests.store.filling import CONVERSATIONS, SECOND, SOURCES, add_conversation, add_source


@pytest.fixture
def conn(conn: Connection) -> Connection:
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    add_conversation(conn)
    return conn


def put(conn: Connection, segment_id: str, start_us: int, source_id: str = SOURCES[0]) -> SpeechSegment:
    segment = SpeechSegment(segment_id, source_id, start_us, start_us + 5 * SECOND, 4 * SECOND)
    segments.put(conn, segment)
    return segment


def settle(conn: Connection, segment_id: str, outcome: Outcome, conversation_id: str | None = None) -> None:
    segments.settle(conn, segment_id, outcome=outcome, reason="why", engine="scripted", conversation_id=conversation_id)


def test_a_new_segment_is_pending_and_comes_back_as_it_was(conn: Connection) -> None:
    segment = put(conn, "seg_a", START_US)
    assert segments.get(conn, "seg_a") == segments.SegmentRow(segment, Outcome.PENDING, None, None, None)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.PENDING])
def test_an_outcome_is_kept_with_reason_and_engine(conn: Connection, outcome: Outcome) -> None:
    segment = put(conn, "seg_a", START_US)
    settle(conn, "seg_a", outcome, CONVERSATIONS[0])
    assert segments.get(conn, "seg_a") == segments.SegmentRow(segment, outcome, "why", "scripted", CONVERSATIONS[0])


def test_the_segments_of_a_conversation_come_in_order_of_time(conn: Connection) -> None:
    for segment_id, offset in (("seg_b", 20), ("seg_a", 30), ("seg_c", 10)):
        put(conn, segment_id, START_US + offset * SECOND)
        settle(conn, segment_id, Outcome.TEXT, CONVERSATIONS[0])
    put(conn, "seg_alone", START_US)
    settle(conn, "seg_alone", Outcome.EXPECTED_SILENCE)
    found = [row.segment.id for row in segments.of_conversation(conn, CONVERSATIONS[0])]
    assert found == ["seg_c", "seg_b", "seg_a"]
    assert segments.of_conversation(conn, "con_other") == []


def test_what_waits_is_known_by_source_and_time(conn: Connection) -> None:
    put(conn, "seg_a", START_US)
    assert segments.pending_before(conn, SOURCES[0], START_US + 1)
    assert not segments.pending_before(conn, SOURCES[0], START_US)  # begins then, not before
    assert not segments.pending_before(conn, SOURCES[1], START_US + 1)
    settle(conn, "seg_a", Outcome.FAILED)
    assert not segments.pending_before(conn, SOURCES[0], START_US + 1)


def test_unknown_ones_are_not_found(conn: Connection) -> None:
    with pytest.raises(NotFound):
        segments.get(conn, "seg_other")
    with pytest.raises(NotFound):
        put(conn, "seg_a", START_US, "src_other")
