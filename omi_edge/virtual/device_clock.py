"""The clock inside a pendant: whole seconds, unset until somebody sets it, and not always right."""

from __future__ import annotations

from omi_edge.clock import Clock

EARLIEST_EPOCH = 1_700_000_000
"""Seconds since 1970; a pendant takes nothing earlier for the time (dossier §4.3)."""


class DeviceClock:
    """Runs with ``clock``, ``drift_ppm`` parts per million too fast; ``epoch`` seconds at first, None for unset."""

    def __init__(self, clock: Clock, epoch: float | None, drift_ppm: float = 0.0) -> None:
        self._clock = clock
        self._rate = 1 + drift_ppm * 1e-6
        self._epoch = epoch
        self._since_us = clock.boot_us()
        self.saved = epoch
        """What it starts from after a crash: the time that was last written (dossier §4.3)."""

    def now(self) -> float | None:
        """Return seconds since 1970, None when it was never set."""
        return self.at(self._clock.boot_us())

    def at(self, boot_us: int) -> float | None:
        """Return what it would show at ``boot_us`` of our clock, going by how it runs now; None when it is unset."""
        if self._epoch is None:
            return None
        return self._epoch + (boot_us - self._since_us) / 1e6 * self._rate

    def set(self, epoch: float | None) -> None:
        """Go on from ``epoch``."""
        self._epoch, self._since_us = epoch, self._clock.boot_us()

    def write(self, epoch: int) -> bool:
        """Go on from what a client wrote and keep it; False when it cannot be the time."""
        if epoch < EARLIEST_EPOCH:
            return False
        self.set(epoch)
        self.saved = epoch
        return True

    def crash(self, back_seconds: float | None = None) -> None:
        """Go on from the saved time, as firmware 3.0.21 does; or from ``back_seconds`` ago."""
        now = self.now()
        self.set(self.saved if back_seconds is None or now is None else now - back_seconds)
