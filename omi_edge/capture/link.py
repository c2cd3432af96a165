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
from omi_edge.errors import LinkLost, OmiEdgeError

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
"""The first retry comes at once, the second after this, each later one after twice as long."""
LAST_WAIT_SECONDS = 60.0
"""The longest wait, as in Omi's own app (dossier §8)."""
STABLE_SECONDS = 10.0
"""A connection that held this long was a success: audio starts 1.3 s after the connection (dossier §2.2)."""
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
        """Wait for the end of the connection; return the reason as far as it can be seen, also when it is over."""

    async def close(self) -> None:
        """Disconnect; harmless when there is no connection."""


Take = Callable[[Notification], None]


class Receiver:
    """Keeps one link up for ever and hands over what comes."""

    def __init__(self, link: Link, clock: Clock, *, seed: int | None = None) -> None:
        self.info = DeviceInfo("", "")
        """Who answered last."""
        self.overflowed = 0
        """Notifications thrown away because the codec stayed unknown for too long."""
        self._link = link
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 jitter, not a secret
        self._failures = 0
        """Connections in a row that failed or did not last."""

    async def run(
        self, connected: Callable[[Codec], Awaitable[Take]], disconnected: Callable[[str], Awaitable[None]]
    ) -> None:
        """Connect, receive, reconnect, until cancelled.

        ``connected`` is told the codec and returns where notifications go. ``disconnected`` is told why a connection
        ended or did not come about. The first retry comes at once, later ones wait up to a minute, until a connection
        has held for STABLE_SECONDS.
        """
        try:
            while True:
                reason = await self._once(connected)
                await disconnected(reason)
                await self._clock.sleep(self._wait_seconds())
        finally:
            await self._link.close()

    async def _once(self, connected: Callable[[Codec], Awaitable[Take]]) -> str:
        since_us: int | None = None
        session = _Session(self._clock)
        try:
            self.info = await self._link.connect()
            since_us = self._clock.boot_us()
            await self._link.subscribe_audio(session.on_value)
            codec = _known_codec(await self._link.read_codec())
            session.hand_over(await connected(codec))
            log.info("link up", extra={"transport": self._link.transport, "codec": int(codec)})
            return await self._link.wait_disconnected()
        except OmiEdgeError as error:  # of the link, or of the store behind ``connected``: both may come back
            # the first failure is news; the hundredth of a pendant that is out of reach is not
            level = logging.WARNING if self._failures == 0 else logging.DEBUG
            log.log(level, "link failed", extra={"transport": self._link.transport, "cause": error.slug})
            return error.slug
        finally:
            session.end()
            self.overflowed += session.overflowed
            lasted_us = 0 if since_us is None else self._clock.boot_us() - since_us
            self._failures = 0 if lasted_us >= STABLE_SECONDS * 1e6 else self._failures + 1
            await self._link.close()

    def _wait_seconds(self) -> float:
        if self._failures <= 1:
            return 0.0
        wait = min(LAST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._failures - 2, 10))
        return wait * self._random.uniform(0.8, 1.2)


class _Session:
    """One connection's notifications: stamped as they come, held until somebody takes them, in order."""

    def __init__(self, clock: Clock) -> None:
        self.overflowed = 0
        self._clock = clock
        self._held: list[Notification] = []
        self._take: Take | None = self._hold

    def on_value(self, data: bytes) -> None:
        if self._take is not None:
            self._take(Notification(data, self._clock.boot_us()))

    def hand_over(self, take: Take) -> None:
        held, self._held = self._held, []
        for notification in held:
            take(notification)
        self._take = take

    def end(self) -> None:
        """Take nothing more, whatever a transport still delivers."""
        self._take = None

    def _hold(self, notification: Notification) -> None:
        if len(self._held) < HELD_LIMIT:
            self._held.append(notification)
        else:
            self.overflowed += 1


def _known_codec(number: int) -> Codec:
    try:
        return Codec(number)
    except ValueError:
        raise LinkLost(f"the pendant uses codec {number}, which omi-edge does not know.") from None
