"""A real radio in simulated time.

A notification holds the clock from the moment the pendant sends it until the real link delivers it; a call holds it
until it returns; the end of a connection, until the real link has noticed. So a driven clock gives over a real bus what
it gives in process. Scans take simulated time, and only a moment of real time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omi_edge.clock import Clock, held
from omi_edge.domain import Ending, Security, Sighting
from omi_edge.errors import LinkLost, PendantAbsent
from omi_edge.virtual.pendant import Pendant

SEEN_SECONDS = 0.1
"""A pendant advertises every 100 to 150 ms (dossier §2.1)."""
SCAN_SECONDS = 10.0
"""How long a connect looks for a pendant that does not show itself, in simulated time."""
REAL_SCAN_SECONDS = 1.0
"""How long a scan lasts in real time at most."""
NOTICE_SECONDS = 2.0
"""How long the end of a connection holds the clock at most, in machine time: a real stack may never notice it."""


class EscortedRadio:
    """Conforms to ``capture.link.Radio`` as ``inner`` does, a real radio that has ``pendants`` in its range."""

    def __init__(self, inner: Any, pendants: Iterable[Pendant], clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._pendants = {pendant.address: pendant for pendant in pendants}

    @property
    def transport(self) -> str:
        """What it is, for people."""
        return f"{self._inner.transport}, simulated: real bleak on a private D-Bus"

    @property
    def can_pair(self) -> bool:
        """See Radio."""
        return bool(self._inner.can_pair)

    async def check(self) -> None:
        """See Radio."""
        with held(self._clock):
            await self._inner.check()

    async def scan(self, seconds: float, on_seen: Callable[[Sighting], None] | None = None) -> list[Sighting]:
        """See Radio."""
        with held(self._clock):
            found: list[Sighting] = await self._inner.scan(min(seconds, REAL_SCAN_SECONDS), on_seen)
        await self._clock.sleep(seconds)
        return found

    def link(self, address: str) -> EscortedLink:
        """See Radio."""
        return EscortedLink(self._inner.link(address), self._inner.check, self._pendants.get(address), self._clock)

    def trust(self, addresses: Iterable[str]) -> None:
        """See Radio."""
        self._inner.trust(addresses)

    async def close(self) -> None:
        """See Radio."""
        with held(self._clock):
            await self._inner.close()


class EscortedLink:
    """Conforms to ``capture.link.Link``."""

    def __init__(self, inner: Any, check: Callable[[], Any], pendant: Pendant | None, clock: Clock) -> None:
        self._inner = inner
        self._check = check
        self._pendant = pendant
        self._clock = clock
        self._on_their_way: deque[Callable[[], None]] = deque()
        self._up = False
        self._watch: asyncio.Task[None] | None = None
        self._noticing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """See Link."""
        return str(self._inner.address)

    @property
    def security(self) -> Security:
        """See Link."""
        security: Security = self._inner.security
        return security

    async def connect(self) -> Sighting:
        """See Link. Looking for a pendant that is not there takes simulated time alone."""
        with held(self._clock):
            await self._check()
        await self._clock.sleep(SEEN_SECONDS)
        if self._pendant is None or not await self._pendant.wait_advertising(SCAN_SECONDS - SEEN_SECONDS):
            raise PendantAbsent("no pendant is in sight. Is it charged and near, and not connected to a phone?")
        self._pendant.on_sent = self._sent
        self._pendant.on_ended = self._ended
        with held(self._clock):
            seen: Sighting = await self._inner.connect()
            self._up = True
            self._watch = asyncio.create_task(self._until_over())
        return seen

    def offers(self, uuid: str) -> bool:
        """See Link."""
        return bool(self._inner.offers(uuid))

    async def read(self, uuid: str) -> bytes:
        """See Link."""
        with self._held():
            return bytes(await self._inner.read(uuid))

    async def write(self, uuid: str, value: bytes) -> None:
        """See Link."""
        with self._held():
            await self._inner.write(uuid, value)

    async def subscribe(self, uuid: str, on_value: Callable[[bytes], None]) -> None:
        """See Link."""

        def delivered(value: bytes) -> None:
            try:
                on_value(value)
            finally:
                if self._on_their_way:
                    self._on_their_way.popleft()()

        with self._held():
            await self._inner.subscribe(uuid, delivered)

    async def pair(self) -> None:
        """See Link."""
        with self._held():
            await self._inner.pair()

    async def unpair(self) -> None:
        """See Link."""
        with self._held():
            await self._inner.unpair()

    async def wait_disconnected(self) -> Ending:
        """See Link."""
        ending: Ending = await self._inner.wait_disconnected()
        return ending

    async def close(self) -> None:
        """See Link."""
        with self._held():
            await self._inner.close()
        if self._watch is not None:
            await asyncio.wait([self._watch])

    def _held(self) -> contextlib.AbstractContextManager[None]:
        """Hold the clock for a call, unless the pendant can only answer, or be given up, when time goes on."""
        answers = self._pendant is None or self._pendant.reachable
        return held(self._clock) if answers else _nothing()

    async def _until_over(self) -> None:
        try:
            await self._inner.wait_disconnected()
        except LinkLost:
            pass
        finally:
            self._up = False
            while self._on_their_way:
                self._on_their_way.popleft()()

    def _sent(self) -> None:
        self._on_their_way.append(self._clock.hold())

    def _ended(self, _: Ending) -> None:
        if self._up and self._watch is not None:
            task = asyncio.get_running_loop().create_task(self._noticed(self._watch, self._clock.hold()))
            self._noticing.add(task)
            task.add_done_callback(self._noticing.discard)

    async def _noticed(self, watch: asyncio.Task[None], release: Callable[[], None]) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with self._clock.time_limit(NOTICE_SECONDS):
                    await asyncio.wait([watch])
        finally:
            release()


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield
