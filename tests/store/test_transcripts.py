"""Versions of a transcript, its turns and speakers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.domain import Outcome, Turn, Utterance, Word
from omi_edge.errors import NotFound
from omi_edge.store import people, transcripts
from omi_edge.store.connection import Connection
from tests.helpers import START_US
from tests.store.filling import CONVERSATIONS, SECOND, add_conversation, add_source, undone, utterance

CONVERSATION = CONVERSATIONS[0]


@pytest.fixture
def conn(conn: Connection) -> Connection:
    add_source(conn)
    add_conversation(conn)
    add_conversation(conn, CONVERSATIONS[1])
    return conn


def version(conn: Connection, version_id: str, *said: Utterance, activate: bool = True, kind: str = "final") -> None:
    transcripts.new_version(
        conn, CONVERSATION, id=version_id, kind=kind, engine="scripted", now_us=START_US, utterances=said,
        activate=activate,
    )  # fmt: skip


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
utterances = st.builds(
    lambda text, words, speaker, confidence, outcome: msgspec.structs.replace(
        utterance("utt_x", CONVERSATION, START_US, "", speaker),
        text=text, words=tuple(words), confidence=confidence, outcome=outcome,
    ),
    texts,
    st.lists(st.builds(Word, texts, st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.floats(0, 1)), max_size=4),
    st.none() | texts,
    st.floats(0, 1),
    st.sampled_from(Outcome),
)  # fmt: skip


@given(utterances)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_utterance_comes_back_as_it_was(conn: Connection, said: Utterance) -> None:
    with undone(conn):
        transcripts.append(conn, transcripts.live_version(conn, CONVERSATION), [said])
        assert transcripts.utterance(conn, said.id) == said
        assert transcripts.utterances(conn, CONVERSATION) == [said]


def test_utterances_come_in_order_of_time(conn: Connection) -> None:
    live = transcripts.live_version(conn, CONVERSATION)
    for name, at in (("utt_b", 4), ("utt_c", 2), ("utt_a", 4), ("utt_d", 0)):
        transcripts.append(conn, live, [utterance(name, CONVERSATION, START_US + at, "x")])
    assert [one.id for one in transcripts.utterances(conn, CONVERSATION)] == ["utt_d", "utt_c", "utt_a", "utt_b"]


def test_a_new_version_takes_the_place_of_the_old_which_stays(conn: Connection) -> None:
    live = transcripts.live_version(conn, CONVERSATION)
    first, second, third = (utterance(f"utt_{n}", CONVERSATION, START_US, f"text {n}") for n in range(3))
    transcripts.append(conn, live, [first])
    version(conn, "ver_final", second)
    version(conn, "ver_quiet", third, activate=False, kind="reprocessed")
    assert transcripts.utterances(conn, CONVERSATION) == [second]
    assert transcripts.utterances(conn, CONVERSATION, live) == [first]
    assert transcripts.utterances(conn, CONVERSATION, "ver_quiet") == [third]
    assert [(v.id, v.kind, v.active) for v in transcripts.versions(conn, CONVERSATION)] == [
        (live, "live", False), ("ver_final", "final", True), ("ver_quiet", "reprocessed", False)
    ]  # fmt: skip
    assert transcripts.live_version(conn, CONVERSATION) == live


def test_a_version_is_only_found_in_its_own_conversation(conn: Connection) -> None:
    version(conn, "ver_final", utterance("utt_1", CONVERSATION, START_US, "private"))
    for conversation_id, version_id in ((CONVERSATIONS[1], "ver_final"), (CONVERSATION, "ver_other")):
        with pytest.raises(NotFound):
            transcripts.utterances(conn, conversation_id, version_id)


def test_turns_are_replaced_as_a_whole(conn: Connection) -> None:
    first = [Turn(START_US + n, START_US + n + 1, "SPEAKER_00", 0.5) for n in range(5)]
    second = [Turn(START_US, START_US + SECOND, None, 0.25)]
    transcripts.put_turns(conn, CONVERSATION, first, "scripted")
    assert transcripts.turns(conn, CONVERSATION) == first
    transcripts.put_turns(conn, CONVERSATION, second, "scripted")
    assert transcripts.turns(conn, CONVERSATION) == second
    assert transcripts.turns(conn, CONVERSATIONS[1]) == []


def test_speakers_are_those_of_the_active_version_the_most_talkative_first(conn: Connection) -> None:
    ada = people.add(conn, "Ada", now_us=START_US)
    transcripts.append(
        conn,
        transcripts.live_version(conn, CONVERSATION),
        [utterance("utt_old", CONVERSATION, START_US, "x", "SPEAKER_09")],
    )
    said = [
        utterance(f"utt_{n}", CONVERSATION, START_US + n * 2 * SECOND, "hello", speaker)
        for n, speaker in enumerate(["SPEAKER_00", "SPEAKER_01", "SPEAKER_01", None])
    ]
    said[0] = msgspec.structs.replace(said[0], person_id=ada.id)
    silent = msgspec.structs.replace(said[0], id="utt_silent", text="", outcome=Outcome.UNEXPECTED_EMPTY)
    version(conn, "ver_final", *said, silent)
    rows = transcripts.speakers(conn, CONVERSATION)
    assert rows[0] == transcripts.SpeakerRow("SPEAKER_01", None, 4 * SECOND, 2)
    assert {(row.speaker, row.person_id, row.utterances) for row in rows[1:]} == {
        ("SPEAKER_00", ada.id, 1), (None, None, 1)
    }  # fmt: skip


def test_unknown_ones_are_not_found(conn: Connection) -> None:
    for look in (transcripts.utterances, transcripts.versions, transcripts.live_version, transcripts.turns):
        with pytest.raises(NotFound):
            look(conn, "con_other")
    with pytest.raises(NotFound):
        transcripts.utterance(conn, "utt_other")
    with pytest.raises(NotFound):
        transcripts.append(conn, "ver_other", [])
