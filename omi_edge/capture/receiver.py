"""Keeps one pendant's link up for ever, and does on each connection what must be done, in the order that loses nothing.

Audio is subscribed first, since a pendant that is connected but not subscribed throws audio away (dossier §11, trap 1);
what arrives before the codec is known is held. Then the pendant says who it is, the clock is read and only then set,
and battery, button and settings follow. Silence is not a dead link: a pendant whose microphone sleeps sends nothing but
its battery level (dossier §5.5), so that, or a read, is what proves the link alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from omi_edge import gatt
from omi_edge.capture import device, greeting
from omi_edge.capture.absence import Witness
from omi_edge.capture.greeting import Greeting
from omi_edge.capture.link import Link
from omi_edge.clock import Clock
from omi_edge.domain import Codec, Ending, Notification, Security, Sighting
from omi_edge.errors import (
    AttRefused,
    BadPeripheral,
    BondLost,
    LinkLost,
    LinkUnavailable,
    NotEncrypted,
    OmiEdgeError,
    PairingFailed,
)  # fmt: skip

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
"""The first retry comes at once, the second after this, each later one after twice as long."""
LAST_WAIT_SECONDS = 10.0
"""The longest wait while a pendant is out of sight: with the scan that follows it, a pendant that comes back streams
again within half a minute. (Omi's app waits up to a minute, dossier §8.)"""
REFUSED_WAIT_SECONDS = 60.0
"""The longest wait for a pendant that answers but cannot be used: trying sooner would only cost its battery."""
STABLE_SECONDS = 10.0
"""A connection that held this long was a success: audio starts 1.3 s after the connection (dossier §2.2)."""
LIVENESS_SECONDS = 20.0
"""Without a sign of life for this long the battery is read; pendants tell it every 5 or 15 s (dossier §4.8)."""
ASLEEP_SECONDS = 900.0
"""The same for a firmware whose microphone may be asleep: it takes longer to become worth a word."""
DEAF_SECONDS = 60.0
"""Without a single packet for so long no audio will come: it starts 1.3 s after the connection (dossier §2.2), unless
the link's packets are too small for it (dossier §2.3)."""
HELD_LIMIT = 1000
"""Notifications held before the codec is known: 20 s at 50 a second; reading it takes a few hundred milliseconds."""
FLOOD_PER_SECOND = 1000.0
"""No pendant sends more than 200 notifications a second (dossier §5.1); what comes five times as fast is no pendant."""
FLOOD_BURST = 4000.0
"""A stalled host gets what it missed at once: 20 s at the highest rate."""
BUTTON_SECONDS = 0.2
"""Two events of a button cannot be nearer: it is looked at every 40 ms and a tap decided after 300 (dossier §4.4)."""

Take = Callable[[Notification], None]


class Host(Protocol):
    """Whom a Receiver works for."""

    @property
    def require_encryption(self) -> bool:
        """Whether an open link may carry nothing."""

    @property
    def wants_bond(self) -> bool:
        """Whether an open link to it, which was encrypted before, is worth an attempt to pair again."""

    async def connected(self, codec: Codec, security: Security) -> Take:
        """A connection streams; return where its notifications go."""

    async def greeted(self, told: Greeting) -> None:
        """The pendant has told everything about itself."""

    def battery(self, percent: int | None, charging: bool | None) -> None:
        """The pendant told its battery level, or whether it charges; None for the one it did not tell."""

    def pressed(self, button: device.Button) -> None:
        """The button was used."""

    def deaf(self, now: bool) -> None:
        """The pendant has sent no audio since it was connected, for longer than is usual; or it does at last."""

    async def ended(self, ending: Ending) -> None:
        """A connection that streamed is over."""

    async def failed(self, error: OmiEdgeError) -> None:
        """A connection did not come about, or was given up."""

    async def bond_renewed(self, error: OmiEdgeError | None) -> None:
        """The pendant had forgotten the bond: it was made anew, or could not be."""


class Receiver:
    """Keeps one link up and hands over what comes."""

    def __init__(self, link: Link, clock: Clock, host: Host, witness: Witness, *, seed: int | None = None) -> None:
        self.flooded = 0
        """Notifications thrown away: too many while the codec was unknown, or more than any pendant sends."""
        self.streaming = False
        """Whether a connection is up and its codec known."""
        self._link = link
        self._clock = clock
        self._host = host
        self._witness = witness
        self._random = random.Random(seed)  # noqa: S311 jitter, not a secret
        self._failures = 0
        """Connections in a row that failed or did not last."""
        self._refused = False
        self._renewed = False
        """Whether the bond was renewed since a connection last streamed: once is enough."""
        self._last_button_us = 0
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Connect, receive, reconnect, until cancelled. The first retry comes at once."""
        try:
            while True:
                self._hurry.clear()
                await self._once()
                await self._wait()
        finally:
            self.streaming = False
            await self._link.close()

    def hurry(self) -> None:
        """Try at once: the pendant was seen, or what was in the way is gone."""
        self._failures = min(self._failures, 1)
        self._hurry.set()

    async def write(self, uuid: str, value: bytes) -> None:
        """Write a characteristic of the connected pendant. Raises LinkLost when it is not, else as Link.write."""
        if uuid in gatt.NEVER_WRITTEN:
            raise BadPeripheral("this characteristic changes the pendant's firmware; omi-edge never writes it.")
        if not self.streaming:
            raise LinkLost("the pendant is not connected now; try again when it is.")
        await self._link.write(uuid, value)

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic of the connected pendant. Raises LinkLost when it is not, else as Link.read."""
        if not self.streaming:
            raise LinkLost("the pendant is not connected now; try again when it is.")
        return await self._link.read(uuid)

    async def _once(self) -> None:
        since_us: int | None = None
        session = _Session(self._clock)
        self._refused = False
        try:
            sighting = await self._link.connect()
            await self._secure()
            await self._permitted(lambda: self._link.subscribe(gatt.AUDIO_DATA, session.on_value))
            codec = _known_codec(await self._permitted(lambda: self._link.read(gatt.AUDIO_CODEC)))
            since_us = self._clock.boot_us()
            self._witness.alive(since_us)
            session.hand_over(await self._host.connected(codec, self._link.security))
            self.streaming = True
            self._renewed = False
            log.info("link up", extra={"codec": int(codec), "security": self._link.security.value})
            ending = await self._stay(sighting, session)
        except OmiEdgeError as error:  # of the link, or of the store behind the host: both may come back
            self._end(session)
            await self._link.close()
            await self._failed(error, since_us is not None)
        else:
            self._witness.ended(self._clock.boot_us(), ending)
            self._end(session)
            await self._link.close()
            await self._host.ended(ending)
            if ending is Ending.AUTHENTICATION:
                await self._renew_bond()
        finally:
            self.streaming = False
            self._end(session)
            lasted_us = 0 if since_us is None else self._clock.boot_us() - since_us
            self._failures = 0 if lasted_us >= STABLE_SECONDS * 1e6 else self._failures + 1

    def _end(self, session: _Session) -> None:
        session.end()
        self.flooded += session.thrown_away
        session.thrown_away = 0

    async def _failed(self, error: OmiEdgeError, streamed: bool) -> None:
        now_us = self._clock.boot_us()
        # the first failure is news; the hundredth of a pendant that is out of reach is not
        log.log(logging.WARNING if self._failures == 0 else logging.DEBUG, "link failed", extra={"cause": error.slug})
        if isinstance(error, LinkUnavailable):
            self._witness.radio_down(now_us)
        elif streamed:
            self._witness.ended(now_us, Ending.UNKNOWN)
        self._refused = isinstance(error, (BadPeripheral, NotEncrypted, PairingFailed, AttRefused))
        if isinstance(error, BondLost):
            self._witness.ended(now_us, Ending.AUTHENTICATION)
            await self._renew_bond()
        if streamed:
            await self._host.ended(Ending.UNKNOWN)
        await self._host.failed(error)

    async def _stay(self, sighting: Sighting, session: _Session) -> Ending:
        """Greet, then watch until the connection ends."""
        ended = asyncio.create_task(self._link.wait_disconnected())
        tending = asyncio.create_task(self._tend(sighting, session))
        try:
            await asyncio.wait([ended, tending], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                tending.result()  # an error of ours; without one the link was found dead
                return Ending.STALE
            return ended.result()
        finally:
            for task in (tending, ended):
                task.cancel()
            await asyncio.gather(ended, tending, return_exceptions=True)

    async def _tend(self, sighting: Sighting, session: _Session) -> None:
        """Greet; then return when the link is dead although nobody said so."""
        try:
            await self._greet(sighting, session)
            began_us = self._clock.boot_us()
            deaf = False
            while True:
                await self._clock.sleep(LIVENESS_SECONDS / 2)
                limit = ASLEEP_SECONDS if self._witness.mic_sleeps else DEAF_SECONDS
                waited = self._clock.boot_us() - began_us >= limit * 1e6
                if (not session.heard and waited) is not deaf:
                    deaf = not deaf
                    self._host.deaf(deaf)
                quiet_us = self._clock.boot_us() - session.alive_us
                if quiet_us >= LIVENESS_SECONDS * 1e6:
                    await self._link.read(gatt.BATTERY_LEVEL)
                    self._alive(session)
        except (AttRefused, BadPeripheral, NotEncrypted):
            await asyncio.Event().wait()  # it answered, so it lives; what it refuses is not needed
        except (LinkLost, LinkUnavailable):
            return

    # --- the first seconds of a connection ----------------------------------------------------------------------------

    async def _secure(self) -> None:
        """Hold an open link against the owner's policy."""
        if self._bonded():
            return
        if not self._host.require_encryption:
            if self._host.wants_bond:
                with contextlib.suppress(PairingFailed, NotEncrypted, AttRefused):
                    await self._link.pair()
            return
        await self._link.pair()
        if not self._bonded():
            raise NotEncrypted(
                'the link to the pendant is open and device.require_encryption is "require": nothing is captured. '
                'Pair it anew with `omi-edge devices pair`, or set "prefer".'
            )

    def _bonded(self) -> bool:
        return self._link.security is Security.BONDED

    async def _permitted(self, call: Callable[[], Awaitable[bytes | None]]) -> bytes:
        """Do what may need an encrypted link; pair and try once more when the pendant says so (dossier §2.4)."""
        try:
            return await call() or b""
        except NotEncrypted:
            if self._bonded():
                raise BondLost("the pendant no longer knows the pairing.") from None
            await self._link.pair()
            return await call() or b""

    async def _renew_bond(self) -> None:
        if self._renewed:
            return
        self._renewed = True
        try:
            await self._link.unpair()
            await self._link.connect()
            await self._link.pair()
        except OmiEdgeError as error:
            await self._host.bond_renewed(error)
        else:
            await self._host.bond_renewed(None)
            self._failures = 0
        finally:
            await self._link.close()

    async def _greet(self, sighting: Sighting, session: _Session) -> None:
        """Hear who it is, then follow what it tells beside audio."""
        info = await greeting.introduce(self._link, sighting.name)
        self._witness.mic_sleeps = device.mic_sleeps(info)
        told = await greeting.ask(self._link, self._clock, info, sighting.rssi)
        self._alive(session)
        await self._host.greeted(told)
        await self._follow(gatt.BATTERY_LEVEL, session, self._on_battery)
        await self._follow(gatt.BUTTON, session, self._on_button)
        if device.may_write_settings(info):
            await self._follow(gatt.CHARGING, session, self._on_charging)

    async def _follow(self, uuid: str, session: _Session, take: Callable[[bytes], None]) -> None:
        if not self._link.offers(uuid):
            return

        def on_value(value: bytes) -> None:
            if not session.over:
                self._alive(session)
                take(value)

        with contextlib.suppress(AttRefused, BadPeripheral, NotEncrypted):
            await self._link.subscribe(uuid, on_value)

    def _alive(self, session: _Session) -> None:
        session.alive_us = self._clock.boot_us()
        self._witness.alive(session.alive_us)

    def _on_battery(self, value: bytes) -> None:
        if (percent := device.percent_of(value)) is not None:
            self._host.battery(percent, None)

    def _on_charging(self, value: bytes) -> None:
        if (charging := device.charging_of(value)) is not None:
            self._host.battery(None, charging)

    def _on_button(self, value: bytes) -> None:
        button = device.button_of(value)
        now_us = self._clock.boot_us()
        if button is None or button is device.Button.IDLE or now_us - self._last_button_us < BUTTON_SECONDS * 1e6:
            return
        self._last_button_us = now_us
        self._host.pressed(button)

    # --- between connections ------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._failures <= 1 and not self._refused:
            await self._clock.sleep(0)
            return
        last = REFUSED_WAIT_SECONDS if self._refused else LAST_WAIT_SECONDS
        seconds = min(last, FIRST_WAIT_SECONDS * 2.0 ** min(max(0, self._failures - 2), 10))
        woken = asyncio.Event()
        timer = self._clock.call_later(seconds * self._random.uniform(0.8, 1.2), woken.set)
        hurried = asyncio.create_task(self._hurry.wait())
        slept = asyncio.create_task(woken.wait())
        try:
            await asyncio.wait([hurried, slept], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            hurried.cancel()
            slept.cancel()
            await asyncio.gather(hurried, slept, return_exceptions=True)


class _Session:
    """One connection's audio notifications: stamped as they come, held until somebody takes them, in order."""

    def __init__(self, clock: Clock) -> None:
        self.thrown_away = 0
        self.alive_us = clock.boot_us()
        self.heard = False
        """Whether any audio came."""
        self.over = False
        self._clock = clock
        self._held: list[Notification] = []
        self._take: Take | None = self._hold
        self._allowance = FLOOD_BURST
        self._refilled_us = clock.boot_us()

    def on_value(self, data: bytes) -> None:
        if self._take is None:
            return
        now_us = self._clock.boot_us()
        self._allowance = min(FLOOD_BURST, self._allowance + (now_us - self._refilled_us) / 1e6 * FLOOD_PER_SECOND)
        self._refilled_us = now_us
        if self._allowance < 1:
            self.thrown_away += 1
            return
        self._allowance -= 1
        self.alive_us = now_us
        self.heard = True
        self._take(Notification(data, now_us))

    def hand_over(self, take: Take) -> None:
        if self.over:
            return
        held, self._held = self._held, []
        for notification in held:
            take(notification)
        self._take = take

    def end(self) -> None:
        """Take nothing more, whatever a transport still delivers."""
        self.over = True
        self._take = None

    def _hold(self, notification: Notification) -> None:
        if len(self._held) < HELD_LIMIT:
            self._held.append(notification)
        else:
            self.thrown_away += 1


def _known_codec(value: bytes) -> Codec:
    if not value:
        raise BadPeripheral("the pendant does not tell its codec, so nothing can be decoded.")
    try:
        return Codec(value[0])
    except ValueError:
        raise BadPeripheral(
            f"the pendant uses codec {value[0]}, which omi-edge does not know: nothing is captured."
        ) from None
