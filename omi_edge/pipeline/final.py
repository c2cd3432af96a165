"""The second pass as a whole: what it waits for, and how that is told."""

from __future__ import annotations

from omi_edge.clock import Clock
from omi_edge.events import Bus
from omi_edge.pipeline.engines import Engines
from omi_edge.pipeline.leisure import Leisure
from omi_edge.store import reprocessing
from omi_edge.store.database import Database

LOOK_SECONDS = 15.0
"""Between two looks whether what waits may go on, when nothing else asks for one. A choice."""


class FinalPass:
    """``engine`` is the final recogniser's name in the settings, "" when there is no second pass."""

    def __init__(self, db: Database, clock: Clock, bus: Bus, engines: Engines, engine: str, leisure: Leisure) -> None:
        self.engine = engine
        self.trouble = ""
        """Why the recogniser cannot be used, and how to mend that."""
        self.why = ""
        """What the passes that are left wait for now, "" when nothing hinders them."""
        self._db = db
        self._clock = clock
        self._bus = bus
        self._engines = engines
        self._leisure = leisure
        self._told = (0, "")

    async def look(self) -> bool:
        """Look whether the recogniser can be used; return whether it can again, and could not before."""
        before, self.trouble = self.trouble, await self._engines.check_final()
        if self.engine and before != self.trouble:
            await self.tell()
        return bool(before) and not self.trouble

    async def gate(self) -> float | None:
        """Return after how many seconds to ask again whether a pass may go on, None when it may now."""
        await self.hinder()
        await self.tell()
        return LOOK_SECONDS if self.why else None

    async def hinder(self) -> str:
        """Return what hinders a pass now, in a sentence, "" for nothing."""
        self.why = self.trouble or await self._leisure.hindrance()
        return self.why

    async def tell(self) -> None:
        """Tell everybody how many conversations wait, and what for, when that has changed."""
        self.left(await self._db.read(reprocessing.waiting_final))

    def left(self, waiting: int) -> None:
        """Tell that so many conversations wait."""
        why = (self.trouble or self.why) if waiting else self.trouble
        if (waiting, why) != self._told:
            self._told = (waiting, why)
            self._bus.publish("final", self._clock.utc_us(), waiting=waiting, why=why)
