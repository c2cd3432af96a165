"""How hot the machine is, and what feeds it: read from the system, without root.

Linux tells both in files (Documentation/ABI/testing/sysfs-class-thermal and sysfs-class-power of the kernel), on a
Raspberry Pi too. macOS tells what feeds it through pmset(1); how hot it is, to nobody but root (powermetrics(1)).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec

from omi_edge.clock import Clock, held

ROOT = Path("/")
PMSET = "/usr/bin/pmset"
PMSET_SECONDS = 5.0
"""After which pmset is taken for hung. A choice."""
LOWEST, HIGHEST = -40.0, 150.0
"""Readings in °C outside of these are of a broken or absent sensor. A choice, wider than what silicon survives."""


class Reading(msgspec.Struct, frozen=True):
    """What the machine says of itself."""

    celsius: float | None
    """Of its hottest zone; None where nothing tells."""
    on_battery: bool


class Sensors:
    """Of the machine whose files lie under ``root``."""

    def __init__(self, clock: Clock, *, root: Path = ROOT, platform: str = sys.platform, pmset: str = PMSET) -> None:
        self._clock = clock
        self._root = root
        self._platform = platform
        self._pmset = pmset

    async def read(self, *, heat: bool, power: bool) -> Reading:
        """Read what is asked for; what cannot be read counts as None, and as mains."""
        if self._platform == "darwin":
            return Reading(None, await self._pmset_says_battery() if power else False)
        with held(self._clock):
            return await asyncio.to_thread(self._read_files, heat, power)

    def _read_files(self, heat: bool, power: bool) -> Reading:
        return Reading(temperature(self._root) if heat else None, on_battery(self._root) if power else False)

    async def _pmset_says_battery(self) -> bool:
        with held(self._clock):
            try:
                process = await asyncio.create_subprocess_exec(
                    self._pmset, "-g", "batt", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            except OSError:
                return False
            try:
                async with self._clock.time_limit(PMSET_SECONDS):
                    told, _ = await process.communicate()
            except TimeoutError:
                return False
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
        first = told.decode("utf-8", "replace").partition("\n")[0]  # Now drawing from 'Battery Power'
        return "'Battery Power'" in first or "'UPS Power'" in first


def temperature(root: Path = ROOT) -> float | None:
    """Return the temperature of the hottest zone in °C, None where no zone tells any."""
    found = []
    for path in sorted(root.glob("sys/class/thermal/thermal_zone*/temp")):
        with contextlib.suppress(OSError, ValueError):  # a zone that is switched off answers with an error
            celsius = int(path.read_text(encoding="ascii")) / 1000
            if LOWEST <= celsius <= HIGHEST:
                found.append(celsius)
    return max(found, default=None)


def on_battery(root: Path = ROOT) -> bool:
    """Whether a battery or UPS of the machine itself is being emptied, and nothing else feeds it."""
    emptied = False
    for folder in sorted(root.glob("sys/class/power_supply/*")):
        if _word(folder / "scope") == "Device":  # the battery of a mouse
            continue
        kind = _word(folder / "type")
        if kind in ("Battery", "UPS"):
            emptied |= _word(folder / "status") == "Discharging"
        elif _word(folder / "online") not in ("", "0"):
            return False
    return emptied


def _word(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="ascii").strip()
    return ""
