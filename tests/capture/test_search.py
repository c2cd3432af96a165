"""Finding pendants with a bleak that is slow, refuses, or sees much."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from omi_edge.capture import bleerrors, search
from omi_edge.capture.macos import MacHost
from omi_edge.capture.search import Search
from omi_edge.clock import DrivenClock
from omi_edge.errors import LinkUnavailable


class Scanner:
    """bleak.BleakScanner; starts when it may."""

    may_start: asyncio.Event
    running = 0
    started = 0

    def __init__(self, on_detected: Any, services: list[str]) -> None:
        self.on_detected = on_detected

    async def start(self) -> None:
        await self.may_start.wait()
        Scanner.running += 1
        Scanner.started += 1

    async def stop(self) -> None:
        Scanner.running -= 1


@pytest.fixture
async def finder(clock: DrivenClock, monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setattr("bleak.BleakScanner", Scanner)
    monkeypatch.setattr(Scanner, "running", 0)
    monkeypatch.setattr(Scanner, "started", 0)
    monkeypatch.setattr(Scanner, "may_start", asyncio.Event(), raising=False)
    return Search(clock, MacHost(clock), {})


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    original = bleerrors.limited
    monkeypatch.setattr(
        search, "limited", lambda clock, what, seconds=0.02, **more: original(clock, what, 0.02, **more)
    )


async def test_a_start_that_comes_late_is_stopped(finder: Search, impatient: None) -> None:
    with pytest.raises(LinkUnavailable, match="does not answer"):
        await finder.scan(1)
    assert Scanner.running == 0
    Scanner.may_start.set()
    await turns()
    assert (Scanner.started, Scanner.running) == (1, 0)
    assert await finder.scan(0.01) == []
    assert (Scanner.started, Scanner.running) == (2, 0)


async def test_a_cancelled_scan_is_stopped(finder: Search) -> None:
    Scanner.may_start.set()
    scanning = asyncio.create_task(finder.scan(60))
    await turns()
    assert Scanner.running == 1
    scanning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scanning
    assert Scanner.running == 0


async def test_close_gives_up_what_never_answers(finder: Search, impatient: None) -> None:
    with pytest.raises(LinkUnavailable):
        await finder.scan(1)
    await finder.close()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_last_sighting_of_each_counts(finder: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: Scanner) -> None:
        for address, rssi in (("A", -50), ("B", -127), ("C", -90), ("A", -95)):
            device = SimpleNamespace(address=address, name="by the system")
            self.on_detected(device, SimpleNamespace(local_name="advertised" if rssi == -90 else None, rssi=rssi))

    monkeypatch.setattr(Scanner, "start", start)
    found = await finder.scan(0.01)
    assert [(sighting.address, sighting.rssi) for sighting in found] == [("C", -90), ("A", -95), ("B", None)]
    assert [sighting.name for sighting in found[:2]] == ["advertised", "by the system"]
