"""Stored audio that is here: put in its place on the timeline, heard like any other, and let go of (dossier §6.6).

    final records ─► place: runs with a time, or none ─► settle those without ─► hear, a few seconds at a time ─► gone

What is heard, the place in its records up to which it is, and the records that are let go of are one transaction: after
a crash it goes on there, and nothing is there twice. It runs beside live capture in the same thread, a second of audio
at a time, and waits while segments wait for their words.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import msgspec

from omi_edge.capture import placing
from omi_edge.capture.blocks import RECORD_BYTES, Record, record_of_file, record_of_ring
from omi_edge.clock import Clock, held
from omi_edge.domain import SECOND_US, Cause, Codec, Frame, Gap, LedgerState, Notice, Severity, Stage
from omi_edge.errors import DiskFull, VaultBusy
from omi_edge.events import Bus
from omi_edge.pipeline.hearing import ChunkReady, Heard, Hearing
from omi_edge.pipeline.intake import Span, Stored, commit_heard
from omi_edge.store import audio, devices, gaps, jobs, ledger, notices, offline, recordings, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.offline import LossRow, NewRun, ReadingRow, RecordRow, RunRow, RunState

log = logging.getLogger(__name__)

BATCH_RECORDS = 3000
"""Placed at once: five minutes of a CV1 (dossier §6.1)."""
PIECE_RECORDS = 100
"""Heard at once: ten seconds of a CV1."""
STAMP_BYTES = 4
"""A ring's record begins with its time (dossier §6.5)."""
NEAR_US = 3 * SECOND_US
"""How far a run and live audio beside it may overlap: a pendant's queue holds 1.28 s (dossier §7), and stamps are whole
seconds."""
DRIFT_US = 30 * SECOND_US
"""A clock that is off by less has drifted; by more, it was set wrong at some moment that nobody knows."""
SMALL_US = 2 * SECOND_US
"""An offset below this moves a recording by less than its stamps tell."""
CLOCK_US = SECOND_US
"""A pendant's clock is read in whole seconds."""
SLACK_US = 5 * SECOND_US
"""A recording without a time that fills all but this of an absence was recorded then."""
SAME_FRAMES = 5
"""Consecutive frames that are there already, byte for byte, are there; fewer may be alike by chance."""
WITHHELD = (LedgerState.FORGOTTEN, LedgerState.OFF_RECORD, LedgerState.MUTED)
BUSY_JOBS = 2
BUSY_SECONDS = 1.0
BUSY_LIMIT_SECONDS = 60.0
RETRY_SECONDS = 10.0
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
        self._fetching: set[str] = set()
        self._ears: dict[int, _Ear] = {}
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
                    worked = [await self._tend(source_id) for source_id in await self._db.read(offline.source_ids)]
                except (DiskFull, VaultBusy) as error:
                    log.warning("stored audio waits", extra={"cause": error.slug})
                    self._ears.clear()  # what they heard is heard again
                    self._clock.call_later(RETRY_SECONDS, self._work.set)
                    worked = []
            finally:
                release()
            if any(worked):
                await self._let_others_go_first()
            else:
                await self._work.wait()

    async def _tend(self, source_id: str) -> bool:
        """Do the next of what is to be done for a source; False when there is nothing."""
        if await self._place(source_id):
            return True
        fetching = source_id in self._fetching
        self._publish_notice(await self._db.write(lambda conn: self._settle(conn, source_id, fetching)))
        runs = await self._db.read(lambda conn: offline.open_runs(conn, source_id))
        for row in runs:
            if row.state is RunState.PLACED and await self._hear(row, fetching):
                return True
        self._waiting.pop(source_id, None)
        return False

    # --- placing ------------------------------------------------------------------------------------------------------

    async def _place(self, source_id: str) -> bool:
        fetching = source_id in self._fetching
        rows = await self._db.read(lambda conn: offline.unplaced(conn, source_id, BATCH_RECORDS))
        if not rows or (fetching and len(rows) < BATCH_RECORDS):
            return False
        readings = await self._db.read(lambda conn: offline.readings(conn, source_id, rows[0].reading_n))
        if not readings:
            return False
        with held(self._clock):
            records = await asyncio.to_thread(lambda: [record_of(row) for row in rows])
        at = await self._db.read(lambda conn: offline.placing(conn, source_id))
        after, after_n = _remembered(at.after)
        first = next((index for index, one in enumerate(readings) if one.n == after_n), 0)
        count, reading = _of_one_reading(records, rows, readings, first)
        if count == 0:
            return False
        batch = records[:count]
        stepped_at = None
        if abs(reading.offset_us or 0) > SMALL_US and any(record.stamp is not None for record in batch):
            if not await self._db.read(lambda conn: offline.completed_since(conn, source_id, reading.n)):
                return False  # what comes may show that the clock went back, and when
            heads = await self._db.read(lambda conn: offline.heads(conn, source_id, rows[0].reading_n, STAMP_BYTES))
            stamps = [(seq, record_of_ring(store, seq, raw).stamp) for store, seq, raw in heads]
            stepped_at = placing.last_step_back(stamps)
            stepped_at = -1 if stepped_at is None else stepped_at
        if after_n != reading.n:
            after = None
        with held(self._clock):
            runs = await asyncio.to_thread(
                lambda: placing.place(
                    batch, reading.offset_us, reading.codec.frame_us, after=after, stepped_at=stepped_at,
                    until_us=reading.read_us, since_us=reading.away_us if len(readings) == 1 else None,
                )
            )  # fmt: skip
        found, empty = _shared_out(batch, runs)
        end = (batch[-1].store, batch[-1].seq + 1)
        kept = None if not runs else _remember(runs[-1], reading.n)
        await self._db.write(
            lambda conn: offline.place(
                conn, source_id, reading.n, found, placed=end, after=kept if runs else at.after, empty=empty,
                now_us=self._clock.utc_us(),
            )
        )  # fmt: skip
        return True

    # --- recordings and losses without a time -------------------------------------------------------------------------

    def _settle(self, conn: Connection, source_id: str, fetching: bool) -> Notice | None:
        waiting = [run for run in offline.open_runs(conn, source_id) if run.state is RunState.UNKNOWN]
        for run in reversed(waiting):
            self._anchor(conn, run, fetching)
        for loss in offline.open_losses(conn, source_id):
            self._date(conn, source_id, loss, fetching)
        self._waiting[source_id] = [
            (run.start_us + run.heard * frame_us, run.start_us + run.frames * frame_us)
            for run in offline.open_runs(conn, source_id)
            if run.start_us is not None and run.state is RunState.PLACED
            for frame_us in [offline.get_reading(conn, run.reading_n).codec.frame_us]
        ]
        return self._note_held(conn, source_id)

    def _anchor(self, conn: Connection, run: RunRow, fetching: bool) -> None:
        """Give a run without a time the latest that it can have, unless the owner may have withheld recording then."""
        reading = offline.get_reading(conn, run.reading_n)
        before, later = offline.around(conn, run)
        if later is None and (fetching or not offline.completed_since(conn, run.source_id, reading.n)):
            return
        length_us = run.frames * reading.codec.frame_us
        latest_us = reading.connected_us if later is None or later.start_us is None else later.start_us
        known = [reading.away_us, None if before is None else _end_us(before, reading)]
        # one whose connection before is not known may be from any time before
        earliest_us = max((one for one in known if one is not None), default=0)
        start_us = latest_us - length_us
        slack_us = max(0, start_us - earliest_us)
        spans = self._withheld(conn, run.source_id, reading, min(earliest_us, start_us), latest_us)
        offline.settle_run(
            conn, run.n, state=RunState.HELD if spans else RunState.PLACED, start_us=start_us,
            uncertainty_us=max(slack_us, earliest_us - start_us) if earliest_us else 0,
            guessed=slack_us > SLACK_US or start_us < earliest_us - SLACK_US, earliest_us=earliest_us or None,
            latest_us=latest_us,
        )  # fmt: skip

    def _waited(self, conn: Connection, run: RunRow, reading: ReadingRow, start_us: int) -> list[Span]:
        """Return what of a run that begins now may have waited in its first block since something was withheld.

        A block that is not full stays in the pendant's RAM, and bears the time at which it was full at last.
        """
        earlier = [one for one in offline.latest(conn, run.source_id, 100) if one.n < run.n and one.start_us]
        low_us = 0
        if earlier:
            other = offline.get_reading(conn, earlier[0].reading_n)
            low_us = _end_us(earlier[0], other) + other.ledger_us - reading.ledger_us - NEAR_US
        first = offline.records(conn, run, 1)
        if not first or not self._withheld(conn, run.source_id, reading, low_us, start_us):
            return []
        return [(start_us, start_us + len(record_of(first[0]).frames[run.at_frame :]) * reading.codec.frame_us)]

    def _withheld(
        self, conn: Connection, source_id: str, reading: ReadingRow, start_us: int, end_us: int
    ) -> list[Span]:
        """Return what of [start, end) the owner withheld, in UTC as it was at ``reading``.

        The ledger tells it, since the wall clock may have been stepped in between.
        """
        shift_us = reading.ledger_us
        now = ledger.Moment(self._clock.boot_id(), self._clock.boot_us(), self._clock.utc_us())
        spans = ledger.account(conn, source_id, start_us + shift_us, end_us + shift_us, now)
        return [(span.start_us - shift_us, span.end_us - shift_us) for span in spans if span.state in WITHHELD]

    def _date(self, conn: Connection, source_id: str, loss: LossRow, fetching: bool) -> None:
        """Say when lost records were recorded, from what was recorded beside them."""
        before, later = offline.beside(conn, source_id, loss)
        reading = offline.get_reading(conn, loss.reading_n)
        if later is None and (fetching or offline.unplaced(conn, source_id, 1)):
            return
        per_record_us = [
            one.frames * reading.codec.frame_us / ((one.last_seq - one.first_seq) // reading.step + 1)
            for one in (before, later)
            if one is not None
        ]
        if not per_record_us:
            offline.settle_loss(conn, loss.n, None, None)
            return
        length_us = round(loss.records * sum(per_record_us) / len(per_record_us))
        low_us = None if before is None else _end_us(before, offline.get_reading(conn, before.reading_n))
        high_us = reading.connected_us if later is None else later.start_us
        if low_us is not None and high_us is not None and 0 <= high_us - low_us <= length_us * 3 // 2 + SECOND_US:
            start_us, end_us = low_us, high_us
        elif later is not None and later.start_us is not None:
            start_us, end_us = later.start_us - length_us, later.start_us
        else:
            assert low_us is not None
            start_us, end_us = low_us, low_us + length_us
        offline.settle_loss(conn, loss.n, start_us, end_us)
        if end_us <= start_us:
            return
        frames = round(length_us / reading.codec.frame_us)
        ledger.write(
            conn, source_id, ledger.Span(start_us + reading.ledger_us, end_us + reading.ledger_us, LedgerState.LOST)
        )
        gaps.fill(conn, source_id, start_us, end_us)
        gaps.put(conn, Gap(source_id, start_us, end_us, (Cause.LOST,), frames))

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
                return True  # it is held
            self._ears[run.n] = ear
        wanted = msgspec.structs.replace(run, at_seq=ear.next_seq)
        rows = await self._db.read(lambda conn: offline.records(conn, wanted, PIECE_RECORDS))
        frames = ear.frames_of(rows, run.frames)
        for first in range(0, len(frames), 50):
            await self._feed(ear, run, frames[first : first + 50])
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

    async def _begin(self, run: RunRow) -> _Ear | None:
        """Look at what lies around a run; None for one that is to be held."""
        assert run.start_us is not None
        start_us = run.start_us

        def look(conn: Connection) -> tuple[ReadingRow, int, list[Span], bool]:
            reading = offline.get_reading(conn, run.reading_n)
            length_us = run.frames * reading.codec.frame_us
            if run.latest_us is not None:  # decided by the owner, or nothing was withheld when it can have been
                return reading, start_us, [], False
            off_us = abs(reading.offset_us or 0)
            margin_us = run.uncertainty_us + CLOCK_US + (off_us if off_us <= DRIFT_US else 0)
            reach_us = max(margin_us, off_us)
            spans = self._withheld(conn, run.source_id, reading, start_us - reach_us, start_us + length_us + reach_us)
            near = [(low_us - margin_us, high_us + margin_us) for low_us, high_us in spans]
            if run.heard == 0 and spans and reach_us > margin_us:
                return reading, start_us, [], True
            if run.heard:
                return reading, start_us, near, False
            taken = recordings.taken_spans(
                conn, run.source_id, start_us - NEAR_US - length_us, start_us + length_us + NEAR_US
            )
            at_us = fitted(start_us, length_us, taken, run.uncertainty_us + NEAR_US)
            return reading, at_us, [*near, *self._waited(conn, run, reading, at_us)], False

        reading, placed_us, leave_out, doubtful = await self._db.read(look)
        if doubtful:
            length_us = run.frames * reading.codec.frame_us
            off_us = abs(reading.offset_us or 0)
            await self._db.write(
                lambda conn: offline.settle_run(
                    conn, run.n, state=RunState.HELD, start_us=start_us, uncertainty_us=off_us, guessed=True,
                    earliest_us=start_us - off_us, latest_us=start_us + length_us + off_us,
                )
            )  # fmt: skip
            return None
        if placed_us != start_us:
            await self._db.write(lambda conn: offline.move_run(conn, run.n, placed_us))
        return _Ear(self._new_hearing(run.source_id, reading.codec), run, reading, placed_us, leave_out)

    async def _feed(self, ear: _Ear, run: RunRow, frames: Sequence[bytes]) -> None:
        low_us = ear.at_us(ear.fed)
        high_us = low_us + len(frames) * ear.frame_us
        own_end_us = ear.at_us(ear.committed)

        def there(conn: Connection) -> frozenset[bytes]:
            chunks = audio.between(conn, run.source_id, low_us - NEAR_US, high_us + NEAR_US, silence=False)
            others = [one for one in chunks if one.start_us >= own_end_us or one.end_us <= ear.start_us]
            return frozenset(packet for chunk in others for packet in chunk.packets)

        known = await self._db.read(there)
        await self._listen(ear, lambda: ear.feed(frames, known))

    async def _listen(self, ear: _Ear, work: Callable[[], None]) -> None:
        with held(self._clock):
            await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _commit(self, ear: _Ear, run: RunRow) -> None:
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
            end_us=ear.at_us(ear.settled),
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


class _Ear:
    """Hears one run, and knows which frame is in which record."""

    def __init__(
        self, hearing: Hearing, run: RunRow, reading: ReadingRow, start_us: int, leave_out: Sequence[Span]
    ) -> None:
        self.reading = reading
        self.start_us = start_us
        self.frame_us = reading.codec.frame_us
        self.fed = self.settled = self.committed = run.heard
        """Frames since the run began: handed over, decided, and durable."""
        self.next_seq = run.at_seq
        self._skip = run.at_frame
        self._hearing = hearing
        self._leave_out = leave_out
        self._base = run.heard
        """Frame at which the hearing's own run began."""
        self._places: deque[tuple[int, int, int, int]] = deque([(run.heard, run.at_seq, run.at_frame, 0)])
        """Of each record: number of its first frame, its seq, where in it that is, and how many follow."""
        self._items: list[ChunkReady] = []
        self._spans: deque[list[int]] = deque()
        """Stretches of frames that were fed, not those that were left out."""
        self._left_out = 0

    def at_us(self, frame: int) -> int:
        """Return when a frame begins, in UTC."""
        return self.start_us + frame * self.frame_us

    def frames_of(self, rows: Sequence[RecordRow], total: int) -> list[bytes]:
        """Return the frames of the next records, not beyond the run's ``total``."""
        found: list[bytes] = []
        for row in rows:
            if row.seq != self.next_seq:  # the run has grown since it was heard to its end, whose record is gone
                self._skip = 0
            frames = record_of(row).frames[self._skip :]
            room = total - self.fed - len(found)
            self._places.append((self.fed + len(found), row.seq, self._skip, min(room, len(frames))))
            found += frames[:room]
            if len(frames) > room:
                self._skip += room
                self.next_seq = row.seq
                break
            self._skip = 0
            self.next_seq = row.seq + (1 if len(row.raw) == RECORD_BYTES else len(row.raw))
        return found

    def place_of(self, frame: int) -> tuple[int, int]:
        """Return the record and the place in it at which a frame is, or would be; forgets those before it."""
        while len(self._places) > 1 and self._places[1][0] <= frame:
            self._places.popleft()
        first, seq, skipped, count = self._places[0]
        return seq, skipped + min(count, frame - first)

    def feed(self, frames: Sequence[bytes], known: frozenset[bytes]) -> None:
        """Hear frames, but those that are to be left out or are there already. Runs in the capture thread."""
        wanted = [not self._withheld(self.fed + index) for index in range(len(frames))]
        for first, end in same(frames, known):
            wanted[first:end] = [False] * (end - first)
        index = 0
        while index < len(frames):
            end = next((at for at in range(index, len(frames)) if wanted[at] is not wanted[index]), len(frames))
            if wanted[index]:
                self._hear(frames[index:end])
            else:
                self._pass_over(end - index)
            index = end
        point = self._hearing.checkpoint()
        if point is not None:
            self._take_items(point[0])
            self.settled = self._base + point[1]

    def finish(self, total: int) -> None:
        """End the run: everything is decided."""
        self._take_items(self._hearing.finish())
        self.settled = self._base = self.fed = max(self.fed, total)

    def take(self) -> tuple[list[ChunkReady], list[Span], int]:
        """Return what is to be stored, the stretches of time that it is of, and how many frames were left out."""
        items, self._items = self._items, []
        left_out, self._left_out = self._left_out, 0
        spans: list[Span] = []
        while self._spans and self._spans[0][0] < self.settled:
            first, end = self._spans[0]
            spans.append((self.at_us(first), self.at_us(min(end, self.settled))))
            if end > self.settled:
                self._spans[0][0] = self.settled
                break
            self._spans.popleft()
        return items, spans, left_out

    def _hear(self, frames: Sequence[bytes]) -> None:
        if self._spans and self._spans[-1][1] == self.fed:
            self._spans[-1][1] += len(frames)
        else:
            self._spans.append([self.fed, self.fed + len(frames)])
        stretch = [(Frame(data, 0), self.at_us(self.fed + index + 1)) for index, data in enumerate(frames)]
        self.fed += len(frames)
        self._take_items(self._hearing.feed(stretch))

    def _pass_over(self, count: int) -> None:
        self._take_items(self._hearing.finish())
        self.fed += count
        self._left_out += count
        self.settled = self._base = self.fed

    def _withheld(self, frame: int) -> bool:
        start_us, end_us = self.at_us(frame), self.at_us(frame + 1)
        return any(low < end_us and start_us < high for low, high in self._leave_out)

    def _take_items(self, heard: Sequence[Heard]) -> None:
        self._items += [item for item in heard if isinstance(item, ChunkReady)]


def record_of(row: RecordRow) -> Record:
    """Return a record as it was handed over by the pendant."""
    if len(row.raw) == RECORD_BYTES:
        return record_of_ring(row.store, row.seq, row.raw)
    return record_of_file(row.store, row.seq, row.raw, row.began)


def fitted(start_us: int, length_us: int, taken: Sequence[Span], most_us: int) -> int:
    """Return where a run begins once it is moved, by ``most_us`` at most, out of the way of what is there."""
    middle_us = start_us + length_us // 2
    before_us = max((end for _, end in taken if end <= middle_us), default=None)
    after_us = min((begin for begin, _ in taken if begin > middle_us), default=None)
    if before_us is not None and 0 < before_us - start_us <= most_us:
        return before_us
    if after_us is not None and 0 < start_us + length_us - after_us <= most_us:
        moved_us = after_us - length_us
        return moved_us if before_us is None else max(moved_us, before_us)
    return start_us


def same(frames: Sequence[bytes], known: frozenset[bytes]) -> list[tuple[int, int]]:
    """Return the stretches, from and to, of ``frames`` that are all ``known``: at least SAME_FRAMES, not all alike."""
    found: list[tuple[int, int]] = []
    first = 0
    while known and first < len(frames):
        end = first
        while end < len(frames) and frames[end] in known:
            end += 1
        if end - first >= SAME_FRAMES and len(set(frames[first:end])) > 1:
            found.append((first, end))
        first = max(end, first + 1)
    return found


def _of_one_reading(
    records: Sequence[Record], rows: Sequence[RecordRow], readings: Sequence[ReadingRow], first: int
) -> tuple[int, ReadingRow]:
    """Return how many of the first records were recorded before the same reading of the clocks, and which it is.

    Records were fetched under the last of ``readings``. Where earlier ones left some behind, what was there then was
    recorded before; where nobody knows what was there, the pendant's clock tells: it was set at each connection.
    """
    chosen, previous = first, None
    for count, (record, row) in enumerate(zip(records, rows, strict=True)):
        if row.reading_n != rows[0].reading_n:
            return count, readings[chosen]
        index = _reading_of(record, previous, readings, chosen)
        if count == 0:
            chosen = index
        elif index != chosen:
            return count, readings[chosen]
        previous = _seconds(record) or previous
    return len(records), readings[chosen]


def _reading_of(record: Record, previous: int | None, readings: Sequence[ReadingRow], first: int) -> int:
    seconds = _seconds(record)
    for index in range(first, len(readings) - 1):
        reading = readings[index]
        if reading.head_store is not None and reading.head_position is not None:
            if (record.store, record.seq) < (reading.head_store, reading.head_position):
                return index
            continue
        if seconds is None or (reading.offset_us is None and seconds * SECOND_US > readings[-1].read_us + SMALL_US):
            return index  # a clock that cannot be read, and is ahead, tells nothing
        shown_us = reading.read_us + (reading.offset_us or 0)
        went_back = previous is not None and seconds < previous and seconds * SECOND_US >= reading.read_us - SMALL_US
        if seconds * SECOND_US <= shown_us + SMALL_US and not went_back:
            return index
    return len(readings) - 1


def _seconds(record: Record) -> int | None:
    if record.stamp is not None:
        return record.stamp
    return record.marks[0].seconds if record.marks else None


def _shared_out(records: Sequence[Record], runs: Sequence[placing.Run]) -> tuple[list[NewRun], list[tuple[int, int]]]:
    """Return the runs with their places in the records, and the records that hold no frame."""
    empty = [(record.store, record.seq) for record in records if not record.frames]
    full = deque((record, 0) for record in records if record.frames)
    found: list[NewRun] = []
    for run in runs:
        left = len(run.frames)
        first, first_frame = full[0]
        last = first
        while left:
            last, skipped = full.popleft()
            room = len(last.frames) - skipped
            if room > left:
                full.appendleft((last, skipped + left))
            left -= min(room, left)
        found.append(
            NewRun(
                run.continues, run.store, first.seq, first_frame, last.seq, len(run.frames), run.start_us,
                run.uncertainty_us,
            )
        )  # fmt: skip
    return found, empty


class _After(msgspec.Struct, array_like=True):
    reading_n: int
    run: placing.Run


def _remember(run: placing.Run, reading_n: int) -> bytes:
    """Return what the next batch needs to know of the last run of this one."""
    skipped_us = run.skipped_us + run.duration_us
    return msgspec.msgpack.encode(_After(reading_n, msgspec.structs.replace(run, frames=(), skipped_us=skipped_us)))


def _remembered(data: bytes | None) -> tuple[placing.Run | None, int | None]:
    if data is None:
        return None, None
    known = msgspec.msgpack.decode(data, type=_After)
    return known.run, known.reading_n


def _end_us(run: RunRow, reading: ReadingRow) -> int:
    return (run.start_us or 0) + run.frames * reading.codec.frame_us
