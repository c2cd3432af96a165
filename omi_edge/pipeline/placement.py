"""Where stored records lie on the timeline: each was recorded before one reading of the pendant's clock, and obeys it.

final records ─► those before one reading ─► ``capture.placing`` with what the clock was off by then ─► runs
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from omi_edge.capture import placing
from omi_edge.capture.blocks import Record, record_of_ring
from omi_edge.clock import Clock, held
from omi_edge.domain import SECOND_US
from omi_edge.pipeline.ear import record_of
from omi_edge.store import offline
from omi_edge.store.database import Database
from omi_edge.store.offline import NewRun, ReadingRow, RecordRow

BATCH_RECORDS = 3000
"""Placed at once: five minutes of a CV1 (dossier §6.1)."""
STAMP_BYTES = 4
"""A ring's record begins with its time (dossier §6.5)."""
SMALL_US = 2 * SECOND_US
"""An offset below this moves a recording by less than its stamps tell."""


class Placement:
    """Of one vault."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def place(self, source_id: str, fetching: bool) -> bool:
        """Place the next records of a source that may be placed; False when there are none.

        ``fetching``: whether more of them are on their way.
        """
        if fetching and await self._db.read(lambda conn: offline.count_unplaced(conn, source_id, BATCH_RECORDS)) < (
            BATCH_RECORDS
        ):
            return False
        rows = await self._db.read(lambda conn: offline.unplaced(conn, source_id, BATCH_RECORDS))
        if not rows:
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
        at_index = readings.index(reading)  # where the one before tells what was there then, this was recorded later
        since_us = reading.away_us if at_index == 0 or readings[at_index - 1].head_store is not None else None
        known_us = None
        if after is not None and after_n is not None and after_n != reading.n:
            before = await self._db.read(lambda conn: offline.get_reading(conn, after_n))
            if after.known_us is not None:
                known_us = after.known_us + before.ledger_us - reading.ledger_us
            after = None
        with held(self._clock):
            runs = await asyncio.to_thread(
                lambda: placing.place(
                    batch, reading.offset_us, reading.codec.frame_us, after=after, stepped_at=stepped_at,
                    until_us=reading.read_us, since_us=since_us, known_us=known_us,
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
    return next((mark.seconds for mark in record.marks if mark.seconds), None)


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
