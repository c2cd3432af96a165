"""Timers with names, of which each runs at most once at a time."""

from __future__ import annotations

from collections.abc import Callable

from omi_edge.clock import Clock, Timer


class Timers:
    """What is to happen later, by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: dict[str, Timer] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._timers

    def later(self, name: str, seconds: float | None, callback: Callable[[], object]) -> None:
        """Call ``callback`` after ``seconds``, never for None; what had this name before is cancelled."""
        self.cancel(name)
        if seconds is None:
            return

        def due() -> None:
            del self._timers[name]
            callback()

        self._timers[name] = self._clock.call_later(seconds, due)

    def cancel(self, name: str) -> None:
        """Make sure that it does not happen; harmless when nothing has this name."""
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def clear(self) -> None:
        """Cancel everything."""
        for name in list(self._timers):
            self.cancel(name)
