"""What the system under bleak tells and does: the one place that tells Linux and macOS apart."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from omi_edge.capture.connection import Connection

if sys.platform == "linux":
    from omi_edge.capture.bluez import BluezHost as SystemHost
else:
    from omi_edge.capture.macos import MacHost as SystemHost

__all__ = ["Host", "SystemHost"]


class Host(Protocol):
    """One machine's Bluetooth, beside bleak. Every method raises errors of LinkError's family and nothing else."""

    can_pair: bool

    async def check(self) -> None:
        """See Radio."""

    async def connected(self, address: str) -> Any:
        """Return bleak's BLEDevice of a pendant that this machine holds a link to already, else None."""

    async def watch(self, device: Any, connection: Connection) -> None:
        """Tell a connection from now on how it is secured and how it ends, as far as the system tells."""

    def unwatch(self, connection: Connection) -> None:
        """Tell it no more; harmless when it was never watched."""

    async def refresh(self, connection: Connection) -> None:
        """Ask anew how a connection that is watched is secured."""

    def trust(self, addresses: Iterable[str]) -> None:
        """See Radio."""

    def pairing(self, address: str) -> contextlib.AbstractContextManager[None]:
        """Trust a pendant while this side pairs with it."""

    async def close(self) -> None:
        """Let go of everything."""
