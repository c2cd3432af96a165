"""What a transport to pendants must offer: a radio that finds them, and a link that is one GATT connection to one.

Conforming: ``capture.ble`` (bleak) and ``virtual.loopback`` (in process). Every method raises errors of LinkError's
family and nothing else, and each has a time limit of its own: a stack that hangs says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from omi_edge.domain import Ending, Security, Sighting

OnValue = Callable[[bytes], None]


class Link(Protocol):
    """One GATT connection to one pendant; made again by ``connect`` as often as wanted."""

    @property
    def address(self) -> str:
        """Whom it connects to."""

    @property
    def security(self) -> Security:
        """What is known of the encryption of the connection that is up."""

    async def connect(self) -> Sighting:
        """Find the pendant, connect and discover its services; return how it was seen.

        Raises PendantAbsent, BondLost, LinkLost or LinkUnavailable.
        """

    def offers(self, uuid: str) -> bool:
        """Say whether the connected pendant has this characteristic."""

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic. Raises LinkLost, NotEncrypted, AttRefused, or BadPeripheral when it has none."""

    async def write(self, uuid: str, value: bytes) -> None:
        """Write with response. Raises as ``read`` does."""

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        """Have each notification handed to ``on_value`` on the event loop, until the connection ends."""

    async def pair(self) -> None:
        """Bond with the connected pendant. Raises PairingFailed."""

    async def unpair(self) -> None:
        """Remove this side's bond; ends the connection. Harmless without one. Raises PairingFailed."""

    async def wait_disconnected(self) -> Ending:
        """Wait for the end of the connection; also answers when it is over already."""

    async def close(self) -> None:
        """Disconnect; harmless when there is no connection."""


class Radio(Protocol):
    """A machine's Bluetooth: finds pendants and makes links to them."""

    @property
    def transport(self) -> str:
        """What it is, for people: "Bluetooth LE", "in-process link"."""

    @property
    def can_pair(self) -> bool:
        """Whether a program can pair here; on macOS the system does."""

    async def check(self) -> None:
        """Raises the LinkUnavailable that says why Bluetooth cannot be used now, with its cure."""

    async def scan(self, seconds: float, on_seen: Callable[[Sighting], None] | None = None) -> list[Sighting]:
        """Look for pendants by their service; return the last sighting of each, strongest signal first."""

    def link(self, address: str) -> Link:
        """Return a link to a pendant, not yet connected."""

    def trust(self, addresses: Iterable[str]) -> None:
        """Say which pendants may pair with this machine; all others are refused."""

    async def close(self) -> None:
        """Let go of everything; links end."""
