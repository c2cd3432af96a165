"""Stored audio that is here: put in its place on the timeline, heard like any other, and let go of (dossier §6.6).

    final records ─► place: runs with a time, or none ─► settle those without ─► hear, a few seconds at a time ─► gone

What is heard, the place in its records up to which it is, and the records that are let go of are one transaction: after
a crash it goes on there, and nothing is there twice. It runs beside live capture in the same thread, a second of audio
at a time, and waits while segments wait for their words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import msgspec

from omi_edge.clock import Clock, held
from omi_edge.domain import Codec, LedgerState, Notice, Severity, Stage
from omi_edge.errors import DiskFull, VaultBusy
from omi_edge.events import Bus
from omi_edge.pipeline import dating
from omi_edge.pipeline.dating import NEAR_US
from omi_edge.pipeline.ear import Ear
from omi_edge.pipeline.fitting import Fit, fit
from omi_edge.pipeline.hearing import Hearing
from omi_edge.pipeline.intake import Span, Stored, commit_heard
from omi_edge.pipeline.placement import Placement
from omi_edge.store import audio, devices, gaps, jobs, ledger, notices, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Moment
from omi_edge.store.offline import ReadingRow, RunRow, RunState

log = logging.getLogger(__name__)

PIECE_RECORDS = 100
"""Heard at once: ten seconds of a CV1 (dossier §6.1)."""
PIECE_FRAMES = 50
"""Handed to the capture thread at once: live audio waits no longer than for a second of this."""
BUSY_JOBS = 2
BUSY_SECONDS = 1.0
BUSY_LIMIT_SECONDS = 60.0
RETRY_SECONDS = 10.0
DEFECT_SECONDS = 600.0
HELD_NOTICE = "stored-audio-held"


class Recovery:
    """Of all sources of one vault."""

    def __init__(
        self, db: Database, clock: Clock, bus: Bus, thread: Executor, new_hearing: Callable[[str, Codec], Hearing],
        on_stored: Callable[[Stored], None],
    ) -> None:  # fmt: skip
        self._db = db
        self._clock = clock
        self._bus = bus
        self._thread = thread
        self._new_hearing = new_hearing
        self._on_stored = on_stored
        self._placement = Placement(db, clock)
        self._fetching: set[str] = set()
        self._ears: dict[int, Ear] = {}
        self._waiting: dict[str, list[Span]] = {}
        self._work = asyncio.Event()
        self._work.set()

    def poke(self) -> None:
        """Look for work now."""
        self._work.set()

    def fetching(self, source_id: str, now: bool) -> None:
        """Be told that a pendant's stored audio is being fetched, or no longer."""
        (self._fetching.add if now else self._fetching.discard)(source_id)
        self.poke()

    def expects(self, source_id: str, start_us: int, end_us: int) -> bool:
        """Say whether audio inside [start, end) is here that was not heard yet."""
        return any(low < end_us and start_us < high for low, high in self._waiting.get(source_id, ()))

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            release = self._clock.hold()
            try:
                self._work.clear()
                try:
                    worked = [await self._try(source_id) for source_id in await self._db.read(offline.source_ids)]
                except (DiskFull, VaultBusy) as error:
                    log.warning("stored audio waits to be heard", extra={"cause": error.slug})
                    self._ears.clear()  # what they heard is heard again
                    self._clock.call_later(RETRY_SECONDS, self._work.set)
                    worked = []
            finally:
                release()
            if any(worked):
                await self._let_others_go_first()
            else:
                await self._work.wait()

    async def _try(self, source_id: str) -> bool:
        """Do the next of a source. What cannot be heard of one stays where it is, and keeps no other waiting."""
        try:
            return await self._tend(source_id)
        except (DiskFull, VaultBusy):
            raise
        except Exception as error:  # noqa: BLE001 whatever is wrong with its records: the others' are not
            log.error("stored audio cannot be heard", extra={"source": source_id, "cause": type(error).__name__})
            self._ears.clear()
            self._clock.call_later(DEFECT_SECONDS, self._work.set)
            return False

    async def _tend(self, source_id: str) -> bool:
        """Do the next of what is to be done for a source; False when there is nothing."""
        fetching = source_id in self._fetching
        if await self._placement.place(source_id, fetching):
            return True
        runs = await self._db.read(lambda conn: offline.open_runs(conn, source_id))
        unsettled = any(run.state in (RunState.UNKNOWN, RunState.HELD) for run in runs)
        if unsettled or await self._db.read(lambda conn: bool(offline.open_losses(conn, source_id))):
            self._publish_notice(await self._db.write(lambda conn: self._settle(conn, source_id, fetching)))
            runs = await self._db.read(lambda conn: offline.open_runs(conn, source_id))
        placed = [run for run in runs if run.state is RunState.PLACED]
        self._waiting[source_id] = await self._db.read(lambda conn: [_unheard(conn, run) for run in placed])
        for run in placed:
            if await self._hear(run, fetching):
                return True
        return False

    def _settle(self, conn: Connection, source_id: str, fetching: bool) -> Notice | None:
        now = self._now()
        waiting = [run for run in offline.open_runs(conn, source_id) if run.state is RunState.UNKNOWN]
        for run in reversed(waiting):
            dating.anchor(conn, run, now, fetching=fetching)
        for loss in offline.open_losses(conn, source_id):
            dating.date(conn, source_id, loss, fetching=fetching)
        return self._note_held(conn, source_id)

    def _now(self) -> Moment:
        return Moment(self._clock.boot_id(), self._clock.boot_us(), self._clock.utc_us())

    # --- what waits for the owner's word ------------------------------------------------------------------------------

    async def decide(self, run_id: str, *, wanted: bool) -> RunRow:
        """Have a held run heard, or let go of it undecoded. Raises NotFound, and BadInput for one that is not held."""

        def work(conn: Connection) -> tuple[RunRow, int, Notice | None]:
            run = offline.decide(conn, run_id, wanted=wanted)
            frame_us = offline.get_reading(conn, run.reading_n).codec.frame_us
            return run, frame_us, self._note_held(conn, run.source_id)

        run, frame_us, notice = await self._db.write(work)
        self._publish_notice(notice)
        self._bus.publish(
            "offline", self._clock.utc_us(), source_id=run.source_id, run=run.id, state=run.state.value,
            start_us=run.start_us, end_us=None if run.start_us is None else run.start_us + run.frames * frame_us,
        )  # fmt: skip
        self.poke()
        return run

    def _note_held(self, conn: Connection, source_id: str) -> Notice | None:
        """Have one notice for all runs of a source that are held, and none when none is; return it when it is new."""
        runs = offline.held(conn, source_id)
        source = sources.get(conn, source_id)
        names = {row.address: row.name for row in devices.list_all(conn)}
        name = names.get(source.device_id or "", source.name)
        subjects = (source.device_id or source_id,)
        now_us = self._clock.utc_us()
        if not runs:
            notices.clear(conn, HELD_NOTICE, subjects, now_us)
            return None
        length_us = sum(run.frames * offline.get_reading(conn, run.reading_n).codec.frame_us for run in runs)
        many = "1 recording" if len(runs) == 1 else f"{len(runs)} recordings"
        message = (
            f"{many} that {name} stored ({length_us / 60e6:.1f} min) may be of a time when you withheld recording; "
            "nothing tells for certain. Nothing of it was decoded. `omi-edge devices held` shows what waits and takes "
            "your word: keep it, or let go of it."
        )
        for known in notices.active(conn):
            if (known.code, known.subject_ids, known.message) == (HELD_NOTICE, subjects, message):
                return None
        return notices.raise_notice(
            conn, code=HELD_NOTICE, severity=Severity.WARNING, subject_ids=subjects, message=message, now_us=now_us
        )

    def _publish_notice(self, notice: Notice | None) -> None:
        if notice is not None:
            self._bus.publish(
                "notice", self._clock.utc_us(), id=notice.id, code=notice.code, severity=notice.severity.value,
                message=notice.message,
            )  # fmt: skip

    # --- hearing ------------------------------------------------------------------------------------------------------

    async def _hear(self, run: RunRow, fetching: bool) -> bool:
        """Hear the next seconds of a run; False when there is nothing to be done for it now."""
        ear = self._ears.get(run.n)
        if ear is None:
            ear = await self._begin(run)
            if ear is None:
                return True
            self._ears[run.n] = ear
        wanted = msgspec.structs.replace(run, at_seq=ear.next_seq)
        rows = await self._db.read(lambda conn: offline.records(conn, wanted, PIECE_RECORDS))
        frames = ear.frames_of(rows, run.frames)
        for first in range(0, len(frames), PIECE_FRAMES):
            await self._feed(ear, run, frames[first : first + PIECE_FRAMES])
        at_end = not rows or ear.fed >= run.frames
        last_n = (await self._db.read(lambda conn: offline.placing(conn, run.source_id))).last_run_n
        may_grow = fetching and run.n == last_n
        if at_end and not may_grow:
            await self._listen(ear, lambda: ear.finish(run.frames))
        settled = ear.settled - ear.committed
        if settled > 0 or (at_end and not may_grow):
            await self._commit(ear, run)
        if at_end and not may_grow:
            self._ears.pop(run.n, None)
            log.info("stored audio was heard", extra={"run": run.id, "source": run.source_id})
            return True
        return bool(frames)

    async def _begin(self, run: RunRow) -> Ear | None:
        """Look at what lies around a run; None for one that cannot be heard as it was placed."""

        def look(conn: Connection) -> tuple[ReadingRow, Fit]:
            reading = offline.get_reading(conn, run.reading_n)
            return reading, fit(conn, run, reading, self._now())

        reading, found = await self._db.read(look)
        if found.state is RunState.UNKNOWN:
            await self._db.write(lambda conn: offline.settle_run(conn, run.n, state=found.state, start_us=None))
            return None
        if found.state is RunState.HELD:
            end_us = found.start_us + run.frames * reading.codec.frame_us
            await self._db.write(
                lambda conn: offline.settle_run(
                    conn, run.n, state=found.state, start_us=found.start_us, uncertainty_us=found.uncertainty_us,
                    guessed=True, earliest_us=found.start_us - found.uncertainty_us,
                    latest_us=end_us + found.uncertainty_us,
                )
            )  # fmt: skip
            return None
        if found.start_us != run.start_us:
            await self._db.write(lambda conn: offline.move_run(conn, run.n, found.start_us, found.uncertainty_us))
        return Ear(self._new_hearing(run.source_id, reading.codec), run, reading, found.start_us, found.leave_out)

    async def _feed(self, ear: Ear, run: RunRow, frames: Sequence[bytes]) -> None:
        low_us = ear.at_us(ear.fed)
        high_us = low_us + len(frames) * ear.frame_us
        own_end_us = ear.at_us(ear.committed)

        def there(conn: Connection) -> frozenset[bytes]:
            chunks = audio.between(conn, run.source_id, low_us - NEAR_US, high_us + NEAR_US, silence=False)
            others = [one for one in chunks if one.start_us >= own_end_us or one.end_us <= ear.start_us]
            return frozenset(packet for chunk in others for packet in chunk.packets)

        known = await self._db.read(there)
        await self._listen(ear, lambda: ear.feed(frames, known))

    async def _listen(self, ear: Ear, work: Callable[[], None]) -> None:
        with held(self._clock):
            await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _commit(self, ear: Ear, run: RunRow) -> None:
        items, spans, left_out = ear.take()
        at_seq, at_frame = ear.place_of(ear.settled)
        frames = ear.settled - ear.committed

        def commit(conn: Connection) -> list[Stored]:
            now_us = self._clock.utc_us()
            stored = [commit_heard(conn, run.source_id, item, now_us) for item in items]
            shift_us = ear.reading.ledger_us
            for start_us, end_us in spans:
                span = ledger.Span(start_us + shift_us, end_us + shift_us, LedgerState.RECOVERED)
                ledger.write(conn, run.source_id, span)
                gaps.fill(conn, run.source_id, start_us, end_us)
            offline.heard(
                conn, run, frames=frames, at_seq=at_seq, at_frame=at_frame, left_out_us=left_out * ear.frame_us
            )
            return stored

        for stored in await self._db.write(commit):
            self._on_stored(stored)
        ear.committed = ear.settled
        self._bus.publish(
            "offline", self._clock.utc_us(), source_id=run.source_id, state="heard", start_us=ear.start_us,
            end_us=ear.at_us(ear.settled), left_out_seconds=ear.left_out * ear.frame_us / 1e6,
        )  # fmt: skip

    async def _let_others_go_first(self) -> None:
        """Wait while segments wait for their words: what is said now is understood before what was said then."""
        waited = 0.0
        while waited < BUSY_LIMIT_SECONDS:
            counts = await self._db.read(jobs.counts)
            if counts.get(Stage.TRANSCRIBE.value, {}).get("queued", 0) < BUSY_JOBS:
                return
            waited += BUSY_SECONDS
            await self._clock.sleep(BUSY_SECONDS)


def _unheard(conn: Connection, run: RunRow) -> Span:
    """Return the time of which a run is still to be heard."""
    frame_us = offline.get_reading(conn, run.reading_n).codec.frame_us
    start_us = run.start_us or 0
    return start_us + run.heard * frame_us, start_us + run.frames * frame_us
