"""The connection to a pendant: what any transport must offer, and how it is kept.

A transport (a Bluetooth stack, or the virtual pendant's in-process link) implements ``Link``. ``Receiver`` does what
must be done on every connection, in the order that loses nothing: audio is subscribed first, since an unsubscribed
pendant throws audio away (protocol dossier §11, trap 1), and what arrives before the codec is known is held.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from omi_edge.clock import Clock
from omi_edge.domain import Codec, DeviceInfo, Notification
from omi_edge.errors import LinkError, LinkLost

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
LAST_WAIT_SECONDS = 60.0
HELD_LIMIT = 1000
"""Notifications held before the codec is known: 20 s at 50 a second; reading it takes a few hundred milliseconds."""


class Link(Protocol):
    """One transport to one pendant. Every method raises LinkLost or LinkUnavailable, and nothing else."""

    @property
    def transport(self) -> str:
        """What carries it, for people: "in-process link", …"""

    async def connect(self) -> DeviceInfo:
        """Connect and say who answers."""

    async def subscribe_audio(self, on_value: Callable[[bytes], None]) -> None:
        """Have every audio notification handed to ``on_value`` on the event loop."""

    async def read_codec(self) -> int:
        """Return the codec id."""

    async def battery(self) -> int | None:
        """Return the charge in percent, None when the pendant does not tell."""

    async def wait_disconnected(self) -> str:
        """Wait for the end of the connection; return the reason as far as it can be seen."""

    async def close(self) -> None:
        """Disconnect; harmless when there is no connection."""


Take = Callable[[Notification], None]


class Receiver:
    """Keeps one link up for ever and hands over what comes."""

    def __init__(self, link: Link, clock: Clock, *, seed: int | None = None) -> None:
        self.info = DeviceInfo("", "")
        self._link = link
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 jitter, not a secret
        self._failures = 0

    async def run(
        self, connected: Callable[[Codec], Awaitable[Take]], disconnected: Callable[[str], Awaitable[None]]
    ) -> None:
        """Connect, receive, reconnect, until cancelled.

        ``connected`` is told the codec and returns where notifications go. The first retry comes at once, later ones
        wait up to a minute.
        """
        try:
            while True:
                reason = await self._once(connected)
                await disconnected(reason)
                await self._clock.sleep(self._wait_seconds())
        finally:
            await self._link.close()

    async def _once(self, connected: Callable[[Codec], Awaitable[Take]]) -> str:
        held: list[Notification] = []
        take: Take | None = None

        def on_value(data: bytes) -> None:
            notification = Notification(data, self._clock.boot_us())
            if take is not None:
                take(notification)
            elif len(held) < HELD_LIMIT:
                held.append(notification)

        try:
            self.info = await self._link.connect()
            await self._link.subscribe_audio(on_value)
            number = await self._link.read_codec()
            try:
                codec = Codec(number)
            except ValueError:
                raise LinkLost(f"the pendant uses codec {number}, which omi-edge does not know.") from None
            ready = await connected(codec)
            for notification in held:
                ready(notification)
            take = ready
            self._failures = 0
            return await self._link.wait_disconnected()
        except LinkError as error:
            self._failures += 1
            level = logging.WARNING if self._failures == 1 else logging.DEBUG
            log.log(level, "link failed", extra={"transport": self._link.transport, "cause": error.slug})
            await self._link.close()
            return error.slug

    def _wait_seconds(self) -> float:
        if self._failures == 0:
            return 0.0
        wait = min(LAST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(10, self._failures - 1))
        return wait * self._random.uniform(0.8, 1.2)
