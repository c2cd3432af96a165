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
from omi_edge.pipeline.engines import Engines
from omi_edge.pipeline.gaps import Gaps
from omi_edge.pipeline.hearing import Hearing, Missing
from omi_edge.pipeline.intake import Intake, Stored
from omi_edge.pipeline.jobs import JobRunner
from omi_edge.pipeline.live import LiveTranscriber
from omi_edge.pipeline.stages import Stages
from omi_edge.store import audio, conversations, jobs, notices, segments, sources
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.store.vectors import VectorIndex

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
"""How often open conversations are looked at."""
SILENCE_SECONDS = 30.0
"""How often kept silence that has become too old is dropped."""
SPEED_SECONDS = 15.0
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
        self._witnesses: dict[str, Witness] = {}
        """What was seen of the link of each live source."""
        self._gaps = Gaps(db, clock, bus)
        self._withheld = False
        self._capture = ThreadPoolExecutor(1, thread_name_prefix="capture")
        self.live = LiveTranscriber(engines, bus, clock, self._behind)
        self._stages = Stages(db, clock, bus, config, engines, self.live, index, time_zone)
        self._stages.on_conversation = self._watch
        self.jobs = JobRunner(db, clock, bus, self._stages.table())
        self.jobs.on_failed = self._job_failed
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
        return bool(self._intakes)

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

    def failed_tasks(self) -> list[str]:
        """Names of the parts that ended although they should not have."""
        return [task.get_name() for task in self._tasks if task.done()]

    async def start(self) -> None:
        """Begin to work: jobs that were left, conversations that were open."""
        for row in await self._db.read(conversations.open_ones):
            self._open[row.id] = row
        for source in await self._db.read(sources.unfinished):
            await self._tell_interrupted(source)
        for name, work in (
            ("jobs", self.jobs.run),
            ("closer", self._close_conversations),
            ("silence", self._drop_silence),
            ("speed", self._watch_speed),
        ):
            self._tasks.append(asyncio.create_task(_logged(name, work), name=name))

    async def stop(self) -> None:
        """Store what was heard, then let go of the jobs; they go on at the next start."""
        for intake in list(self._intakes.values()):
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
                return known.id
            now_us = self._clock.utc_us()
            row = sources.add(
                conn, id=new_id("src", now_us), kind="pendant", name=name, device_id=device_id, client_id=None,
                codec=codec, created_us=now_us,
            )  # fmt: skip
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
        intake = self._intake(source_id, codec, live=True)
        if self._withheld:
            await intake.withhold(True)
        return intake

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

    async def begin_recording(self, name: str, start_us: int, time_known: bool, client_id: str | None) -> str:
        """Register a recording to come; return its source id."""
        now_us = self._clock.utc_us()
        source_id = new_id("src", now_us)
        await self._db.write(
            lambda conn: sources.add(
                conn,
                id=source_id,
                kind="file",
                name=name,
                device_id=None,
                client_id=client_id,
                codec=Codec.OPUS_20MS,
                created_us=now_us,
                time_known=time_known,
                first_us=start_us,
            )
        )
        return source_id

    async def take_recording(self, source_id: str, pcm: AsyncIterator[bytes]) -> None:
        """Take a registered recording, as fast as it can be stored; whatever arrived is kept."""
        row = await self._db.read(lambda conn: sources.get(conn, source_id))
        if row.kind != "file" or row.ended_us is not None or source_id in self._intakes:
            raise BadInput("this recording has been taken already; begin a new import.")
        intake = self._intake(source_id, Codec(row.codec), live=False)
        try:
            await intake.take_pcm(pcm, row.first_us or 0)
        finally:
            await intake.finish()
            await self._end_source(source_id)

    async def _end_source(self, source_id: str) -> None:
        intake = self._intakes.pop(source_id, None)
        if intake is not None:
            await intake.close()
        await self._db.write(lambda conn: sources.set_ended(conn, source_id, self._clock.utc_us()))
        self._changed.set()

    async def _tell_interrupted(self, source: sources.SourceRow) -> None:
        await self._db.write(lambda conn: sources.set_ended(conn, source.id, self._clock.utc_us()))
        kept = ((source.heard_until_us or 0) - (source.first_us or 0)) / 1e6 if source.heard_until_us else 0.0
        await self.raise_notice(
            "import-interrupted", Severity.WARNING, (source.id,),
            f"An import was cut off when omi-edge ended: the first {kept:.0f} s of the recording are kept, the rest "
            "was not taken in. Import the recording again for the rest.",
        )  # fmt: skip

    def _intake(self, source_id: str, codec: Codec, *, live: bool) -> Intake:
        settings = self._config
        vad = SileroVad()

        def gate() -> SpeechGate:
            vad.reset()
            return SpeechGate(vad, open=settings.listen.vad_open, close=settings.listen.vad_close)

        hearing = Hearing(
            source_id, codec, gate, lambda at_us: new_id("seg", at_us), chunk_seconds=settings.audio.chunk,
            keep_silence=settings.audio.keep_silence > 0, live=live,
        )  # fmt: skip
        intake = Intake(
            source_id, hearing, codec, db=self._db, clock=self._clock, thread=self._capture,
            on_stored=self._stored, on_live=lambda piece: self.live.offer(source_id, piece),
            on_missing=functools.partial(self._missing, source_id),
            on_disk=self._disk,
        )  # fmt: skip
        self._intakes[source_id] = intake
        return intake

    def _stored(self, stored: Stored) -> None:
        self.on_stored(stored)
        if stored.segments:
            self.jobs.poke()

    async def _missing(self, source_id: str, missing: Missing) -> None:
        await self._gaps.settle(source_id, missing, self._intakes[source_id].codec, self._witnesses.get(source_id))

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
            waiting = await self._db.read(
                functools.partial(segments.pending_before, source_id=row.source_id, until_us=row.ended_us + silence_us)
            )
            if not waiting:
                await self._close(row.id, "silence")

    def _quiet_until_us(self, row: ConversationRow) -> int:
        intake = self._intakes.get(row.source_id)
        if row.source_kind == "file":
            return intake.quiet_until_us if intake is not None else FOREVER_US
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


async def _logged(name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
    try:
        await work()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.critical("a part of the pipeline ended", extra={"part": name, "cause": type(error).__name__})
        raise
