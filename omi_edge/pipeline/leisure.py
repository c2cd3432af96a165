"""Whether heavy work may run now: nobody speaks, the hour is right, the machine is cool and fed.

Nothing is looked at unless somebody asks, and what costs a look at the system not more often than once in
``READ_SECONDS``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from omi_edge.clock import Clock
from omi_edge.config import EngineConfig, night
from omi_edge.pipeline.sensors import Reading, Sensors

READ_SECONDS = 30.0
"""For so long a reading of temperature and power is good. A choice."""
COOLER = 5.0
"""So many °C below ``engine.cool`` a machine that was too hot must be, so that work does not stop and go. A choice."""


class Leisure:
    """``busy`` says in a sentence what people want of the machine now, "" for nothing."""

    def __init__(
        self,
        clock: Clock,
        settings: EngineConfig,
        time_zone: str,
        busy: Callable[[], Awaitable[str]],
        sensors: Sensors | None = None,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._zone = ZoneInfo(time_zone)
        self._night = night(settings)
        self._busy = busy
        self._sensors = sensors or Sensors(clock)
        self._spoken_us = clock.boot_us()
        """Boot time of the last speech; a start counts as some, since nothing is known from before."""
        self._reading = Reading(None, False)
        self._read_us: int | None = None
        self._hot = False

    def move(self, time_zone: str) -> None:
        """Take over another time zone of the wearer."""
        self._zone = ZoneInfo(time_zone)

    def spoke(self) -> None:
        """Note that somebody speaks."""
        self._spoken_us = self._clock.boot_us()

    async def hindrance(self) -> str:
        """Return why heavy work has to wait, in a sentence without its full stop; "" when it may run."""
        settings = self._settings
        if settings.when != "always":
            why = await self._busy()
            if why:
                self.spoke()
                return why
            if self._clock.boot_us() - self._spoken_us < settings.quiet * 1e6:
                return f"it has not been quiet for {settings.quiet:g} s yet (engine.quiet)"
        if settings.when == "schedule" and not self._within_hours():
            return f"it is outside the hours {settings.hours} (engine.hours)"
        return await self._machine()

    def _within_hours(self) -> bool:
        """Ask the wearer's own clock: on the nights when it is put forward or back it is the one that counts."""
        local = datetime.fromtimestamp(self._clock.utc_us() / 1e6, UTC).astimezone(self._zone)
        minute = local.hour * 60 + local.minute
        first, last = self._night
        return first <= minute < last if first < last else minute >= first or minute < last

    async def _machine(self) -> str:
        settings = self._settings
        if not settings.cool and settings.on_battery:
            return ""
        now_us = self._clock.boot_us()
        if self._read_us is None or now_us - self._read_us >= READ_SECONDS * 1e6:
            self._read_us = now_us
            self._reading = await self._sensors.read(heat=settings.cool > 0, power=not settings.on_battery)
        celsius = self._reading.celsius
        self._hot = celsius is not None and celsius > settings.cool - (COOLER if self._hot else 0.0)
        if settings.cool and self._hot:
            return f"the machine is to cool down first (engine.cool is {settings.cool:g} °C)"
        if not settings.on_battery and self._reading.on_battery:
            return "the machine runs on battery (engine.on_battery)"
        return ""
