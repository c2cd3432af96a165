"""Transcripts: versions of a conversation's text, one of them active; none is ever overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from omi_edge.domain import Turn, Utterance, Word
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import conversations, search
from omi_edge.store.connection import Connection

_SELECT = (
    "SELECT u.id, c.id, u.segment_id, o.id, u.speaker, u.start_us, u.end_us, u.text, u.words, u.confidence,"
    " u.person_id, u.outcome FROM utterances u JOIN transcript_versions v ON v.n = u.version_n"
    " JOIN conversations c ON c.n = v.conversation_n JOIN sources o ON o.n = c.source_n"
)


class VersionRow(msgspec.Struct, frozen=True):
    """One version of a transcript."""

    id: str
    kind: str
    """live, final, reprocessed or edited."""
    engine: str
    created_us: int
    active: bool
    base_id: str | None = None
    """The version whose words it shows: of an edited one what was corrected, of a recording that was sent in what is
    shown outside its time; None where all were recognised for it."""
    unfinished: bool = False
    """Whether it is still being made; it cannot be activated yet."""


class SpeakerRow(msgspec.Struct, frozen=True):
    """How long somebody spoke in a conversation."""

    speaker: str | None
    person_id: str | None
    talk_us: int
    utterances: int


def append(conn: Connection, version_id: str, utterances: Iterable[Utterance]) -> None:
    """Add utterances to a version."""
    version_n = number(conn, version_id)
    conn.executemany(
        "INSERT INTO utterances (id, version_n, segment_id, speaker, person_id, start_us, end_us, text, words,"
        " confidence, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                one.id, version_n, one.segment_id, one.speaker, one.person_id, one.start_us, one.end_us, one.text,
                msgspec.msgpack.encode(one.words), one.confidence, one.outcome.value,
            )
            for one in utterances
        ],
    )  # fmt: skip


def new_version(
    conn: Connection,
    conversation_id: str,
    *,
    id: str,
    kind: str,
    engine: str,
    now_us: int,
    utterances: Sequence[Utterance],
    activate: bool = True,
    base_id: str | None = None,
    unfinished: bool = False,
    upload_id: str | None = None,
) -> None:
    """Add a version; with ``upload_id`` its words are those of a recording that was sent in."""
    conn.execute(
        "INSERT INTO transcript_versions (id, conversation_n, kind, engine, created_us, base_id, unfinished,"
        " upload_n) VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT n FROM uploads WHERE id = ?))",
        (id, conversations.number(conn, conversation_id), kind, engine, now_us, base_id, unfinished, upload_id),
    )
    append(conn, id, utterances)
    if activate:
        show(conn, conversation_id, id)


def show(conn: Connection, conversation_id: str, version_id: str) -> None:
    """Make a version the active one, and remember which was."""
    conn.execute(
        "UPDATE conversations SET previous_version_id = version_id, version_id = ?"
        " WHERE id = ? AND version_id IS NOT ?",
        (version_id, conversation_id, version_id),
    )


def activate(conn: Connection, conversation_id: str, version_id: str) -> None:
    """Make a version the active one, and its words what is found. Raises NotFound; BadInput for an unfinished one."""
    if version(conn, conversation_id, version_id).unfinished:
        raise BadInput("this version is still being made; wait until it is finished, or cancel it.", "version")
    show(conn, conversation_id, version_id)
    search.show_utterances(conn, conversation_id, utterances(conn, conversation_id, version_id))


def previous(conn: Connection, conversation_id: str) -> str | None:
    """Return the version that was active before the one that is, None where none was or where it is gone."""
    row = conn.execute(
        "SELECT v.id FROM conversations c JOIN transcript_versions v ON v.id = c.previous_version_id WHERE c.id = ?",
        (conversation_id,),
    ).fetchone()
    return None if row is None else str(row[0])


def words_of(conn: Connection, conversation_id: str) -> str:
    """Return the version whose recognised words the active one shows: the live one, or one made anew."""
    return lineage(conn, conversation_id)[-1]


def lineage(conn: Connection, conversation_id: str, version_id: str | None = None) -> list[str]:
    """Return a version, the active one by default, and those whose words it shows, up to the recognised one."""
    known = {row.id: row for row in versions(conn, conversation_id)}
    live_id = live_version(conn, conversation_id)
    at = version_id or conversations.get(conn, conversation_id).version_id
    found: list[str] = []
    while at is not None and at in known and at != live_id:
        found.append(at)
        if known[at].kind == "reprocessed":
            return found
        at = known[at].base_id
    return [*found, live_id]


def uncorrected(conn: Connection, conversation_id: str) -> str:
    """Return the version that is shown, or where corrections were put into it, the one that they were put into."""
    chain = lineage(conn, conversation_id)
    known = {row.id: row.kind for row in versions(conn, conversation_id)}
    return next(one for one in chain if known[one] != "edited")


def number(conn: Connection, version_id: str) -> int:
    """Return the number of a version. Raises NotFound."""
    found = conn.execute("SELECT n FROM transcript_versions WHERE id = ?", (version_id,)).fetchone()
    if found is None:
        raise NotFound("there is no such version of a transcript.")
    return int(found[0])


def finish(conn: Connection, version_id: str, engine: str, utterances: Sequence[Utterance]) -> None:
    """Give an unfinished version its utterances, instead of those it has, and call it finished."""
    _clear(conn, version_id)
    conn.execute("UPDATE transcript_versions SET unfinished = 0, engine = ? WHERE id = ?", (engine, version_id))
    append(conn, version_id, utterances)


def drop_unfinished(conn: Connection, version_id: str) -> None:
    """Remove a version that never was finished; any other stays."""
    row = conn.execute("SELECT unfinished FROM transcript_versions WHERE id = ?", (version_id,)).fetchone()
    if row is not None and row[0]:
        _clear(conn, version_id)
        conn.execute("DELETE FROM transcript_versions WHERE id = ?", (version_id,))


def put_words(conn: Connection, utterance: Utterance) -> None:
    """Store what an utterance of an edited version says now; its speaker and span stay."""
    conn.execute(
        "UPDATE utterances SET text = ?, words = ?, confidence = ?, outcome = ? WHERE id = ?",
        (
            utterance.text, msgspec.msgpack.encode(utterance.words), utterance.confidence, utterance.outcome.value,
            utterance.id,
        ),
    )  # fmt: skip


def _clear(conn: Connection, version_id: str) -> None:
    conn.execute(
        "DELETE FROM utterances WHERE version_n = (SELECT n FROM transcript_versions WHERE id = ?)", (version_id,)
    )


def live_version(conn: Connection, conversation_id: str) -> str:
    """Return the id of the version that grows with each segment. Raises NotFound."""
    row = conn.execute(
        "SELECT v.id FROM transcript_versions v WHERE v.conversation_n = ? AND v.kind = 'live'",
        (conversations.number(conn, conversation_id),),
    ).fetchone()
    if row is None:
        raise NotFound("the conversation has no live transcript.")
    return str(row[0])


def utterances(conn: Connection, conversation_id: str, version_id: str | None = None) -> list[Utterance]:
    """Return the utterances of a version, the active one by default, in order of time. Raises NotFound."""
    wanted = version_id or conversations.get(conn, conversation_id).version_id
    found = conn.execute(
        "SELECT n FROM transcript_versions WHERE id = ? AND conversation_n = ?",
        (wanted, conversations.number(conn, conversation_id)),
    ).fetchone()
    if found is None:
        raise NotFound("the conversation has no such version of a transcript.")
    rows = conn.execute(f"{_SELECT} WHERE u.version_n = ? ORDER BY u.start_us, u.id", (found[0],))
    return [_utterance(row) for row in rows]


def utterance(conn: Connection, utterance_id: str) -> Utterance:
    """Return one utterance of any version. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE u.id = ?", (utterance_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such utterance.")
    return _utterance(row)


def versions(conn: Connection, conversation_id: str) -> list[VersionRow]:
    """Return the versions of a conversation's transcript, the oldest first. Raises NotFound."""
    active = conversations.get(conn, conversation_id).version_id
    rows = conn.execute(
        "SELECT id, kind, engine, created_us, base_id, unfinished FROM transcript_versions WHERE conversation_n = ?"
        " ORDER BY n",
        (conversations.number(conn, conversation_id),),
    )
    return [VersionRow(row[0], row[1], row[2], row[3], row[0] == active, row[4], bool(row[5])) for row in rows]


def version(conn: Connection, conversation_id: str, version_id: str) -> VersionRow:
    """Return one version of a conversation's transcript. Raises NotFound."""
    found = next((row for row in versions(conn, conversation_id) if row.id == version_id), None)
    if found is None:
        raise NotFound("the conversation has no such version of a transcript.")
    return found


def put_turns(conn: Connection, conversation_id: str, turns: Sequence[Turn], engine: str) -> None:
    """Replace what a diarizer said of a conversation."""
    conversation_n = conversations.number(conn, conversation_id)
    conn.execute("DELETE FROM turns WHERE conversation_n = ?", (conversation_n,))
    conn.executemany(
        "INSERT INTO turns (conversation_n, n, start_us, end_us, speaker, confidence, engine)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (conversation_n, n, turn.start_us, turn.end_us, turn.speaker, turn.confidence, engine)
            for n, turn in enumerate(turns)
        ],
    )


def turns(conn: Connection, conversation_id: str) -> list[Turn]:
    """Return who spoke when, in order of time."""
    rows = conn.execute(
        "SELECT start_us, end_us, speaker, confidence FROM turns WHERE conversation_n = ? ORDER BY n",
        (conversations.number(conn, conversation_id),),
    )
    return [Turn(*row) for row in rows]


def speakers(conn: Connection, conversation_id: str) -> list[SpeakerRow]:
    """Return who spoke in the active version and for how long, the most talkative first."""
    rows = conn.execute(
        "SELECT speaker, max(person_id), sum(end_us - start_us), count(*) FROM utterances"
        " WHERE text <> '' AND version_n ="
        " (SELECT v.n FROM transcript_versions v JOIN conversations c ON c.version_id = v.id"
        " WHERE c.id = ?)"
        " GROUP BY speaker ORDER BY 3 DESC",
        (conversation_id,),
    )
    return [SpeakerRow(*row) for row in rows]


def _utterance(row: tuple[object, ...]) -> Utterance:
    names = (
        "id", "conversation_id", "segment_id", "source_id", "speaker", "start_us", "end_us", "text", "words",
        "confidence", "person_id", "outcome",
    )  # fmt: skip
    fields = dict(zip(names, row, strict=True))
    words = msgspec.msgpack.decode(fields.pop("words"), type=tuple[Word, ...])  # type: ignore[call-overload]
    return msgspec.structs.replace(msgspec.convert({**fields, "words": ()}, Utterance), words=words)
