"""What feeds the ledger while the daemon runs: what is heard, what is missing, what is withheld, when nobody listens.

What is heard is noted with the chunks, in their transaction. A sign of life of its own is given only while nothing is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from omi_edge.clock import Clock, held
from omi_edge.domain import Cause, LedgerState, Withholding
from omi_edge.errors import OmiEdgeError
from omi_edge.pipeline.hearing import Stretch
from omi_edge.store import ledger, senders
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.ledger import Moment, Span
from omi_edge.store.withheld import WithheldRow

log = logging.getLogger(__name__)

RETRY_US = 5_000_000
"""Between two tries to give a sign of life, when the first failed."""


class Ledger:
    """Writes the ledger. What takes a connection runs inside the caller's transaction, in the writer thread."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._written_boot_us = 0
        """When something was last written that proves that the daemon runs."""
        self._beating: asyncio.Task[None] | None = None
        self._ahead: dict[str, list[Stretch]] = {}
        """By source what was heard of a time that has not come yet: a socket may bring audio faster than it lasts."""

    async def start(self) -> None:
        """Say that the daemon listens from now on, and did not since its last sign of life."""
        await self._db.write(self._resume)
        self._beating = asyncio.create_task(self._beat(), name="ledger")

    async def stop(self) -> None:
        """Say that nobody listens from now on; harmless without a start."""
        if self._beating is None:
            return
        beating, self._beating = self._beating, None
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with contextlib.suppress(OmiEdgeError):  # then it is as after a crash
            await self._db.write(lambda conn: ledger.live(conn, self.now_us(conn), listening=False))

    # --- inside a transaction -----------------------------------------------------------------------------------------

    def now_us(self, conn: Connection) -> int:
        """Return the present in ledger time; notes what the wall clock has done meanwhile."""
        return self.at_us(conn, self._clock.boot_us())

    def at_us(self, conn: Connection, boot_us: int) -> int:
        """Return the ledger time of a moment since this boot."""
        return boot_us + ledger.tick(conn, self.moment())

    def seen(self, conn: Connection, source_id: str) -> None:
        """A source is connected: its account begins, if it has none."""
        ledger.begin(conn, source_id, self.now_us(conn))

    def gone(self, conn: Connection, source_id: str) -> None:
        """A source will not be heard again."""
        ledger.end(conn, source_id, self.now_us(conn))

    def heard(self, conn: Connection, source_id: str, stretches: Sequence[Stretch]) -> None:
        """Note what was decided of frames. What lies ahead of the clock waits until its time has come."""
        known = [*self._ahead.get(source_id, ()), *stretches]
        if not known:
            return
        offset_us = ledger.tick(conn, self.moment())
        boot_us = self._clock.boot_us()
        for stretch in known:
            state = LedgerState.SPEECH if stretch.speech else LedgerState.SILENCE
            start_us, end_us = stretch.start_us + offset_us, stretch.end_us + offset_us
            span = Span(start_us, end_us, state, (), stretch.lost_us, stretch.losses)
            ledger.write(conn, source_id, span.part(start_us, boot_us + offset_us))
            if stretch.start_us < boot_us:
                self._written_boot_us = boot_us
        ahead = [stretch for stretch in known if stretch.end_us > boot_us]
        if ahead:
            self._ahead[source_id] = ahead
        else:
            self._ahead.pop(source_id, None)

    async def visited(self, source_id: str, start_boot_us: int, end_boot_us: int) -> None:
        """Note that a client was connected to a socket for so long: where no frame came it was silent.

        What it sent ahead of the clock is not accounted for once it has left. Where nobody may send to the source any
        more, its account ends.
        """

        def work(conn: Connection) -> None:
            self.heard(conn, source_id, ())
            self._ahead.pop(source_id, None)
            self.missing(conn, source_id, start_boot_us, end_boot_us, (Cause.DEVICE_SILENT,))
            if not senders.expected(conn, source_id):
                self.gone(conn, source_id)

        try:
            await self._db.write(work)
        except OmiEdgeError as error:
            log.warning("the ledger lacks a visit", extra={"source": source_id, "cause": error.slug})

    def missing(
        self, conn: Connection, source_id: str, start_boot_us: int, end_boot_us: int, causes: Sequence[Cause]
    ) -> None:
        """Note a stretch without frames: its state is that of its only cause, of several it is unknown."""
        offset_us = ledger.tick(conn, self.moment())
        certain = len(causes) == 1 and causes[0] is not Cause.UNKNOWN
        state = LedgerState(causes[0].value) if certain else LedgerState.UNKNOWN
        told = tuple(causes) if len(causes) > 1 else ()
        ledger.write(conn, source_id, Span(start_boot_us + offset_us, end_boot_us + offset_us, state, told))

    def recovered(
        self, conn: Connection, source_id: str, start_boot_us: int, end_boot_us: int
    ) -> list[tuple[int, int]]:
        """Return the stretches of [start, end), boot time, that came from what the pendant had stored."""
        offset_us = ledger.tick(conn, self.moment())
        spans = ledger.between(conn, source_id, start_boot_us + offset_us, end_boot_us + offset_us)
        return [
            (max(span.start_us - offset_us, start_boot_us), min(span.end_us - offset_us, end_boot_us))
            for span in spans
            if span.state is LedgerState.RECOVERED
        ]

    def withheld_between(
        self, conn: Connection, source_id: str, start_boot_us: int, end_boot_us: int
    ) -> list[tuple[int, int, Withholding]]:
        """Return what of [start, end), boot time, the owner withheld, so far.

        The ledger is asked, since a wall clock that was set back calls other moments by the same time.
        """
        moment = self.moment()
        offset_us = ledger.now_us(conn, moment) - moment.boot_us
        spans = ledger.account(conn, source_id, start_boot_us + offset_us, end_boot_us + offset_us, moment)
        return [
            (span.start_us - offset_us, span.end_us - offset_us, Withholding(span.state.value))
            for span in spans
            if span.state in (LedgerState.MUTED, LedgerState.OFF_RECORD)
        ]

    def withheld(self, conn: Connection, row: WithheldRow) -> None:
        """Note what the owner withheld, once it has ended, for all sources."""
        now_us = self.now_us(conn)
        known = ledger.anchors(conn)
        start_us = ledger.at(known, row.start_us) if row.ledger_us is None else row.ledger_us
        # one whose time was over before anybody noticed ended then
        in_time = row.until_us is not None and row.end_us == row.until_us
        end_us = ledger.at(known, row.until_us) if in_time and row.until_us is not None else now_us
        ledger.write_all(conn, Span(start_us, min(now_us, end_us), LedgerState(row.kind.value)))

    def moment(self) -> Moment:
        """Read the clock."""
        return Moment(self._clock.boot_id(), self._clock.boot_us(), self._clock.utc_us())

    # --- signs of life ------------------------------------------------------------------------------------------------

    def _resume(self, conn: Connection) -> None:
        alive_us = ledger.last_life_us(conn)
        now_us = self.now_us(conn)
        if 0 < alive_us < now_us:
            ledger.write_all(conn, Span(alive_us, now_us, LedgerState.DAEMON_DOWN))
        ledger.live(conn, now_us, listening=True)
        self._written_boot_us = self._clock.boot_us()

    async def _beat(self) -> None:
        while True:
            before_us = self._clock.boot_us()
            wait_us = max(RETRY_US, self._written_boot_us + ledger.LIFE_US - before_us)
            await self._clock.sleep(wait_us / 1e6)
            overslept = self._clock.boot_us() - before_us - wait_us > ledger.LIFE_US
            with held(self._clock):
                try:
                    await self._look(before_us, overslept)
                except OmiEdgeError as error:
                    log.warning("the ledger waits", extra={"cause": error.slug})

    async def _look(self, before_us: int, overslept: bool) -> None:
        if overslept:  # the machine was suspended: timers stand still then, boot time does not
            await self._db.write(lambda conn: self._was_suspended(conn, before_us))
            self._written_boot_us = self._clock.boot_us()
        elif self._clock.boot_us() - self._written_boot_us >= ledger.LIFE_US:
            await self._db.write(lambda conn: ledger.live(conn, self.now_us(conn), listening=True))
            self._written_boot_us = self._clock.boot_us()

    def _was_suspended(self, conn: Connection, before_boot_us: int) -> None:
        now_us = self.now_us(conn)
        since_us = now_us - (self._clock.boot_us() - before_boot_us)
        ledger.write_all(conn, Span(since_us, now_us, LedgerState.DAEMON_DOWN))
        ledger.live(conn, now_us, listening=True)
