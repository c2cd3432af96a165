"""Finding pendants with bleak: one search at a time, whose sightings serve everybody who waits for a pendant."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from omi_edge import gatt
from omi_edge.capture.bleerrors import absent, limited, silent_host
from omi_edge.capture.host import Host
from omi_edge.clock import Clock
from omi_edge.domain import Sighting
from omi_edge.errors import LinkError

SEARCH_SECONDS = 10.0
"""How long a pendant is looked for: it advertises every 100 to 150 ms (dossier §2.1), but a radio that serves other
links as well, and Wi-Fi beside them, hears only some of that."""
FRESH_SECONDS = 5.0
"""A pendant seen within this time is connected without another search: it advertised dozens of times then. Not longer,
since an attempt on one that has left costs far more than a search; BlueZ itself forgets such a device after 30 s
(TemporaryTimeout in main.conf)."""
NO_RSSI = -127
"""What bleak says when it does not know the signal strength."""


class Search:
    """One for a process: BlueZ allows a program one search at a time."""

    def __init__(self, clock: Clock, host: Host, options: Mapping[str, Any]) -> None:
        self._clock = clock
        self._host = host
        self._options = options
        self._air = asyncio.Lock()
        """Held by whoever searches or connects: adapters do not do both at once, nor two of either."""
        self._seen: dict[str, tuple[Any, Sighting, int]] = {}
        """By address in capitals: bleak's BLEDevice, the sighting, and when in machine time, in which BlueZ forgets."""
        self._wanted: Counter[str] = Counter()
        self._found = asyncio.Event()
        self._stopping: dict[asyncio.Task[None], asyncio.Task[None]] = {}
        """Searches that are being ended, each with the start that it waits for."""

    async def scan(self, seconds: float, on_seen: Callable[[Sighting], None] | None = None) -> list[Sighting]:
        """See Radio. The seconds are machine time."""
        seen: dict[str, Sighting] = {}

        def note(sighting: Sighting) -> None:
            seen[sighting.address] = sighting
            if on_seen is not None:
                on_seen(sighting)

        async with self._air:
            await self._look(seconds, asyncio.Event(), note)
        return sorted(seen.values(), key=lambda sighting: sighting.rssi or NO_RSSI, reverse=True)

    @contextlib.asynccontextmanager
    async def found(self, address: str) -> AsyncIterator[tuple[Any, Sighting]]:
        """Find a pendant; nobody else searches or connects inside. Raises PendantAbsent or LinkUnavailable.

        Gives bleak's BLEDevice and how it was seen. A search that runs for one pendant notes all, and ends as soon as
        any of those that somebody waits for is seen.
        """
        key = address.upper()
        left = SEARCH_SECONDS
        self._wanted[key] += 1
        try:
            while True:
                async with self._air:
                    seen = self._fresh(key) or await self._connected(key)
                    if seen is None:
                        left -= await self._look(left, self._found)
                        seen = self._fresh(key)
                    if seen is not None:
                        self.forget(key)  # good for one attempt
                        yield seen
                        return
                if left <= 0:
                    raise absent(address)
        finally:
            self._wanted -= Counter([key])

    def forget(self, address: str) -> None:
        """Search anew before this pendant is connected."""
        self._seen.pop(address.upper(), None)

    async def close(self) -> None:
        """Give up what a service that hangs has not answered yet."""
        for starting in self._stopping.values():
            starting.cancel()
        if self._stopping:
            await asyncio.wait(self._stopping)

    def _fresh(self, key: str) -> tuple[Any, Sighting] | None:
        if key not in self._seen:
            return None
        device, sighting, seen_us = self._seen[key]
        return (device, sighting) if self._clock.work_us() - seen_us <= FRESH_SECONDS * 1e6 else None

    async def _connected(self, key: str) -> tuple[Any, Sighting] | None:
        """A pendant that this machine is connected to does not advertise: the link of a program that crashed."""
        device = await self._host.connected(key)
        if device is None:
            return None
        return device, Sighting(device.address, device.name or "", None, self._clock.boot_us())

    async def _look(
        self, seconds: float, enough: asyncio.Event, note: Callable[[Sighting], None] = lambda _: None
    ) -> float:
        """Note every pendant for ``seconds``, or until ``enough``; return how long it was."""

        def on_detected(device: Any, advertisement: Any) -> None:
            rssi = None if advertisement.rssi == NO_RSSI else advertisement.rssi
            name = advertisement.local_name or device.name or ""
            sighting = Sighting(device.address, name, rssi, self._clock.boot_us())
            key = device.address.upper()
            self._seen[key] = (device, sighting, self._clock.work_us())
            note(sighting)
            if key in self._wanted:
                self._found.set()

        self._seen = {key: seen for key, seen in self._seen.items() if self._fresh(key)}
        self._found.clear()
        began_us = self._clock.work_us()
        async with self._scanning(on_detected):
            with contextlib.suppress(TimeoutError):
                async with self._clock.time_limit(seconds):
                    await enough.wait()
        return (self._clock.work_us() - began_us) / 1e6

    @contextlib.asynccontextmanager
    async def _scanning(self, on_detected: Callable[[Any, Any], None]) -> AsyncIterator[None]:
        """Scan by service, never by name: owners rename their pendants (dossier §2.1)."""
        what = "looking for pendants"
        async with limited(self._clock, what, late=silent_host()):
            if self._stopping:
                await asyncio.wait(self._stopping)  # BlueZ refuses a search beside one that is not ended yet
            bleak = importlib.import_module("bleak")
            scanner = bleak.BleakScanner(on_detected, [gatt.AUDIO_SERVICE], **self._options)
        starting: asyncio.Task[None] = asyncio.create_task(scanner.start())
        try:
            async with limited(self._clock, what, late=silent_host()):
                await asyncio.shield(starting)
            yield
        finally:
            # a start given up midway would leave BlueZ searching, and refusing every later search
            stopping = asyncio.create_task(self._stop(scanner, starting))
            self._stopping[stopping] = starting
            stopping.add_done_callback(self._stopping.pop)
            if starting.done():
                await asyncio.shield(stopping)

    async def _stop(self, scanner: Any, starting: asyncio.Task[None]) -> None:
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            with contextlib.suppress(LinkError):  # a service that has gone searches no more
                async with limited(self._clock, "ending the search"):
                    await scanner.stop()
