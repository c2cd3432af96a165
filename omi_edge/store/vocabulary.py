"""The owner's words: names and terms that a recogniser should expect."""

from __future__ import annotations

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.store.connection import Connection
from omi_edge.wording import Piece, plain_word

MOST = 1000
"""Words that are kept. A recogniser's prompt holds fewer; it takes those that were added last."""
LONGEST = 100
NEWEST = 10_000
"""Corrections that are looked through for what is made often."""
TWICE = 2
"""A correction made so often is offered."""


class WordRow(msgspec.Struct, frozen=True):
    """One word or name."""

    text: str
    actor: str
    created_us: int


class Suggestion(msgspec.Struct, frozen=True):
    """Something that was put right by hand more than once."""

    before: str
    after: str
    count: int


def add(conn: Connection, text: str, *, actor: str, now_us: int) -> WordRow:
    """Add a word or a name; one that is there stays as it is. Raises BadInput for none, too long a one, too many."""
    text = " ".join(text.split())
    if not text or len(text) > LONGEST or not any(sign.isalnum() for sign in text):
        raise BadInput(f"a word of the vocabulary has letters and at most {LONGEST} characters.", "text")
    known = next((row for row in listed(conn) if row.text == text), None)
    if known is not None:
        return known
    if conn.execute("SELECT count(*) FROM vocabulary").fetchone()[0] >= MOST:
        raise BadInput(f"the vocabulary has {MOST} words, which is as many as are kept; remove one first.", "text")
    conn.execute("INSERT INTO vocabulary (text, actor, created_us) VALUES (?, ?, ?)", (text, actor, now_us))
    return WordRow(text, actor, now_us)


def remove(conn: Connection, text: str) -> None:
    """Remove a word. Raises NotFound."""
    if not conn.execute("DELETE FROM vocabulary WHERE text = ?", (" ".join(text.split()),)).rowcount:
        raise NotFound("the vocabulary has no such word; `omi-edge vocabulary` lists them.")


def listed(conn: Connection) -> list[WordRow]:
    """Return the words in the order in which they were added."""
    return [WordRow(*row) for row in conn.execute("SELECT text, actor, created_us FROM vocabulary ORDER BY n")]


def words(conn: Connection) -> tuple[str, ...]:
    """Return the words for a recogniser's prompt or its hot words, those added last first."""
    return tuple(row[0] for row in conn.execute("SELECT text FROM vocabulary ORDER BY n DESC"))


def suggestions(conn: Connection) -> list[Suggestion]:
    """Return what was put right at least twice in the same way and is not in the vocabulary, the most frequent first.

    Nothing of it is applied; it is for the owner to take.
    """
    known = {plain_word(row.text) for row in listed(conn)}
    counted: dict[tuple[str, str], list[str]] = {}
    rows = conn.execute(
        "SELECT pieces FROM corrections WHERE n > (SELECT coalesce(max(n), 0) FROM corrections) - ?"
        " AND undone_us IS NULL ORDER BY n DESC",
        (NEWEST,),
    )
    for (data,) in rows:
        for piece in msgspec.msgpack.decode(data, type=list[Piece]):
            before, after = (" ".join(word.text for word in side) for side in (piece.before, piece.after))
            if before and after and plain_word(before) != plain_word(after) and plain_word(after) not in known:
                counted.setdefault((plain_word(before), plain_word(after)), []).append(after)
    found = [Suggestion(key[0], texts[0], len(texts)) for key, texts in counted.items() if len(texts) >= TWICE]
    return sorted(found, key=lambda one: (-one.count, one.after))
