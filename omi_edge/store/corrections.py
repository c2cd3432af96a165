"""What people put right in transcripts: each correction with what stood there, and which version shows it.

A correction belongs to a conversation, not to a version. The first makes an edited version beside the one that is
shown, so that the original stays; those after it change the edited one. A version made later takes over the corrections
of the segments that it has, whatever was heard there; of the others it is written down that they found no place.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from omi_edge.domain import Utterance, Word
from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.store import conversations, search, transcripts
from omi_edge.store.connection import Connection
from omi_edge.stretches import BY_WORDS, LOST, settle, span
from omi_edge.wording import Piece, pieces, place, reword, spread, with_words

_SELECT = (
    "SELECT k.id, c.id, k.at_us, k.before_text, k.after_text, k.actor, k.created_us, k.undone_us, k.undone_by,"
    " (SELECT p.found > 0 FROM correction_places p JOIN transcript_versions v ON v.n = p.version_n"
    " WHERE p.correction_n = k.n AND v.id = c.version_id), k.n"
    " FROM corrections k JOIN conversations c ON c.n = k.conversation_n"
)
MOST_WORDS = 500
"""Words that are put right at once, and half of what may stand in their place: longer texts take long to compare, and
other writers wait meanwhile. A segment is at most 30 s, so an utterance never has so many."""
LIMIT = 10_000
"""Corrections of one conversation that are listed."""


class CorrectionRow(msgspec.Struct, frozen=True):
    """One correction."""

    id: str
    conversation_id: str
    at_us: int
    """Start of the first utterance it changed."""
    before: str
    """What those utterances said."""
    after: str
    actor: str
    created_us: int
    undone_us: int | None
    undone_by: str | None
    found: bool | None
    """Whether the active version shows it; None where that one was made without corrections."""

    @property
    def state(self) -> str:
        """shown, unplaced (the active version lacks what it is about), hidden, or undone."""
        if self.undone_us is not None:
            return "undone"
        return {True: "shown", False: "unplaced", None: "hidden"}[self.found]


class Target(msgspec.Struct, frozen=True):
    """What of a conversation's text is to be put right: utterances, or some words of one, or a stretch of time."""

    utterance_id: str | None = None
    to_utterance_id: str | None = None
    """Last of several consecutive ones."""
    word: int | None = None
    """From 1; only with one utterance."""
    to_word: int | None = None
    from_us: int | None = None
    """Words whose middle lies in [from_us, to_us)."""
    to_us: int | None = None


class Change(msgspec.Struct, frozen=True):
    """What a correction did."""

    correction_id: str
    conversation_id: str
    utterances: tuple[Utterance, ...]
    """Those that say something else now, as they are in the active version."""


def planned(conn: Connection, conversation_id: str, target: Target, text: str) -> list[tuple[Utterance, Utterance]]:
    """Return which utterances of the active version would change, each before and after. Raises BadInput, NotFound."""
    return [(old, new) for old, new, _ in _planned(conn, conversation_id, target, text) if new is not old]


def _planned(
    conn: Connection, conversation_id: str, target: Target, text: str
) -> list[tuple[Utterance, Utterance, Piece]]:
    """Return each utterance that is meant, what becomes of it (itself where nothing does), and the stretch of it."""
    chosen = _chosen(conn, conversation_id, target)
    texts = text.split()
    if sum(last - first for _, first, last in chosen) > MOST_WORDS or len(texts) > 2 * MOST_WORDS:
        raise BadInput(f"at most {MOST_WORDS} words are put right at once; take a shorter stretch.", "text")
    if any(last > first for _, first, last in chosen):
        lines = reword([one.words[first:last] for one, first, last in chosen], texts)
    else:  # nothing was understood there: what is typed takes the whole of the first
        lines = [spread(texts, chosen[0][0].start_us, chosen[0][0].end_us), *([] for _ in chosen[1:])]
    found = []
    for (one, first, last), words in zip(chosen, lines, strict=True):
        new = with_words(one, (*one.words[:first], *words, *one.words[last:]))
        new = one if new.words == one.words else new
        parts = () if new is one else tuple(pieces(one, new.words))
        at_us = (one.start_us + one.end_us) // 2
        found.append((one, new, Piece(one.segment_id, at_us, one.words[first:last], tuple(words), parts)))
    if all(new is one for one, new, _ in found):
        raise BadInput("that is what it says already; nothing was changed.", "text")
    return found


def add(conn: Connection, conversation_id: str, target: Target, text: str, *, actor: str, now_us: int) -> Change:
    """Put something right. Raises NotFound, and BadInput for what names no words or changes nothing."""
    meant = _planned(conn, conversation_id, target, text)
    changed = [(old, new) for old, new, _ in meant if new is not old]
    parts = [part for _, _, part in meant if part.before or part.after]
    correction_id = new_id("cor", now_us)
    conn.execute(
        "INSERT INTO corrections (id, conversation_n, at_us, before_text, after_text, pieces, actor, created_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            correction_id, conversations.number(conn, conversation_id), changed[0][0].start_us,
            " ".join(old.text for old, _ in changed), " ".join(new.text for _, new in changed if new.text),
            msgspec.msgpack.encode(parts), actor, now_us,
        ),
    )  # fmt: skip
    ids = _editable(conn, conversation_id, now_us)
    stored = [msgspec.structs.replace(new, id=ids.get(new.id, new.id)) for _, new in changed]
    _note_place(conn, _active(conn, conversation_id), correction_id, BY_WORDS)
    return _stored(conn, correction_id, conversation_id, stored)


def undo(conn: Connection, correction_id: str, *, actor: str, now_us: int) -> Change:
    """Take a correction back. Raises NotFound, and BadInput for one that was undone, or that a later one builds on."""
    row = get(conn, correction_id)
    if row.undone_us is not None:
        raise BadInput("this correction was undone already.")
    stored: list[Utterance] = []
    if row.found:
        before = transcripts.utterances(conn, row.conversation_id)
        after = _without(conn, row, before)
        if after is None:
            raise BadInput(_in_the_way(conn, row))
        stored = [new for old, new in zip(before, after, strict=True) if new != old]
    conn.execute("UPDATE corrections SET undone_us = ?, undone_by = ? WHERE id = ?", (now_us, actor, correction_id))
    return _stored(conn, correction_id, row.conversation_id, stored)


def get(conn: Connection, correction_id: str) -> CorrectionRow:
    """Return a correction. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE k.id = ?", (correction_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such correction.")
    return _row(row)


def listed(conn: Connection, conversation_id: str) -> list[CorrectionRow]:
    """Return the corrections of a conversation, the oldest first, undone ones too. Raises NotFound."""
    rows = conn.execute(
        f"{_SELECT} WHERE k.conversation_n = ? ORDER BY k.n LIMIT ?",
        (conversations.number(conn, conversation_id), LIMIT),
    )
    return [_row(row) for row in rows]


def pieces_of(conn: Connection, conversation_id: str, segment_id: str) -> list[Piece]:
    """Return what was put right of one segment, the oldest first, without what was undone. Raises NotFound."""
    rows = conn.execute(
        "SELECT pieces FROM corrections WHERE conversation_n = ? AND undone_us IS NULL ORDER BY n",
        (conversations.number(conn, conversation_id),),
    )
    found = [part for row in rows for part in msgspec.msgpack.decode(row[0], type=list[Piece])]
    return [part for part in found if part.segment_id == segment_id]


def carry(
    conn: Connection, conversation_id: str, from_id: str | None, base_id: str, utterances: Sequence[Utterance],
    *, now_us: int, activate: bool = True,
) -> tuple[str, int]:  # fmt: skip
    """Take the corrections of one version over to a newly made one, ``base_id`` with ``utterances``.

    Returns the version to be shown, which is an edited one where a correction is in it, and how many found no place.
    Nothing is taken over from a version without corrections: the owner chose to see none.
    """
    rows = conn.execute(
        "SELECT k.id FROM corrections k JOIN correction_places p ON p.correction_n = k.n"
        " JOIN transcript_versions v ON v.n = p.version_n WHERE v.id = ? AND k.undone_us IS NULL ORDER BY k.n",
        (from_id,),
    ).fetchall()
    if not rows:
        if activate:
            transcripts.show(conn, conversation_id, base_id)
        return base_id, 0
    corrected = list(utterances)
    found = {}
    for (correction_id,) in rows:
        found[correction_id] = settle(corrected, _pieces(conn, correction_id))
    lost = sum(way == LOST for way in found.values())
    version_id = base_id
    if lost < len(found):
        version_id = new_id("ver", now_us)
        transcripts.new_version(
            conn, conversation_id, id=version_id, kind="edited", engine="", now_us=now_us, base_id=base_id,
            utterances=[msgspec.structs.replace(one, id=new_id("utt", one.start_us)) for one in corrected],
            activate=activate,
        )  # fmt: skip
    elif activate:
        transcripts.show(conn, conversation_id, base_id)
    for correction_id, way in found.items():
        _note_place(conn, version_id, correction_id, way)
    return version_id, lost


def _chosen(conn: Connection, conversation_id: str, target: Target) -> list[tuple[Utterance, int, int]]:
    """Return utterances of the active version, each with the words of it that are meant."""
    said = transcripts.utterances(conn, conversation_id)
    if target.utterance_id is None:
        return _in_time(said, target)
    first = _position(conn, said, target.utterance_id)
    last = first if target.to_utterance_id is None else _position(conn, said, target.to_utterance_id)
    if last < first:
        raise BadInput("the last utterance comes before the first; name them in order.", "to_utterance_id")
    if target.word is None:
        return [(one, 0, len(one.words)) for one in said[first : last + 1]]
    until = target.word if target.to_word is None else target.to_word
    if last != first:
        raise BadInput("a word is named in one utterance; leave the last utterance out.", "word")
    if not 1 <= target.word <= until <= len(said[first].words):
        raise BadInput(f"the utterance has words 1 to {len(said[first].words)}; there is no such word.", "word")
    return [(said[first], target.word - 1, until)]


def _in_time(said: Sequence[Utterance], target: Target) -> list[tuple[Utterance, int, int]]:
    if target.from_us is None or target.to_us is None:
        raise BadInput("say what is to be put right: an utterance, or from when to when.", "utterance_id")

    def meant(word: Word) -> bool:
        return target.from_us <= (word.start_us + word.end_us) // 2 < target.to_us  # type: ignore[operator]

    found = []
    for one in said:
        inside = [n for n, word in enumerate(one.words) if meant(word)]
        if inside:
            found.append((one, inside[0], inside[-1] + 1))
    if not found:
        raise BadInput("nothing was said in that time; name a time in which there are words.", "from")
    return found


def _position(conn: Connection, said: Sequence[Utterance], utterance_id: str) -> int:
    """Return which utterance is meant; an id of another version leads to the same words here, where they are."""
    for n, one in enumerate(said):
        if one.id == utterance_id:
            return n
    meant = transcripts.utterance(conn, utterance_id)
    same = [
        n for n, one in enumerate(said)
        if (one.segment_id, one.start_us, one.text) == (meant.segment_id, meant.start_us, meant.text)
    ]  # fmt: skip
    if len(same) != 1:
        raise BadInput(
            "this utterance belongs to another version of the transcript, and the one that is shown has no such words; "
            "take the id from `omi-edge show --ids`.",
            "utterance_id",
        )
    return same[0]


def _editable(conn: Connection, conversation_id: str, now_us: int) -> dict[str, str]:
    """Have the active version be an edited one; return the new ids of the utterances that were copied for that."""
    active = transcripts.version(conn, conversation_id, _active(conn, conversation_id))
    if active.kind == "edited":
        return {}
    said = transcripts.utterances(conn, conversation_id)
    copies = {one.id: new_id("utt", one.start_us) for one in said}
    transcripts.new_version(
        conn, conversation_id, id=new_id("ver", now_us), kind="edited", engine="", now_us=now_us, base_id=active.id,
        utterances=[msgspec.structs.replace(one, id=copies[one.id]) for one in said],
    )  # fmt: skip
    search.rename(conn, copies)
    conn.execute(  # those that found no place stay to be tried again
        "INSERT INTO correction_places (version_n, correction_n, found) SELECT ?, correction_n, found"
        " FROM correction_places WHERE version_n = ?",
        (transcripts.number(conn, _active(conn, conversation_id)), transcripts.number(conn, active.id)),
    )
    return copies


def _stored(conn: Connection, correction_id: str, conversation_id: str, utterances: Sequence[Utterance]) -> Change:
    """Write what utterances say now, and make that what is found of them."""
    for one in utterances:
        transcripts.put_words(conn, one)
        if one.text:
            search.put_documents(conn, [search.of_utterance(one)])
        else:
            search.remove_documents(conn, [one.id])
    return Change(correction_id, conversation_id, tuple(utterances))


def _active(conn: Connection, conversation_id: str) -> str:
    found = conversations.get(conn, conversation_id).version_id
    if found is None:
        raise NotFound("the conversation has no transcript.")
    return found


def _note_place(conn: Connection, version_id: str, correction_id: str, way: int) -> None:
    conn.execute(
        "INSERT INTO correction_places (version_n, correction_n, found)"
        " SELECT v.n, k.n, ? FROM transcript_versions v, corrections k WHERE v.id = ? AND k.id = ?",
        (way, version_id, correction_id),
    )


def _pieces(conn: Connection, correction_id: str) -> list[Piece]:
    row = conn.execute("SELECT pieces FROM corrections WHERE id = ?", (correction_id,)).fetchone()
    return msgspec.msgpack.decode(row[0], type=list[Piece])


def _without(conn: Connection, row: CorrectionRow, said: Sequence[Utterance]) -> list[Utterance] | None:
    """Return the shown utterances without a correction; None when a later one stands on it.

    Where its old words had been found they come back. Else what was heard there does, with all other corrections.
    """
    version = transcripts.version(conn, row.conversation_id, _active(conn, row.conversation_id))
    ways = conn.execute(
        "SELECT k.id, p.found FROM corrections k JOIN correction_places p ON p.correction_n = k.n"
        " JOIN transcript_versions v ON v.n = p.version_n"
        " WHERE v.id = ? AND p.found > 0 AND k.undone_us IS NULL ORDER BY k.n",
        (version.id,),
    ).fetchall()
    after = list(said)
    parts = _pieces(conn, row.id)
    if dict(ways)[row.id] == BY_WORDS:
        differences = [one for part in parts for one in part.differences]
        return after if all(place(after, one.turned()) for one in reversed(differences)) else None
    others = [(one, _pieces(conn, one)) for one, _ in ways if one != row.id]
    behind = [one for one, _ in ways][[one for one, _ in ways].index(row.id) + 1 :]
    if any(_overlap(part, other) for one, its in others if one in behind for other in its for part in parts):
        return None
    heard = transcripts.utterances(conn, row.conversation_id, version.base_id)
    for _, its in others:
        settle(heard, its)
    for segment_id in {part.segment_id for part in parts}:
        shown = [n for n, one in enumerate(after) if one.segment_id == segment_id]
        made = [one for one in heard if one.segment_id == segment_id]
        if len(shown) != len(made):
            return None
        for n, one in zip(shown, made, strict=True):
            after[n] = with_words(after[n], one.words)
    return after


def _overlap(one: Piece, two: Piece) -> bool:
    (start_us, end_us), (from_us, until_us) = span(one), span(two)
    return one.segment_id == two.segment_id and start_us < until_us and from_us < end_us


def _in_the_way(conn: Connection, row: CorrectionRow) -> str:
    """Say why the words of a correction are not there any more: most likely the newest one after it changed them."""
    after = [one for one in listed(conn, row.conversation_id) if one.created_us >= row.created_us and one.id != row.id]
    shown = [one.id for one in after if one.state == "shown"]
    if shown:
        return f"a later correction ({shown[-1]}) changed the same words after it; undo that one first."
    return "the words that it put there are not in the version that is shown; correct what stands there instead."


def _row(row: tuple[object, ...]) -> CorrectionRow:
    return msgspec.convert(
        dict(zip(CorrectionRow.__struct_fields__, row[:-1], strict=True)), CorrectionRow, strict=False
    )
