"""When heavy work may run: by the clock, by who speaks, by heat and power from real files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.config import EngineConfig
from omi_edge.pipeline.leisure import COOLER, READ_SECONDS, Leisure
from omi_edge.pipeline.sensors import Reading, Sensors
from tests.pipeline.test_sensors import put, supply


class Counting(Sensors):
    """The machine under a folder; counts how often it was read."""

    reads = 0

    async def read(self, *, heat: bool, power: bool) -> Reading:
        self.reads += 1
        return await super().read(heat=heat, power=power)


class Rest:
    """Leisure with what people want of it, and a machine of files."""

    def __init__(self, clock: DrivenClock, root: Path, zone: str = "UTC", **settings: Any) -> None:
        self.wanted = ""
        self.sensors = Counting(clock, root=root, platform="linux")
        self.leisure = Leisure(clock, EngineConfig(**settings), zone, self._busy, self.sensors)

    async def _busy(self) -> str:
        return self.wanted

    async def why(self) -> str:
        return await self.leisure.hindrance()


async def test_idle_waits_for_quiet(clock: DrivenClock, tmp_path: Path) -> None:
    rest = Rest(clock, tmp_path, quiet=20.0)
    assert "quiet for 20 s" in await rest.why()
    await clock.advance(20)
    assert await rest.why() == ""
    rest.wanted = "somebody is speaking"
    assert await rest.why() == "somebody is speaking"
    rest.wanted = ""
    await clock.advance(19)
    assert "quiet for 20 s" in await rest.why()
    rest.leisure.spoke()
    await clock.advance(19)
    assert "quiet for 20 s" in await rest.why()
    await clock.advance(1)
    assert await rest.why() == ""


async def test_always_waits_for_nobody_and_for_no_hour_but_for_heat_and_power(
    clock: DrivenClock, tmp_path: Path
) -> None:
    rest = Rest(clock, tmp_path, when="always", hours="01:00-02:00", cool=80.0)
    rest.wanted = "somebody is speaking"
    assert await rest.why() == ""
    put(tmp_path, "thermal/thermal_zone0/temp", "85000")
    await clock.advance(READ_SECONDS)
    assert "cool down" in await rest.why()


def at(text: str, zone: str, hours: str, tmp_path: Path) -> Rest:
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return Rest(
        DrivenClock(int(moment.timestamp()) * 1_000_000), tmp_path, zone, when="schedule", hours=hours, quiet=0.0
    )


@pytest.mark.parametrize(
    ("moment", "zone", "hours", "free"),
    [
        ("2026-03-02T21:59:59+00:00", "UTC", "22:00-06:00", False),
        ("2026-03-02T22:00:00+00:00", "UTC", "22:00-06:00", True),
        ("2026-03-03T00:00:00+00:00", "UTC", "22:00-06:00", True),
        ("2026-03-03T05:59:59+00:00", "UTC", "22:00-06:00", True),
        ("2026-03-03T06:00:00+00:00", "UTC", "22:00-06:00", False),
        ("2026-03-03T12:00:00+00:00", "UTC", "09:00-17:30", True),
        ("2026-03-03T17:30:00+00:00", "UTC", "09:00-17:30", False),
        ("2026-03-03T13:30:00+00:00", "Asia/Tokyo", "22:00-06:00", True),
        # put forward: 02:00 becomes 03:00, at 01:00 UTC
        ("2026-03-29T00:59:59+00:00", "Europe/Berlin", "02:30-06:00", False),
        ("2026-03-29T01:00:00+00:00", "Europe/Berlin", "02:30-06:00", True),
        ("2026-03-29T03:59:59+00:00", "Europe/Berlin", "22:00-06:00", True),
        ("2026-03-29T04:00:00+00:00", "Europe/Berlin", "22:00-06:00", False),
        # put back: 03:00 becomes 02:00, at 01:00 UTC; 02:30 comes twice
        ("2026-10-25T00:30:00+00:00", "Europe/Berlin", "02:00-03:00", True),
        ("2026-10-25T01:30:00+00:00", "Europe/Berlin", "02:00-03:00", True),
        ("2026-10-25T02:00:00+00:00", "Europe/Berlin", "02:00-03:00", False),
    ],
)
async def test_the_hours_are_the_wearers_own(moment: str, zone: str, hours: str, free: bool, tmp_path: Path) -> None:
    rest = at(moment, zone, hours, tmp_path)
    assert await rest.why() == ("" if free else f"it is outside the hours {hours} (engine.hours)")


async def test_another_time_zone_moves_the_hours(tmp_path: Path) -> None:
    rest = at("2026-03-03T13:30:00+00:00", "UTC", "22:00-06:00", tmp_path)
    assert await rest.why()
    rest.leisure.move("Asia/Tokyo")
    assert await rest.why() == ""


async def test_what_was_too_hot_has_to_cool_down_some_way(clock: DrivenClock, tmp_path: Path) -> None:
    rest = Rest(clock, tmp_path, cool=70.0, quiet=0.0)
    for celsius, free in ((70.0, True), (70.1, False), (70.0 - COOLER + 0.1, False), (70.0 - COOLER, True), (69, True)):
        put(tmp_path, "thermal/thermal_zone0/temp", str(round(celsius * 1000)))
        await clock.advance(READ_SECONDS)
        assert (await rest.why() == "") is free, celsius


async def test_on_battery_it_waits_unless_it_may(clock: DrivenClock, tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    assert "on battery" in await Rest(clock, tmp_path, quiet=0.0).why()
    assert await Rest(clock, tmp_path, on_battery=True, quiet=0.0).why() == ""


async def test_the_machine_is_not_read_more_often_than_needed(clock: DrivenClock, tmp_path: Path) -> None:
    rest = Rest(clock, tmp_path, quiet=0.0)
    rest.wanted = "somebody is speaking"
    for _ in range(10):
        await rest.why()
    assert rest.sensors.reads == 0
    rest.wanted = ""
    for _ in range(60):
        await rest.why()
        await clock.advance(1)
    assert rest.sensors.reads == 60 / READ_SECONDS
    careless = Rest(clock, tmp_path, on_battery=True, quiet=0.0)
    await careless.why()
    assert careless.sensors.reads == 0
