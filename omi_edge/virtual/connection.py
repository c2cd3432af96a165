"""One central's connection to a virtual pendant: what a transport holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from omi_edge.domain import Ending
from omi_edge.virtual.attributes import REQUEST_NOT_SUPPORTED, AttError, Characteristic

OnValue = Callable[[bytes], None]


class Gone(Exception):
    """The connection is over, or ended while a request waited; ``ending`` says how."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(f"the connection is over: {ending}")
        self.ending = ending


class Peripheral(Protocol):
    """What a connection needs of the pendant it leads to."""

    @property
    def characteristics(self) -> dict[str, Characteristic]:
        """What it offers, by UUID."""

    @property
    def reachable(self) -> bool:
        """Whether anything gets through to it now."""

    def refusal(self, connection: Connection, characteristic: Characteristic) -> int | None:
        """Return the ATT code that keeps an open link from ``characteristic``, None when nothing does."""

    def accept_pairing(self, connection: Connection) -> int | None:
        """Agree on a key with the central and keep it; None when it does not pair."""

    def knows(self, central: str, key: int) -> bool:
        """Say whether ``key`` is the one it keeps for ``central``."""

    def subscribed(self, uuid: str) -> None:
        """Be told of a subscription."""

    def released(self, connection: Connection, ending: Ending) -> None:
        """Be told that a connection is over."""


class Connection:
    """Requests are answered on the spot; while nothing gets through they wait for the link or for its end.

    ``read``, ``write`` and ``subscribe`` raise AttError, Gone, or KeyError for a UUID that the pendant does not offer.
    """

    def __init__(self, pendant: Peripheral, central: str, mtu: int, *, wants_security: bool) -> None:
        self.central = central
        self.mtu = mtu
        """The effective ATT MTU."""
        self.wants_security = wants_security
        """Whether the pendant asks for pairing or encryption (dossier §2.4)."""
        self.encrypted = False
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._pendant = pendant
        self._subscribers: dict[str, OnValue] = {}
        self._moved = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether it is not over yet."""
        return not self.ended.done()

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic."""
        return (await self._permitted(uuid)).read()

    async def write(self, uuid: str, value: bytes) -> None:
        """Write a characteristic."""
        (await self._permitted(uuid)).write(value)

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        """Have each notification of a characteristic handed over; a new subscription replaces the old one."""
        characteristic = await self._permitted(uuid)
        if "notify" not in characteristic.properties:
            raise AttError(REQUEST_NOT_SUPPORTED)
        self._subscribers[uuid] = on_value
        self._pendant.subscribed(uuid)
        characteristic.subscribed()

    def unsubscribe(self, uuid: str) -> None:
        """Want no more notifications; harmless when there were none."""
        self._subscribers.pop(uuid, None)

    def subscribed(self, uuid: str) -> bool:
        """Say whether somebody wants the notifications of a characteristic."""
        return self.alive and uuid in self._subscribers

    async def encrypt(self, key: int) -> None:
        """Encrypt with a stored key; where the pendant knows another one, or none, that ends the connection."""
        await self._through()
        if not self._pendant.knows(self.central, key):
            self.end(Ending.AUTHENTICATION)
            raise Gone(Ending.AUTHENTICATION)
        self.encrypted = True

    async def pair(self) -> int | None:
        """Agree on a key and encrypt; return the key, or None when the pendant refuses."""
        await self._through()
        key = self._pendant.accept_pairing(self)
        self.encrypted = self.encrypted or key is not None
        return key

    def deliver(self, uuid: str, value: bytes) -> None:
        """Hand a notification over, if somebody wants it."""
        if (on_value := self._subscribers.get(uuid)) is not None and self.alive:
            on_value(value)

    def end(self, ending: Ending = Ending.LOCAL) -> None:
        """End it; harmless when it is over."""
        if self.alive:
            self.ended.set_result(ending)
            self._subscribers.clear()
            self._moved.set()
            self._pendant.released(self, ending)

    def moved(self) -> None:
        """Be told that something may get through again."""
        self._moved.set()

    async def _permitted(self, uuid: str) -> Characteristic:
        await self._through()
        characteristic = self._pendant.characteristics[uuid]
        code = self._pendant.refusal(self, characteristic)
        if code is not None:
            raise AttError(code)
        return characteristic

    async def _through(self) -> None:
        while self.alive and not self._pendant.reachable:
            self._moved.clear()
            await self._moved.wait()
        if not self.alive:
            raise Gone(self.ended.result())
