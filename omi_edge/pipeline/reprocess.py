"""A conversation transcribed anew: segment by segment into a version of its own, which is shown when it is whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from omi_edge.clock import Clock
from omi_edge.domain import ConversationState, Notice, Severity, SpeechSegment, Stage, Utterance
from omi_edge.engine import Recognition
from omi_edge.events import Bus
from omi_edge.pipeline.jobs import Result
from omi_edge.store import conversations, corrections, jobs, notices, reprocessing, search, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.store.reprocessing import ReprocessingRow

Hear = Callable[[SpeechSegment, str], Awaitable[Recognition]]
"""Recognises a segment with the engine of a name."""
Write = Callable[[SpeechSegment, str, Recognition], Utterance]
"""Makes an utterance of what was recognised."""
Split = Callable[[Connection, str, str | None], list[Utterance]]
"""Takes a conversation and a version with its words; returns them with their speakers."""
Made = tuple[ConversationRow, Notice | None]
"""A conversation whose transcript is another, and what the owner should know of that."""


class Reprocess:
    """The stage `reprocess`. ``told`` is given the conversation when its new transcript is there."""

    def __init__(
        self, db: Database, clock: Clock, bus: Bus, hear: Hear, write: Write, split: Split,
        told: Callable[[Made], None],
    ) -> None:  # fmt: skip
        self._db = db
        self._clock = clock
        self._bus = bus
        self._hear = hear
        self._write = write
        self._split = split
        self._told = told

    async def run(self, conversation_id: str) -> Result:
        """Transcribe what is still to be; a conversation whose work was called off is left alone."""
        row = await self._db.read(lambda conn: reprocessing.latest(conn, conversation_id))
        begun = None
        if row is not None:
            begun = await self._db.write(lambda conn: reprocessing.begin(conn, row, self._clock.utc_us()))
        if row is None or begun is None:
            return Result(lambda conn: None)
        version_id, left = begun
        heard_by = row.engine
        for one in left:
            recognition = await self._hear(one.segment, row.engine)
            heard_by = recognition.engine
            utterance = self._write(one.segment, conversation_id, recognition)
            grown = await self._db.write(lambda conn: reprocessing.grow(conn, row, version_id, utterance))  # noqa: B023
            if grown is None:
                return Result(lambda conn: None)
            self._tell(grown)
        said = await self._db.read(lambda conn: self._split(conn, conversation_id, version_id))
        return Result(lambda conn: self._finish(conn, row, version_id, heard_by, said), self._finished, engine=heard_by)

    async def give_up(self, conversation_id: str, cause: str) -> Result:
        """Let the transcript be as it is."""

        def commit(conn: Connection) -> ReprocessingRow | None:
            row = reprocessing.latest(conn, conversation_id)
            if row is not None:
                reprocessing.end(conn, row, "failed", cause, self._clock.utc_us())
            return reprocessing.latest(conn, conversation_id)

        return Result(commit, lambda row: self._tell(row) if row is not None else None)

    def _finish(
        self, conn: Connection, row: ReprocessingRow, version_id: str, engine: str, said: list[Utterance]
    ) -> tuple[ReprocessingRow | None, Made] | None:
        now_us = self._clock.utc_us()
        if not reprocessing.end(conn, row, "done", None, now_us):
            return None
        conversation_id = row.conversation_id
        before = conversations.get(conn, conversation_id)
        transcripts.finish(conn, version_id, engine, said)
        shown_id, unplaced = corrections.carry(
            conn, conversation_id, before.version_id, version_id, said, now_us=now_us, activate=not row.keep
        )
        reprocessing.made(conn, row, shown_id)
        if not row.keep:
            search.show_utterances(conn, conversation_id, transcripts.utterances(conn, conversation_id, shown_id))
            if before.state is not ConversationState.OPEN:
                jobs.enqueue(conn, Stage.EXTRACT, conversation_id, now_us=now_us)
        made = conversations.get(conn, conversation_id), note_unplaced(conn, conversation_id, unplaced, now_us)
        return reprocessing.latest(conn, conversation_id), made

    def _finished(self, ended: tuple[ReprocessingRow | None, Made] | None) -> None:
        if ended is not None and ended[0] is not None:
            self._tell(ended[0])
            self._told(ended[1])

    def _tell(self, row: ReprocessingRow) -> None:
        self._bus.publish(
            "reprocess", self._clock.utc_us(), id=row.batch_id, conversation_id=row.conversation_id, state=row.state,
            done=row.done, total=row.total, cause=row.cause,
        )  # fmt: skip


def note_unplaced(conn: Connection, conversation_id: str, count: int, now_us: int) -> Notice | None:
    """Raise a notice when ``count`` corrections found no place in a conversation's new transcript."""
    if not count:
        notices.clear(conn, "correction-unplaced", (conversation_id,), now_us)
        return None
    return notices.raise_notice(
        conn, code="correction-unplaced", severity=Severity.WARNING, subject_ids=(conversation_id,), now_us=now_us,
        message=f"{count} correction(s) of a conversation found no place in its new transcript: the words that they "
        "put right are not in it. They are kept; `omi-edge corrections list CONVERSATION` shows them.",
    )  # fmt: skip


def tell_notice(bus: Bus, notice: Notice) -> None:
    """Tell everybody of a notice that was raised."""
    bus.publish(
        "notice", notice.last_us, id=notice.id, code=notice.code, severity=notice.severity.value,
        message=notice.message,
    )  # fmt: skip
