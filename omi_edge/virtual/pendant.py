"""A pendant without hardware: GATT values, timing and faults of a CV1, driven by the clock. Knows no transport.

Built on the protocol dossier §10. Microphone blocks of 100 ms are encoded to five 20 ms frames and sent as a burst; ids
go on across connections; audio that nobody subscribed to is thrown away. A transport calls ``connect``, ``subscribe``
and ``disconnect``; whoever runs the simulation calls ``play``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.clock import Clock
from omi_edge.domain import SAMPLE_RATE, Codec, DeviceInfo
from omi_edge.opus import Encoder

Samples = npt.NDArray[np.int16]

BLOCK_SAMPLES = SAMPLE_RATE // 10
"""Microphone block of the CV1, 100 ms: bursts of five frames (dossier §10, item 5)."""
LATE_START_SECONDS = 1.3
"""No audio earlier than this after a connection (dossier §10, item 3)."""
HEADER_BYTES = 3
"""Id and fragment index in front of the codec bytes (dossier §5.2)."""
ATT_HEADER_BYTES = 3
"""Part of an ATT MTU that a notification's value cannot use (dossier §2.3)."""
DEFAULT_MTU = 498
"""Largest that the CV1 agrees to (dossier §2.3)."""
MINIMUM_MTU = 100
"""Below this a CV1 discards its audio (dossier §2.3)."""


class Profile(msgspec.Struct, frozen=True):
    """What differs between pendants."""

    name: str
    device: DeviceInfo
    codec: Codec
    ignores_att_header: bool = False
    """Cuts fragments three bytes too long for ATT, so that the frames concerned never arrive (dossier §2.3, CV1)."""


CV1_3_0_21 = Profile(
    "cv1-3.0.21",
    DeviceInfo("C0:FF:EE:00:30:21", "Omi", "Omi CV 1", "3.0.21", "5.0", "Based Hardware"),
    Codec.OPUS_20MS,
    ignores_att_header=True,
)
"""The current consumer pendant, with the values of the dossier §1; the address is made up (static random)."""


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong, reproducibly by ``seed``; shares are probabilities from 0 to 1 for each notification."""

    seed: int = 0
    lose: float = 0.0
    """Lost on the air: the id is consumed."""
    lose_every: int = 0
    """Every n-th notification is lost on the air; 0 for none."""
    drop: float = 0.0
    """Frames dropped before numbering: no gap in the ids."""
    duplicate: float = 0.0
    """Sent twice."""
    cut_after: tuple[float, ...] = ()
    """The link breaks when the microphone has heard so many seconds; in rising order."""


class Pendant:
    """The device."""

    def __init__(
        self,
        clock: Clock,
        profile: Profile = CV1_3_0_21,
        *,
        mtu: int = DEFAULT_MTU,
        faults: Faults | None = None,
        first_id: int = 0,
    ) -> None:
        self.profile = profile
        self.mtu = mtu
        self.battery = 82
        """Charge in percent."""
        self.sent = 0
        """Notifications that left the pendant."""
        self.unheard = 0
        """Frames thrown away because nobody could receive them."""
        self.heard_seconds = 0.0
        """Audio that the microphone has heard since the pendant was made."""
        self.on_sent: Callable[[], None] = lambda: None
        """Told right before each notification leaves."""
        self._clock = clock
        self._faults = faults or Faults()
        self._cuts = list(self._faults.cut_after)
        self._random = random.Random(self._faults.seed)  # noqa: S311 a simulation, not a secret
        self._encoder = Encoder(profile.codec)
        self._numbered = 0
        self._next_id = first_id & 0xFFFF
        self._on_value: Callable[[bytes], None] | None = None
        self._audio_from_us = 0
        self._ended: asyncio.Future[str] | None = None

    @property
    def connected(self) -> bool:
        """Whether a central holds the only link."""
        return self._ended is not None and not self._ended.done()

    @property
    def streaming(self) -> bool:
        """Whether what the microphone hears now reaches a central."""
        return self._on_value is not None and self.mtu >= MINIMUM_MTU and self._clock.boot_us() >= self._audio_from_us

    async def wait_streaming(self) -> None:
        """Wait until what the microphone hears reaches a central."""
        while not self.streaming:
            await self._clock.sleep(BLOCK_SAMPLES / SAMPLE_RATE)

    def connect(self) -> asyncio.Future[str]:
        """Take a connection; the future ends with it and tells why."""
        self._ended = asyncio.get_running_loop().create_future()
        self._audio_from_us = self._clock.boot_us() + round(LATE_START_SECONDS * 1e6)
        return self._ended

    def subscribe(self, on_value: Callable[[bytes], None]) -> None:
        """Send audio notifications to ``on_value`` from now on."""
        self._on_value = on_value

    def unsubscribe(self) -> None:
        """Send no more audio; what the microphone hears is thrown away."""
        self._on_value = None

    def disconnect(self, reason: str = "closed by the central") -> None:
        """End the connection; harmless when there is none."""
        self._on_value = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    async def play(self, samples: Iterable[Samples], *, seconds: float | None = None) -> float:
        """Let the microphone hear int16 blocks of any length at 16 kHz mono; return the seconds heard.

        Takes as long as the audio, in the clock's time. ``seconds`` stops it early. The last microphone block is filled
        with silence.
        """
        started_us = self._clock.boot_us()
        heard_before = self.heard_seconds
        heard = 0
        for block in _blocks(samples):
            if seconds is not None and heard >= seconds * SAMPLE_RATE:
                break
            heard += BLOCK_SAMPLES
            # sleeping to absolute times keeps the cadence free of drift
            due_us = started_us + heard * 1_000_000 // SAMPLE_RATE
            await self._clock.sleep(max(0.0, (due_us - self._clock.boot_us()) / 1e6))
            self.heard_seconds = heard_before + heard / SAMPLE_RATE
            self._burst(block)
            if self._cuts and self.heard_seconds >= self._cuts[0]:
                del self._cuts[0]
                self.disconnect("supervision timeout")
        return heard / SAMPLE_RATE

    def _burst(self, block: Samples) -> None:
        per_frame = self.profile.codec.frame_us * SAMPLE_RATE // 1_000_000
        for frame in block.reshape(-1, per_frame):
            packet = self._encoder.encode(frame)
            if not self.streaming:
                self.unheard += 1
            elif not self._happens(self._faults.drop):
                self._notify(packet)

    def _notify(self, packet: bytes) -> None:
        room = self.mtu - ATT_HEADER_BYTES
        step = (self.mtu if self.profile.ignores_att_header else room) - HEADER_BYTES
        for index, start in enumerate(range(0, len(packet), step)):
            value = self._next_id.to_bytes(2, "little") + bytes([index]) + packet[start : start + step]
            self._next_id = (self._next_id + 1) & 0xFFFF
            self._numbered += 1
            if len(value) > room:
                return  # the stack refuses it and the firmware gives up the whole frame; its id is gone (dossier §2.3)
            every = self._faults.lose_every
            if self._happens(self._faults.lose) or (every and self._numbered % every == 0):
                continue
            self._send(value)
            if self._happens(self._faults.duplicate):
                self._send(value)

    def _send(self, value: bytes) -> None:
        if self._on_value is not None:  # the receiver of one notification may have ended the connection
            self.sent += 1
            self.on_sent()
            self._on_value(value)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability


def _blocks(samples: Iterable[Samples]) -> Iterator[Samples]:
    """Cut into microphone blocks; the last is filled with silence."""
    rest = np.zeros(0, np.int16)
    for piece in samples:
        rest = np.concatenate([rest, piece])
        whole = len(rest) - len(rest) % BLOCK_SAMPLES
        yield from rest[:whole].reshape(-1, BLOCK_SAMPLES)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, BLOCK_SAMPLES - len(rest)))
