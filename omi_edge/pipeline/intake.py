"""One source's way from notifications (or PCM) to durable chunks and segments.

The loop thread only enqueues. Whatever waits goes to the capture thread in one batch; what comes out is committed in
order, chunk by chunk, and told to the rest of the pipeline only after its commit. When the disk is full the audio
stays in memory, within a bound, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor

import msgspec
import numpy as np

from omi_edge.capture.frames import Reassembler
from omi_edge.clock import Clock, Timer, held
from omi_edge.domain import SAMPLE_RATE, AudioChunk, Codec, Frame, Notification, SpeechSegment, Stage
from omi_edge.errors import DiskFull, OmiEdgeError, VaultBusy
from omi_edge.opus import Encoder
from omi_edge.pipeline.hearing import ChunkReady, Heard, Hearing, LiveAudio, Missing, Position
from omi_edge.pipeline.ledger import Ledger
from omi_edge.store import audio, jobs, segments, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database

log = logging.getLogger(__name__)

WAITING_LIMIT = 60_000
"""Notifications held when nothing can be stored: ten minutes of a pendant's stream, about 12 MB."""
GATHER_SECONDS = 0.4
"""While nobody speaks notifications wait for one another: four bursts at once cost little more than one (measured)."""
BURST_SECONDS = 0.15
"""While somebody speaks they wait for the rest of their burst and for the next: fewer hand-overs to the capture thread,
and larger blocks for the VAD (measured over real bleak: 3.1 % of a core in place of 3.8)."""
READY_LIMIT = 64
"""Items between the capture thread and the writer."""
RETRY_SECONDS = 5.0
SILENT_SECONDS = 3.0
"""Without a frame for this long the run is over: what is open is closed, so that nothing waits for the next frame. The
pendant holds back at most 1.28 s (protocol dossier §7)."""
SECOND_BYTES = SAMPLE_RATE * 2


Span = tuple[int, int]
"""From, to just before; UTC in microseconds."""


class Taken(msgspec.Struct):
    """How far a recording was taken."""

    end_us: int
    """UTC just after the last frame."""
    left_out_us: int = 0
    """How much of it fell on what was to be left out."""


class Stored(msgspec.Struct, frozen=True):
    """What has just become durable."""

    chunk: AudioChunk | None
    segments: tuple[SpeechSegment, ...]


class Intake:
    """Takes notifications of a pendant, or PCM of a recording, for one source."""

    def __init__(
        self,
        source_id: str,
        hearing: Hearing,
        codec: Codec,
        *,
        db: Database,
        clock: Clock,
        thread: Executor,
        on_stored: Callable[[Stored], None],
        on_live: Callable[[LiveAudio], None],
        on_missing: Callable[[Missing], Awaitable[None]],
        on_disk: Callable[[bool], Awaitable[None]],
        ledger: Ledger | None = None,
    ) -> None:
        self.source_id = source_id
        self.quiet_until_us = 0
        """No speech before this moment is still to come."""
        self.speaking = False
        """Whether somebody speaks right now."""
        self.overflowed = 0
        """Notifications thrown away because nothing could be stored for too long."""
        self._withheld = False
        self._hearing = hearing
        self._frames = Reassembler(codec)
        self.codec = codec
        self._db = db
        self._clock = clock
        self._thread = thread
        self._on_stored = on_stored
        self._on_live = on_live
        self._on_missing = on_missing
        self._on_disk = on_disk
        self._ledger = ledger
        """Where what is heard is noted; None for a source without an account."""
        self._waiting: deque[tuple[Notification, int]] = deque()
        """Notifications, each with the offset of UTC from its time since boot as it came."""
        self._ready: asyncio.Queue[Heard] = asyncio.Queue(READY_LIMIT)
        self._drain: asyncio.Task[None] | None = None
        self._release: Callable[[], None] | None = None
        self._keeper = asyncio.create_task(self._keep_all())
        self._gathering: Timer | None = None
        self._fell_silent: Timer | None = None
        self._disk_full = False

    def notify(self, notification: Notification) -> None:
        """Take one notification; never waits. While the owner withholds, it is thrown away unseen."""
        if self._withheld:
            return
        if len(self._waiting) >= WAITING_LIMIT:
            if not self.overflowed:  # the gap in the ids counts what is missing, once there is room again
                log.error(
                    "audio is thrown away: nothing could be stored for too long", extra={"source": self.source_id}
                )
            self.overflowed += 1
            return
        self._waiting.append((notification, self._clock.utc_us() - self._clock.boot_us()))
        if self._gathering is None and (self._drain is None or self._drain.done()):
            seconds = BURST_SECONDS if self.speaking else GATHER_SECONDS
            self._gathering = self._clock.call_later(seconds, self._begin_to_drain)

    def reconnected(self) -> None:
        """Say that a new connection begins. The one before must have been finished."""
        self._frames.reconnected()
        self._hearing.reconnected()

    async def withhold(self, wanted: bool) -> None:
        """Throw away what comes from now on, or no longer; what came before is kept to its end."""
        if wanted is self._withheld:
            return
        if wanted:
            self._withheld = True
            await self.finish()
        else:
            self._frames.reconnected()  # ids went on unseen: their step is no loss
            self._withheld = False

    async def take_pcm(
        self, pcm: AsyncIterator[bytes], start_us: int, taken: Taken | None = None, leave_out: Sequence[Span] = ()
    ) -> float:
        """Encode and take a whole recording, s16le mono 16 kHz; return its seconds. Waits for the disk.

        For ``taken`` and ``leave_out`` see ``take_frames``.
        """
        encoder = Encoder(self.codec)
        frame_bytes = self.codec.frame_us * SAMPLE_RATE // 1_000_000 * 2
        sifted = _Sifted(start_us, self.codec.frame_us, taken or Taken(start_us), leave_out)
        rest = b""

        def encode(block: bytes) -> list[Heard]:
            samples = np.frombuffer(block, np.int16).reshape(-1, frame_bytes // 2)
            return self._take(sifted, [encoder.encode(frame) for frame in samples])

        async for piece in pcm:
            rest += piece
            whole = len(rest) - len(rest) % frame_bytes
            for offset in range(0, whole, SECOND_BYTES):
                await self._run(encode, rest[offset : min(whole, offset + SECOND_BYTES)])
            rest = rest[whole:]
        seconds = sifted.count * self.codec.frame_us / 1e6 + len(rest) / SECOND_BYTES
        if rest:
            await self._run(encode, rest.ljust(frame_bytes, b"\0"))
        return seconds

    async def take_frames(
        self, frames: AsyncIterator[Sequence[bytes]], start_us: int, taken: Taken, leave_out: Sequence[Span] = ()
    ) -> None:
        """Take a whole recording of this codec's frames as they are. Waits for the disk.

        Frames that reach into one of ``leave_out``, in order of time, are not taken. ``taken`` is kept up to date: what
        ends before ``taken.end_us`` as it is handed over was taken already, and is passed over uncounted.
        """
        sifted = _Sifted(start_us, self.codec.frame_us, taken, leave_out)
        second = 1_000_000 // self.codec.frame_us
        async for some in frames:
            for offset in range(0, len(some), second):
                await self._run(self._take, sifted, some[offset : offset + second])

    async def finish(self) -> None:
        """Bring everything that was taken into the file, and end the run."""
        self._begin_to_drain()
        while self._drain is not None and not self._drain.done():
            await asyncio.wait([self._drain])
        await self._run(self._hear_out)
        await self._ready.join()

    async def close(self) -> None:
        """Finish and stop, in any case; what the disk refuses even now is lost with the process."""
        if not self._keeper.done():
            finishing = asyncio.create_task(self.finish())
            await asyncio.wait([finishing, self._keeper], return_when=asyncio.FIRST_COMPLETED)
            finishing.cancel()
        if self._fell_silent is not None:
            self._fell_silent.cancel()
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        self._let_go()

    def _begin_to_drain(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._waiting and (self._drain is None or self._drain.done()):
            self._drain = asyncio.create_task(self._drain_waiting())

    async def _drain_waiting(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            self._waiting.clear()
            await self._run(self._hear, batch)
        if self._fell_silent is not None:
            self._fell_silent.cancel()
        self._fell_silent = self._clock.call_later(SILENT_SECONDS, self._end_run)

    def _end_run(self) -> None:
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._hear_out_and_go_on())

    async def _hear_out_and_go_on(self) -> None:
        await self._run(self._hear_out)
        if self._waiting:  # what came meanwhile found a drain at work, and relies on it
            await self._drain_waiting()

    def _hear(self, batch: Sequence[tuple[Notification, int]]) -> list[Heard]:
        frames: list[tuple[Frame, int]] = []
        for notification, offset_us in batch:
            # a frame may be whole only with a later notification: it was spoken when its first came
            frames += [(frame, frame.boot_us + offset_us) for frame in self._frames.feed(notification)]
        return self._hearing.feed(frames)

    def _take(self, sifted: _Sifted, packets: Sequence[bytes]) -> list[Heard]:
        """Hear what of ``packets`` is wanted; what is left out ends a run."""
        heard: list[Heard] = []
        for stretch in sifted.wanted(packets):
            heard += self._hearing.feed(stretch) if stretch else self._hearing.finish()
        return heard

    def _hear_out(self) -> list[Heard]:
        """End the run, with the frame that waited for a successor."""
        offset_us = self._clock.utc_us() - self._clock.boot_us()
        last = [(frame, frame.boot_us + offset_us) for frame in self._frames.flush()]
        return self._hearing.feed(last) + self._hearing.finish()

    async def _run(self, work: Callable[..., list[Heard]], *arguments: object) -> None:
        with held(self._clock):
            loop = asyncio.get_running_loop()
            heard = await loop.run_in_executor(self._thread, lambda: work(*arguments))
            if heard:
                self._hold()
        for item in heard:
            await self._ready.put(item)
            self._hold()

    async def _keep_all(self) -> None:
        while True:
            item = await self._ready.get()
            try:
                await self._keep(item)
            finally:
                self._ready.task_done()
                if self._ready.empty():
                    self._let_go()

    def _hold(self) -> None:
        """Simulated time waits for what is on its way to the file, but not for a disk that is full."""
        if self._release is None and not self._disk_full:
            self._release = self._clock.hold()

    def _let_go(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    async def _keep(self, item: Heard) -> None:
        if isinstance(item, LiveAudio):
            self._on_live(item)
        elif isinstance(item, Position):
            self.quiet_until_us = item.quiet_until_us
            self.speaking = item.speaking
        elif isinstance(item, Missing):
            try:
                await self._on_missing(item)
            except OmiEdgeError as error:  # the audio itself goes on
                log.warning("a gap was not noted", extra={"source": self.source_id, "cause": error.slug})
        else:
            await self._store(item)

    async def _store(self, item: ChunkReady) -> None:
        while True:
            try:
                stored = await self._db.write(lambda conn: self._commit(conn, item))
                break
            except (DiskFull, VaultBusy) as error:
                if not self._disk_full:
                    self._disk_full = True
                    log.error("audio cannot be stored", extra={"source": self.source_id, "cause": error.slug})
                    self._let_go()
                    await self._tell_disk(True)
                await self._clock.sleep(RETRY_SECONDS)
        if self._disk_full:
            self._disk_full = False
            self._hold()
            log.info("audio is stored again", extra={"source": self.source_id})
            await self._tell_disk(False)
        self._on_stored(stored)

    async def _tell_disk(self, full: bool) -> None:
        try:
            await self._on_disk(full)
        except DiskFull:
            log.debug("the notice has to wait for the disk as well")

    def _commit(self, conn: Connection, item: ChunkReady) -> Stored:
        stored = commit_heard(conn, self.source_id, item, self._clock.utc_us())
        if self._ledger is not None:
            self._ledger.heard(conn, self.source_id, item.stretches)
        return stored


def commit_heard(conn: Connection, source_id: str, item: ChunkReady, now_us: int) -> Stored:
    """Store a chunk, with the segments that end in it and their jobs."""
    chunk = audio.put(conn, item.chunk) if item.chunk is not None else None
    sources.advance(
        conn, source_id, heard_until_us=item.heard_until_us, lost_frames=item.lost, dropped_bytes=item.dropped_bytes,
        dropped_us=item.dropped_us,
    )  # fmt: skip
    for segment in item.segments:
        segments.put(conn, segment)
        jobs.enqueue(conn, Stage.TRANSCRIBE, segment.id, now_us=now_us)
    return Stored(chunk, item.segments)


class _Sifted:
    """Places a recording's frames one after the other, and passes over those that are not wanted."""

    def __init__(self, start_us: int, frame_us: int, taken: Taken, leave_out: Sequence[Span]) -> None:
        self.count = 0
        """Frames so far."""
        self._start_us = start_us
        self._frame_us = frame_us
        self._from_us = taken.end_us
        self._taken = taken
        self._leave_out = deque(leave_out)

    def wanted(self, packets: Sequence[bytes]) -> Iterator[list[tuple[Frame, int]]]:
        """Yield stretches of frames with their ends in UTC; an empty one where something is left out."""
        stretch: list[tuple[Frame, int]] = []
        for packet in packets:
            begin_us = self._start_us + self.count * self._frame_us
            end_us = begin_us + self._frame_us
            self.count += 1
            if end_us <= self._from_us:
                continue
            self._taken.end_us = end_us
            while self._leave_out and self._leave_out[0][1] <= begin_us:
                self._leave_out.popleft()
            if self._leave_out and self._leave_out[0][0] < end_us:
                self._taken.left_out_us += self._frame_us
                if stretch:
                    yield stretch
                    stretch = []
                yield []
            else:
                stretch.append((Frame(packet, 0), end_us))
        if stretch:
            yield stretch
