"""The five stages: transcribe a segment; then diarize, assemble, extract and embed its conversation.

Each takes an id, reads what it needs from the file, and returns a Result whose commit is one transaction. Each can be
run again at any time. A stage that failed for good is left out, never its conversation.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from omi_edge.clock import Clock, held
from omi_edge.config import Config
from omi_edge.domain import (
    Codec,
    ConversationState,
    Evidence,
    Memory,
    Notice,
    Outcome,
    SpeechSegment,
    Stage,
    Task,
    Turn,
    Understanding,
    Utterance,
    Word,
)
from omi_edge.engine import Dialogue, HeardWord, Hints, Recognition
from omi_edge.errors import NotFound
from omi_edge.events import Bus
from omi_edge.ids import new_id
from omi_edge.listen.align import assign
from omi_edge.listen.guards import reasons
from omi_edge.memory.conversation import Candidate, outcome_of, place
from omi_edge.pipeline import sentin
from omi_edge.pipeline.engines import Engines
from omi_edge.pipeline.final import FinalPass
from omi_edge.pipeline.hearing import WARM_UP_US, Hearing, decode_span
from omi_edge.pipeline.jobs import Result, StageWork
from omi_edge.pipeline.live import LiveTranscriber
from omi_edge.pipeline.reprocess import Keep, Reprocess, note_unplaced, tell_notice
from omi_edge.rewrite import Rewritten
from omi_edge.store import (
    audio,
    conversations,
    corrections,
    jobs,
    memories,
    people,
    reprocessing,
    rules,
    search,
    segments,
    transcripts,
    uploads,
    vocabulary,
)
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.store.reprocessing import ReprocessingRow
from omi_edge.store.search import Document
from omi_edge.store.uploads import UploadRow
from omi_edge.store.vectors import VectorIndex

EMBED_BATCH = 256


class Stages:
    """What the stages share."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        bus: Bus,
        config: Config,
        engines: Engines,
        live: LiveTranscriber,
        index: VectorIndex,
        time_zone: str,
        final: FinalPass,
        hearing: Callable[[str, Codec], Hearing],
    ) -> None:
        self._hearing = hearing
        """Makes one for a recording that goes into a source."""
        self._db = db
        self._clock = clock
        self._bus = bus
        self._config = config
        self._engines = engines
        self._live = live
        self._index = index
        self._time_zone = time_zone
        shared = (self._written, self._with_speakers, self._assembled, self._listen, self._voices)
        self._reprocess = Reprocess(db, clock, bus, self._heard_by, *shared)
        batch = config.listen.batch
        self._final_pass = Reprocess(db, clock, bus, self._heard_finally, *shared, final=final, batch=batch)
        self._final = final
        self.on_conversation: Callable[[str], None] = lambda _: None
        """Told when a conversation was begun, grew or was opened again."""

    def reconfigure(self, config: Config, time_zone: str) -> None:
        """Take over settings that were re-read."""
        self._config = config
        self._time_zone = time_zone

    def table(self) -> dict[Stage, StageWork]:
        """Return how each stage is done."""
        return {
            Stage.TRANSCRIBE: StageWork(self.transcribe, self._without_text),
            Stage.DIARIZE: StageWork(self.diarize, self._without_turns),
            Stage.ASSEMBLE: StageWork(self.assemble, self._without_final_version),
            Stage.EXTRACT: StageWork(self.extract, self._without_understanding),
            Stage.EMBED: StageWork(self.embed, self._without_vectors),
            Stage.REPROCESS: StageWork(self._reprocess.run, self._reprocess.give_up),
            Stage.FINAL: StageWork(self._final_pass.run, self._final_pass.give_up, self._final.gate),
        }

    # --- transcribe -----------------------------------------------------------------------------------------------

    async def transcribe(self, segment_id: str) -> Result:
        """Give a segment its words, and its place in a conversation."""
        segment = await self._db.read(lambda conn: segments.get(conn, segment_id).segment)
        recognition = await self._live.result(segment_id)
        if recognition is None:
            recognition = await self._engines.recognize(await self._pcm(segment), await self.hints())
        outcome = outcome_of(segment, len(recognition.words))
        heard = _placed(segment, recognition)
        said = await self._db.read(lambda conn: rules.rewritten(conn, segment_id, heard))
        text = " ".join(word.text for word in said.words)
        vector = (await self._engines.embed([text]))[0] if text else None
        doubted = "" if recognition.words else reasons(recognition.rejected)
        reason = f"words not believed: {doubted}" if doubted else None
        return await self._transcribed(segment, recognition, said, outcome, reason, vector)

    async def hints(self, segment: SpeechSegment | None = None, conversation_id: str | None = None) -> Hints:
        """Return what a recogniser may know before it hears a segment of a conversation, or one not placed yet."""

        def read(conn: Connection) -> Hints:
            words = vocabulary.expected(conn, self._config.wearer.name)
            if segment is None or conversation_id is None:
                return Hints(words)
            return Hints(words, people.language_of(conn, conversation_id, segment.id))

        return await self._db.read(read)

    async def _without_text(self, segment_id: str, cause: str) -> Result:
        segment = await self._db.read(lambda conn: segments.get(conn, segment_id).segment)
        return await self._transcribed(segment, Recognition((), ""), Rewritten(()), Outcome.FAILED, cause, None)

    async def _transcribed(
        self,
        segment: SpeechSegment,
        recognition: Recognition,
        said: Rewritten,
        outcome: Outcome,
        reason: str | None,
        vector: object,
    ) -> Result:

        def commit(conn: Connection) -> tuple[ConversationRow, Utterance] | None:
            conversation = None
            if outcome is not Outcome.EXPECTED_SILENCE:
                conversation = self._place(conn, segment, creates=outcome is not Outcome.UNEXPECTED_EMPTY)
            if conversation is None:
                segments.settle(
                    conn, segment.id, outcome=outcome, reason=reason, engine=recognition.engine, conversation_id=None
                )
                return None
            utterance = self._utterance(segment, conversation.id, None, said.words, outcome)
            self._append(conn, conversation, utterance, vector)
            shown = conversation.version_id, transcripts.live_version(conn, conversation.id)
            for version_id in filter(None, dict.fromkeys(shown)):
                rules.note(conn, version_id, segment.id, _placed(segment, recognition), said)
            segments.settle(
                conn, segment.id, outcome=outcome, reason=reason, engine=recognition.engine,
                conversation_id=conversation.id,
            )  # fmt: skip
            return conversations.get(conn, conversation.id), utterance

        def after(stored: tuple[ConversationRow, Utterance] | None) -> None:
            if stored is None:
                return
            conversation, utterance = stored
            self._bus.publish(
                "segment", self._clock.utc_us(), conversation_id=conversation.id, utterance_id=utterance.id,
                segment_id=segment.id, source_id=segment.source_id, start_us=segment.start_us, end_us=segment.end_us,
                text=utterance.text, outcome=outcome.value, confidence=utterance.confidence,
            )  # fmt: skip
            self._tell(conversation)
            self.on_conversation(conversation.id)

        def told(stored: tuple[ConversationRow, Utterance] | None) -> dict[str, str]:
            return {} if stored is None else {"conversation": stored[0].id}

        return Result(commit, after, engine=recognition.engine, told=told)

    def _place(self, conn: Connection, segment: SpeechSegment, *, creates: bool) -> ConversationRow | None:
        settings = self._config.conversation
        silence_us = round(settings.silence * 1e6)
        now_us = self._clock.utc_us()
        earlier = segments.get(conn, segment.id).conversation_id
        if earlier is not None:  # transcribed before: it stays where it is
            return conversations.get(conn, earlier)
        near = conversations.near(conn, segment.source_id, segment.start_us, segment.end_us, silence_us)
        chosen = place(
            segment,
            [Candidate(c.id, c.started_us, c.ended_us, c.closed_by in ("hand", "length")) for c in near],
            silence_us=silence_us,
            max_length_us=round(settings.max_length * 1e6),
        )
        if chosen is not None:
            if creates:
                conversations.extend(conn, chosen, segment.start_us, segment.end_us)
            row = conversations.get(conn, chosen)
            if row.closed_by == "hand":  # it stays closed, but is understood anew with what came late
                jobs.enqueue(conn, Stage.DIARIZE, chosen, now_us=now_us)
            elif row.state is not ConversationState.OPEN:
                conversations.set_state(conn, chosen, ConversationState.OPEN)
            return row
        if not creates:
            return None
        for row in near:
            if row.state is ConversationState.OPEN and row.ended_us <= segment.start_us:  # not joined: it is full
                conversations.set_state(conn, row.id, ConversationState.PROCESSING, closed_by="length")
                jobs.enqueue(conn, Stage.DIARIZE, row.id, now_us=now_us)
        return conversations.create(
            conn,
            id=new_id("con", segment.start_us),
            source_id=segment.source_id,
            started_us=segment.start_us,
            ended_us=segment.end_us,
            now_us=now_us,
        )

    def _append(self, conn: Connection, conversation: ConversationRow, utterance: Utterance, vector: object) -> None:
        """Put an utterance into the live version, and into the active one where that is another."""
        live_id = transcripts.live_version(conn, conversation.id)
        transcripts.append(conn, live_id, [utterance])
        shown = utterance
        if conversation.version_id != live_id and conversation.version_id is not None:
            shown = Utterance(
                **{f: getattr(utterance, f) for f in utterance.__struct_fields__}
                | {"id": new_id("utt", utterance.start_us)}
            )
            transcripts.append(conn, conversation.version_id, [shown])
        if shown.text:
            stored = search.put_documents(conn, [search.of_utterance(shown)])
            if vector is not None:
                search.put_vectors(conn, self._engines.embedder_name, [(stored[0], vector)])

    # --- diarize --------------------------------------------------------------------------------------------------

    async def diarize(self, conversation_id: str) -> Result:
        """Say who spoke when."""
        rows = await self._db.read(lambda conn: segments.of_conversation(conn, conversation_id))
        turns = await self._voices([row.segment for row in rows])
        name = self._engines.diarizer_name
        return Result(
            lambda conn: transcripts.put_turns(conn, conversation_id, turns, name),
            follow=((Stage.ASSEMBLE, conversation_id),),
            engine=name,
        )

    async def _voices(self, spoken: Sequence[SpeechSegment]) -> list[Turn]:
        async def speech() -> AsyncIterator[tuple[int, bytes]]:
            for segment in spoken:
                yield segment.start_us, await self._pcm(segment)

        return await self._engines.diarize(speech())

    async def _without_turns(self, conversation_id: str, cause: str) -> Result:
        return Result(
            lambda conn: transcripts.put_turns(conn, conversation_id, [], ""),
            follow=((Stage.ASSEMBLE, conversation_id),),
        )

    # --- assemble -------------------------------------------------------------------------------------------------

    async def assemble(self, conversation_id: str) -> Result:
        """Make the final version: the words of the live one, each with its speaker."""

        def read(conn: Connection) -> tuple[str | None, list[Utterance]]:
            words_id = transcripts.words_of(conn, conversation_id)
            anew = None if words_id == transcripts.live_version(conn, conversation_id) else words_id
            return anew, self._with_speakers(conn, conversation_id, anew)

        words_id, final = await self._db.read(read)

        def commit(conn: Connection) -> tuple[ConversationRow, Notice | None]:
            now_us = self._clock.utc_us()
            shown, final_id = conversations.get(conn, conversation_id).version_id, new_id("ver", now_us)
            transcripts.new_version(
                conn, conversation_id, id=final_id, kind="final", engine=self._engines.diarizer_name, now_us=now_us,
                utterances=final, activate=False, base_id=words_id,
            )  # fmt: skip
            shown_id, unplaced = corrections.carry(conn, conversation_id, shown, final_id, final, now_us=now_us)
            search.show_utterances(conn, conversation_id, transcripts.utterances(conn, conversation_id, shown_id))
            return conversations.get(conn, conversation_id), note_unplaced(conn, conversation_id, unplaced, now_us)

        return Result(commit, self._assembled, follow=((Stage.EXTRACT, conversation_id),))

    def _assembled(self, made: tuple[ConversationRow, Notice | None]) -> None:
        self._tell(made[0])
        if made[1] is not None:
            tell_notice(self._bus, made[1])

    def _with_speakers(
        self, conn: Connection, conversation_id: str, words_id: str | None, voices: Sequence[Turn] | None = None
    ) -> list[Utterance]:
        """Return the words of a version with their speakers; of segments that it lacks, those of the live version.

        What was sent in speaks for its time: beside it is what was shown before and after that. Its speakers are
        ``voices``, or those that it has.
        """
        live = transcripts.utterances(conn, conversation_id, transcripts.live_version(conn, conversation_id))
        turns = transcripts.turns(conn, conversation_id)
        anew: dict[str, list[Utterance]] = {}
        for one in transcripts.utterances(conn, conversation_id, words_id) if words_id is not None else ():
            anew.setdefault(one.segment_id, []).append(one)
        found = []
        upload = None if words_id is None else uploads.of_version(conn, words_id)
        if words_id is not None and upload is not None:
            for segment in uploads.spoken(conn, upload):
                found += [part for one in anew.get(segment.segment.id, ()) for part in self._again(one, voices)]
            made, anew = anew, uploads.beside(conn, words_id)
            for segment_id in anew.keys() - {one.segment_id for one in live}:  # of another recording
                shown = made.get(segment_id)  # else it has its speakers
                for one in anew[segment_id] if shown is None else shown:
                    found += self._again(one, None if shown is None else voices)
            live = [one for one in live if one.segment_id in anew]
            anew |= {segment_id: parts for segment_id, parts in made.items() if segment_id in anew}
        for one in live:
            if one.segment_id in anew:
                parts = anew[one.segment_id]
                words = tuple(word for part in parts for word in part.words)
                one = msgspec.structs.replace(one, words=words, outcome=parts[0].outcome)
            found += self._split(one, turns)
        return found if upload is None else sorted(found, key=lambda one: one.start_us)

    def _again(self, one: Utterance, voices: Sequence[Turn] | None) -> list[Utterance]:
        if voices is not None:
            return self._split(one, voices)
        return [msgspec.structs.replace(one, id=new_id("utt", one.start_us))]

    def _split(self, live: Utterance, turns: Sequence[object]) -> list[Utterance]:
        segment = SpeechSegment(live.segment_id, live.source_id, live.start_us, live.end_us, 0)
        if not live.words:
            return [self._utterance(segment, live.conversation_id, None, (), live.outcome)]
        return [
            self._utterance(segment, live.conversation_id, run.speaker, run.words, live.outcome)
            for run in assign(live.words, turns)  # type: ignore[arg-type]
        ]

    async def _without_final_version(self, conversation_id: str, cause: str) -> Result:
        return Result(lambda conn: None, follow=((Stage.EXTRACT, conversation_id),))

    # --- extract --------------------------------------------------------------------------------------------------

    async def extract(self, conversation_id: str) -> Result:
        """Understand the conversation."""
        said = await self._db.read(lambda conn: transcripts.utterances(conn, conversation_id))
        said = [utterance for utterance in said if utterance.text]
        wearer = self._config.wearer
        dialogue = Dialogue(tuple(said), self._time_zone, wearer.name, {}, self._config.memory.trigger_phrases)
        understanding = _supported(await self._engines.extract(dialogue), said)
        return self._understood(conversation_id, understanding)

    async def _without_understanding(self, conversation_id: str, cause: str) -> Result:
        return self._understood(conversation_id, Understanding("", "", "other", "💬", (), (), ""))

    def _understood(self, conversation_id: str, understanding: Understanding) -> Result:
        def commit(conn: Connection) -> tuple[list[memories.TaskRow], list[memories.MemoryRow]]:
            now_us = self._clock.utc_us()
            conversations.set_understanding(
                conn, conversation_id, title=understanding.title, overview=understanding.overview,
                category=understanding.category, emoji=understanding.emoji, extractor=understanding.engine,
            )  # fmt: skip
            _index_summary(conn, conversations.get(conn, conversation_id))
            return memories.replace_derived(conn, conversation_id, understanding, now_us=now_us)

        def after(made: tuple[list[memories.TaskRow], list[memories.MemoryRow]]) -> None:
            now_us = self._clock.utc_us()
            for task in made[0]:
                self._bus.publish("task", now_us, id=task.id, conversation_id=conversation_id, act="derived")
            for memory in made[1]:
                self._bus.publish("memory", now_us, id=memory.id, conversation_id=conversation_id, act="derived")

        return Result(commit, after, follow=((Stage.EMBED, conversation_id),), engine=understanding.engine)

    # --- embed ----------------------------------------------------------------------------------------------------

    async def embed(self, conversation_id: str) -> Result:
        """Give every text of the conversation its vector; then it is complete."""
        model = self._engines.embedder_name
        missing = await self._db.read(
            lambda conn: search.without_vectors(conn, model, limit=100_000, conversation_id=conversation_id)
        )
        vectors: list[tuple[int, object]] = []
        for first in range(0, len(missing), EMBED_BATCH):
            batch = missing[first : first + EMBED_BATCH]
            rows = await self._engines.embed([text for _, text in batch])
            vectors += [(document_id, row) for (document_id, _), row in zip(batch, rows, strict=True)]
        return self._completed(conversation_id, vectors, model)

    async def _without_vectors(self, conversation_id: str, cause: str) -> Result:
        return self._completed(conversation_id, [], "")

    def _completed(self, conversation_id: str, vectors: Sequence[tuple[int, object]], model: str) -> Result:
        def commit(conn: Connection) -> ConversationRow:
            if vectors:
                search.put_vectors(conn, model, vectors)
            row = conversations.get(conn, conversation_id)
            if row.state is ConversationState.PROCESSING:  # else late audio has opened it again: it comes back here
                conversations.set_state(
                    conn, conversation_id, ConversationState.COMPLETED, closed_by=row.closed_by,
                    finished_us=self._clock.utc_us(),
                )  # fmt: skip
            row = conversations.get(conn, conversation_id)
            if row.state is ConversationState.COMPLETED:
                reprocessing.ask_final(conn, row.id, engine=self._final.engine, now_us=self._clock.utc_us())
            return row

        return Result(commit, self._tell, engine=model)

    # --- reprocess ------------------------------------------------------------------------------------------------

    async def _heard_by(self, pieces: Sequence[SpeechSegment], row: ReprocessingRow) -> list[Recognition]:
        at = row.conversation_id
        if row.engine == reprocessing.RULES:
            before = [functools.partial(_heard_before, conversation_id=at, segment=one) for one in pieces]
            return [await self._db.read(one) for one in before]
        return [
            await self._engines.recognize_with(row.engine, await self._pcm(one), await self.hints(one, at))
            for one in pieces
        ]

    async def _heard_finally(self, pieces: Sequence[SpeechSegment], row: ReprocessingRow) -> list[Recognition]:
        at = row.conversation_id
        return await self._engines.recognize_final(
            row.engine, [(await self._pcm(one), await self.hints(one, at)) for one in pieces]
        )

    async def _written(
        self, segment: SpeechSegment, conversation_id: str, recognition: Recognition
    ) -> tuple[Utterance, Keep]:
        heard = _placed(segment, recognition)
        said = await self._db.read(lambda conn: rules.rewritten(conn, segment.id, heard, conversation_id))
        utterance = self._utterance(segment, conversation_id, None, said.words, outcome_of(segment, len(heard)))
        return utterance, lambda conn, version_id: rules.note(conn, version_id, segment.id, heard, said)

    async def _listen(self, upload: UploadRow, wanted: Callable[[Connection], bool]) -> bool:
        hearing = self._hearing(upload.source_id, uploads.CODEC)
        return await sentin.hear(self._db, self._clock, self._engines, hearing, upload, wanted)

    # --- shared ---------------------------------------------------------------------------------------------------

    async def _pcm(self, segment: SpeechSegment) -> bytes:
        start_us, end_us = segment.start_us, segment.end_us
        chunks = await self._db.read(
            lambda conn: audio.between(conn, segment.source_id, start_us - 2 * WARM_UP_US, end_us)
        )
        if not chunks:
            raise NotFound("the audio of a segment is no longer in the file.")
        with held(self._clock):
            return (await asyncio.to_thread(decode_span, chunks, start_us, end_us)).tobytes()

    def _utterance(
        self,
        segment: SpeechSegment,
        conversation_id: str,
        speaker: str | None,
        words: Sequence[Word],
        outcome: Outcome,
    ) -> Utterance:
        start_us = words[0].start_us if words else segment.start_us
        return Utterance(
            id=new_id("utt", start_us),
            conversation_id=conversation_id,
            segment_id=segment.id,
            source_id=segment.source_id,
            speaker=speaker,
            start_us=start_us,
            end_us=words[-1].end_us if words else segment.end_us,
            text=" ".join(word.text for word in words),
            words=tuple(words),
            confidence=statistics.fmean(word.confidence for word in words) if words else 0.0,
            outcome=outcome,
        )

    def _tell(self, conversation: ConversationRow) -> None:
        self._bus.publish(
            "conversation", self._clock.utc_us(), id=conversation.id, source_id=conversation.source_id,
            state=conversation.state.value, title=conversation.title,
        )  # fmt: skip


def _placed(segment: SpeechSegment, recognition: Recognition) -> tuple[Word, ...]:
    """Return what was recognised of a segment, on the timeline."""
    return tuple(
        Word(w.text, segment.start_us + w.start_ms * 1000, segment.start_us + w.end_ms * 1000, w.confidence)
        for w in recognition.words
    )


def _heard_before(conn: Connection, *, conversation_id: str, segment: SpeechSegment) -> Recognition:
    """Return what was heard of a segment for the transcript that is shown, before any rule."""
    words = rules.heard_words(conn, conversation_id, segment.id)
    heard = [
        HeardWord(w.text, (w.start_us - segment.start_us) // 1000, (w.end_us - segment.start_us) // 1000, w.confidence)
        for w in words
    ]
    return Recognition(tuple(heard), reprocessing.RULES)


def _index_summary(conn: Connection, row: ConversationRow) -> None:
    """Make title and overview findable; a hit on them points at the conversation's beginning."""
    search.remove_of_conversation(conn, row.id, ("summary",))
    text = ". ".join(part for part in (row.title, row.overview) if part)
    if text:
        search.put_documents(
            conn,
            [Document(row.id, "summary", row.id, row.source_id, row.started_us, row.ended_us, None, text)],
        )


def _supported(understanding: Understanding, said: Sequence[Utterance]) -> Understanding:
    """Drop what does not point at something that was said."""
    known = {utterance.id: utterance for utterance in said}

    def holds(evidence: Sequence[Evidence]) -> bool:
        return bool(evidence) and all(
            e.utterance_id in known
            and known[e.utterance_id].start_us <= e.start_us <= e.end_us <= known[e.utterance_id].end_us
            for e in evidence
        )

    tasks: tuple[Task, ...] = tuple(task for task in understanding.tasks if holds(task.evidence))
    facts: tuple[Memory, ...] = tuple(memory for memory in understanding.memories if holds(memory.evidence))
    return Understanding(
        understanding.title, understanding.overview, understanding.category, understanding.emoji, tasks, facts,
        understanding.engine,
    )  # fmt: skip
