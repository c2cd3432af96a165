"""What becomes of segments: conversations that begin, grow, end and open again, whatever the engines do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig, Config, ConversationConfig
from omi_edge.domain import (
    AudioChunk,
    ChunkKind,
    Codec,
    ConversationState,
    Evidence,
    Memory,
    Outcome,
    SpeechSegment,
    Stage,
    Task,
    Turn,
    Understanding,
    Utterance,
)
from omi_edge.engine import NO_HINTS, Dialogue, HeardWord, Hints, Recognition, Rejected
from omi_edge.errors import AudioError, BadInput, EnginePermanent, EngineTransient, ModelMissing
from omi_edge.events import Bus
from omi_edge.pipeline.engines import PartialHeard, ReadBytes
from omi_edge.pipeline.spine import Spine
from omi_edge.store import audio, conversations, jobs, memories, notices, search, segments, sources, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.store.vectors import VectorIndex
from tests.helpers import START_US

SOURCE = "src_test"
EMBEDDED = 8


class ScriptedTier:
    name = "live recogniser"

    def __init__(self) -> None:
        self.real_time_factor: float | None = None


class ScriptedEngines:
    """Answers at once; hears one word in each second of audio, or what a test says."""

    embedder_name = "scripted"
    diarizer_name = "scripted"

    def __init__(self) -> None:
        self.hears: Callable[[float], str] = lambda seconds: " ".join(["word"] * int(seconds))
        self.trouble: dict[str, list[Exception]] = {}
        self.understands: Callable[[Dialogue], Understanding] = lambda dialogue: Understanding(
            f"{len(dialogue.utterances)} said", "Something.", "other", "x", (), (), "scripted"
        )
        self.tier = ScriptedTier()
        self.tiers = {"live": self.tier}
        self.unusable = ""
        self.final_unusable = ""
        self.final_hears: Callable[[float], str] | None = None
        self.final_calls: list[int] = []
        """Segments of each call of the final recogniser."""
        self.doubts: tuple[Rejected, ...] = ()
        self.hinted: list[Hints] = []

    async def check(self) -> str:
        return self.unusable

    async def recognize(self, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        self._stumble("recognize")
        self.hinted.append(hints)
        return self._heard(pcm, self.hears, "scripted")

    def _heard(self, pcm: bytes, hears: Callable[[float], str], engine: str) -> Recognition:
        words = hears(len(pcm) / 32_000).split()
        each = len(pcm) // 32 // max(1, len(words))
        heard = tuple(HeardWord(w, n * each, (n + 1) * each, 0.9) for n, w in enumerate(words))
        return Recognition(heard, engine, rejected=self.doubts)

    async def recognize_with(self, name: str, pcm: bytes, hints: Hints = NO_HINTS) -> Recognition:
        return await self.recognize(pcm, hints)

    async def check_final(self) -> str:
        return self.final_unusable

    async def recognize_final(self, name: str, pieces: Sequence[tuple[bytes, Hints]]) -> list[Recognition]:
        if self.final_unusable:
            raise ModelMissing(self.final_unusable)
        self._stumble("final")
        self.final_calls.append(len(pieces))
        hears = self.final_hears or self.hears
        return [self._heard(pcm, hears, f"{name} 1") for pcm, _ in pieces]

    async def recognize_live(
        self, blocks: AsyncIterator[bytes], partial: PartialHeard, hints: Hints = NO_HINTS
    ) -> Recognition:
        return await self.recognize(b"".join([block async for block in blocks]), hints)

    async def decode(self, size: int, read: ReadBytes) -> AsyncGenerator[bytes, None]:
        """What is sent in is PCM here; ``no audio`` in it cannot be read."""
        self._stumble("decode")
        for offset in range(0, size, 65_536):
            data = await read(offset, 65_536)
            if b"no audio" in data:
                raise AudioError("the file breaks off after 1.00 s.")
            yield data

    async def diarize(self, speech: AsyncIterator[tuple[int, bytes]]) -> list[Turn]:
        self._stumble("diarize")
        return [Turn(start, start + len(pcm) * 1000 // 32, "SPEAKER_00", 1.0) async for start, pcm in speech]

    async def extract(self, dialogue: Dialogue) -> Understanding:
        self._stumble("extract")
        return self.understands(dialogue)

    async def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        self._stumble("embed")
        rows = np.array([[hash((text, n)) % 97 + 1 for n in range(EMBEDDED)] for text in texts], np.float32)
        unit: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def _stumble(self, what: str) -> None:
        if self.trouble.get(what):
            raise self.trouble[what].pop(0)


class Workshop:
    """A spine on a real file, and segments put into it as the intake would."""

    def __init__(self, db: Database, clock: DrivenClock, config: Config) -> None:
        self.db = db
        self.clock = clock
        self.bus = Bus()
        self.engines = ScriptedEngines()
        self.spine = Spine(db, clock, self.bus, config, self.engines, VectorIndex(), "UTC")
        self._count = 0

    async def said(self, start_s: float, end_s: float, *, speech: float = 1.0) -> str:
        """Store a segment with its audio, ``speech`` of it speech, and let everything come of it that can."""
        start_us, end_us = START_US + round(start_s * 1e6), START_US + round(end_s * 1e6)
        segment_id = f"seg_{self._count}"
        self._count += 1

        def store(conn: Connection) -> None:
            for first in range(start_us, end_us, 2_000_000):
                frames = (min(end_us, first + 2_000_000) - first) // 20_000
                audio.put(conn, AudioChunk(SOURCE, first, Codec.OPUS_20MS, (b"\xb8\xff\xfe",) * frames))
            segments.put(conn, SpeechSegment(segment_id, SOURCE, start_us, end_us, round((end_us - start_us) * speech)))
            jobs.enqueue(conn, Stage.TRANSCRIBE, segment_id, now_us=self.clock.utc_us())

        await self.db.write(store)
        self.spine.leisure.spoke()
        self.spine.jobs.poke()
        await self.clock.advance(0.1)
        return segment_id

    async def conversations(self) -> list[ConversationRow]:
        page = await self.db.read(lambda conn: conversations.listing(conn, limit=50))
        return list(reversed(page.items))

    async def utterances(self, conversation_id: str) -> list[Utterance]:
        return await self.db.read(lambda conn: transcripts.utterances(conn, conversation_id))

    async def codes(self) -> list[str]:
        return [notice.code for notice in await self.db.read(notices.active)]


@pytest.fixture
async def workshop(db: Database, clock: DrivenClock) -> AsyncIterator[Workshop]:
    config = Config(conversation=ConversationConfig(silence=5.0, max_length=60.0), audio=AudioConfig(keep_silence=60.0))
    await db.write(
        lambda conn: sources.add(
            conn, id=SOURCE, kind="pendant", name="Omi", device_id="dev", client_id=None, codec=Codec.OPUS_20MS,
            created_us=START_US,
        )
    )  # fmt: skip
    workshop = Workshop(db, clock, config)
    await workshop.spine.start()
    yield workshop
    await workshop.spine.stop()


def everything(conn: Connection) -> dict[str, Any]:
    """Rows that must not multiply."""
    tables = ("segments", "conversations", "utterances", "tasks", "memories", "evidence", "documents", "vectors")
    return {table: conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


async def test_a_long_silence_parts_conversations_and_a_short_one_does_not(workshop: Workshop) -> None:
    await workshop.said(0, 3)
    await workshop.said(5, 8)
    await workshop.clock.advance(20)
    await workshop.said(18, 20)
    await workshop.clock.advance(20)
    first, second = await workshop.conversations()
    assert [row.state for row in (first, second)] == [ConversationState.COMPLETED] * 2
    assert (first.ended_us - first.started_us, second.ended_us - second.started_us) == (8_000_000, 2_000_000)
    assert [len(await workshop.utterances(row.id)) for row in (first, second)] == [2, 1]
    assert (first.closed_by, first.title) == ("silence", "2 said")


async def test_the_log_names_segment_and_conversation(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    segment_id = await workshop.said(0, 3)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    ended = [vars(record) for record in caplog.records if record.getMessage() == "job ended"]
    assert [one["stage"] for one in ended] == ["transcribe", "diarize", "assemble", "extract", "embed"]
    assert ended[0]["segment"] == segment_id
    assert {one["conversation"] for one in ended} == {row.id}
    assert "word word" not in caplog.text


async def test_a_cough_makes_no_conversation(workshop: Workshop) -> None:
    workshop.engines.hears = lambda _: ""
    segment_id = await workshop.said(0, 1, speech=0.2)
    await workshop.said(30, 32)
    assert await workshop.conversations() == []
    row = await workshop.db.read(lambda conn: segments.get(conn, segment_id))
    assert row.outcome is Outcome.EXPECTED_SILENCE
    other = await workshop.db.read(lambda conn: segments.get(conn, "seg_1"))
    assert other.outcome is Outcome.UNEXPECTED_EMPTY


async def test_a_segment_of_which_nothing_was_believed_keeps_the_reasons(workshop: Workshop) -> None:
    workshop.engines.doubts = (Rejected(0, 500, "repetition", 8), Rejected(500, 900, "too-fast", 5))
    believed = await workshop.said(0, 3)
    workshop.engines.hears = lambda _: ""
    cough, speech = await workshop.said(5, 6, speech=0.2), await workshop.said(7, 9)
    wanted = (believed, cough, speech)
    rows = await workshop.db.read(lambda conn: [segments.get(conn, one) for one in wanted])
    assert [row.outcome for row in rows] == [Outcome.TEXT, Outcome.EXPECTED_SILENCE, Outcome.UNEXPECTED_EMPTY]
    assert [row.reason for row in rows] == [None, *["words not believed: repetition, too-fast"] * 2]


async def test_a_model_that_cannot_be_used_is_told_once_and_no_more_when_it_works(workshop: Workshop) -> None:
    workshop.engines.unusable = "It is gone; fetch it with: omi-edge models pull it"
    await workshop.clock.advance(60)
    (notice,) = await workshop.db.read(notices.active)
    assert (notice.code, notice.count) == ("model-fallback", 1)
    assert "omi-edge models pull it" in notice.message
    workshop.engines.unusable = ""
    await workshop.clock.advance(20)
    assert await workshop.codes() == []


async def test_speech_without_a_word_is_shown_where_it_was(workshop: Workshop) -> None:
    await workshop.said(0, 3)
    workshop.engines.hears = lambda _: ""
    await workshop.said(4, 6)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    shown = await workshop.utterances(row.id)
    assert [one.outcome for one in shown] == [Outcome.TEXT, Outcome.UNEXPECTED_EMPTY]
    assert shown[1].text == ""


async def test_what_could_not_be_recognised_is_told_and_keeps_its_place(workshop: Workshop) -> None:
    workshop.engines.trouble["recognize"] = [EnginePermanent("x")]
    await workshop.said(0, 3)
    await workshop.said(4, 6)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    assert [one.outcome for one in await workshop.utterances(row.id)] == [Outcome.FAILED, Outcome.TEXT]
    assert row.state is ConversationState.COMPLETED
    assert await workshop.codes() == ["job-failed"]


@pytest.mark.parametrize("stage", ["diarize", "extract", "embed"])
async def test_a_stage_that_fails_for_good_is_left_out_never_its_conversation(workshop: Workshop, stage: str) -> None:
    await workshop.said(0, 3)
    workshop.engines.trouble[stage] = [EnginePermanent("x")]
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    assert row.state is ConversationState.COMPLETED
    (one,) = await workshop.utterances(row.id)
    assert one.text == "word word word"
    assert one.speaker == (None if stage == "diarize" else "SPEAKER_00")
    assert row.title == ("" if stage == "extract" else "1 said")
    assert await workshop.codes() == ["job-failed"]


async def test_an_engine_that_stumbles_is_asked_again(workshop: Workshop) -> None:
    workshop.engines.trouble["extract"] = [EngineTransient("x"), EngineTransient("x")]
    await workshop.said(0, 3)
    await workshop.clock.advance(40)
    (row,) = await workshop.conversations()
    assert row.title == "1 said"
    assert await workshop.codes() == []


async def test_late_audio_opens_its_conversation_again(workshop: Workshop) -> None:
    workshop.engines.understands = _one_task
    await workshop.said(0, 3)
    await workshop.clock.advance(20)
    (before,) = await workshop.conversations()
    (task,) = (await workshop.db.read(lambda conn: memories.list_tasks(conn, limit=5))).items
    await workshop.said(5, 7)
    (opened,) = await workshop.conversations()
    assert opened.state is ConversationState.OPEN
    await workshop.clock.advance(20)
    (after,) = await workshop.conversations()
    assert (after.id, after.state) == (before.id, ConversationState.COMPLETED)
    assert len(await workshop.utterances(after.id)) == 2
    (again,) = (await workshop.db.read(lambda conn: memories.list_tasks(conn, limit=5))).items
    assert again.id == task.id


async def test_late_audio_from_before_moves_the_beginning(workshop: Workshop) -> None:
    await workshop.said(10, 13)
    await workshop.clock.advance(20)
    await workshop.said(6, 8)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    assert row.started_us == START_US + 6_000_000
    assert [one.start_us for one in await workshop.utterances(row.id)] == [START_US + 6_000_000, START_US + 10_000_000]


async def test_ended_by_hand_it_stays_ended(workshop: Workshop) -> None:
    await workshop.said(0, 3)
    (row,) = await workshop.conversations()
    await workshop.spine.close_conversation(row.id)
    await workshop.said(3.5, 5)
    await workshop.clock.advance(20)
    first, second = await workshop.conversations()
    assert (first.id, first.closed_by, second.closed_by) == (row.id, "hand", "silence")
    with pytest.raises(BadInput):
        await workshop.spine.close_conversation(row.id)


async def test_what_was_said_before_the_hand_still_belongs(workshop: Workshop) -> None:
    await workshop.said(4, 6)
    (row,) = await workshop.conversations()
    await workshop.spine.close_conversation(row.id)
    await workshop.clock.advance(1)
    await workshop.said(1, 3)  # recognised late
    await workshop.clock.advance(1)
    (same,) = await workshop.conversations()
    assert (same.id, same.closed_by, same.state) == (row.id, "hand", ConversationState.COMPLETED)
    assert same.title == "2 said"


async def test_a_conversation_that_is_full_ends(workshop: Workshop) -> None:
    for start in range(0, 70, 10):
        await workshop.said(start, start + 9)
    first, second = await workshop.conversations()
    assert (first.closed_by, first.ended_us - first.started_us) == ("length", 59_000_000)
    assert second.started_us == START_US + 60_000_000
    await workshop.clock.advance(90)
    assert [row.state for row in await workshop.conversations()] == [ConversationState.COMPLETED] * 2


async def test_stages_can_be_done_again_without_a_trace(workshop: Workshop) -> None:
    workshop.engines.understands = _one_task
    segment_id = await workshop.said(0, 3)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    before = await workshop.db.read(everything)
    for stage in (Stage.DIARIZE, Stage.ASSEMBLE, Stage.EXTRACT, Stage.EMBED):
        await workshop.db.write(lambda conn, stage=stage: jobs.enqueue(conn, stage, row.id, now_us=START_US))  # type: ignore[misc]
        workshop.spine.jobs.poke()
        await workshop.clock.advance(1)
    after = await workshop.db.read(everything)
    assert after["utterances"] > before["utterances"]  # every version of a transcript is kept
    assert {**after, "utterances": 0} == {**before, "utterances": 0}
    assert (await workshop.db.read(lambda conn: segments.get(conn, segment_id))).conversation_id == row.id


async def test_nothing_is_believed_without_words_that_prove_it(workshop: Workshop) -> None:
    def invents(dialogue: Dialogue) -> Understanding:
        good = _one_task(dialogue)
        said = dialogue.utterances[0]
        beyond = Evidence(said.id, said.start_us, said.end_us + 1)
        unknown = Evidence("utt_nowhere", said.start_us, said.end_us)
        return msgspec.structs.replace(
            good,
            tasks=(*good.tasks, Task("Unproven"), Task("Elsewhere", evidence=(unknown,))),
            memories=(Memory("Beyond", "Beyond", evidence=(beyond,)),),
        )

    workshop.engines.understands = invents
    await workshop.said(0, 3)
    await workshop.clock.advance(20)
    tasks = (await workshop.db.read(lambda conn: memories.list_tasks(conn, limit=5))).items
    assert [task.description for task in tasks] == ["Call the doctor"]
    assert (await workshop.db.read(lambda conn: memories.list_memories(conn, limit=5))).items == []


async def test_title_and_summary_are_found(workshop: Workshop) -> None:
    workshop.engines.understands = lambda _: Understanding("Zebras", "On stripes.", "other", "x", (), (), "scripted")
    await workshop.said(0, 3)
    await workshop.clock.advance(20)
    (row,) = await workshop.conversations()
    for query in ("zebras", "stripes"):
        (hit,) = await workshop.db.read(lambda conn, query=query: search.search(conn, None, query, None))  # type: ignore[misc]
        assert (hit.kind, hit.ref_id) == ("summary", row.id)


async def test_kept_silence_goes_when_its_time_is_over(workshop: Workshop) -> None:
    quiet = AudioChunk(SOURCE, START_US, Codec.OPUS_20MS, (b"\xb8\xff\xfe",) * 50, ChunkKind.SILENCE)
    await workshop.db.write(lambda conn: audio.put(conn, quiet))
    await workshop.clock.advance(55)
    assert (await workshop.db.read(audio.totals))["silence_bytes"] == 150
    await workshop.clock.advance(60)
    totals = await workshop.db.read(audio.totals)
    assert (totals["silence_bytes"], totals["dropped_bytes"]) == (0, 150)


async def test_a_tier_slower_than_speech_is_told_until_it_is_fast_again(workshop: Workshop) -> None:
    workshop.engines.tier.real_time_factor = 1.4
    await workshop.clock.advance(31)
    assert await workshop.codes() == ["tier-slow"]
    assert workshop.spine.slow_tiers == {"live recogniser"}
    workshop.engines.tier.real_time_factor = 0.9  # not clearly fast: no flicker
    await workshop.clock.advance(31)
    assert await workshop.codes() == ["tier-slow"]
    workshop.engines.tier.real_time_factor = 0.5
    await workshop.clock.advance(31)
    assert await workshop.codes() == []


async def test_what_was_open_when_the_daemon_stopped_ends_after_the_next_start(
    workshop: Workshop, clock: DrivenClock
) -> None:
    await workshop.said(0, 3)
    await workshop.spine.stop()
    spine = Spine(workshop.db, clock, Bus(), Config(), workshop.engines, VectorIndex(), "UTC")
    await spine.start()
    await clock.advance(180)
    await spine.stop()
    (row,) = await workshop.conversations()
    assert row.state is ConversationState.COMPLETED


async def test_a_recording_is_taken_once(workshop: Workshop) -> None:
    async def pcm() -> AsyncIterator[bytes]:
        yield bytes(32_000)

    source_id = await workshop.spine.begin_recording("talk.wav", START_US, True, None)
    taking = asyncio.create_task(workshop.spine.take_recording(source_id, pcm()))
    while not taking.done():
        await workshop.clock.advance(0.1)
    taking.result()
    with pytest.raises(BadInput):
        await workshop.spine.take_recording(source_id, pcm())


def _one_task(dialogue: Dialogue) -> Understanding:
    said = dialogue.utterances[0]
    proof = (Evidence(said.id, said.start_us, said.end_us),)
    return Understanding(
        "A call", "Somebody calls.", "other", "x", (Task("Call the doctor", evidence=proof),), (), "scripted"
    )


async def test_a_recording_that_a_kill_cut_off_is_told_once(workshop: Workshop) -> None:
    source_id = await workshop.spine.begin_recording("talk.wav", START_US, True, None)
    await workshop.spine.stop()
    for _ in range(2):
        spine = Spine(workshop.db, workshop.clock, Bus(), Config(), workshop.engines, VectorIndex(), "UTC")
        await spine.start()
        await spine.stop()
    (notice,) = await workshop.db.read(notices.active)
    assert (notice.code, notice.subject_ids, notice.count) == ("import-interrupted", (source_id,), 1)
