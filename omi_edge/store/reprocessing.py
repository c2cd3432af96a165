"""Transcripts that are made anew: which conversations, by which recogniser, how far, and what became of it.

What was asked for at once is a batch. While a conversation is under work its new version grows beside the others,
unfinished: after a restart the work goes on behind its last segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from omi_edge.domain import ConversationState, JobState, Outcome, Stage, Utterance
from omi_edge.errors import AudioReleased, BadInput, Conflict, NotFound
from omi_edge.ids import new_id
from omi_edge.store import audio, conversations, jobs, segments, transcripts, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.segments import SegmentRow

HOLE_US = 300_000
"""So much of a segment may lack audio: holes that the decoder conceals are no longer (docs/architecture.md, Time)."""
RULES = "rules"
"""The engine of a reprocessing that hears nothing: the correction rules over the words that were heard before."""
OPEN = ("queued", "running")
STATES = (*OPEN, "done", "failed", "cancelled")
FINAL = "final"
"""The actor of a final pass: nobody asked for it, and it waits for leisure."""
SUPERSEDED = "superseded"
"""The cause of a final pass that was called off for one that the owner asked for."""
LIMIT = 50
"""Batches that are listed."""

_ASKED, _UNASKED = "rep", "fin"
"""Prefixes of batches: asked for by somebody, and final passes."""
_COLUMNS = (
    "r.n, r.batch_id, c.id, r.engine, r.keep, r.state, r.done, r.total, r.cause, r.version_id, r.actor, r.created_us,"
    " r.ended_us, u.id, r.emotional_feedback"
)
_SELECT = (
    f"SELECT {_COLUMNS} FROM reprocessings r JOIN conversations c ON c.n = r.conversation_n"
    " LEFT JOIN uploads u ON u.n = r.upload_n"
)


class ReprocessingRow(msgspec.Struct, frozen=True):
    """One conversation's transcript made anew."""

    n: int
    batch_id: str
    conversation_id: str
    engine: str
    """The recogniser's name in the settings."""
    keep: bool
    """Whether the new version is only kept, not activated."""
    state: str
    """queued, running, done, failed or cancelled."""
    done: int
    """Segments."""
    total: int
    cause: str | None
    version_id: str | None
    actor: str
    created_us: int
    ended_us: int | None
    upload_id: str | None = None
    """The recording that was sent in to be heard for it; None for the conversation's own audio, or when it is gone."""
    emotional_feedback: bool = False
    """Whether feedback on emotions was asked for; kept, and used by nothing yet."""

    @property
    def final(self) -> bool:
        """Whether it is a final pass."""
        return self.actor == FINAL

    @property
    def stage(self) -> Stage:
        """The job that does it."""
        return Stage.FINAL if self.final else Stage.REPROCESS


def hindrance(
    conn: Connection, conversation_id: str, engine: str = "", upload_id: str | None = None
) -> Conflict | None:
    """Return why a conversation cannot be transcribed anew by an engine, from an upload where one is named.

    Raises NotFound.
    """
    why = busy(conn, conversation_id, upload_id)
    return why if why is not None or upload_id is not None else _unheard(conn, conversation_id, engine)


def busy(conn: Connection, conversation_id: str, upload_id: str | None = None) -> Conflict | None:
    """Return why its state does not allow it now, whatever audio it is to be made of. Raises NotFound."""
    row = conversations.get(conn, conversation_id)
    if row.state is not ConversationState.COMPLETED:
        return Conflict(
            f"the conversation is {row.state.value}; end it with `omi-edge close`, or wait until it is completed."
        )
    known = latest(conn, conversation_id)
    if known is not None and known.state in OPEN and not known.final:
        return Conflict(f"the conversation is being transcribed anew ({known.batch_id}); wait for that, or cancel it.")
    if uploads.receiving(conn, conversation_id) not in (None, upload_id):
        return Conflict("a recording is being sent in for the conversation at this moment; wait for its end.")
    return None


def _unheard(conn: Connection, conversation_id: str, engine: str = "") -> Conflict | None:
    """Return why its own audio cannot be heard again."""
    wanted = spoken(conn, conversation_id)
    if not wanted:
        return Conflict("nothing was spoken in the conversation, so there is nothing to transcribe.")
    if engine == RULES:  # they need no audio
        return None
    gone = _released(conn, wanted)
    if gone:
        return AudioReleased(
            f"the audio of {gone} of its {len(wanted)} segments is no longer kept, so they cannot be heard again; its "
            "transcript stays as it is. `omi-edge reprocess CONVERSATION --audio FILE` takes another recording of it."
        )
    return None


def _released(conn: Connection, wanted: Sequence[SegmentRow]) -> int:
    return sum(
        audio.kept_us(conn, one.segment.source_id, one.segment.start_us, one.segment.end_us)
        < one.segment.end_us - one.segment.start_us - HOLE_US
        for one in wanted
    )


def spoken(conn: Connection, conversation_id: str) -> list[SegmentRow]:
    """Return the segments that are transcribed anew, in order of time."""
    rows = segments.of_conversation(conn, conversation_id)
    return [row for row in rows if row.outcome not in (Outcome.PENDING, Outcome.EXPECTED_SILENCE)]


def ask(
    conn: Connection,
    conversation_ids: Sequence[str],
    *,
    engine: str,
    keep: bool,
    actor: str,
    now_us: int,
    upload_id: str | None = None,
    emotional_feedback: bool = False,
) -> tuple[str, list[tuple[str, str]]]:
    """Have transcripts made anew; return the batch, and the conversations that cannot be, each with why.

    ``upload_id``: of what was sent in for the one conversation. Raises Conflict when there is none that can be, and
    NotFound.
    """
    batch_id = new_id(_ASKED, now_us)
    refused: list[tuple[str, str]] = []
    for conversation_id in conversation_ids:
        heard_of = upload_id if engine != RULES else shown_upload(conn, conversation_id)
        why = hindrance(conn, conversation_id, engine, heard_of)
        if why is not None:
            if len(conversation_ids) == 1:
                raise why
            refused.append((conversation_id, str(why)))
            continue
        waits = latest(conn, conversation_id)
        if waits is not None and end(conn, waits, "cancelled", SUPERSEDED, now_us):
            jobs.cancel(conn, Stage.FINAL, conversation_id, now_us)
        _add(
            conn, batch_id, conversation_id, engine, actor, now_us, keep=keep, upload_id=heard_of,
            emotional_feedback=emotional_feedback,
        )  # fmt: skip
    if len(refused) == len(conversation_ids):
        raise BadInput(
            f"none of {len(refused)} conversations can be transcribed anew; of the first: {refused[0][1]}"
            if refused
            else "no complete conversation began in that time."
        )  # fmt: skip
    return batch_id, refused


def ask_final(conn: Connection, conversation_id: str, *, engine: str, now_us: int) -> bool:
    """Ask a final pass of a completed conversation; return whether one waits now.

    None is asked with ``engine`` "", of a conversation whose words somebody has chosen (transcribed anew at the owner's
    wish, of a recording that was sent in, or rolled back behind a final pass), and of one that has not grown since the
    last. One that is being sent in is in nobody's way until it is whole. Raises NotFound.
    """
    rows = _of(conn, conversation_id)
    if rows and rows[0].state in OPEN:
        if rows[0].final:
            jobs.enqueue(conn, Stage.FINAL, conversation_id, now_us=now_us)
        return rows[0].final
    if not engine or conversations.get(conn, conversation_id).state is not ConversationState.COMPLETED:
        return False
    if _unheard(conn, conversation_id) is not None or shown_upload(conn, conversation_id) is not None:
        return False
    if any(row.state == "done" and not row.keep and not row.final and row.engine != RULES for row in rows):
        return False
    passes = [row for row in rows if row.final and row.cause != SUPERSEDED]
    if passes and passes[0].total == len(spoken(conn, conversation_id)):
        return False
    live_id = transcripts.live_version(conn, conversation_id)
    if any(row.state == "done" for row in passes) and transcripts.words_of(conn, conversation_id) == live_id:
        return False
    _add(conn, new_id(_UNASKED, now_us), conversation_id, engine, FINAL, now_us)
    return True


def renew_final(conn: Connection, *, engine: str, now_us: int) -> int:
    """Let what waits for a final pass be done by ``engine``, or call it off where that is ""; return how many wait."""
    rows = conn.execute(
        f"{_SELECT} WHERE r.batch_id BETWEEN ? AND ? AND r.state IN ('queued', 'running') ORDER BY r.batch_id, r.n",
        (f"{_UNASKED}_", f"{_UNASKED}_~"),
    )
    waiting = [_row(row) for row in rows.fetchall()]
    for row in waiting:
        if row.engine == engine:
            continue
        if not engine:
            end(conn, row, "cancelled", None, now_us)
            jobs.cancel(conn, Stage.FINAL, row.conversation_id, now_us)
            continue
        if row.version_id is not None:
            transcripts.drop_unfinished(conn, row.version_id)
        conn.execute(
            "UPDATE reprocessings SET engine = ?, state = 'queued', version_id = NULL, done = 0 WHERE n = ?",
            (engine, row.n),
        )
    return len(waiting) if engine else 0


def waiting_final(conn: Connection) -> int:
    """Return how many conversations wait for their final pass."""
    return jobs.counts(conn).get(Stage.FINAL.value, {}).get(JobState.QUEUED.value, 0)


def latest(conn: Connection, conversation_id: str) -> ReprocessingRow | None:
    """Return the last reprocessing of a conversation."""
    return next(iter(_of(conn, conversation_id, limit=1)), None)


def last_final(conn: Connection, conversation_id: str) -> ReprocessingRow | None:
    """Return the last final pass of a conversation."""
    return next((row for row in _of(conn, conversation_id) if row.final), None)


def released(conn: Connection, conversation_id: str) -> bool:
    """Whether the audio of what is to be heard again is no longer whole."""
    return _released(conn, spoken(conn, conversation_id)) > 0


def last_asked(conn: Connection, conversation_id: str, *, heard: bool = False) -> ReprocessingRow | None:
    """Return the last reprocessing of a conversation that somebody asked for; with ``heard`` not one of rules."""
    rows = _of(conn, conversation_id)
    return next((row for row in rows if not row.final and not (heard and row.engine == RULES)), None)


def again(conn: Connection, row: ReprocessingRow) -> ReprocessingRow:
    """Return a reprocessing as it stands now."""
    return _row(conn.execute(f"{_SELECT} WHERE r.n = ?", (row.n,)).fetchone())


def batch(conn: Connection, batch_id: str) -> list[ReprocessingRow]:
    """Return the rows of a batch. Raises NotFound."""
    rows = [_row(row) for row in conn.execute(f"{_SELECT} WHERE r.batch_id = ? ORDER BY r.n", (batch_id,))]
    if not rows:
        raise NotFound("there is no such reprocessing.")
    return rows


def batches(conn: Connection) -> list[str]:
    """Return the newest batches that somebody asked for, the newest first; not the final passes."""
    rows = conn.execute(
        "SELECT batch_id FROM reprocessings WHERE batch_id >= ? GROUP BY batch_id ORDER BY batch_id DESC LIMIT ?",
        (f"{_ASKED}_", LIMIT),  # a final pass sorts before
    )
    return [row[0] for row in rows]


def begin(conn: Connection, row: ReprocessingRow, now_us: int) -> tuple[str, list[SegmentRow]] | None:
    """Return the version that grows and the segments it lacks; None when the work was called off."""
    now = again(conn, row)
    if now.state not in OPEN:
        return None
    version_id = now.version_id
    if version_id is None:
        version_id = new_id("ver", now_us)
        # what a recording does not speak for stays as it is shown now; corrections are put into it at the end
        base_id = None if now.upload_id is None else transcripts.uncorrected(conn, row.conversation_id)
        transcripts.new_version(
            conn, row.conversation_id, id=version_id, kind="reprocessed", engine=row.engine, now_us=now_us,
            utterances=(), activate=False, unfinished=True, upload_id=now.upload_id,
            base_id=base_id,
        )  # fmt: skip
    there = {one.segment_id for one in transcripts.utterances(conn, row.conversation_id, version_id)}
    wanted = _wanted(conn, now, version_id)
    conn.execute(
        "UPDATE reprocessings SET state = 'running', version_id = ?, done = ?, total = ? WHERE n = ?",
        (version_id, len(there), len(wanted), row.n),
    )
    return version_id, [one for one in wanted if one.segment.id not in there]


def _wanted(conn: Connection, row: ReprocessingRow, version_id: str) -> list[SegmentRow]:
    if row.upload_id is None:
        return spoken(conn, row.conversation_id)
    found = uploads.spoken(conn, uploads.get(conn, row.upload_id))
    if row.engine == RULES:  # they go over all that is shown, also over what it does not speak for
        found += [segments.get(conn, segment_id) for segment_id in uploads.beside(conn, version_id)]
    return found


def wanted(conn: Connection, row: ReprocessingRow) -> bool:
    """Say whether the work goes on: it was neither called off nor ended otherwise."""
    return again(conn, row).state in OPEN


def grow(conn: Connection, row: ReprocessingRow, version_id: str, said: Sequence[Utterance]) -> ReprocessingRow | None:
    """Store what segments say now, an utterance each; None when the work was called off."""
    if not wanted(conn, row):
        return None
    if row.upload_id is not None and row.engine != RULES:  # they belong to no conversation: nothing else settles them
        for one in said:
            segments.settle(
                conn, one.segment_id, outcome=one.outcome, reason=None, engine=row.engine, conversation_id=None
            )
    transcripts.append(conn, version_id, said)
    conn.execute("UPDATE reprocessings SET done = done + ? WHERE n = ?", (len(said), row.n))
    return again(conn, row)


def end(conn: Connection, row: ReprocessingRow, state: str, cause: str | None, now_us: int) -> bool:
    """End the work on one conversation; False when it had ended. What is unfinished of a version is removed."""
    now = again(conn, row)
    if now.state not in OPEN:
        return False
    if state != "done" and now.version_id is not None:
        transcripts.drop_unfinished(conn, now.version_id)
    conn.execute(
        "UPDATE reprocessings SET state = ?, cause = ?, ended_us = ?, version_id = ? WHERE n = ?",
        (state, cause, now_us, now.version_id if state == "done" else None, row.n),
    )
    if not now.final and (state != "done" or now.keep or now.engine == RULES):
        _revive(conn, now, now_us)
    return True


def made(conn: Connection, row: ReprocessingRow, version_id: str | None) -> None:
    """Note which version came of it: an edited one where corrections were taken over, none where nothing changed."""
    conn.execute("UPDATE reprocessings SET version_id = ? WHERE n = ?", (version_id, row.n))


def cancel(conn: Connection, batch_id: str, now_us: int) -> int:
    """Call off what of a batch has not ended; return how many conversations that are. Raises NotFound."""
    called_off = 0
    for row in batch(conn, batch_id):
        if end(conn, row, "cancelled", None, now_us):
            jobs.cancel(conn, row.stage, row.conversation_id, now_us)
            if row.upload_id is not None:
                uploads.remove(conn, row.upload_id)
            called_off += 1
    return called_off


def shown_upload(conn: Connection, conversation_id: str) -> str | None:
    """Return the upload whose words are shown, None where they are the conversation's own. Raises NotFound."""
    upload = uploads.of_version(conn, transcripts.words_of(conn, conversation_id))
    return None if upload is None else upload.id


def _revive(conn: Connection, ended: ReprocessingRow, now_us: int) -> None:
    """Ask again for the final pass that gave way to a reprocessing of which no other words came that are shown."""
    before = next((row for row in _of(conn, ended.conversation_id) if row.n < ended.n), None)
    if before is not None and before.final and before.cause == SUPERSEDED:
        ask_final(conn, ended.conversation_id, engine=before.engine, now_us=now_us)


def _add(
    conn: Connection, batch_id: str, conversation_id: str, engine: str, actor: str, now_us: int, *, keep: bool = False,
    upload_id: str | None = None, emotional_feedback: bool = False,
) -> None:  # fmt: skip
    conn.execute(
        "INSERT INTO reprocessings (batch_id, conversation_n, engine, keep, state, total, actor, created_us, upload_n,"
        " emotional_feedback) VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, (SELECT n FROM uploads WHERE id = ?), ?)",
        (
            batch_id, conversations.number(conn, conversation_id), engine, keep,
            0 if upload_id is not None else len(spoken(conn, conversation_id)), actor, now_us, upload_id,
            emotional_feedback,
        ),
    )  # fmt: skip
    jobs.enqueue(conn, Stage.FINAL if actor == FINAL else Stage.REPROCESS, conversation_id, now_us=now_us)


def _of(conn: Connection, conversation_id: str, limit: int = -1) -> list[ReprocessingRow]:
    """Return the reprocessings of a conversation, the newest first."""
    rows = conn.execute(
        f"{_SELECT} WHERE r.conversation_n = ? ORDER BY r.n DESC LIMIT ?",
        (conversations.number(conn, conversation_id), limit),
    )
    return [_row(row) for row in rows.fetchall()]


def _row(row: tuple[object, ...]) -> ReprocessingRow:
    fields = dict(zip(ReprocessingRow.__struct_fields__, row, strict=True))
    flags = {name: bool(fields[name]) for name in ("keep", "emotional_feedback")}
    return msgspec.convert(fields | flags, ReprocessingRow)
