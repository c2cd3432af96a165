"""The announcement of our Wyoming server on the LAN (RFC 6762, RFC 6763), so that Home Assistant finds it.

It tells a kind of service, a name that says nothing of anybody, addresses and a port; multicast DNS does not leave the
LAN (RFC 6762 §11).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import logging
import secrets
from collections.abc import Iterable
from typing import Any

from omi_edge.wyoming import IpAddress, address_of, is_near

log = logging.getLogger(__name__)

SERVICE = "_wyoming._tcp.local."
"""What Home Assistant looks for, without properties: rhasspy/wyoming, zeroconf.py."""


class Announcement:
    """One service. ``name`` is what others see; a second one of the same name on the LAN becomes "name-2"."""

    def __init__(self, name: str) -> None:
        self.announced = False
        self.message = ""
        """What is in the way, and the cure."""
        self._name = name
        self._registered: Any = None
        self._task: asyncio.Task[None] | None = None

    def start(self, address: IpAddress, port: int) -> None:
        """Begin to announce; what goes wrong is in ``message``."""
        self._task = asyncio.create_task(self._announce(address, port), name="wyoming announcement")

    async def stop(self) -> None:
        """Say goodbye. Harmless twice, and without a start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        registered, self._registered, self.announced = self._registered, None, False
        if registered is not None:
            with contextlib.suppress(OSError):
                await registered.async_close()

    async def _announce(self, address: IpAddress, port: int) -> None:
        try:
            library: Any = importlib.import_module("zeroconf")
            asynchronous: Any = importlib.import_module("zeroconf.asyncio")
            interfaces: Any = importlib.import_module("ifaddr")
        except ImportError:
            self.message = (
                "The Wyoming server is not announced: the package zeroconf is missing. Install omi-edge with the extra "
                '"wyoming", or set wyoming.announce = false.'
            )
            return
        addresses: list[IpAddress] = [address]
        if address.is_unspecified:
            found = (ip.ip for adapter in interfaces.get_adapters() for ip in adapter.ips if ip.is_IPv4)
            addresses = own_addresses(found)
        if not addresses:
            self.message = "The Wyoming server is not announced: this machine has no address on a LAN."
            return
        version = library.IPVersion.V6Only if address.version == 6 and addresses == [address] else None
        try:
            self._registered = asynchronous.AsyncZeroconf(
                interfaces=[str(one) for one in addresses], ip_version=version or library.IPVersion.V4Only
            )
            info = asynchronous.AsyncServiceInfo(
                SERVICE,
                f"{self._name}.{SERVICE}",
                addresses=[one.packed for one in addresses],
                port=port,
                # a host name of its own: two boxes must not claim the same one, and the machine's may be a person's
                server=f"{self._name}-{secrets.token_hex(4)}.local.",
            )
            await (await self._registered.async_register_service(info, allow_name_change=True))
        except Exception as error:  # noqa: BLE001 whatever is wrong with a network, the server goes on without
            self.message = f"The Wyoming server is not announced ({type(error).__name__}); is the network up?"
            log.warning("the announcement failed", extra={"kind": type(error).__name__})
            return
        self.announced = True


def own_addresses(found: Iterable[str]) -> list[IpAddress]:
    """Return those of a machine's IPv4 addresses at which the LAN reaches it."""
    addresses = [one for text in found if isinstance(one := address_of(text), ipaddress.IPv4Address)]
    return [one for one in addresses if is_near(one) and not one.is_loopback]
