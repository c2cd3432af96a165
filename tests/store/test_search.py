"""Finding by words, by likeness, and by both; any text is a query."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.domain import Evidence, Memory, Task
from omi_edge.errors import NotFound
from omi_edge.store import conversations, memories, search
from omi_edge.store import settings as settings_of_vault
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.filters import Filters
from omi_edge.store.search import ARM_LIMIT, RANK_CONSTANT, Document
from omi_edge.store.vectors import VectorIndex
from tests.helpers import START_US
from tests.store.filling import (
    CONVERSATIONS,
    DIMENSIONS,
    MINUTE,
    MODEL,
    SECOND,
    SOURCES,
    add_conversation,
    add_source,
    understanding,
    undone,
    vector,
)


@pytest.fixture
def conn(conn: Connection) -> Connection:
    for n in range(2):
        add_source(conn, SOURCES[n], device_id="AA:BB" if n == 0 else None)
        add_conversation(conn, CONVERSATIONS[n], SOURCES[n], START_US + n * MINUTE)
    return conn


def put(
    conn: Connection, ref_id: str, text: str, *, at_s: int = 0, speaker: str | None = "SPEAKER_00", place: int = 0,
    near: Any = None,
) -> int:  # fmt: skip
    """Make a document of source and conversation number ``place``; with a vector when ``near`` is one."""
    at_us = START_US + at_s * SECOND
    (number,) = search.put_documents(
        conn,
        [Document(ref_id, "utterance", CONVERSATIONS[place], SOURCES[place], at_us, at_us + SECOND, speaker, text)],
    )
    if near is not None:
        search.put_vectors(conn, MODEL, [(number, near)])
    return number


def found(conn: Connection, text: str, near: Any = None, index: VectorIndex | None = None, **filters: Any) -> list[str]:
    return [hit.ref_id for hit in search.search(conn, index, text, near, filters=Filters(**filters))]


def loaded(conn: Connection) -> VectorIndex:
    index = VectorIndex()
    index.load(conn, MODEL)
    return index


# --- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The lighthouses were painted", "lighthouse"),
        ("The lighthouse", "LIGHTHOUSES painting"),
        ("meet at the café", "cafe"),
        ("meet at the cafe", "CAFÉ"),
        ("her résumé is here", unicodedata.normalize("NFD", "résumé")),
        (unicodedata.normalize("NFD", "her résumé is here"), "résumé"),
        ("İstanbul is far", "İSTANBUL"),
        ("हिन्दी में बात", "हिन्दी"),
        ("don't forget", "don't"),
        ("room 42b", "42b"),
        ("the file_name changed", "file_name"),
        ("he said “hello”", "“hello”"),
        ("Straße", "straße"),
    ],
)
def test_a_word_is_found_in_the_forms_people_write_it(conn: Connection, text: str, query: str) -> None:
    put(conn, "utt_noise", "something else entirely")
    put(conn, "utt_1", text)
    assert found(conn, query) == ["utt_1"]


@pytest.mark.parametrize(
    "query",
    [
        '"', '""', "'", "*", "(", ")", "^", ":", "-", "+", "{", "}", "NEAR", "AND", "OR", "NOT", "NEAR(a b, 3)",
        "lighthouse AND", "text:lighthouse", "light*", "-lighthouse", "a\0b", "\0", "_", "—", "%", "; DROP TABLE audit",
        "\ud800", "lighthouse\ud800", "'; --", "a" * 100_000, "a " * 10_000, "́", "🧠", "\u202e", "documents_fts",
    ],
)  # fmt: skip
def test_no_query_is_a_syntax_error(conn: Connection, query: str) -> None:
    put(conn, "utt_1", "the lighthouse")
    assert found(conn, query) in ([], ["utt_1"])


OPERATORS = ['"', "'", "*", "(", ")", "^", ":", "AND", "OR", "NOT", "NEAR", "-", "+", "{", "}", ",", "\0", "lighthouse"]


@given(
    st.one_of(
        st.text(st.characters(codec=None), max_size=60),
        st.lists(st.sampled_from(OPERATORS) | st.text(max_size=4), max_size=12).map(" ".join),
        st.lists(st.sampled_from(OPERATORS), max_size=12).map("".join),
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_query(conn: Connection, query: str) -> None:
    with undone(conn):
        put(conn, "utt_1", "the lighthouse", near=vector(1))
        search.search(conn, loaded(conn), query, vector(2))
        assert "utt_1" in found(conn, f"{query} lighthouse"[-5000:])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_a_document(conn: Connection, text: str) -> None:
    with undone(conn):
        put(conn, "utt_1", f"{text} lighthouse")
        put(conn, "utt_1", f"{text} harbour")
        assert found(conn, "lighthouse") == ["utt_1"] * ("lighthouse" in text.lower().split())
        assert found(conn, "harbour") == ["utt_1"]
        search.remove_documents(conn, ["utt_1"])
        assert found(conn, "harbour") == []


def test_nothing_asked_finds_nothing(conn: Connection) -> None:
    put(conn, "utt_1", "the lighthouse")
    assert found(conn, "") == []
    assert found(conn, "walnuts") == []


def test_more_and_rarer_words_rank_higher(conn: Connection) -> None:
    for n in range(40):
        put(conn, f"utt_{n}", "the harbour is grey" if n < 5 else "nothing of the kind")
    put(conn, "utt_rare", "the walnut is grey")
    put(conn, "utt_both", "a walnut at harbour")
    assert found(conn, "walnut harbour")[:2] == ["utt_both", "utt_rare"]


async def test_a_removed_text_is_gone_from_the_index_s_own_tables(db: Database) -> None:
    await opened(db)

    def left(conn: Connection) -> int:
        conn.execute("INSERT INTO documents_fts (documents_fts, rank) VALUES ('integrity-check', 1)")
        rows = conn.execute("SELECT count(*) FROM documents_fts_data WHERE instr(block, 'xylophon')").fetchone()
        return int(rows[0])

    await db.write(lambda conn: [put(conn, f"utt_{n}", f"word{n}") for n in range(50)])
    await db.write(lambda conn: put(conn, "utt_1", "xylophonist"))
    assert await db.write(left) == 1
    await db.write(lambda conn: put(conn, "utt_1", "harpist"))
    assert await db.write(left) == 0
    await db.write(lambda conn: put(conn, "utt_1", "xylophonist"))
    await db.write(lambda conn: search.remove_documents(conn, ["utt_1"]))
    assert await db.write(left) == 0

    def come_and_go(conn: Connection) -> None:
        put(conn, "utt_2", "xylophonist")
        search.remove_documents(conn, ["utt_2"])

    await db.write(come_and_go)
    assert await db.write(left) == 0


# --- filters and hits ---------------------------------------------------------------------------------------------


def test_every_filter_narrows_both_searches(conn: Connection) -> None:
    near = vector(7)
    put(conn, "utt_a", "lighthouse", at_s=0, near=near)
    put(conn, "utt_b", "lighthouse", at_s=10, speaker="SPEAKER_01", near=near)
    put(conn, "utt_c", "lighthouse", at_s=20, speaker=None, place=1, near=near)
    index = loaded(conn)
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"utt_a", "utt_b", "utt_c"}),
        ({"speaker": "SPEAKER_01"}, {"utt_b"}),
        ({"source": SOURCES[1]}, {"utt_c"}),
        ({"device": "AA:BB"}, {"utt_a", "utt_b"}),
        ({"client": "cli_x"}, set()),
        ({"conversation": CONVERSATIONS[1]}, {"utt_c"}),
        ({"conversation": "con_other"}, set()),
        ({"since_us": START_US + 10 * SECOND}, {"utt_b", "utt_c"}),
        ({"since_us": START_US + 10 * SECOND, "until_us": START_US + 20 * SECOND}, {"utt_b"}),
        ({"until_us": START_US}, set()),
        ({"source": SOURCES[0], "speaker": "SPEAKER_00", "until_us": START_US + 99 * SECOND}, {"utt_a"}),
    ]
    for filters, wanted in cases:
        assert set(found(conn, "lighthouse", **filters)) == wanted, filters
        assert set(found(conn, "", near, index, **filters)) == wanted, filters


def test_a_hit_says_where_and_when_it_was_said(conn: Connection) -> None:
    conversations.set_understanding(
        conn, CONVERSATIONS[1], title="Painting", overview="", category="other", emoji="", extractor="rules"
    )
    put(conn, "utt_1", "the lighthouse", at_s=90, place=1)
    (hit,) = search.search(conn, None, "lighthouse", None)
    assert (hit.ref_id, hit.kind, hit.conversation_id, hit.conversation_title, hit.source_id) == (
        "utt_1", "utterance", CONVERSATIONS[1], "Painting", SOURCES[1]
    )  # fmt: skip
    assert (hit.speaker, hit.text, hit.offset_s) == ("SPEAKER_00", "the lighthouse", 30.0)
    assert (hit.start_us, hit.end_us) == (START_US + 90 * SECOND, START_US + 91 * SECOND)


def test_tasks_and_memories_are_found_at_their_first_evidence(conn: Connection) -> None:
    spans = (
        Evidence("utt_1", START_US + 40 * SECOND, START_US + 42 * SECOND),
        Evidence("utt_0", START_US + 10 * SECOND, START_US + 11 * SECOND),
    )
    (task,), (fact,) = memories.replace_derived(
        conn, CONVERSATIONS[0],
        understanding(
            (Task("Paint the lighthouse", evidence=spans),), (Memory("The lighthouse is old", "it", evidence=spans),)
        ),
        now_us=START_US + 99 * SECOND,
    )  # fmt: skip
    by_hand = memories.create_task(conn, description="Sell the lighthouse", now_us=START_US + 5)
    hits = {hit.ref_id: hit for hit in search.search(conn, None, "lighthouse", None)}
    assert {hit.kind for hit in hits.values()} == {"task", "memory"}
    for thing in (task.id, fact.id):
        hit = hits[thing]
        assert (hit.start_us, hit.end_us, hit.offset_s) == (spans[0].start_us, spans[0].end_us, 40.0)
        assert (hit.conversation_id, hit.source_id) == (CONVERSATIONS[0], SOURCES[0])
    assert (hits[by_hand.id].conversation_id, hits[by_hand.id].offset_s) == (None, None)
    assert hits[by_hand.id].start_us == START_US + 5


def test_no_more_than_asked_for(conn: Connection) -> None:
    for n in range(10):
        put(conn, f"utt_{n}", "lighthouse")
    assert len(search.search(conn, None, "lighthouse", None, limit=3)) == 3


def test_a_document_needs_its_conversation_and_source(conn: Connection) -> None:
    with pytest.raises(NotFound):
        search.put_documents(conn, [Document("r", "utterance", "con_other", None, 0, 1, None, "x")])
    with pytest.raises(NotFound):
        search.put_documents(conn, [Document("r", "utterance", None, "src_other", 0, 1, None, "x")])


def test_documents_of_a_conversation_are_removed_by_kind(conn: Connection) -> None:
    put(conn, "utt_1", "lighthouse")
    put(conn, "utt_2", "lighthouse", place=1)
    search.put_documents(conn, [Document("sum", "summary", CONVERSATIONS[0], None, 0, 1, None, "lighthouse")])
    search.remove_of_conversation(conn, CONVERSATIONS[0], ["utterance", "task"])
    assert set(found(conn, "lighthouse")) == {"utt_2", "sum"}


# --- likeness, and both -------------------------------------------------------------------------------------------


def test_likeness_finds_without_a_common_word_in_the_order_of_the_cosine(conn: Connection) -> None:
    query, other = vector(1), vector(2)
    blends = {f"utt_{n}": query * (1 - n / 10) + other * (n / 10) for n in range(8)}
    for name, blend in blends.items():
        put(conn, name, "unrelated", near=blend / np.linalg.norm(blend))
    put(conn, "utt_opposite", "unrelated", near=-query)
    cosine = {name: float(blend @ query / np.linalg.norm(blend)) for name, blend in blends.items()}
    wanted = [name for name in sorted(cosine, key=lambda n: -cosine[n]) if cosine[name] >= search.LEAST_LIKENESS]
    assert found(conn, "nothing", query, loaded(conn)) == wanted


def test_both_searches_are_merged_by_reciprocal_rank(conn: Connection) -> None:
    query = vector(1)
    put(conn, "utt_word", "lighthouse lighthouse lighthouse")
    put(conn, "utt_both", "the lighthouse over there in the fog", near=(query + 0.3 * vector(5)).astype(np.float32))
    put(conn, "utt_like", "unrelated", near=query)
    hits = search.search(conn, loaded(conn), "lighthouse", query)
    scores = {hit.ref_id: hit.score for hit in hits}
    assert [hit.ref_id for hit in hits] == ["utt_both", "utt_word", "utt_like"]
    k = RANK_CONSTANT
    assert scores == {
        "utt_both": round(1 / (k + 2) + 1 / (k + 2), 5), "utt_word": round(1 / (k + 1), 5),
        "utt_like": round(1 / (k + 1), 5),
    }  # fmt: skip


def test_a_narrow_filter_looks_past_the_nearest(conn: Connection) -> None:
    query = vector(1)
    for n in range(search.CANDIDATES + 50):
        put(conn, f"utt_{n}", "unrelated", near=query)
    put(conn, "utt_far", "unrelated", speaker="SPEAKER_07", near=(query + vector(9)) / 2)
    index = loaded(conn)
    assert found(conn, "", query, index, speaker="SPEAKER_07") == ["utt_far"]
    assert len(search.search(conn, index, "", query, limit=1000)) == ARM_LIMIT


def test_vectors_of_another_model_or_width_prove_nothing(conn: Connection) -> None:
    number = put(conn, "utt_1", "unrelated", near=vector(1))
    index = VectorIndex()
    index.load(conn, "another")
    assert found(conn, "", vector(1), index) == []
    assert found(conn, "", np.ones(8, np.float32), loaded(conn)) == []
    assert found(conn, "", np.zeros(DIMENSIONS, np.float32), loaded(conn)) == []
    assert search.without_vectors(conn, "another", 10) == [(number, "unrelated")]
    assert search.without_vectors(conn, MODEL, 10) == []
    before = loaded(conn)
    search.put_vectors(conn, "another", [(number, vector(1))])  # replaced while somebody searches
    assert found(conn, "", vector(1), before) == []


def test_a_document_that_is_gone_takes_no_vector(conn: Connection) -> None:
    number = put(conn, "utt_1", "first")
    put(conn, "utt_1", "second")  # replaced while its vector was being made
    search.put_vectors(conn, MODEL, [(number, vector(1))])
    assert conn.execute("SELECT count(*) FROM vectors").fetchone()[0] == 0


# --- the index in memory ------------------------------------------------------------------------------------------


async def opened(db: Database) -> VectorIndex:
    def prepare(conn: Connection) -> None:
        for n in range(2):
            add_source(conn, SOURCES[n], device_id=None)
            add_conversation(conn, CONVERSATIONS[n], SOURCES[n])

    await db.write(prepare)
    index = VectorIndex()
    await db.read(lambda conn: index.load(conn, MODEL))
    db.index = index
    return index


async def test_the_index_follows_what_is_committed_and_nothing_else(db: Database) -> None:
    index = await opened(db)
    first = await db.write(lambda conn: put(conn, "utt_1", "x", near=vector(1)))
    assert (len(index), index.nearest(vector(1), 5)) == (1, [first])

    def fail(conn: Connection) -> None:
        put(conn, "utt_2", "x", near=vector(2))
        search.remove_documents(conn, ["utt_1"])
        assert index.nearest(vector(1), 5) == [first]  # nobody sees what is not durable
        raise NotFound("on purpose.")

    with pytest.raises(NotFound):
        await db.write(fail)
    await db.write(lambda conn: settings_of_vault.put(conn, "an", "other write"))
    assert (len(index), index.nearest(vector(1), 5)) == (1, [first])
    second = await db.write(lambda conn: put(conn, "utt_1", "y", near=vector(3)))
    assert index.nearest(vector(3), 5) == [second]
    await db.write(lambda conn: search.remove_documents(conn, ["utt_1"]))
    assert (len(index), index.nearest(vector(3), 5)) == (0, [])


async def test_a_vector_of_another_model_takes_the_old_one_s_place(db: Database) -> None:
    index = await opened(db)
    number = await db.write(lambda conn: put(conn, "utt_1", "x", near=vector(1)))
    await db.write(lambda conn: put(conn, "utt_2", "x", near=vector(2)))
    await db.write(lambda conn: search.put_vectors(conn, "another", [(number, np.ones(8, np.float32))]))
    assert len(index) == 1
    assert number not in index.nearest(vector(1), 5)


@given(st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 50)), max_size=40))
@settings(max_examples=40, deadline=None)
def test_any_changes_leave_the_index_as_a_dictionary_would_be(changes: list[tuple[int, int | None]]) -> None:
    index, wanted = VectorIndex(), dict[int, int]()
    for document_id, seed in changes:
        if seed is None:
            index.note(document_id, None)
            wanted.pop(document_id, None)
        else:
            index.note(document_id, np.packbits(vector(seed) > 0).tobytes())
            wanted[document_id] = seed
        index.take_pending()
    assert len(index) == len(wanted)
    for document_id, seed in wanted.items():
        nearest = index.nearest(vector(seed), len(wanted))
        assert set(nearest) == set(wanted)
        same = [other for other, its in wanted.items() if its == seed]
        assert set(nearest[: len(same)]) == set(same)
        assert document_id in same


async def test_the_index_after_a_start_is_the_one_before_it(db: Database) -> None:
    index = await opened(db)
    await db.write(lambda conn: [put(conn, f"utt_{n}", "x", near=vector(n)) for n in range(30)])
    await db.write(lambda conn: search.remove_documents(conn, [f"utt_{n}" for n in range(0, 30, 3)]))
    fresh = VectorIndex()
    await db.read(lambda conn: fresh.load(conn, MODEL))
    assert len(fresh) == len(index) == 20
    for seed in (1, 2, 4, 5):
        assert fresh.nearest(vector(seed), 1) == index.nearest(vector(seed), 1)
        assert set(fresh.nearest(vector(seed), 50)) == set(index.nearest(vector(seed), 50))
