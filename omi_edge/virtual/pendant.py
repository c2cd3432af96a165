"""A pendant without hardware: GATT values, timing and faults of a CV1, driven by the clock. Knows no transport.

Built on the protocol dossier §10. Microphone blocks of 100 ms are encoded to five 20 ms frames and sent as a burst; ids
go on across connections; audio that nobody subscribed to is thrown away.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.clock import Clock
from omi_edge.domain import SAMPLE_RATE, Codec, DeviceInfo
from omi_edge.opus import Encoder

BLOCK_SECONDS = 0.1
"""Microphone block of the CV1: bursts of five frames (dossier §10, item 5)."""
BLOCK_SAMPLES = SAMPLE_RATE // 10
LATE_START_SECONDS = 1.3
"""No audio earlier than this after a connection (dossier §10, item 3)."""
HEADER_BYTES = 3
ATT_HEADER_BYTES = 3
MINIMUM_MTU = 100
"""Below this a CV1 discards its audio (dossier §10, item 3)."""


class Profile(msgspec.Struct, frozen=True):
    """What differs between pendants."""

    name: str
    device: DeviceInfo
    codec: Codec


CV1_3_0_21 = Profile(
    "cv1-3.0.21",
    DeviceInfo("C0:FF:EE:00:30:21", "Omi", "Omi CV 1", "3.0.21", "Omi CV1", "Based Hardware"),
    Codec.OPUS_20MS,
)


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong, reproducibly by ``seed``; shares are probabilities from 0 to 1 for each notification."""

    seed: int = 0
    lose: float = 0.0
    """Lost on the air: the id is consumed."""
    drop: float = 0.0
    """Dropped before numbering: no gap in the ids."""
    duplicate: float = 0.0


class Pendant:
    """The device. A transport calls ``connect``, ``subscribe`` and ``disconnect``; ``play`` gives it something to hear."""

    def __init__(
        self, clock: Clock, profile: Profile = CV1_3_0_21, *, mtu: int = 498, faults: Faults | None = None,
        first_id: int = 0,
    ) -> None:  # fmt: skip
        self.profile = profile
        self.mtu = mtu
        self.battery = 82
        self.sent = 0
        """Notifications sent."""
        self.heard_seconds = 0.0
        """Audio that the microphone has heard."""
        self._clock = clock
        self._faults = faults or Faults()
        self._random = random.Random(self._faults.seed)  # noqa: S311 a simulation, not a secret
        self._encoder = Encoder(profile.codec)
        self._next_id = first_id & 0xFFFF
        self._on_value: Callable[[bytes], None] | None = None
        self._audio_from_us: int | None = None
        self._ended: asyncio.Future[str] | None = None

    @property
    def connected(self) -> bool:
        """Whether a central holds the only link."""
        return self._ended is not None and not self._ended.done()

    def connect(self) -> asyncio.Future[str]:
        """Take a connection; the future ends with it and tells why."""
        self._ended = asyncio.get_running_loop().create_future()
        self._audio_from_us = self._clock.boot_us() + round(LATE_START_SECONDS * 1e6)
        return self._ended

    def subscribe(self, on_value: Callable[[bytes], None]) -> None:
        """Send audio notifications to ``on_value`` from now on."""
        self._on_value = on_value

    def disconnect(self, reason: str = "closed by the central") -> None:
        """End the connection."""
        self._on_value = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    async def play(self, samples: Iterator[npt.NDArray[np.int16]], *, seconds: float | None = None) -> float:
        """Let the microphone hear int16 blocks at 16 kHz, in the clock's time; return the seconds heard."""
        started_us = self._clock.boot_us()
        heard = 0
        for block in _blocks(samples):
            if seconds is not None and heard >= seconds * SAMPLE_RATE:
                break
            heard += BLOCK_SAMPLES
            # sleeping to absolute times keeps the cadence free of drift
            due_us = started_us + heard * 1_000_000 // SAMPLE_RATE
            await self._clock.sleep(max(0.0, (due_us - self._clock.boot_us()) / 1e6))
            self.heard_seconds = heard / SAMPLE_RATE
            self._burst(block)
        return heard / SAMPLE_RATE

    def _burst(self, block: npt.NDArray[np.int16]) -> None:
        per_frame = self.profile.codec.frame_us * SAMPLE_RATE // 1_000_000
        for frame in block.reshape(-1, per_frame):
            self._notify(self._encoder.encode(frame))

    def _notify(self, packet: bytes) -> None:
        if self._on_value is None or self.mtu < MINIMUM_MTU or self._clock.boot_us() < (self._audio_from_us or 0):
            return
        if self._faults.drop and self._random.random() < self._faults.drop:
            return
        limit = self.mtu - ATT_HEADER_BYTES - HEADER_BYTES
        for index, start in enumerate(range(0, len(packet), limit)):
            value = self._next_id.to_bytes(2, "little") + bytes([index]) + packet[start : start + limit]
            self._next_id = (self._next_id + 1) & 0xFFFF
            if self._faults.lose and self._random.random() < self._faults.lose:
                continue
            self.sent += 1
            self._on_value(value)
            if self._faults.duplicate and self._random.random() < self._faults.duplicate:
                self._on_value(value)


def _blocks(samples: Iterator[npt.NDArray[np.int16]]) -> Iterator[npt.NDArray[np.int16]]:
    """Cut into microphone blocks; the last is filled with silence."""
    rest = np.zeros(0, np.int16)
    for piece in samples:
        rest = np.concatenate([rest, piece])
        whole = len(rest) - len(rest) % BLOCK_SAMPLES
        yield from rest[:whole].reshape(-1, BLOCK_SAMPLES)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, BLOCK_SAMPLES - len(rest)))
