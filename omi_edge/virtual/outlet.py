"""How stored audio leaves a pendant: one notification after another, in the time that a real one takes."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Protocol

import msgspec

from omi_edge.clock import Clock
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.timers import Timers

BURST = 32
"""Notifications at once where nothing slows them down; between two bursts a STOP gets through."""
PATIENCE_SECONDS = 0.1
"""Between two looks at a link that takes nothing, and after a notification that failed."""


class Port(Protocol):
    """What the storage needs to know of the pendant it belongs to, and its way out."""

    @property
    def mtu(self) -> int:
        """The effective ATT MTU."""

    @property
    def reachable(self) -> bool:
        """Whether anything gets through."""

    @property
    def listening(self) -> bool:
        """Whether a central subscribed to the storage's notifications."""

    def send_stored(self, value: bytes) -> bool:
        """Send a notification of the storage; False when the stack refuses it."""


class Piece(msgspec.Struct, frozen=True):
    """One notification of a transfer."""

    value: bytes
    seconds: float = 0.0
    """What it takes, at the pace of a real pendant."""
    data: bool = True
    """Whether it may get lost with the fault ``lose_stored``."""


Pieces = Generator[Piece, bool, None]
"""Makes a transfer piece by piece; is told of each whether it reached the client."""


class Outlet:
    """Sends one transfer at a time."""

    def __init__(self, clock: Clock, port: Port, faults: Faults) -> None:
        self._clock = clock
        self._port = port
        self._speed = faults.storage_speed
        self._lose = faults.lose_stored
        self._random = random.Random(f"stored {faults.seed}")  # noqa: S311 a simulation, not a secret
        self._timers = Timers(clock)
        self._pieces: Pieces | None = None
        self._reached: bool | None = None
        self._refused = False
        self._not_before_us = 0

    @property
    def busy(self) -> bool:
        """Whether a transfer runs."""
        return self._pieces is not None

    def start(self, pieces: Pieces, delay: float = 0.0) -> None:
        """Begin a transfer after ``delay`` seconds, in place of the one that runs."""
        self.stop()
        self._pieces, self._reached = pieces, None
        self._later(delay)

    def stop(self) -> None:
        """End the transfer where it stands; harmless when none runs."""
        self._timers.cancel("next")
        if self._pieces is not None:
            pieces, self._pieces = self._pieces, None
            pieces.close()

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._not_before_us = self._clock.boot_us() + round(seconds * 1e6)
        if "next" in self._timers:
            self._later(seconds)

    def flush(self) -> None:
        """Send one more piece now: it was in the queue already."""
        if self._pieces is not None and self._port.reachable and self._port.listening:
            self._send_next(self._pieces)

    def _later(self, seconds: float) -> None:
        earliest = (self._not_before_us - self._clock.boot_us()) / 1e6
        self._timers.later("next", max(seconds, earliest), self._step)

    def _step(self) -> None:
        if not self._port.listening:
            self.stop()
            return
        if not self._port.reachable:
            self._later(PATIENCE_SECONDS)
            return
        seconds = 0.0
        for _ in range(1 if self._speed else BURST):
            pieces = self._pieces
            piece = None if pieces is None else self._send_next(pieces)
            if piece is None:
                return
            seconds = piece.seconds / self._speed if self._speed else 0.0
            if self._refused or self._lose >= 1:  # generation A tries for ever, and must take time over it
                seconds = max(seconds, PATIENCE_SECONDS)
                break
        self._later(seconds)

    def _send_next(self, pieces: Pieces) -> Piece | None:
        """Send a piece; None when the transfer is over or was ended by whoever received it."""
        try:
            piece = next(pieces) if self._reached is None else pieces.send(self._reached)
        except StopIteration:
            if self._pieces is pieces:
                self._pieces = None
            return None
        lost = piece.data and self._random.random() < self._lose
        self._refused = not lost and not self._port.send_stored(piece.value)
        if self._pieces is not pieces:
            return None
        self._reached = not lost and not self._refused
        return piece
