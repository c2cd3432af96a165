"""The owner's words: names and terms that a recogniser should expect."""

from __future__ import annotations

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.rewrite import PLAIN
from omi_edge.store.connection import Connection
from omi_edge.validation import CONTROLS, has_controls
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
    as_word: bool
    """Whether it is offered as a word too; else that word is in the vocabulary, and a rule alone would help."""


def add(conn: Connection, text: str, *, actor: str, now_us: int) -> WordRow:
    """Add a word or a name; one that is there, in whatever case, stays as it is.

    Raises BadInput for none, too long a one, one with control characters, too many.
    """
    if has_controls(text):
        raise BadInput(f"a word of the vocabulary has no control characters; {CONTROLS}", "text")
    text = " ".join(text.split())
    if not text or len(text) > LONGEST or not any(sign.isalnum() for sign in text):
        raise BadInput(f"a word of the vocabulary has letters and at most {LONGEST} characters.", "text")
    known = next((row for row in listed(conn) if row.text.casefold() == text.casefold()), None)
    if known is not None:
        return known
    if conn.execute("SELECT count(*) FROM vocabulary").fetchone()[0] >= MOST:
        raise BadInput(f"the vocabulary has {MOST} words, which is as many as are kept; remove one first.", "text")
    conn.execute("INSERT INTO vocabulary (text, actor, created_us) VALUES (?, ?, ?)", (text, actor, now_us))
    return WordRow(text, actor, now_us)


def remove(conn: Connection, text: str) -> None:
    """Remove a word, in whatever case it is there. Raises NotFound."""
    meant = " ".join(text.split()).casefold()
    same = [row.text for row in listed(conn) if row.text.casefold() == meant]
    if not same:
        raise NotFound("the vocabulary has no such word; `omi-edge vocabulary` lists them.")
    conn.executemany("DELETE FROM vocabulary WHERE text = ?", [(one,) for one in same])


def listed(conn: Connection) -> list[WordRow]:
    """Return the words in the order in which they were added."""
    return [WordRow(*row) for row in conn.execute("SELECT text, actor, created_us FROM vocabulary ORDER BY n")]


def expected(conn: Connection, wearer: str = "") -> tuple[str, ...]:
    """Return what a recogniser should expect: the wearer's name, then words and known people, the newest first."""
    rows = conn.execute("SELECT created_us, text FROM vocabulary ORDER BY n DESC").fetchall()
    rows += conn.execute("SELECT created_us, name FROM people ORDER BY created_us DESC LIMIT ?", (MOST,)).fetchall()
    rows.sort(key=lambda row: row[0], reverse=True)  # of the same time in the order of above
    texts = [wearer.strip(), *(str(text) for _, text in rows)]
    found: dict[str, str] = {}
    for text in filter(None, texts):
        found.setdefault(text.casefold(), text)
    return tuple(found.values())


def suggestions(conn: Connection) -> list[Suggestion]:
    """Return what was put right at least twice in the same way, the most frequent first.

    Nothing of it is applied; it is for the owner to take as a word or as a rule, or to dismiss. Of a word that is in
    the vocabulary, only what had to be put right since it is there counts, and it is offered as a rule alone.
    """
    since_us = {plain_word(row.text): row.created_us for row in listed(conn)}
    done = {tuple(row) for row in conn.execute("SELECT before_text, after_text FROM dismissed")}
    rules = conn.execute("SELECT pattern, replacement FROM rules WHERE kind = ?", (PLAIN,))
    done |= {(plain_word(row[0]), plain_word(row[1])) for row in rules}
    counted: dict[tuple[str, str], list[str]] = {}
    rows = conn.execute(
        "SELECT pieces, created_us FROM corrections WHERE n > (SELECT coalesce(max(n), 0) FROM corrections) - ?"
        " AND undone_us IS NULL ORDER BY n DESC",
        (NEWEST,),
    )
    for data, created_us in rows:
        stretches = msgspec.msgpack.decode(data, type=list[Piece])
        for piece in (one for stretch in stretches for one in stretch.differences):
            before, after = (" ".join(word.text for word in side) for side in (piece.before, piece.after))
            key = plain_word(before), plain_word(after)
            fresh = created_us > since_us.get(key[1], -1)
            if before and after and key[0] != key[1] and key not in done and fresh:
                counted.setdefault(key, []).append(after)
    found = [
        Suggestion(key[0], texts[0], len(texts), key[1] not in since_us)
        for key, texts in counted.items() if len(texts) >= TWICE
    ]  # fmt: skip
    return sorted(found, key=lambda one: (-one.count, one.after))


def dismiss(conn: Connection, before: str, after: str, *, actor: str, now_us: int) -> None:
    """Never offer this again. Raises NotFound for what is not offered."""
    key = plain_word(" ".join(before.split())), plain_word(" ".join(after.split()))
    if key not in {(one.before, plain_word(one.after)) for one in suggestions(conn)}:
        raise NotFound("this is not offered; `omi-edge vocabulary suggestions` lists what is.")
    conn.execute(
        "INSERT INTO dismissed (before_text, after_text, actor, created_us) VALUES (?, ?, ?, ?)", (*key, actor, now_us)
    )
