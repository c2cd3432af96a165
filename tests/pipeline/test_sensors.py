"""How hot the machine is and what feeds it, from real files laid out as the kernel does."""

from __future__ import annotations

from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.pipeline.sensors import Reading, Sensors, on_battery, temperature


def put(root: Path, path: str, text: str) -> None:
    place = root / "sys/class" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text + "\n", encoding="ascii")


def supply(root: Path, name: str, **files: str) -> None:
    for file, text in files.items():
        put(root, f"power_supply/{name}/{file}", text)


def test_the_hottest_zone_counts_and_broken_ones_do_not(tmp_path: Path) -> None:
    assert temperature(tmp_path) is None
    put(tmp_path, "thermal/thermal_zone0/temp", "48312")
    put(tmp_path, "thermal/thermal_zone1/temp", "61000")
    put(tmp_path, "thermal/thermal_zone2/temp", "-273000")
    put(tmp_path, "thermal/thermal_zone3/temp", "nothing")
    put(tmp_path, "thermal/cooling_device0/temp", "99000")
    (tmp_path / "sys/class/thermal/thermal_zone4/temp").mkdir(parents=True)  # cannot be read, like one that is off
    assert temperature(tmp_path) == 61.0


@pytest.mark.parametrize(
    ("supplies", "wanted"),
    [
        ({}, False),
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": {"type": "Battery", "status": "Charging"}}, False),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, False),
        ({"ups": {"type": "UPS", "status": "Discharging"}}, True),
        ({"mouse": {"type": "Battery", "status": "Discharging", "scope": "Device"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}, "usb": {"type": "USB", "online": "2"}}, False),
        ({"odd": {"scope": "System"}}, False),
    ],
)
def test_what_feeds_it(tmp_path: Path, supplies: dict[str, dict[str, str]], wanted: bool) -> None:
    for name, files in supplies.items():
        supply(tmp_path, name, **files)
    assert on_battery(tmp_path) is wanted


async def test_only_what_is_asked_for_is_read(tmp_path: Path, clock: DrivenClock) -> None:
    put(tmp_path, "thermal/thermal_zone0/temp", "70000")
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    sensors = Sensors(clock, root=tmp_path, platform="linux")
    assert await sensors.read(heat=True, power=True) == Reading(70.0, True)
    assert await sensors.read(heat=False, power=True) == Reading(None, True)
    assert await sensors.read(heat=True, power=False) == Reading(70.0, False)


@pytest.mark.parametrize(
    ("says", "wanted"), [("AC Power", False), ("Battery Power", True), ("UPS Power", True), ("", False)]
)
async def test_a_mac_tells_its_power_and_no_temperature(
    tmp_path: Path, clock: DrivenClock, says: str, wanted: bool
) -> None:
    pmset = tmp_path / "pmset"
    pmset.write_text(f"#!/bin/sh\necho \"Now drawing from '{says}'\"\necho \" -'Battery Power' 80%\"\n")
    pmset.chmod(0o755)
    sensors = Sensors(clock, root=tmp_path, platform="darwin", pmset=str(pmset))
    assert await sensors.read(heat=True, power=True) == Reading(None, wanted)


async def test_a_mac_without_pmset_counts_as_fed(tmp_path: Path, clock: DrivenClock) -> None:
    sensors = Sensors(clock, platform="darwin", pmset=str(tmp_path / "none"))
    assert await sensors.read(heat=False, power=True) == Reading(None, False)
