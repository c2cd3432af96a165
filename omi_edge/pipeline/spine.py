"""The stages joined: sources in, conversations out. Started and stopped by the daemon.

Intake (capture thread) ─► chunks, segments, transcribe jobs ─► JobRunner ─► conversations ─► completed
         └─► LiveTranscriber (partial text) ──────────┘             ▲
                                    Closer: silence, length, hand ──┘
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

from omi_edge.capture.absence import Witness
from omi_edge.clock import Clock, held
from omi_edge.config import Config
from omi_edge.domain import Codec, ConversationState, Job, Notice, Severity, Stage
from omi_edge.errors import BadInput, DiskFull, NotFound, OmiEdgeError
from omi_edge.events import Bus
from omi_edge.ids import new_id
from omi_edge.listen.gate import SpeechGate
from omi_edge.listen.vad import SileroVad
from omi_edge.memory.conversation import is_over
from omi_edge.pipeline import imported
from omi_edge.pipeline.engines import Engines
from omi_edge.pipeline.final import FinalPass
from omi_edge.pipeline.gaps import Gaps
from omi_edge.pipeline.hearing import Hearing, LiveAudio, Missing
from omi_edge.pipeline.imported import Imported
from omi_edge.pipeline.intake import Intake, Stored, Taken
from omi_edge.pipeline.jobs import JobRunner
from omi_edge.pipeline.ledger import Ledger
from omi_edge.pipeline.leisure import Leisure
from omi_edge.pipeline.live import LiveTranscriber
from omi_edge.pipeline.recovery import Recovery
from omi_edge.pipeline.reprocess import failure
from omi_edge.pipeline.stages import Stages
from omi_edge.store import audio, conversations, jobs, notices, recordings, reprocessing, segments, sources, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.store.recordings import RecordingRow
from omi_edge.store.vectors import VectorIndex

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
"""How often open conversations are looked at."""
SILENCE_SECONDS = 30.0
"""How often kept silence that has become too old is dropped."""
SPEED_SECONDS = 15.0
MODELS_SECONDS = 15.0
"""How often it is looked whether the chosen models can be used."""
SLOW, FAST_AGAIN = 1.0, 0.8
"""Real-time factors at which a tier is called slow, and no longer."""
FOREVER_US = 1 << 62


class Spine:
    """The pipeline of one vault."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        bus: Bus,
        config: Config,
        engines: Engines,
        index: VectorIndex,
        time_zone: str,
    ) -> None:
        self.engines = engines
        self._db = db
        self._clock = clock
        self._bus = bus
        self._config = config
        self._intakes: dict[str, Intake] = {}
        self._taking: dict[str, Intake] = {}
        """Of recordings that are being taken, by source: beside the live one where a pendant has both."""
        self._recordings: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        """Recordings of one source are taken one after the other."""
        self._witnesses: dict[str, Witness] = {}
        """What was seen of the link of each live source."""
        self.ledger = Ledger(db, clock)
        self._gaps = Gaps(db, clock, bus, self.ledger)
        self._withheld = False
        self._capture = ThreadPoolExecutor(1, thread_name_prefix="capture")
        self.live = LiveTranscriber(engines, bus, clock, self._behind, lambda: self._stages.hints())
        self.leisure = Leisure(clock, config.engine, time_zone, self._busy)
        self.final = FinalPass(db, clock, bus, engines, config.listen.final, self.leisure)
        self._stages = Stages(
            db, clock, bus, config, engines, self.live, index, time_zone, self.final,
            lambda source_id, codec: self._hearing(source_id, codec, live=False),
        )  # fmt: skip
        self._stages.on_conversation = self._watch
        self.jobs = JobRunner(db, clock, bus, self._stages.table())
        self.jobs.on_failed = self._job_failed
        self.recovery = Recovery(
            db, clock, bus, self._capture, lambda source_id, codec: self._hearing(source_id, codec, live=False),
            self._stored,
        )  # fmt: skip
        self._open: dict[str, ConversationRow] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._disk_full = False
        self.on_stored: Callable[[Stored], None] = lambda _: None
        """Told after each commit of audio; for measurements and tests."""
        self._slow: set[str] = set()

    @property
    def capturing(self) -> bool:
        """Whether any source is open."""
        return bool(self._intakes or self._taking)

    @property
    def disk_full(self) -> bool:
        """Whether audio waits in memory for space."""
        return self._disk_full

    @property
    def slow_tiers(self) -> frozenset[str]:
        """Tiers that are slower than real time."""
        return frozenset(self._slow)

    def reconfigure(self, config: Config, time_zone: str) -> None:
        """Take over settings that were re-read; audio settings hold for sources opened from now on."""
        self._config = config
        self._stages.reconfigure(config, time_zone)
        self.leisure.move(time_zone)

    def failed_tasks(self) -> list[str]:
        """Names of the parts that ended although they should not have."""
        return [task.get_name() for task in self._tasks if task.done()]

    async def start(self) -> None:
        """Begin to work: jobs that were left, conversations that were open."""
        for row in await self._db.read(conversations.open_ones):
            self._open[row.id] = row
        await self._db.write(uploads.sweep)
        for recording_id, kept_us in await self._db.write(lambda conn: imported.cut_off(conn, self._clock.utc_us())):
            await self._tell_interrupted(recording_id, kept_us)
        engine, now_us = self.final.engine, self._clock.utc_us()
        await self._db.write(lambda conn: reprocessing.renew_final(conn, engine=engine, now_us=now_us))
        await self.final.look()
        for name, work in (
            ("jobs", self.jobs.run),
            ("stored audio", self.recovery.run),
            ("closer", self._close_conversations),
            ("silence", self._drop_silence),
            ("speed", self._watch_speed),
            ("models", self._watch_models),
        ):
            self._tasks.append(asyncio.create_task(_logged(name, work), name=name))

    async def stop(self) -> None:
        """Store what was heard, then let go of the jobs; they go on at the next start."""
        for intake in [*self._intakes.values(), *self._taking.values()]:
            await intake.close()
        self._intakes.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        await self.live.close()
        self._capture.shutdown(wait=True)

    # --- sources --------------------------------------------------------------------------------------------------

    async def open_pendant(self, device_id: str, name: str, codec: Codec, witness: Witness) -> Intake:
        """Return the way in for a pendant, under the source it had before, or a new one.

        ``witness`` is asked why when frames are missing.
        """

        def find(conn: Connection) -> str:
            known = sources.for_device(conn, device_id)
            if known is not None:
                self.ledger.seen(conn, known.id)
                return known.id
            now_us = self._clock.utc_us()
            row = sources.add(
                conn, id=new_id("src", now_us), kind="pendant", name=name, device_id=device_id, client_id=None,
                codec=codec, created_us=now_us,
            )  # fmt: skip
            self.ledger.seen(conn, row.id)
            return row.id

        known_row = await self._db.read(lambda conn: sources.for_device(conn, device_id))
        # nothing is written for one that is known: a full disk must not keep a pendant from being heard
        source_id = known_row.id if known_row is not None else await self._db.write(find)
        self._witnesses[source_id] = witness
        known = self._intakes.get(source_id)
        if known is not None and known.codec is codec:
            return known
        if known is not None:
            await known.close()
        intake = self._intake(source_id, codec, live=True, account=True)
        if self._withheld:
            await intake.withhold(True)
        return intake

    async def open_socket(self, source_id: str, codec: Codec, witness: Witness) -> Intake:
        """Return the way in for a client that sends over a socket; ``witness`` says what a hole in its audio means."""
        self._witnesses[source_id] = witness
        known = self._intakes.get(source_id)
        if known is not None and known.codec is codec:
            await known.finish()
            return known
        if known is not None:
            await known.close()
        intake = self._intake(source_id, codec, live=True, account=True)
        if self._withheld:
            await intake.withhold(True)
        return intake

    @property
    def withheld(self) -> bool:
        """Whether audio of live sources is thrown away."""
        return self._withheld

    async def withhold(self, wanted: bool) -> None:
        """Throw away the audio of every live source from now on, or no longer. Recordings are taken in all the same."""
        self._withheld = wanted
        for source_id, intake in list(self._intakes.items()):
            if source_id in self._witnesses:
                await intake.withhold(wanted)

    async def end_talk(self, source_id: str) -> bool:
        """End the open conversation of a source, when it has one; what is said next begins another."""
        for row in await self._db.read(conversations.open_ones):
            if row.source_id == source_id:
                await self._close(row.id, "hand")
                return True
        return False

    async def begin_recording(
        self,
        name: str,
        start_us: int,
        time_known: bool,
        client_id: str | None,
        *,
        codec: Codec = Codec.OPUS_20MS,
        digest: bytes | None = None,
        device: str | None = None,
        again: bool = False,
    ) -> str:
        """Register a recording to come; return its id, which is that of its source where it gets one of its own.

        With ``device``, the name or address of a remembered pendant, it belongs to the pendant's source. ``digest`` is
        the keyed one of its content: what broke off earlier goes on where it ended. Raises NotFound for a pendant that
        is not remembered, and BadInput for content that is there already, unless ``again``.
        """
        wanted = Imported(name, start_us, time_known, client_id, codec, digest, device, again)
        with held(self._clock):
            return await self._db.write(lambda conn: imported.begin(conn, wanted, self._clock.utc_us()))

    async def take_recording(self, recording_id: str, body: AsyncIterator[bytes], *, framed: bool = False) -> None:
        """Take a registered recording, as fast as it can be stored; whatever arrived is kept.

        ``body`` is s16le mono 16 kHz PCM, or with ``framed`` frames of the codec it was registered with, each with its
        length before it. Only a body that ends without an error makes the recording complete.
        """
        row = await self._db.read(lambda conn: recordings.get(conn, recording_id))
        if row.ended_us is not None or recording_id in self._recordings:
            raise BadInput("this recording has been taken already; begin a new import.")
        self._recordings.add(recording_id)
        try:
            async with self._turns.setdefault(row.source_id, asyncio.Lock()):
                await self._take_recording(row, body, framed)
        finally:
            self._recordings.discard(recording_id)

    async def _take_recording(self, row: RecordingRow, body: AsyncIterator[bytes], framed: bool) -> None:
        begun = await self._db.write(lambda conn: imported.resume(conn, row))
        taken = Taken(begun.from_us)
        intake = self._taking[row.source_id] = self._intake(row.source_id, begun.codec, live=False)
        intake.quiet_until_us = begun.from_us
        whole = False
        try:
            if framed:
                await intake.take_frames(imported.frames(body), row.start_us, taken, begun.leave_out)
            else:
                await intake.take_pcm(body, row.start_us, taken, begun.leave_out)
            await intake.finish()
            whole = True
        finally:
            await intake.close()
            self._taking.pop(row.source_id, None)
            await self._end_recording(row, taken, whole)

    async def _end_recording(self, row: RecordingRow, taken: Taken, whole: bool) -> None:
        def end(conn: Connection) -> None:
            recordings.end(
                conn, row.id, end_us=taken.end_us, left_out_us=taken.left_out_us, complete=whole,
                now_us=self._clock.utc_us(),
            )  # fmt: skip
            if whole:
                notices.clear(conn, "import-interrupted", (row.id,))

        await self._db.write(end)
        if not whole:
            await self._tell_interrupted(row.id, taken.end_us - row.start_us)
        self._changed.set()

    async def _tell_interrupted(self, recording_id: str, kept_us: int) -> None:
        await self.raise_notice(
            "import-interrupted", Severity.WARNING, (recording_id,),
            f"An import was cut off: the first {max(0, kept_us) / 1e6:.0f} s of the recording are kept, the rest was "
            "not taken in. Import the recording again for the rest.",
        )  # fmt: skip

    def _hearing(self, source_id: str, codec: Codec, *, live: bool) -> Hearing:
        settings = self._config
        vad = SileroVad()

        def gate() -> SpeechGate:
            vad.reset()
            return SpeechGate(vad, open=settings.listen.vad_open, close=settings.listen.vad_close)

        return Hearing(
            source_id, codec, gate, lambda at_us: new_id("seg", at_us), chunk_seconds=settings.audio.chunk,
            keep_silence=settings.audio.keep_silence > 0, live=live,
        )  # fmt: skip

    def _intake(self, source_id: str, codec: Codec, *, live: bool, account: bool = False) -> Intake:
        intake = Intake(
            source_id, self._hearing(source_id, codec, live=live), codec, db=self._db, clock=self._clock,
            thread=self._capture, on_stored=self._stored, on_live=functools.partial(self._spoken, source_id),
            on_missing=functools.partial(self._missing, source_id) if live else _nothing_missing,
            on_disk=self._disk, ledger=self.ledger if account else None,
        )  # fmt: skip
        if live:
            self._intakes[source_id] = intake
        return intake

    def _spoken(self, source_id: str, piece: LiveAudio) -> None:
        self.leisure.spoke()
        if piece.first or piece.last:
            self._bus.publish(
                "speech", self._clock.utc_us(), source_id=source_id, segment_id=piece.segment_id,
                state="started" if piece.first else "stopped",
                moment_us=piece.start_us if piece.first else piece.end_us,
            )  # fmt: skip
        self.live.offer(source_id, piece)

    def _stored(self, stored: Stored) -> None:
        self.on_stored(stored)
        if stored.segments:
            self.leisure.spoke()
            self.jobs.poke()

    async def _busy(self) -> str:
        """Say what people want of the machine now, "" for nothing."""
        if any(intake.speaking for intake in self._intakes.values()):
            return "somebody is speaking"
        if self._taking:
            return "a recording is being taken in"
        if self._behind() or await self._db.read(lambda conn: jobs.next_due_us(conn, (Stage.TRANSCRIBE,))) is not None:
            return "speech waits to be transcribed"
        return ""

    async def _missing(self, source_id: str, missing: Missing) -> None:
        intake = self._intakes[source_id]
        await self._gaps.settle(source_id, missing, intake.codec, self._witnesses.get(source_id))

    def _behind(self) -> bool:
        return Stage.TRANSCRIBE.value in self.jobs.working

    # --- conversations --------------------------------------------------------------------------------------------

    async def close_conversation(self, conversation_id: str) -> None:
        """End an open conversation by hand. Raises NotFound, or BadInput when it is not open."""
        row = await self._db.read(lambda conn: conversations.get(conn, conversation_id))
        if row.state is not ConversationState.OPEN:
            raise BadInput("only an open conversation can be ended; this one has ended already.")
        await self._close(conversation_id, "hand")

    def _watch(self, conversation_id: str) -> None:
        self._changed.set()

    async def _close_conversations(self) -> None:
        while True:
            with held(self._clock):
                try:
                    await self._close_those_over(round(self._config.conversation.silence * 1e6))
                except (DiskFull, NotFound) as error:
                    log.warning("conversations wait", extra={"cause": error.slug})
            await self._clock.sleep(WATCH_SECONDS)

    async def _close_those_over(self, silence_us: int) -> None:
        if self._changed.is_set():
            self._changed.clear()
            self._open = {row.id: row for row in await self._db.read(conversations.open_ones)}
        for row in list(self._open.values()):
            quiet_until_us = self._quiet_until_us(row)
            if not is_over(row.ended_us, quiet_until_us, silence_us):
                continue
            if self.recovery.expects(row.source_id, row.ended_us, row.ended_us + silence_us):
                continue
            waiting = await self._db.read(
                functools.partial(segments.pending_before, source_id=row.source_id, until_us=row.ended_us + silence_us)
            )
            if not waiting:
                await self._close(row.id, "silence")

    def _quiet_until_us(self, row: ConversationRow) -> int:
        taking = self._taking.get(row.source_id)
        if row.source_kind == "file":
            return taking.quiet_until_us if taking is not None else FOREVER_US
        if taking is not None:
            return taking.quiet_until_us
        intake = self._intakes.get(row.source_id)
        now_us = self._clock.utc_us()
        if intake is None:
            return now_us
        # a pendant whose microphone sleeps sends nothing: then the clock tells; while somebody speaks, the audio does
        return max(intake.quiet_until_us, now_us) if not intake.speaking else intake.quiet_until_us

    async def _close(self, conversation_id: str, closed_by: str) -> None:
        def commit(conn: Connection) -> ConversationRow | None:
            row = conversations.get(conn, conversation_id)
            if row.state is not ConversationState.OPEN:
                return None
            conversations.set_state(conn, conversation_id, ConversationState.PROCESSING, closed_by=closed_by)
            jobs.enqueue(conn, Stage.DIARIZE, conversation_id, now_us=self._clock.utc_us())
            return conversations.get(conn, conversation_id)

        row = await self._db.write(commit)
        self._open.pop(conversation_id, None)
        if row is not None:
            self._bus.publish(
                "conversation", self._clock.utc_us(), id=row.id, source_id=row.source_id, state=row.state.value,
                title=row.title,
            )  # fmt: skip
            self.jobs.poke()

    # --- upkeep ---------------------------------------------------------------------------------------------------

    async def _drop_silence(self) -> None:
        while True:
            if self._config.audio.keep_silence > 0:
                with held(self._clock):
                    before_us = self._clock.utc_us() - round(self._config.audio.keep_silence * 1e6)
                    try:
                        while (await self._db.write(lambda conn: audio.drop_silence(conn, before_us)))[0]:  # noqa: B023
                            pass
                    except OmiEdgeError as error:
                        log.warning("silence stays for now", extra={"cause": error.slug})
            await self._clock.sleep(SILENCE_SECONDS)

    async def _watch_speed(self) -> None:
        while True:
            await self._clock.sleep(SPEED_SECONDS)
            for tier in getattr(self.engines, "tiers", {}).values():
                factor = tier.real_time_factor
                if factor is None:
                    continue
                if factor > SLOW and tier.name not in self._slow:
                    self._slow.add(tier.name)
                    await self.raise_notice(
                        "tier-slow", Severity.WARNING, (tier.name,),
                        f"The {tier.name} is slower than people speak ({factor:.1f} s for a second of audio): text "
                        "comes late, none is lost. Choose a smaller model or a faster machine.",
                    )  # fmt: skip
                elif factor < FAST_AGAIN and tier.name in self._slow:
                    self._slow.discard(tier.name)
                    await self._db.write(functools.partial(notices.clear, code="tier-slow", subject_ids=(tier.name,)))

    async def _watch_models(self) -> None:
        told: str | None = None  # what stood before this start is not known
        while True:
            trouble = await self.engines.check()
            try:
                if await self.final.look():
                    self.jobs.poke()
            except OmiEdgeError as error:
                log.warning("the second pass was not looked at", extra={"cause": error.slug})
            if trouble != told:
                try:
                    await self._tell_fallback(trouble)
                    told = trouble
                except OmiEdgeError as error:
                    log.warning("a notice waits", extra={"cause": error.slug})
            await self._clock.sleep(MODELS_SECONDS)

    async def _tell_fallback(self, trouble: str) -> None:
        if trouble:
            await self.raise_notice(
                "model-fallback", Severity.WARNING, ("recogniser",),
                f"The built-in recogniser hears in place of the chosen one. {trouble}",
            )  # fmt: skip
        else:
            await self._db.write(lambda conn: notices.clear(conn, "model-fallback", ("recogniser",)))

    async def _disk(self, full: bool) -> None:
        self._disk_full = full
        if full:
            await self.raise_notice(
                "disk-full", Severity.ERROR, (),
                "There is no space left for audio. It is kept in memory for some minutes; free some space on the disk "
                "of the data folder and recording goes on by itself.",
            )  # fmt: skip
        else:
            await self._db.write(lambda conn: notices.clear(conn, "disk-full", ()))

    async def _job_failed(self, job: Job) -> None:
        if job.stage in (Stage.REPROCESS, Stage.FINAL):
            told = await self._db.read(lambda conn: failure(conn, job))
            await self.raise_notice("reprocess-failed", Severity.ERROR, (job.subject_id,), told)
            return
        await self.raise_notice(
            "job-failed", Severity.ERROR, (job.subject_id,),
            f"The stage {job.stage.value} failed for good ({job.cause or 'unknown cause'}). What was there stays; "
            "the log has the details.",
        )  # fmt: skip

    async def raise_notice(self, code: str, severity: Severity, subject_ids: tuple[str, ...], message: str) -> Notice:
        """Write a notice and tell everybody."""
        now_us = self._clock.utc_us()
        notice = await self._db.write(
            lambda conn: notices.raise_notice(
                conn, code=code, severity=severity, subject_ids=subject_ids, message=message, now_us=now_us
            )
        )
        self._bus.publish("notice", now_us, id=notice.id, code=code, severity=severity.value, message=message)
        return notice


async def _nothing_missing(_: Missing) -> None:
    """What is left out of a recording is there already, or was withheld: no gap."""


async def _logged(name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
    try:
        await work()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.critical("a part of the pipeline ended", extra={"part": name, "cause": type(error).__name__})
        raise
