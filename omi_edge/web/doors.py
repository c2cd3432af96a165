"""The clients that send audio over sockets now, and what is kept of each until it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict

from omi_edge.clock import Clock
from omi_edge.errors import NotReady
from omi_edge.web.controls import Sound
from omi_edge.web.tickets import Tickets

log = logging.getLogger(__name__)

MOST_OPEN = 64
"""Sockets at once."""
GOING_SECONDS = 2.0
"""How long the end of all sockets may take; the whole daemon has five seconds to stop."""
MOST_KEPT = 1000
"""Sources whose last connection is remembered."""

CLOSE_GOING = (1001, "omi-edge is stopping")
CLOSE_REPLACED = (4409, "the same client has connected again")
CLOSE_REFUSED = (4403, "the owner refused this source")
CLOSE_MERGED = (4409, "the source was merged into another; connect again")
CLOSE_REVOKED = (4401, "the token was revoked")


class Kept:
    """What outlasts a connection: so that a client that comes back goes on where it was."""

    def __init__(self, origin_us: int, told: int) -> None:
        self.origin_us = origin_us
        """UTC from which the seconds in what it is told count."""
        self.told = told
        """Number of the last event that it was told."""
        self.left_us = origin_us


class Visit:
    """One open socket."""

    def __init__(
        self,
        client: str,
        door: str,
        source_id: str,
        source_name: str,
        sound: Sound,
        began_us: int,
        kept: Kept,
    ) -> None:
        self.client = client
        self.door = door
        self.source_id = source_id
        self.source_name = source_name
        self.sound = sound
        self.began_us = began_us
        self.kept = kept
        self.audio_us: int | None = None
        """UTC of the last message with audio."""
        self.text_us: int | None = None
        self.dropped = 0
        self.ending: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        """Close code and reason, once it is to end."""
        self.gone = asyncio.Event()

    def end(self, close: tuple[int, str]) -> None:
        """Let the socket be closed. Harmless twice."""
        if not self.ending.done():
            self.ending.set_result(close)


class Doors:
    """All open sockets of one daemon, one a source, and the tickets that open them."""

    def __init__(self, clock: Clock) -> None:
        self.tickets = Tickets(clock)
        self._clock = clock
        self._open: dict[str, Visit] = {}
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._stopping = False

    @property
    def visits(self) -> list[Visit]:
        """The open sockets."""
        return list(self._open.values())

    def named(self) -> dict[str, Visit]:
        """Return the open sockets by a name of their own."""
        found: dict[str, Visit] = {}
        for visit in self.visits:
            found[visit.client if visit.client not in found else f"{visit.client} {visit.source_id}"] = visit
        return found

    def check_room(self) -> None:
        """Raise NotReady when there are too many sockets, or when the daemon stops."""
        if self._stopping:
            raise NotReady("the daemon is stopping; come back in a moment.")
        if len(self._open) >= MOST_OPEN:
            raise NotReady(f"{MOST_OPEN} sockets are open already; end one of them (GET /api/active_clients).")

    def kept(self, source_id: str, last_number: int, again_us: int) -> Kept:
        """Return what is kept of a source, anew when it was away for ``again_us`` or longer."""
        now_us = self._clock.utc_us()
        known = self._kept.get(source_id)
        if known is None or known.told > last_number or (
            source_id not in self._open and now_us - known.left_us >= again_us
        ):  # fmt: skip
            known = Kept(now_us, last_number)
        self._kept[source_id] = known
        self._kept.move_to_end(source_id)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return known

    async def enter(self, visit: Visit) -> None:
        """Take a socket in. One of the same source that is still open ends first: its client has come back."""
        while (before := self._open.get(visit.source_id)) is not None:
            before.end(CLOSE_REPLACED)
            await before.gone.wait()
        self.check_room()
        self._open[visit.source_id] = visit

    def leave(self, visit: Visit) -> None:
        """Say that a socket has ended. Harmless for one that never entered."""
        if self._open.get(visit.source_id) is visit:
            del self._open[visit.source_id]
        visit.kept.left_us = self._clock.utc_us()
        visit.gone.set()

    def end(self, source_id: str, close: tuple[int, str]) -> None:
        """End the socket of a source, when it has one."""
        if source_id in self._open:
            self._open[source_id].end(close)

    async def ended(self, source_id: str, close: tuple[int, str]) -> None:
        """End the socket of a source, when it has one, and wait for a moment until what it sent is handed over."""
        visit = self._open.get(source_id)
        if visit is None:
            return
        visit.end(close)
        with contextlib.suppress(TimeoutError):  # a full disk holds it up
            async with self._clock.time_limit(GOING_SECONDS):
                await visit.gone.wait()

    async def close(self) -> None:
        """End all sockets, for the daemon stops, and wait until what they sent is handed over."""
        self._stopping = True
        visits = self.visits
        for visit in visits:
            visit.end(CLOSE_GOING)
        try:
            async with self._clock.time_limit(GOING_SECONDS):
                for visit in visits:
                    await visit.gone.wait()
        except TimeoutError:  # a full disk holds them up; the way into the file is closed after them in any case
            log.warning("sockets end without their last words", extra={"count": len(self._open)})
