"""The in-process radio: virtual pendants behind the interface that a Bluetooth stack has elsewhere.

Everything that gets through is answered and delivered on the spot, so that a driven clock never needs to wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from omi_edge.clock import Clock
from omi_edge.domain import Ending, Security, Sighting
from omi_edge.errors import (
    AttRefused,
    BadPeripheral,
    BluetoothOff,
    BondLost,
    LinkLost,
    LinkUnavailable,
    NoAdapter,
    NoBluetoothPermission,
    NoBluetoothService,
    NotEncrypted,
    PairingFailed,
    PendantAbsent,
)
from omi_edge.virtual.attributes import NEEDS_SECURITY, AttError
from omi_edge.virtual.connection import Connection, Gone, OnValue
from omi_edge.virtual.pendant import Pendant

SEEN_SECONDS = 0.1
"""A pendant advertises every 100 to 150 ms (dossier §2.1)."""
SCAN_SECONDS = 10.0
"""How long a connect looks for a pendant that does not show itself."""
CALL_SECONDS = 5.0
"""How long a call to a radio that hangs is waited for."""

T = TypeVar("T")


class LoopbackRadio:
    """Conforms to ``capture.link.Radio``, with all of ``pendants`` near; keeps this machine's side of the bonds."""

    def __init__(
        self,
        clock: Clock,
        pendants: Iterable[Pendant],
        *,
        address: str = "00:00:5E:00:53:01",
        can_pair: bool = True,
        scan_seconds: float = SCAN_SECONDS,
    ) -> None:
        self.clock = clock
        self.address = address
        self.pendants = {pendant.address: pendant for pendant in pendants}
        self.bonds: dict[str, int] = {}
        """This machine's keys, by the pendant's address."""
        self.trusted: frozenset[str] = frozenset()
        self.scan_seconds = scan_seconds
        self.hanging = False
        """While it is set every call on a link hangs until its time limit."""
        self._can_pair = can_pair
        self._powered = self._served = self._plugged = self._permitted = True
        self._links: list[LoopbackLink] = []

    @property
    def transport(self) -> str:
        """What it is, for people."""
        return "in-process link"

    @property
    def can_pair(self) -> bool:
        """Whether a program can pair here."""
        return self._can_pair

    async def check(self) -> None:
        """Raise the LinkUnavailable that says why Bluetooth cannot be used now."""
        if (error := self.unusable()) is not None:
            raise error

    async def scan(self, seconds: float, on_seen: Callable[[Sighting], None] | None = None) -> list[Sighting]:
        """Look for ``seconds``; who advertises is seen after SEEN_SECONDS."""
        await self.check()
        seen: dict[str, Sighting] = {}
        left = seconds
        while left > 0:
            step = min(left, SEEN_SECONDS if left == seconds else 1.0)
            await self.clock.sleep(step)
            left -= step
            await self.check()
            for address, pendant in self.pendants.items():
                if pendant.advertising:
                    seen[address] = self.sighting(pendant)
                    if on_seen is not None:
                        on_seen(seen[address])
        return sorted(seen.values(), key=lambda sighting: -(sighting.rssi or -128))

    def link(self, address: str) -> LoopbackLink:
        """Return a link, not yet connected."""
        link = LoopbackLink(self, address)
        self._links.append(link)
        return link

    def trust(self, addresses: Iterable[str]) -> None:
        """Say which pendants may pair with this machine; all others are refused."""
        self.trusted = frozenset(addresses)

    async def close(self) -> None:
        """End all links."""
        for link in self._links:
            await link.close()
        self._links.clear()

    def power(self, on: bool) -> None:
        """Switch Bluetooth on or off."""
        self._powered = on
        self._end_if_unusable()

    def service(self, on: bool) -> None:
        """Let the Bluetooth service die, or start."""
        self._served = on
        self._end_if_unusable()

    def adapter(self, on: bool) -> None:
        """Plug the adapter in or out."""
        self._plugged = on
        self._end_if_unusable()

    def permission(self, on: bool) -> None:
        """Let this program use Bluetooth, or forbid it."""
        self._permitted = on
        self._end_if_unusable()

    def unusable(self) -> LinkUnavailable | None:
        """Return why Bluetooth cannot be used now, None when it can."""
        if not self._served:
            return NoBluetoothService("the simulated Bluetooth service does not run. Start it.")
        if not self._permitted:
            return NoBluetoothPermission("the simulated system does not let this program use Bluetooth. Allow it.")
        if not self._plugged:
            return NoAdapter("there is no simulated Bluetooth adapter. Plug one in.")
        if not self._powered:
            return BluetoothOff("the simulated Bluetooth is switched off. Switch it on.")
        return None

    def sighting(self, pendant: Pendant) -> Sighting:
        """Return how a pendant is seen now."""
        return Sighting(pendant.address, pendant.advertised_name, pendant.rssi, self.clock.boot_us())

    def _end_if_unusable(self) -> None:
        if self.unusable() is not None:
            for link in self._links:
                link.lose_radio()


class LoopbackLink:
    """Conforms to ``capture.link.Link``."""

    def __init__(self, radio: LoopbackRadio, address: str) -> None:
        self._radio = radio
        self._address = address
        self._connection: Connection | None = None

    @property
    def address(self) -> str:
        """Whom it connects to."""
        return self._address

    @property
    def security(self) -> Security:
        """Bonded when the connection is encrypted with a stored key, else open."""
        link = self._connection
        return Security.BONDED if link is not None and link.alive and link.encrypted else Security.OPEN

    async def connect(self) -> Sighting:
        """Find the pendant and connect: SEEN_SECONDS for one in range, the whole scan for one that is not."""
        pendant = await self._found()
        seen = self._radio.sighting(pendant)
        connection = self._connection = pendant.connect(self._radio.address)
        key = self._radio.bonds.get(self._address)
        try:
            if key is not None:
                await connection.encrypt(key)
            elif connection.wants_security and self._address in self._radio.trusted:
                await self._bond(connection)
        except Gone as gone:
            if gone.ending is Ending.AUTHENTICATION:
                raise BondLost("the pendant does not know this machine's key any more. Pair again.") from None
            raise self._lost() from None
        return seen

    def offers(self, uuid: str) -> bool:
        """Say whether the connected pendant has this characteristic."""
        link = self._connection
        return link is not None and link.alive and uuid in self._pendant().characteristics

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic."""
        return await self._asked(lambda link: link.read(uuid))

    async def write(self, uuid: str, value: bytes) -> None:
        """Write with response."""
        await self._asked(lambda link: link.write(uuid, value))

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        """Have each notification handed over."""
        await self._asked(lambda link: link.subscribe(uuid, on_value))

    async def pair(self) -> None:
        """Bond with the connected pendant."""
        if not self._radio.can_pair:
            raise PairingFailed("a program cannot pair here. Use the system's own settings.")
        connection = self._alive()
        if self._address not in self._radio.trusted:
            raise PairingFailed("this pendant is not one that may pair with this machine. Remember it first.")
        try:
            bonded = await self._bond(connection)
        except Gone:
            raise PairingFailed("the pendant was gone before the pairing was done. Bring it near.") from None
        if not bonded:
            raise PairingFailed("the pendant refused to pair. Switch it off and on, and try again.")

    async def unpair(self) -> None:
        """Remove this side's bond, and end the connection."""
        if not self._radio.can_pair:
            raise PairingFailed("a program cannot remove a pairing here. Use the system's own settings.")
        self._radio.bonds.pop(self._address, None)
        await self.close()

    async def wait_disconnected(self) -> Ending:
        """Wait for the end of the connection; also answers when it is over already."""
        if self._connection is None:
            raise LinkLost("the pendant is not connected.")
        # not the future itself: who gives up waiting would cancel it for all
        return await _shielded(self._connection)

    async def close(self) -> None:
        """Disconnect; harmless when there is no connection."""
        if self._connection is not None:
            self._connection.end(Ending.LOCAL)

    def lose_radio(self) -> None:
        """Be told that the radio went away under it."""
        if self._connection is not None:
            self._connection.end(Ending.RADIO)

    async def _found(self) -> Pendant:
        radio = self._radio
        await radio.check()
        await radio.clock.sleep(SEEN_SECONDS)
        await radio.check()
        pendant = radio.pendants.get(self._address)
        if pendant is None:
            await radio.clock.sleep(radio.scan_seconds - SEEN_SECONDS)
        elif await pendant.wait_advertising(radio.scan_seconds - SEEN_SECONDS):
            await radio.check()
            return pendant
        await radio.check()
        raise PendantAbsent(
            "the pendant is not in sight. Is it charged and near, and not connected to a phone? It shows itself to "
            "nobody while somebody is connected."
        )

    async def _bond(self, connection: Connection) -> bool:
        key = await connection.pair()
        if key is not None:
            self._radio.bonds[self._address] = key
        return key is not None

    async def _asked(self, call: Callable[[Connection], Awaitable[T]]) -> T:
        connection = self._alive()
        if self._radio.hanging:
            await self._radio.clock.sleep(CALL_SECONDS)
            raise LinkLost("a call to the pendant took too long and was given up.")
        try:
            return await call(connection)
        except Gone:
            raise self._lost() from None
        except KeyError:
            raise BadPeripheral("the pendant has no such characteristic.") from None
        except AttError as error:
            if error.code in NEEDS_SECURITY:
                raise NotEncrypted("the pendant wants an encrypted link. Pair it with this machine.") from None
            raise AttRefused(f"the pendant refused a request with {error}.", error.code) from None

    def _pendant(self) -> Pendant:
        return self._radio.pendants[self._address]

    def _alive(self) -> Connection:
        if self._connection is None or not self._connection.alive:
            raise self._lost()
        return self._connection

    def _lost(self) -> LinkLost:
        return LinkLost("the pendant is not connected.")


async def _shielded(connection: Connection) -> Ending:
    return await asyncio.shield(connection.ended)
