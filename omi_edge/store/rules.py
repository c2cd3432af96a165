"""The owner's correction rules, and what they did: of each segment that they changed, the words as they were heard.

What was heard is kept beside the version that was recognised (the live one, or one made anew); versions that show its
words lead there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from omi_edge import rewrite
from omi_edge.domain import Word
from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.rewrite import Change, Rewritten, Rule
from omi_edge.store import corrections, transcripts, uploads
from omi_edge.store.connection import Connection
from omi_edge.wording import plain_word

MOST = 500
"""Rules that are kept: each looks at each segment."""


class RuleRow(msgspec.Struct, frozen=True):
    """One rule."""

    rule: Rule
    actor: str
    created_us: int


class Heard(msgspec.Struct, frozen=True):
    """What was heard of a segment, and what rules made of it, in the order in which they did."""

    words: tuple[Word, ...]
    changes: tuple[Change, ...]


def add(conn: Connection, kind: str, pattern: str, replacement: str, *, actor: str, now_us: int) -> RuleRow:
    """Add a rule behind the others; one that is there stays. Raises BadInput for what cannot be applied, too many."""
    rewrite.check(kind, pattern, replacement)
    if kind == rewrite.PLAIN:
        pattern, replacement = " ".join(pattern.split()), " ".join(replacement.split())
    rows = listed(conn)
    for row in rows:
        if row.rule.kind == kind and _sought(kind, row.rule.pattern) == _sought(kind, pattern):
            if row.rule.replacement == replacement:
                return row
            raise BadInput(f"there is a rule for that already ({row.rule.id}); remove it first.", "pattern")
    if len(rows) >= MOST:
        raise BadInput(f"there are {MOST} rules, which is as many as are kept; remove one first.", "pattern")
    rule = Rule(new_id("rul", now_us), kind, pattern, replacement)
    conn.execute(
        "INSERT INTO rules (id, kind, pattern, replacement, actor, created_us) VALUES (?, ?, ?, ?, ?, ?)",
        (rule.id, kind, pattern, replacement, actor, now_us),
    )
    return RuleRow(rule, actor, now_us)


def remove(conn: Connection, rule_id: str) -> None:
    """Remove a rule; what it changed stays. Raises NotFound."""
    if not conn.execute("DELETE FROM rules WHERE id = ?", (rule_id,)).rowcount:
        raise NotFound("there is no such rule; `omi-edge rules list` lists them.")


def listed(conn: Connection) -> list[RuleRow]:
    """Return the rules in the order in which they are applied, which is that in which they were added."""
    rows = conn.execute("SELECT id, kind, pattern, replacement, actor, created_us FROM rules ORDER BY n")
    return [RuleRow(Rule(*row[:4]), row[4], row[5]) for row in rows]


def rewritten(
    conn: Connection, segment_id: str, words: Sequence[Word], conversation_id: str | None = None
) -> Rewritten:
    """Apply the rules to what was heard of a segment, except where the conversation's corrections put it right."""
    known = [row.rule for row in listed(conn)]
    if not known or not words:
        return Rewritten(tuple(words))
    by_hand = corrections.pieces_of(conn, conversation_id, segment_id) if conversation_id is not None else []
    return rewrite.apply(known, words, by_hand)


def note(conn: Connection, version_id: str, segment_id: str, heard: Sequence[Word], made: Rewritten) -> None:
    """Keep what was heard of a segment of a version; nothing where no rule changed it. Raises NotFound."""
    if made.changes:
        conn.execute(
            "INSERT OR REPLACE INTO rule_changes (version_n, segment_id, words, changes) VALUES (?, ?, ?, ?)",
            (
                transcripts.number(conn, version_id), segment_id, msgspec.msgpack.encode(tuple(heard)),
                msgspec.msgpack.encode(made.changes),
            ),
        )  # fmt: skip


def inherit(conn: Connection, conversation_id: str, version_id: str) -> None:
    """Take over what rules did to segments that a version made anew lacks: of its base, else of the live version."""
    base_id = transcripts.version(conn, conversation_id, version_id).base_id
    known = heard(conn, conversation_id, base_id or transcripts.live_version(conn, conversation_id))
    for segment_id, row in _missing(conn, known, version_id).items():
        note(conn, version_id, segment_id, row.words, Rewritten((), row.changes))


def heard(conn: Connection, conversation_id: str, version_id: str | None = None) -> dict[str, Heard]:
    """Return what was heard, by segment, where rules changed it; of the active version by default. Raises NotFound."""
    found: dict[str, Heard] = {}
    chain = transcripts.lineage(conn, conversation_id, version_id)
    for one in chain:
        found = _of(conn, one) | found
    live_id = transcripts.live_version(conn, conversation_id)
    return found if live_id in chain else _missing(conn, _of(conn, live_id), chain[-1]) | found


def heard_words(conn: Connection, conversation_id: str, segment_id: str) -> tuple[Word, ...]:
    """Return the words of a segment as they were heard for the version that is shown, before any rule."""
    words_id, live_id = transcripts.words_of(conn, conversation_id), transcripts.live_version(conn, conversation_id)
    for version_id in dict.fromkeys((words_id, live_id)):
        number = transcripts.number(conn, version_id)
        row = conn.execute(
            "SELECT words FROM rule_changes WHERE version_n = ? AND segment_id = ?", (number, segment_id)
        ).fetchone()
        if row is not None:
            return msgspec.msgpack.decode(row[0], type=tuple[Word, ...])
        rows = conn.execute(
            "SELECT words FROM utterances WHERE version_n = ? AND segment_id = ? ORDER BY start_us, id",
            (number, segment_id),
        ).fetchall()
        if rows:
            return tuple(word for row in rows for word in msgspec.msgpack.decode(row[0], type=tuple[Word, ...]))
    return ()


def _sought(kind: str, pattern: str) -> str:
    """Return what tells two patterns apart: plain rules care neither for case nor for signs at the ends of words."""
    return " ".join(map(plain_word, pattern.split())) if kind == rewrite.PLAIN else pattern


def _of(conn: Connection, version_id: str) -> dict[str, Heard]:
    rows = conn.execute(
        "SELECT segment_id, words, changes FROM rule_changes WHERE version_n = ? ORDER BY segment_id",
        (transcripts.number(conn, version_id),),
    )
    return {row[0]: _heard(row[1], row[2]) for row in rows}


def _missing(conn: Connection, known: Mapping[str, Heard], version_id: str) -> dict[str, Heard]:
    """Return what is known of segments that a version shows without having words of its own for them."""
    rows = conn.execute(
        "SELECT DISTINCT segment_id FROM utterances WHERE version_n = ?", (transcripts.number(conn, version_id),)
    )
    there = {row[0] for row in rows}
    if uploads.of_version(conn, version_id) is not None:  # it shows nothing of the time that the recording speaks for
        beside = uploads.beside(conn, version_id).keys() - there
        return {segment_id: row for segment_id, row in known.items() if segment_id in beside}
    return {segment_id: row for segment_id, row in known.items() if segment_id not in there}


def _heard(words: bytes, changes: bytes) -> Heard:
    return Heard(
        msgspec.msgpack.decode(words, type=tuple[Word, ...]), msgspec.msgpack.decode(changes, type=tuple[Change, ...])
    )
