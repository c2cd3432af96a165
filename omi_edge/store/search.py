"""Finding: every text that can be found is a document, with a full-text entry and a vector beside it.

Two searches run side by side and are merged by reciprocal rank (Cormack, Clarke and Büttcher, 2009): BM25 of FTS5,
and vectors: a scan over sign bits in memory, then exact scores of the nearest from 8-bit codes in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from omi_edge.domain import Utterance
from omi_edge.store import conversations, sources
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Clauses, Filters
from omi_edge.store.vectors import Vector, VectorIndex, sign_bits

RANK_CONSTANT = 60
"""k of reciprocal rank fusion, as in the paper."""
CANDIDATES = 400
"""Vectors that are scored exactly."""
WORDS_LIMIT = 64
"""Words of a query that are looked for."""
ARM_LIMIT = 200
"""Hits of each search that are merged."""
LEAST_LIKENESS = 0.25
"""Cosine below which two texts share so little that the vector proves nothing."""
FUNCTION_WORDS = frozenset(
    "a an and are about at be been can could did do does for from had has have he her his how i in is it its me my of "
    "on or our she should so that the their them then there these they this to us was we were what when where which "
    "who why will with would you your".split()
)
"""English words that are in nearly everything that is said: beside others they find nothing but noise."""
_WORD = re.compile(r"[^\s\0-/:-@\[-`{-\x7f\ud800-\udfff]+")
"""All but spaces, control and punctuation characters of ASCII: what the tokenizer makes of the rest, accents and vowel
signs that are characters of their own among it, is the same in a query and in a document."""


class Document(msgspec.Struct, frozen=True):
    """A text that can be found."""

    ref_id: str
    kind: str
    """utterance, memory, task or summary."""
    conversation_id: str | None
    source_id: str | None
    at_us: int
    end_us: int
    speaker: str | None
    text: str


class Hit(msgspec.Struct, frozen=True):
    """Something found."""

    ref_id: str
    kind: str
    conversation_id: str | None
    conversation_title: str | None
    source_id: str | None
    speaker: str | None
    start_us: int
    end_us: int
    offset_s: float | None
    """Seconds from the start of the conversation; None outside of one."""
    text: str
    score: float


def put_documents(conn: Connection, documents: Iterable[Document]) -> list[int]:
    """Add or replace documents by their ``ref_id``; return their numbers. A replaced text loses its vector."""
    numbers = []
    for one in documents:
        remove_documents(conn, [one.ref_id])
        conversation_n = conversations.number(conn, one.conversation_id) if one.conversation_id is not None else None
        source_n = sources.number(conn, one.source_id) if one.source_id is not None else None
        cursor = conn.execute(
            "INSERT INTO documents (ref_id, kind, conversation_n, source_n, at_us, end_us, speaker, text)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (one.ref_id, one.kind, conversation_n, source_n, one.at_us, one.end_us, one.speaker, one.text),
        )
        numbers.append(int(cursor.lastrowid))
    return numbers


def of_utterance(utterance: Utterance) -> Document:
    """Return what of an utterance can be found."""
    return Document(
        ref_id=utterance.id,
        kind="utterance",
        conversation_id=utterance.conversation_id,
        source_id=utterance.source_id,
        at_us=utterance.start_us,
        end_us=utterance.end_us,
        speaker=utterance.speaker,
        text=utterance.text,
    )


def show_utterances(conn: Connection, conversation_id: str, utterances: Iterable[Utterance]) -> None:
    """Make the words of these utterances findable, and those of no others of the conversation."""
    remove_of_conversation(conn, conversation_id, ("utterance",))
    put_documents(conn, [of_utterance(one) for one in utterances if one.text])


def numbers_of(conn: Connection, ref_ids: Iterable[str]) -> dict[str, int]:
    """Return the numbers of documents by what they stand for; those that are not there are left out."""
    rows = [(one, conn.execute("SELECT id FROM documents WHERE ref_id = ?", (one,)).fetchone()) for one in ref_ids]
    return {ref_id: row[0] for ref_id, row in rows if row is not None}


def rename(conn: Connection, ref_ids: Mapping[str, str]) -> None:
    """Have documents stand for others of the same text; their vectors stay."""
    conn.executemany("UPDATE documents SET ref_id = ? WHERE ref_id = ?", [(new, old) for old, new in ref_ids.items()])


def remove_documents(conn: Connection, ref_ids: Iterable[str]) -> None:
    """Remove documents with their vectors."""
    for ref_id in ref_ids:
        row = conn.execute("SELECT id FROM documents WHERE ref_id = ?", (ref_id,)).fetchone()
        if row is not None:
            _remove(conn, row[0])


def remove_of_conversation(conn: Connection, conversation_id: str, kinds: Sequence[str]) -> None:
    """Remove a conversation's documents of some kinds with their vectors."""
    conversation_n = conversations.number(conn, conversation_id)
    for kind in kinds:
        rows = conn.execute(
            "SELECT id FROM documents WHERE conversation_n = ? AND kind = ?", (conversation_n, kind)
        ).fetchall()
        for row in rows:
            _remove(conn, row[0])


def put_vectors(conn: Connection, model: str, vectors: Iterable[tuple[int, Any]]) -> None:
    """Store the unit vectors of documents, float32 of equal length; a document that is gone by now is passed over."""
    for document_id, vector in vectors:
        values = np.asarray(vector, np.float32)
        scale = float(np.abs(values).max()) / 127 or 1.0
        bits = sign_bits(values).tobytes()
        added = conn.execute(
            "INSERT OR REPLACE INTO vectors (document_id, model, bits, codes, scale)"
            " SELECT id, ?, ?, ?, ? FROM documents WHERE id = ?",
            (model, bits, np.rint(values / scale).astype(np.int8).tobytes(), scale, document_id),
        )
        if added.rowcount and conn.index is not None:
            conn.index.note(document_id, bits if model == conn.index.model else None)


def without_vectors(
    conn: Connection, model: str, limit: int, conversation_id: str | None = None
) -> list[tuple[int, str]]:
    """Return (document, text) of documents that have no vector of ``model`` yet."""
    clauses = Clauses()
    if conversation_id is not None:
        clauses.add("d.conversation_n = ?", conversations.number(conn, conversation_id))
    clauses.add("NOT EXISTS (SELECT 1 FROM vectors v WHERE v.document_id = d.id AND v.model = ?)", model)
    rows = conn.execute(
        f"SELECT d.id, d.text FROM documents d {clauses.where()} ORDER BY d.id LIMIT ?", (*clauses.values, limit)
    )
    return [(row[0], row[1]) for row in rows]


def search(
    conn: Connection,
    index: VectorIndex | None,
    text: str,
    vector: Vector | None,
    *,
    filters: Filters = Filters(),  # noqa: B008 frozen
    limit: int = 20,
) -> list[Hit]:
    """Return what matches the words or the vector, best first. Any text is a query; nothing in it is an operator."""
    ranks: dict[int, float] = {}
    arms = [_by_words(conn, text, filters)]
    if index is not None and vector is not None and np.any(vector):
        arms.append(_by_vector(conn, index, np.asarray(vector, np.float32), filters))
    for arm in arms:
        for rank, document_id in enumerate(arm):
            ranks[document_id] = ranks.get(document_id, 0.0) + 1 / (RANK_CONSTANT + rank + 1)
    best = sorted(ranks, key=lambda document_id: (-ranks[document_id], document_id))[:limit]
    return [_hit(conn, document_id, ranks[document_id]) for document_id in best]


def _by_words(conn: Connection, text: str, filters: Filters) -> list[int]:
    said = list(dict.fromkeys(_WORD.findall(text.lower())))[:WORDS_LIMIT]
    # "when is the dentist" asks for the dentist; what is nothing but such words is looked for as it stands
    words = [word for word in said if word not in FUNCTION_WORDS] or said
    if not words:
        return []
    query = " OR ".join(f'"{word}"' for word in words)
    clauses = _clauses(filters)
    clauses.add("documents_fts MATCH ?", query)
    rows = conn.execute(
        f"SELECT d.id FROM documents_fts f JOIN documents d ON d.id = f.rowid {clauses.where()}"
        " ORDER BY bm25(documents_fts), d.id DESC LIMIT ?",
        (*clauses.values, ARM_LIMIT),
    )
    return [row[0] for row in rows]


def _by_vector(conn: Connection, index: VectorIndex, vector: Vector, filters: Filters) -> list[int]:
    count = CANDIDATES
    while True:  # a narrow filter may leave little of the nearest: look further
        near = index.nearest(vector, count)
        scored = _scores(conn, index.model, near, vector, filters)
        if len(scored) >= ARM_LIMIT // 4 or count >= len(index):
            break
        count *= 8
    scored.sort(reverse=True)
    return [document_id for score, document_id in scored[:ARM_LIMIT] if score >= LEAST_LIKENESS]


def _scores(conn: Connection, model: str, near: list[int], vector: Vector, filters: Filters) -> list[tuple[float, int]]:
    scored: list[tuple[float, int]] = []
    for first in range(0, len(near), 500):
        batch = near[first : first + 500]
        clauses = _clauses(filters)
        clauses.add(f"v.document_id IN ({','.join('?' * len(batch))})", *batch)
        clauses.add("v.model = ?", model)
        rows = conn.execute(
            f"SELECT v.document_id, v.codes, v.scale FROM vectors v JOIN documents d ON d.id = v.document_id"
            f" {clauses.where()}",
            clauses.values,
        ).fetchall()
        if rows:
            codes = np.frombuffer(b"".join(row[1] for row in rows), np.int8).reshape(len(rows), -1)
            values = codes.astype(np.float32) @ vector * np.array([row[2] for row in rows], np.float32)
            scored += [(float(value), row[0]) for value, row in zip(values, rows, strict=True)]
    return scored


def _clauses(filters: Filters) -> Clauses:
    clauses = Clauses()
    clauses.add_source("d.source_n", filters)
    clauses.add_times("d.at_us", filters)
    if filters.speaker is not None:
        clauses.add("d.speaker = ?", filters.speaker)
    if filters.conversation is not None:
        clauses.add("d.conversation_n = (SELECT n FROM conversations WHERE id = ?)", filters.conversation)
    return clauses


def _hit(conn: Connection, document_id: int, score: float) -> Hit:
    ref_id, kind, at_us, end_us, speaker, text, conversation_id, title, started_us, source_id = conn.execute(
        "SELECT d.ref_id, d.kind, d.at_us, d.end_us, d.speaker, d.text, c.id, c.title, c.started_us, o.id"
        " FROM documents d LEFT JOIN conversations c ON c.n = d.conversation_n LEFT JOIN sources o ON o.n = d.source_n"
        " WHERE d.id = ?",
        (document_id,),
    ).fetchone()
    offset_s = (at_us - started_us) / 1e6 if started_us is not None else None
    return Hit(ref_id, kind, conversation_id, title, source_id, speaker, at_us, end_us, offset_s, text, round(score, 5))


def _remove(conn: Connection, document_id: int) -> None:
    conn.execute("DELETE FROM vectors WHERE document_id = ?", (document_id,))
    conn.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    if conn.index is not None:
        conn.index.note(document_id, None)
