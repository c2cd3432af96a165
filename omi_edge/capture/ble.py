"""Pendants over Bluetooth LE, with bleak: BlueZ on Linux, CoreBluetooth on macOS.

Every call has a time limit of its own, since a stack that hangs says nothing, and whatever bleak raises becomes one of
LinkError's family (``bleerrors``). What bleak lacks on a system is asked of that system's ``host``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from omi_edge import gatt
from omi_edge.capture.bleerrors import CALL_SECONDS, WRITE_NOT_PERMITTED, bond_lost, limited
from omi_edge.capture.connection import Connection
from omi_edge.capture.host import Host, SystemHost
from omi_edge.capture.link import OnValue
from omi_edge.capture.search import Search
from omi_edge.clock import Clock
from omi_edge.domain import Ending, Security, Sighting
from omi_edge.errors import AttRefused, BadPeripheral, LinkError, LinkLost, LinkUnavailable, PairingFailed

CONNECT_SECONDS = 20.0
"""For connecting and discovering the services: bleak's own time limit, after which it still has to clean up."""
DISCONNECT_SECONDS = 12.0
"""Bleak waits 10 s for BlueZ to say that the link is down."""
PAIR_SECONDS = 35.0
"""Pairing fails by itself after 30 s (Core specification, Vol 3, Part H, §3.4)."""


class BleRadio:
    """Conforms to ``capture.link.Radio``. One for a process.

    ``adapter`` is BlueZ's name of one ("hci0"); without it the first is taken that has power.
    """

    transport = "Bluetooth LE"

    def __init__(self, clock: Clock, adapter: str = "") -> None:
        self.clock = clock
        self.options: dict[str, Any] = {"bluez": {"adapter": adapter}} if adapter else {}
        """What bleak's classes are told about the adapter."""
        self.host: Host = SystemHost(clock, adapter)
        self.search = Search(clock, self.host, self.options)
        self.connected: set[BleLink] = set()
        """Links that are up, or whose end nobody has tidied up after."""

    @property
    def can_pair(self) -> bool:
        """See Radio."""
        return self.host.can_pair

    async def check(self) -> None:
        """See Radio. Takes a few seconds at most."""
        await self.host.check()

    async def scan(self, seconds: float, on_seen: Callable[[Sighting], None] | None = None) -> list[Sighting]:
        """See Radio. The seconds are machine time."""
        return await self.search.scan(seconds, on_seen)

    def link(self, address: str) -> BleLink:
        """See Radio."""
        return BleLink(self, address)

    def trust(self, addresses: Iterable[str]) -> None:
        """See Radio."""
        self.host.trust(addresses)

    async def close(self) -> None:
        """See Radio. Bleak's one connection to the bus, which it keeps for each event loop, ends with the loop."""
        for link in list(self.connected):
            await link.close()
        await self.search.close()
        await self.host.close()


class BleLink:
    """Conforms to ``capture.link.Link``."""

    def __init__(self, radio: BleRadio, address: str) -> None:
        self._radio = radio
        self._address = address
        self._client: Any = None
        self._connection = Connection()
        self._connection.end(Ending.LOCAL)
        self._characteristics: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """See Link."""
        return self._address

    @property
    def security(self) -> Security:
        """See Link. BlueZ encrypts a link to a bonded device as soon as it is up."""
        return self._connection.security

    async def connect(self) -> Sighting:
        """See Link. A link that this machine already has to the pendant is taken over."""
        await self.close()
        async with self._radio.search.found(self._address) as (device, sighting):
            await self._attempt(device)
        return sighting

    def offers(self, uuid: str) -> bool:
        """See Link."""
        return uuid.lower() in self._characteristics

    async def read(self, uuid: str) -> bytes:
        """See Link. BlueZ also hands what was read to a subscriber of the same characteristic."""
        async with self._using(uuid, "reading from the pendant") as characteristic:
            return bytes(await self._client.read_gatt_char(characteristic))

    async def write(self, uuid: str, value: bytes) -> None:
        """See Link. What would change a pendant's firmware is refused here."""
        if uuid.lower() in gatt.NEVER_WRITTEN:
            raise AttRefused("omi-edge never writes to a pendant's firmware update.", WRITE_NOT_PERMITTED)
        async with self._using(uuid, "writing to the pendant") as characteristic:
            await self._client.write_gatt_char(characteristic, value, response=True)

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        """See Link."""
        connection = self._connection

        def hand_over(_: Any, data: bytearray) -> None:
            if not connection.over:
                on_value(bytes(data))

        async with self._using(uuid, "subscribing") as characteristic:
            await self._client.start_notify(characteristic, hand_over)

    async def pair(self) -> None:
        """See Link. Raises LinkLost when there is no connection."""
        self._up()
        if not self._radio.can_pair:
            raise PairingFailed(
                "a program cannot pair on macOS: the system asks by itself when the pendant wants encryption. Answer "
                "its question; an old pairing is removed in System Settings > Bluetooth."
            )
        host = self._radio.host
        try:
            async with limited(self._radio.clock, "pairing", PAIR_SECONDS):
                with host.pairing(self._address):
                    await self._client.pair()
        except LinkUnavailable:
            raise
        except LinkError as error:
            with contextlib.suppress(LinkError):
                await host.refresh(self._connection)
            if self.security is not Security.BONDED:  # else the pendant had asked for it at the same moment
                raise PairingFailed(
                    f"the pendant did not pair ({_cause(error)}). Keep it near and try again; if it was paired with "
                    "another device, it may have to forget that first."
                ) from error
        else:
            await host.refresh(self._connection)

    async def unpair(self) -> None:
        """See Link."""
        if not self._radio.can_pair:
            raise PairingFailed(
                "a program cannot remove a pairing on macOS. Remove it in System Settings > Bluetooth, behind the (i) "
                "beside the pendant."
            )
        await self.close()  # bleak would call itself connected for ever
        self._radio.search.forget(self._address)
        bleak = importlib.import_module("bleak")
        try:
            async with limited(self._radio.clock, "removing the pairing"):
                with contextlib.suppress(bleak.exc.BleakDeviceNotFoundError):  # nothing to remove
                    await bleak.BleakClient(self._address, **self._radio.options).unpair()
        except LinkUnavailable:
            raise
        except LinkError as error:
            raise PairingFailed(f"the pairing could not be removed ({_cause(error)}). Try again.") from error

    async def wait_disconnected(self) -> Ending:
        """See Link. A link that was never connected answers that this side ended it."""
        return await self._connection.ending(self._radio.clock)

    async def close(self) -> None:
        """See Link."""
        patience = CALL_SECONDS if self._connection.over else DISCONNECT_SECONDS
        self._connection.end(Ending.LOCAL)
        self._radio.host.unwatch(self._connection)
        self._radio.connected.discard(self)
        self._characteristics = {}
        client, self._client = self._client, None
        if client is not None:
            await self._release(client, patience)

    async def _attempt(self, device: Any) -> None:
        connection, host = Connection(), self._radio.host
        bonded = False
        client: Any = None
        try:
            await host.watch(device, connection)
            bonded = connection.security is Security.BONDED
            async with limited(self._radio.clock, "connecting", CONNECT_SECONDS + CALL_SECONDS):
                bleak = importlib.import_module("bleak")
                trying = bleak.BleakClient(
                    device, lambda _: connection.dropped(), timeout=CONNECT_SECONDS, **self._radio.options
                )
                await trying.connect()
                client = trying  # not before: a failed attempt cleans up by itself, and must not be disconnected
                found = _by_uuid(client.services.characteristics.values())
            connection.established()
            await host.refresh(connection)
            self._client, self._connection, self._characteristics = client, connection, found
            self._radio.connected.add(self)
        except LinkLost as error:
            raise await self._better(error, connection, bonded) from error
        finally:
            if self._connection is not connection:
                host.unwatch(connection)
                if client is not None:
                    await self._release(client, CALL_SECONDS)

    async def _better(self, error: LinkLost, connection: Connection, bonded: bool) -> LinkError:
        """Return what a failed attempt means: the keys differ, Bluetooth is gone, or just no luck."""
        connection.dropped()
        ending = await connection.ending(self._radio.clock)
        if bonded and (ending is Ending.AUTHENTICATION or "AuthenticationFailed" in str(error)):
            return bond_lost(self._address)
        if ending is Ending.RADIO:
            try:
                await self._radio.host.check()
            except LinkUnavailable as why:
                return why
        return error

    async def _release(self, client: Any, seconds: float) -> None:
        """Also after the end: only this frees the socket that bleak keeps for a client."""
        with contextlib.suppress(LinkError):  # it is given up in any case
            async with limited(self._radio.clock, "disconnecting", seconds):
                await client.disconnect()

    def _up(self) -> None:
        if self._client is None or self._connection.over:
            raise LinkLost("the pendant is not connected.")

    @contextlib.asynccontextmanager
    async def _using(self, uuid: str, what: str) -> AsyncIterator[Any]:
        self._up()
        characteristic = self._characteristics.get(uuid.lower())
        if characteristic is None:
            raise BadPeripheral(f"{what} failed: this device lacks what was asked of it. Is it a pendant?")
        connection = self._connection
        try:
            async with limited(self._radio.clock, what):
                yield characteristic
        except LinkError as error:
            if connection.over:  # whatever the stack said about it
                raise LinkLost(f"{what} failed: the link is gone.") from error
            raise


def _by_uuid(characteristics: Iterable[Any]) -> dict[str, Any]:
    """The first of each UUID by handle; a device that has one twice is odd, but no reason to fail."""
    ordered = sorted(characteristics, key=lambda characteristic: characteristic.handle, reverse=True)
    return {characteristic.uuid.lower(): characteristic for characteristic in ordered}


def _cause(error: LinkError) -> str:
    return str(error).rstrip(".")
