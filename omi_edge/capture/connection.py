"""One connection as this machine sees it: whether it is up, how it is secured, and how it ended.

The end is told in pieces, in any order and on two sockets: bleak says that it is over, BlueZ gives the reason, the
watch on the service says that there is no Bluetooth any more. ``ending`` waits a moment for the best of them.
"""

from __future__ import annotations

import asyncio
import contextlib

from omi_edge.clock import Clock, held
from omi_edge.domain import Ending, Security

REASON_SECONDS = 0.5
"""How long to wait for a reason after the end. BlueZ sends both at once; a switched-off adapter says so a little later
than its links end; an older BlueZ gives no reasons at all."""
_CERTAIN = frozenset({Ending.TIMEOUT, Ending.REMOTE, Ending.AUTHENTICATION})
"""Reasons that need no second look. A local end may be the adapter's."""


class Connection:
    """From the attempt to the end. Called on the event loop only."""

    def __init__(self) -> None:
        self.security = Security.UNKNOWN
        self._over = asyncio.Event()
        self._decided = asyncio.Event()
        self._reason: Ending | None = None
        self._final: Ending | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def established(self) -> None:
        """Say that it is up: reasons that failed attempts left behind no longer count."""
        if not self.over:
            self._reason = None
            self._decided.clear()

    def dropped(self) -> None:
        """Say that it is over, for a reason yet unknown."""
        self._over.set()

    def reason(self, ending: Ending) -> None:
        """Say why it ended, or is about to."""
        self._reason = ending
        if ending in _CERTAIN:
            self._decided.set()

    def end(self, ending: Ending) -> None:
        """Say that it is over and how; what was known before counts."""
        if self._final is None:
            known = self._reason if ending is Ending.UNKNOWN or (self.over and self._decided.is_set()) else None
            self._final = known or ending
        self._decided.set()
        self._over.set()

    def secured(self, bonded: bool) -> None:
        """Say whether the host stack has keys for it."""
        self.security = Security.BONDED if bonded else Security.OPEN

    async def ending(self, clock: Clock) -> Ending:
        """Wait for the end; return how it came."""
        await self._over.wait()
        if not self._decided.is_set():
            with held(clock), contextlib.suppress(TimeoutError):
                async with clock.time_limit(REASON_SECONDS):
                    await self._decided.wait()
        self.end(Ending.UNKNOWN)
        assert self._final is not None
        return self._final
