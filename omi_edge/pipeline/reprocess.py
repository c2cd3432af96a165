"""A conversation transcribed anew: segment by segment into a version of its own, which is shown when it is whole.

At the owner's wish it is done at once. The final pass does the same when there is leisure, and stands back between two
calls of its recogniser as soon as there is none.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence

from omi_edge.clock import Clock
from omi_edge.domain import ConversationState, Job, Notice, Severity, SpeechSegment, Stage, Turn, Utterance
from omi_edge.engine import Recognition
from omi_edge.errors import AudioError, EnginePermanent, ModelError
from omi_edge.events import Bus
from omi_edge.pipeline.final import FinalPass
from omi_edge.pipeline.jobs import Result
from omi_edge.store import conversations, corrections, jobs, notices, reprocessing, rules, search, transcripts, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.store.reprocessing import ReprocessingRow
from omi_edge.store.uploads import UploadRow

Hear = Callable[[Sequence[SpeechSegment], ReprocessingRow], Awaitable[list[Recognition]]]
"""Recognises segments with the engine that is wanted of a conversation."""
Keep = Callable[[Connection, str], None]
"""Keeps what belongs to an utterance beside the version that it is put into."""
Written = tuple[Utterance, Keep]
Write = Callable[[SpeechSegment, str, Recognition], Awaitable[Written]]
"""Makes an utterance of what was recognised."""
Split = Callable[[Connection, str, str, Sequence[Turn] | None], list[Utterance]]
"""Takes a conversation, a version with its words, and who spoke when where that is known already; returns the words
with their speakers."""
Voices = Callable[[Sequence[SpeechSegment]], Awaitable[list[Turn]]]
"""Says who speaks when in segments."""
Listen = Callable[[UploadRow, Callable[[Connection], bool]], Awaitable[bool]]
"""Brings what was sent in into its source, as long as that is wanted; see sentin.hear."""
Made = tuple[ConversationRow, Notice | None]
"""A conversation whose transcript is another, and what the owner should know of that."""


class Reprocess:
    """The stages `reprocess`, and with ``final`` `final`, which hears ``batch`` segments in one call.

    ``told`` is given the conversation when its new transcript is there.
    """

    def __init__(
        self, db: Database, clock: Clock, bus: Bus, hear: Hear, write: Write, split: Split,
        told: Callable[[Made], None], listen: Listen, voices: Voices, *, final: FinalPass | None = None, batch: int = 1,
    ) -> None:  # fmt: skip
        self._db = db
        self._clock = clock
        self._bus = bus
        self._hear = hear
        self._write = write
        self._split = split
        self._told = told
        self._listen = listen
        self._voices = voices
        self._final = final
        self._batch = batch
        self._why: dict[str, str] = {}
        """What is wrong with what was sent in for a conversation, in words, until its job is given up."""

    async def run(self, conversation_id: str) -> Result:
        """Transcribe what is still to be; a conversation whose work was called off is left alone."""
        row = await self._db.read(lambda conn: self._wanted(conn, conversation_id))
        begun = None
        if row is not None and self._final is not None and await self._gone(row):
            return Result(_nothing)
        if row is not None and row.upload_id is not None and not await self._heard(row, row.upload_id):
            return Result(_nothing)
        if row is not None:
            begun = await self._db.write(lambda conn: reprocessing.begin(conn, row, self._clock.utc_us()))
        if row is None or begun is None:
            return Result(_nothing)
        version_id, left = begun
        heard_by = row.engine
        for first in range(0, len(left), self._batch):
            pieces = [one.segment for one in left[first : first + self._batch]]
            if self._final is not None and await self._final.hinder():
                return Result(_nothing, later=True)
            try:
                heard = await self._hear(pieces, row)
            except ModelError:
                if self._final is None:
                    raise
                await self._final.look()
                return Result(_nothing, later=True)
            heard_by = heard[-1].engine
            said = [await self._write(one, conversation_id, of_it) for one, of_it in zip(pieces, heard, strict=True)]
            grown = await self._db.write(functools.partial(_grow, row=row, version_id=version_id, said=said))
            if grown is None:
                return Result(_nothing)
            self._tell(grown)
            if not await self._still(conversation_id):
                return Result(_nothing)
        turns = await self._turns(row)
        parts = await self._db.read(lambda conn: self._split(conn, conversation_id, version_id, turns))
        if row.upload_id is not None and not _rules(row) and not any(one.text for one in parts):
            raise self._because(row, AudioError("no word could be made out in the recording. Send a clearer one."))
        return Result(
            lambda conn: self._finish(conn, row, version_id, heard_by, parts), self._finished, engine=heard_by
        )

    def _wanted(self, conn: Connection, conversation_id: str) -> ReprocessingRow | None:
        """Return what is to be done now, None for nothing."""
        row = reprocessing.latest(conn, conversation_id)
        if row is None or row.final is not (self._final is not None):
            return None
        if row.final and conversations.get(conn, conversation_id).state is not ConversationState.COMPLETED:
            return None  # it grows; when it is complete again, the pass goes on
        return row

    async def _gone(self, row: ReprocessingRow) -> bool:
        """Call a final pass off when the audio was let go of while it waited: nobody has to be told."""

        def look(conn: Connection) -> bool:
            now_us, cause = self._clock.utc_us(), "the audio is no longer kept"
            gone = reprocessing.released(conn, row.conversation_id)
            return gone and reprocessing.end(conn, row, "cancelled", cause, now_us)

        return await self._db.write(look)

    async def _still(self, conversation_id: str) -> bool:
        """Whether to go on: a final pass does not when the conversation was opened again meanwhile."""
        if self._final is None:
            return True
        return await self._db.read(lambda conn: self._wanted(conn, conversation_id)) is not None

    async def _heard(self, row: ReprocessingRow, upload_id: str) -> bool:
        """Have an upload's audio in its source; False when the work was called off."""

        def look(conn: Connection) -> UploadRow | None:
            return uploads.get(conn, upload_id) if reprocessing.wanted(conn, row) else None

        upload = await self._db.read(look)
        if upload is None or upload.state == "heard":
            return upload is not None
        try:
            return await self._listen(upload, lambda conn: reprocessing.wanted(conn, row))
        except AudioError as error:
            self._because(row, error)
            raise

    def _because(self, row: ReprocessingRow, error: AudioError) -> AudioError:
        """Remember in words what is wrong with an upload."""
        self._why[row.conversation_id] = str(error)
        return error

    async def _turns(self, row: ReprocessingRow) -> list[Turn] | None:
        """Say who speaks in an upload; None for the conversation's own audio, of which that is known."""
        upload_id = row.upload_id
        if upload_id is None:
            return None
        if _rules(row):
            return await self._db.read(lambda conn: _speakers(conn, row.conversation_id))
        spoken = await self._db.read(lambda conn: uploads.spoken(conn, uploads.get(conn, upload_id)))
        try:
            return await self._voices([one.segment for one in spoken])
        except EnginePermanent:  # as with a conversation's own: left out is the stage, never the words
            return []

    async def give_up(self, conversation_id: str, cause: str) -> Result:
        """Let the transcript be as it is. What was sent in stays, to be tried again, unless it cannot be read."""
        why = self._why.pop(conversation_id, None)

        def commit(conn: Connection) -> tuple[ReprocessingRow | None, int]:
            row = reprocessing.latest(conn, conversation_id)
            if row is None or row.final is not (self._final is not None):
                return None, reprocessing.waiting_final(conn)
            reprocessing.end(conn, row, "failed", why or cause, self._clock.utc_us())
            if why is not None and row.upload_id is not None:
                uploads.remove(conn, row.upload_id)
            return reprocessing.again(conn, row), reprocessing.waiting_final(conn)

        return Result(commit, lambda ended: self._ended(*ended))

    def _finish(
        self, conn: Connection, row: ReprocessingRow, version_id: str, engine: str, said: list[Utterance]
    ) -> tuple[ReprocessingRow | None, int, Made | None] | None:
        now_us = self._clock.utc_us()
        if not reprocessing.end(conn, row, "done", None, now_us):
            return None
        conversation_id = row.conversation_id
        before = conversations.get(conn, conversation_id)
        if _rules(row) and not self._differs(conn, conversation_id, said):
            transcripts.drop_unfinished(conn, version_id)
            reprocessing.made(conn, row, None)
            return reprocessing.again(conn, row), reprocessing.waiting_final(conn), None
        # a recording that the owner has chosen while a final pass waited stays shown
        keep = row.keep or (row.final and reprocessing.shown_upload(conn, conversation_id) is not None)
        rules.inherit(conn, conversation_id, version_id)
        transcripts.finish(conn, version_id, engine, said)
        shown_id, unplaced = corrections.carry(
            conn, conversation_id, before.version_id, version_id, said, now_us=now_us, activate=not keep
        )
        reprocessing.made(conn, row, shown_id)
        if not keep:
            search.show_utterances(conn, conversation_id, transcripts.utterances(conn, conversation_id, shown_id))
            if before.state is not ConversationState.OPEN:
                jobs.enqueue(conn, Stage.EXTRACT, conversation_id, now_us=now_us)
        made = conversations.get(conn, conversation_id), note_unplaced(conn, conversation_id, unplaced, now_us)
        return reprocessing.again(conn, row), reprocessing.waiting_final(conn), made

    def _differs(self, conn: Connection, conversation_id: str, said: list[Utterance]) -> bool:
        """Say whether the rules made other words than those that are shown, corrections aside."""
        before = self._split(conn, conversation_id, transcripts.words_of(conn, conversation_id), None)
        old, new = ([word for one in texts for word in one.words] for texts in (before, said))
        return old != new

    def _finished(self, ended: tuple[ReprocessingRow | None, int, Made | None] | None) -> None:
        if ended is not None:
            self._ended(*ended[:2])
            if ended[2] is not None:
                self._told(ended[2])

    def _ended(self, row: ReprocessingRow | None, waiting: int) -> None:
        if row is not None:
            self._tell(row)
        if self._final is not None:
            self._final.left(waiting)

    def _tell(self, row: ReprocessingRow) -> None:
        self._bus.publish(
            "reprocess", self._clock.utc_us(), id=row.batch_id, conversation_id=row.conversation_id, state=row.state,
            done=row.done, total=row.total, cause=row.cause, final=row.final,
        )  # fmt: skip


def _nothing(_: Connection) -> None:
    """Nothing came of it."""


def _speakers(conn: Connection, conversation_id: str) -> list[Turn]:
    """Return who speaks when in the recordings whose words are shown, corrections aside."""
    own = {one.segment.id for one in reprocessing.spoken(conn, conversation_id)}
    said = transcripts.utterances(conn, conversation_id, transcripts.words_of(conn, conversation_id))
    return [
        Turn(one.start_us, one.end_us, one.speaker, 1.0)
        for one in said
        if one.speaker is not None and one.segment_id not in own
    ]


def _rules(row: ReprocessingRow) -> bool:
    """Say whether nothing is heard for it."""
    return row.engine == reprocessing.RULES


def _grow(
    conn: Connection, *, row: ReprocessingRow, version_id: str, said: Sequence[Written]
) -> ReprocessingRow | None:
    grown = reprocessing.grow(conn, row, version_id, [utterance for utterance, _ in said])
    if grown is not None:
        for _, keep in said:
            keep(conn, version_id)
    return grown


def failure(conn: Connection, job: Job) -> str:
    """Return what the owner is told when a conversation could not be transcribed anew: why, and how to try again."""
    conversation_id = job.subject_id
    last = reprocessing.last_final if job.stage is Stage.FINAL else reprocessing.last_asked
    row = last(conn, conversation_id)
    why = (row.cause if row is not None else None) or job.cause or "unknown cause"
    told = f": {why}" if why.endswith(".") else f" ({why})."
    again = "`omi-edge {} {}{}` tries it again."
    if row is not None and _rules(row):
        cure = again.format("rules apply --conversation", conversation_id, "")
    elif row is not None and row.upload_id is not None:
        cure = again.format("reprocess", conversation_id, " --upload")
    elif row is not None and not row.final and why.endswith("."):  # what was sent in is gone
        cure = f"`omi-edge reprocess {conversation_id} --audio FILE` sends another in."
    else:
        cure = again.format("reprocess", conversation_id, "")
    return f"A conversation could not be transcribed anew{told} Its transcript is as it was. {cure}"


def note_unplaced(conn: Connection, conversation_id: str, count: int, now_us: int) -> Notice | None:
    """Raise a notice when ``count`` corrections found no place in a conversation's new transcript."""
    if not count:
        notices.clear(conn, "correction-unplaced", (conversation_id,), now_us)
        return None
    return notices.raise_notice(
        conn, code="correction-unplaced", severity=Severity.WARNING, subject_ids=(conversation_id,), now_us=now_us,
        message=f"{count} correction(s) of a conversation found no place in its new transcript: the audio that they "
        f"are about is not in it. They are kept; `omi-edge corrections list {conversation_id}` shows them.",
    )  # fmt: skip


def tell_notice(bus: Bus, notice: Notice) -> None:
    """Tell everybody of a notice that was raised."""
    bus.publish(
        "notice", notice.last_us, id=notice.id, code=notice.code, severity=notice.severity.value,
        message=notice.message,
    )  # fmt: skip
