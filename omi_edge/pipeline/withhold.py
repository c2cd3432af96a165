"""Mute and off the record: the owner's word that nothing is to be recorded, kept across restarts.

Audio is thrown away as it comes, before anything decodes it. What holds is in memory first and in the file second when
it begins, and the other way round when it ends: whatever fails, nothing is recorded that was not to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable

from omi_edge.clock import Clock, Timer, held
from omi_edge.domain import Withholding
from omi_edge.errors import OmiEdgeError, VaultError
from omi_edge.events import Bus
from omi_edge.ids import new_id
from omi_edge.pipeline.spine import Spine
from omi_edge.store import withheld
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.withheld import WithheldRow

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
LONGEST_TIMER_SECONDS = 3600.0
"""A timer counts the machine's own time; looking again each hour keeps to the wall clock when that is set."""


class Withhold:
    """Whether audio is recorded."""

    def __init__(self, db: Database, clock: Clock, bus: Bus, spine: Spine) -> None:
        self.current: WithheldRow | None = None
        """What holds; None while audio is recorded."""
        self._db = db
        self._clock = clock
        self._bus = bus
        self._spine = spine
        self._timer: Timer | None = None
        self._ending: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Take up what held when the daemon ended, as long as its time is not over."""
        row = await self._db.read(withheld.current)
        if row is None:
            return
        if row.until_us is not None and row.until_us <= self._clock.utc_us():
            await self._db.write(functools.partial(self._end, at_us=row.until_us))
            return
        await self._spine.withhold(True)
        self._holds(row)

    async def stop(self) -> None:
        """Let go of the timer; what holds goes on holding."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._ending, self._writing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def begin(self, kind: Withholding, seconds: float | None, by: str) -> WithheldRow:
        """Record nothing from now on, for ``seconds`` or until told otherwise."""
        async with self._turn:
            await self._spine.withhold(True)
            now_us = self._clock.utc_us()
            until_us = None if seconds is None else now_us + round(seconds * 1e6)
            if self.current is not None and until_us is not None:
                # what the owner asked for before holds on: only they make it shorter, with resume
                until_us = None if self.current.until_us is None else max(until_us, self.current.until_us)
            begin = functools.partial(
                self._begin, kind=kind, now_us=now_us, until_us=until_us, by=by, boot_us=self._clock.boot_us()
            )
            try:
                row = await self._db.write(begin)
            except VaultError as error:  # a full disk is no reason to record what was not to be
                log.error("recording is withheld, but that is not written down yet", extra={"cause": error.slug})
                row = WithheldRow(new_id("wth", now_us), kind, now_us, None, until_us, by)
                self._writing = asyncio.create_task(self._write_down(row, begin))
            self._holds(row)
        log.info("recording is withheld", extra={"kind": kind.value})
        return row

    async def end(self, by: str) -> WithheldRow | None:
        """Record again; return what held, None when nothing did."""
        async with self._turn:
            now_us = self._clock.utc_us()
            row = await self._db.write(functools.partial(self._end, at_us=now_us))
            await self._spine.withhold(False)
            if self._timer is not None:
                self._timer.cancel()
            self.current = None
            if row is not None:
                self._bus.publish("recording", now_us, state="recording", until_us=None)
                log.info("recording goes on", extra={"by": by})
        return row

    def _begin(
        self, conn: Connection, kind: Withholding, *, now_us: int, until_us: int | None, by: str, boot_us: int
    ) -> WithheldRow:
        """Begin in the file, maybe late; what held before and does no longer goes into the ledger."""
        ledger = self._spine.ledger
        before = withheld.current(conn)
        row = withheld.begin(
            conn, kind, now_us=now_us, until_us=until_us, by=by, ledger_us=ledger.at_us(conn, boot_us)
        )  # fmt: skip
        if before is not None and before.id != row.id:
            ledger.withheld(conn, withheld.get(conn, before.id))
        return row

    def _end(self, conn: Connection, *, at_us: int) -> WithheldRow | None:
        row = withheld.end(conn, at_us=at_us)
        if row is not None:
            self._spine.ledger.withheld(conn, row)
        return row

    async def _write_down(self, row: WithheldRow, begin: Callable[[Connection], WithheldRow]) -> None:
        while self.current is row:
            await self._clock.sleep(RETRY_SECONDS)
            async with self._turn:
                with contextlib.suppress(VaultError):
                    if self.current is row:
                        self.current = await self._db.write(begin)

    def _holds(self, row: WithheldRow) -> None:
        self.current = row
        if self._timer is not None:
            self._timer.cancel()
        self._bus.publish("recording", self._clock.utc_us(), state=row.kind.value, until_us=row.until_us)
        if row.until_us is not None:
            seconds = (row.until_us - self._clock.utc_us()) / 1e6
            self._timer = self._clock.call_later(min(max(0.0, seconds), LONGEST_TIMER_SECONDS), self._look)

    def _look(self) -> None:
        row = self.current
        if row is None or row.until_us is None:
            return
        if self._clock.utc_us() < row.until_us:
            self._holds(row)
        else:
            self._ending = asyncio.create_task(self._end_in_time())

    async def _end_in_time(self) -> None:
        while True:
            try:
                with held(self._clock):
                    await self.end("its own time")
                    return
            except OmiEdgeError as error:  # until it is written down that it ended, it has not
                log.warning("recording stays withheld for now", extra={"cause": error.slug})
            await self._clock.sleep(RETRY_SECONDS)
