"""Fetches what one pendant stored while it was away, whenever it is connected; ``recovery`` does the rest.

Every record is durable here, with the cursor behind it, before the pendant is told to free it (dossier §6.5). It begins
once the audio subscription is on and the clock is set, and does not touch either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from omi_edge import gatt
from omi_edge.capture import offline as storage_of_pendants
from omi_edge.capture.blocks import BLOCK_BYTES, Record
from omi_edge.capture.device import Storage
from omi_edge.capture.link import Link
from omi_edge.capture.stored import Cursor, Loss, Why
from omi_edge.clock import Clock, held
from omi_edge.domain import Codec, FetchProgress, FetchState, Severity
from omi_edge.errors import LinkLost, OmiEdgeError, VaultError
from omi_edge.events import Bus
from omi_edge.pipeline.recovery import Recovery
from omi_edge.store import ledger, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Moment
from omi_edge.store.offline import CursorRow, RecordRow

log = logging.getLogger(__name__)

FULL_SHARE = 0.8
"""From here on the owner is warned: little more fits."""
FIRST_WAIT_SECONDS = 30.0
LAST_WAIT_SECONDS = 900.0
"""Between two tries while the pendant stays connected but its storage cannot be read."""
TELL_US = 1_000_000
"""Between two events of the progress."""

Tell = Callable[[str, Severity, str], Awaitable[None]]
Clear = Callable[..., Awaitable[None]]


class Meeting(msgspec.Struct, frozen=True):
    """What a connection began with."""

    storage: Storage
    codec: Codec
    away_us: int | None
    """When the connection before ended."""
    connected_us: int
    read_us: int
    """When its clock was read."""
    offset_us: int | None
    """Its clock minus ours then."""


class Fetch:
    """Of one pendant; conforms to ``capture.stored.Keeper``."""

    def __init__(
        self, address: str, link: Link, *, db: Database, clock: Clock, bus: Bus, recovery: Recovery, tell: Tell,
        clear: Clear,
    ) -> None:  # fmt: skip
        self.state = FetchProgress(FetchState.AWAY, clock.utc_us())
        self.name = address
        """What the owner calls the pendant."""
        self._address = address
        self._link = link
        self._db = db
        self._clock = clock
        self._bus = bus
        self._recovery = recovery
        self._tell = tell
        self._clear = clear
        self._running: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._source_id = ""
        self._reading_n = 0
        self._began_us = 0
        self._audio_us = 0
        self._bytes = 0
        self._frame_us = 0
        self._one_store = False
        self._told_us = 0

    def begin(self, meeting: Meeting) -> None:
        """The pendant is connected and streams: fetch what it holds."""
        if meeting.storage is not Storage.NONE and self._running is None:
            self._running = asyncio.create_task(self._run(meeting), name=f"stored audio of {self._address}")

    async def stop(self) -> None:
        """The connection is over, or is to end; what came is kept."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if self.state.state is not FetchState.AWAY:
            self._become(FetchState.AWAY)

    def again(self) -> bool:
        """Look again for stored audio now; False when the pendant is not connected or stores none."""
        if self.state.state is not FetchState.FETCHING:
            self._again.set()
        return self._running is not None

    async def _run(self, meeting: Meeting) -> None:
        wait_seconds = FIRST_WAIT_SECONDS
        met = False
        try:
            while True:
                self._again.clear()
                try:
                    if not met:
                        await self._meet(meeting)
                        met = True
                    await self._fetch(meeting.storage)
                    wait_seconds = FIRST_WAIT_SECONDS
                    await self._again.wait()
                except LinkLost:
                    return
                except OmiEdgeError as error:
                    await self._stuck(error)
                    timer = self._clock.call_later(wait_seconds, self._again.set)
                    try:
                        await self._again.wait()
                    finally:
                        timer.cancel()
                    wait_seconds = min(2 * wait_seconds, LAST_WAIT_SECONDS)
        except OmiEdgeError as error:  # of the store: the next connection tries again
            log.warning("stored audio was not fetched", extra={"cause": error.slug})
        except Exception as error:  # noqa: BLE001 nobody else sees what ends this task; live capture goes on
            log.error("fetching stored audio is defective", extra={"cause": type(error).__name__})
            self._become(
                FetchState.WAITING, "A defect of omi-edge keeps it from being fetched; the log has the details."
            )
        finally:
            self._recovery.fetching(self._source_id, False)

    async def _meet(self, meeting: Meeting) -> None:
        with held(self._clock):
            self._source_id = await self._db.read(self._source)
            self._frame_us = meeting.codec.frame_us
            self._one_store = meeting.storage is not Storage.MULTI_FILE  # of several files one end tells little
            self._reading_n = await self._db.write(lambda conn: self._note(conn, meeting))

    async def _fetch(self, storage: Storage) -> None:
        self._recovery.fetching(self._source_id, True)
        capacity = storage_of_pendants.capacity(storage, await self._link.read(gatt.STORAGE_STATUS))
        share = 0.0 if capacity is None else capacity.share
        if share >= FULL_SHARE:
            await self._tell(
                "pendant-storage-full", Severity.WARNING, f"{self.name} has {share * 100:.0f} % of its storage in use: "
                "keep it near until that is fetched, or it will lose audio when it is away.",
            )  # fmt: skip
        self._began_us, self._audio_us, self._bytes = self._clock.boot_us(), 0, 0
        self._become(FetchState.FETCHING)
        row = await self._db.read(lambda conn: offline.cursor(conn, self._source_id))
        cursor = None if row is None else Cursor(row.store, row.position, row.tail, row.identity, row.end, row.dropped)
        drained = await storage_of_pendants.drain(self._link, storage, self._clock, self, cursor)
        with held(self._clock):
            await self._db.write(self._note_complete)
            await self._clear("pendant-storage-full", "stored-audio-waits")
        self._become(FetchState.DONE)
        self._recovery.fetching(self._source_id, False)
        log.info(
            "stored audio was fetched",
            extra={
                "device": self._address[-5:], "records": drained.records, "lost": drained.lost,
                "retries": drained.retries,
            },
        )  # fmt: skip

    async def _stuck(self, error: OmiEdgeError) -> None:
        self._recovery.fetching(self._source_id, False)
        self._become(FetchState.WAITING, str(error))
        log.warning("stored audio waits", extra={"cause": error.slug})
        if not isinstance(error, VaultError):
            await self._tell(
                "stored-audio-waits", Severity.WARNING, f"What {self.name} stored cannot be fetched now: {error}"
            )

    # --- capture.stored.Keeper ----------------------------------------------------------------------------------------

    async def keep(self, records: Sequence[Record], cursor: Cursor) -> None:
        """See Keeper."""
        rows = [RecordRow(record.store, record.seq, self._reading_n, _began(record), record.raw) for record in records]
        await self._write(lambda conn: self._keep(conn, rows, cursor))
        self._bytes += sum(len(record.raw) for record in records)
        self._audio_us += sum(len(record.frames) for record in records) * self._frame_us

    async def freed(self, cursor: Cursor) -> None:
        """See Keeper."""
        final = (cursor.store, cursor.position)
        await self._write(lambda conn: self._keep(conn, (), cursor, final))
        self._recovery.poke()

    async def lost(self, loss: Loss, cursor: Cursor) -> None:
        """See Keeper."""

        def note(conn: Connection) -> None:
            offline.lose(
                conn, self._source_id, self._reading_n, store=loss.store, first=loss.first, last=loss.last,
                records=loss.records, why=loss.why.value,
            )  # fmt: skip
            self._keep(conn, (), cursor)

        await self._write(note)
        await self._tell("stored-audio-lost", Severity.WARNING, _lost(self.name, loss))

    async def kept(self, store: int, since: int, most: int) -> Sequence[tuple[int, bytes]]:
        """See Keeper."""
        with held(self._clock):
            return await self._db.read(lambda conn: offline.kept(conn, self._source_id, store, since, most))

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """See Keeper."""
        now_us = self._clock.boot_us()
        per_byte = self._audio_us / self._bytes if self._bytes else 0.0
        elapsed_us = now_us - self._began_us
        left_us = round(elapsed_us * (total_bytes - done_bytes) / done_bytes) if done_bytes and elapsed_us else None
        self.state = FetchProgress(
            FetchState.FETCHING, self.state.since_us, done_bytes, total_bytes, round(done_bytes * per_byte),
            round(total_bytes * per_byte), left_us,
        )  # fmt: skip
        if now_us - self._told_us >= TELL_US:
            self._told_us = now_us
            self._publish()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _keep(
        self, conn: Connection, rows: Sequence[RecordRow], cursor: Cursor, final: tuple[int, int] | None = None
    ) -> None:
        offline.keep(conn, self._source_id, rows, _row(cursor), final)
        if cursor.end and self._one_store:
            offline.note_head(conn, self._reading_n, cursor.store, cursor.end)

    async def _write(self, work: Callable[[Connection], None]) -> None:
        with held(self._clock):
            await self._db.write(work)

    def _source(self, conn: Connection) -> str:
        found = sources.for_device(conn, self._address)
        assert found is not None, "a pendant that streams has a source"
        return found.id

    def _note_complete(self, conn: Connection) -> None:
        offline.complete_reading(conn, self._reading_n)
        offline.finalize(conn, self._source_id)  # records that it gave up by itself are not told to be freed

    def _note(self, conn: Connection, meeting: Meeting) -> int:
        now = Moment(self._clock.boot_id(), self._clock.boot_us(), self._clock.utc_us())
        present_us = ledger.tick(conn, now) + now.boot_us
        shift_us = present_us - now.utc_us
        away_us = meeting.away_us
        if away_us is not None:  # the wall clock may have been stepped since
            away_us = ledger.called_now(ledger.anchors(conn), away_us, now, present_us)
        return offline.begin_reading(
            conn, self._source_id, away_us=away_us, connected_us=meeting.connected_us,
            read_us=meeting.read_us, offset_us=meeting.offset_us, ledger_us=shift_us, codec=meeting.codec,
            step=1 if meeting.storage is Storage.RING else BLOCK_BYTES,
        )  # fmt: skip

    def _become(self, state: FetchState, message: str = "") -> None:
        if state in (FetchState.FETCHING, FetchState.AWAY):
            self.state = FetchProgress(state, self._clock.utc_us())
        else:
            self.state = msgspec.structs.replace(
                self.state, state=state, since_us=self._clock.utc_us(), left_us=None, message=message
            )
        self._publish()

    def _publish(self) -> None:
        state = self.state
        self._bus.publish(
            "offline", self._clock.utc_us(), id=self._address, state=state.state.value, done_bytes=state.done_bytes,
            total_bytes=state.total_bytes, done_seconds=state.done_us / 1e6, total_seconds=state.total_us / 1e6,
            left_seconds=None if state.left_us is None else state.left_us / 1e6,
        )  # fmt: skip


def _row(cursor: Cursor) -> CursorRow:
    return CursorRow(cursor.store, cursor.position, cursor.tail, cursor.identity, cursor.end, cursor.dropped)


def _began(record: Record) -> int | None:
    """Return when the record's file began, where that is told beside it: it is not in its bytes."""
    first = record.marks[0] if record.marks and record.seq == 0 else None
    return first.seconds if first is not None and first.frame == 0 else None


def _lost(name: str, loss: Loss) -> str:
    why = {
        Why.OVERWRITTEN: "its storage was full, and the oldest made room. Keep it near more often",
        Why.FREED: "it gave them up before they were here, as its firmware does when the link breaks off",
        Why.GARBLED: "a part of what it sent did not arrive, and it had given it up",
    }[loss.why]
    return (
        f"{loss.records} blocks of audio that {name} stored are lost: {why}. The ledger shows when, if that is known."
    )
