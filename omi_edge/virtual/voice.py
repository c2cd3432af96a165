"""The audio of a pendant on its way out: encoded, queued while nothing gets through, numbered, and lost by chance."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from omi_edge.clock import Clock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.opus import Samples
from omi_edge.virtual.encode import encoder
from omi_edge.virtual.faults import Fate, Faults
from omi_edge.virtual.ledger import Ledger, Span
from omi_edge.virtual.microphone import BLOCK_US, Sleep
from omi_edge.virtual.profiles import Profile
from omi_edge.virtual.storage import Storage

HEADER_BYTES = 3
"""Id and fragment index in front of the codec bytes (dossier §5.2)."""
ATT_HEADER_BYTES = 3
"""Part of an ATT MTU that a notification's value cannot use (dossier §2.3)."""


class Air(Protocol):
    """What a voice needs to know of the pendant it belongs to, and its way out."""

    mtu: int
    data_length: int

    @property
    def reachable(self) -> bool:
        """Whether anything gets through."""

    @property
    def stalled(self) -> bool:
        """Whether the link holds but lets nothing through."""

    @property
    def consumed(self) -> bool:
        """Whether another central has the link, and listens."""

    @property
    def connected(self) -> bool:
        """Whether a central holds the only link."""

    @property
    def off(self) -> bool:
        """Whether the pendant is switched off."""

    def heard(self) -> bool:
        """Whether a central listens to audio, leaving aside whether anything gets through."""

    def why_not(self) -> Fate:
        """Say why audio does not reach a central now."""

    def flows(self) -> None:
        """Be told that audio reaches a central."""

    def send_audio(self, value: bytes) -> None:
        """Send one notification."""


class Voice:
    """Turns microphone blocks into notifications, and keeps the ledger of what became of them."""

    def __init__(
        self, clock: Clock, air: Air, storage: Storage, profile: Profile, faults: Faults, first_id: int
    ) -> None:
        self.ledger = Ledger()
        self.unheard = 0
        """Frames thrown away because nobody could receive them."""
        self._clock = clock
        self._air = air
        self._storage = storage
        self._profile = profile
        self._faults = faults
        self._random = random.Random(faults.seed)  # noqa: S311 a simulation, not a secret
        self._encode = encoder(profile.codec)
        self._sleep = Sleep()
        self._next_id = first_id & 0xFFFF
        self._numbered = 0
        self._queue: deque[tuple[bytes, Span]] = deque()

    def hear(self, block: Samples) -> None:
        """Take one microphone block that ends now."""
        if self._storage.sending:  # no sleep during a storage transfer (dossier §5.5)
            self._sleep = Sleep()
        awake = self._sleep.hears(block) if self._profile.mic_sleep else True
        per_frame = self._profile.codec.frame_us * SAMPLE_RATE // 1_000_000
        for index, frame in enumerate(block.reshape(-1, per_frame)):
            if awake or self._air.off:
                self._frame(lambda frame=frame: self._encode(frame), self._span(index))  # type: ignore[misc]
            else:
                self.ledger.note(self._span(index), Fate.ASLEEP)

    def say(self, packets: Sequence[bytes]) -> None:
        """Take the codec frames of one block that were encoded before."""
        for index, packet in enumerate(packets):
            self._frame(lambda packet=packet: packet, self._span(index))  # type: ignore[misc]

    @property
    def next_id(self) -> int:
        """Id of the next notification."""
        return self._next_id

    def restart(self) -> None:
        """Begin anew, as after a start of the pendant: ids from 0."""
        self._next_id = 0
        self._sleep = Sleep()

    def lose(self, fate: Fate) -> None:
        """Throw away what waits."""
        while self._queue:
            self.ledger.note(self._queue.popleft()[1], fate)

    def catch_up(self) -> None:
        """Send what waits, as far as somebody still listens."""
        while self._queue and self._air.heard():
            self._transmit(*self._queue.popleft())

    def _span(self, index: int) -> Span:
        start_us = self._clock.boot_us() - BLOCK_US + index * self._profile.codec.frame_us
        return start_us, start_us + self._profile.codec.frame_us

    def _frame(self, packet: Callable[[], bytes], span: Span) -> None:
        """Decide what becomes of one frame; it is only encoded when somebody may hear it."""
        air = self._air
        if not air.heard():
            self.unheard += 1
            if air.consumed:
                self._next_id = (self._next_id + 1) & 0xFFFF
            fate = air.why_not()
            self.ledger.note(span, fate)
            self._store(packet, span, fate)
        elif not air.reachable:
            if len(self._queue) < self._profile.queue_frames:
                self._queue.append((packet(), span))
            else:
                self.ledger.note(span, Fate.DROPPED if air.stalled else air.why_not())
        elif self._happens(self._faults.drop):
            self.ledger.note(span, Fate.DROPPED)
        else:
            self._transmit(packet(), span)

    def _store(self, packet: Callable[[], bytes], span: Span, fate: Fate) -> None:
        """Let the storage have what nobody hears, as long as nobody is connected (dossier §6.0)."""
        if fate is Fate.OFF or not self._storage.present:
            return
        if self._air.connected:
            self._storage.discard(span)
        else:
            self._storage.take(packet(), span, self._clock.boot_us(), (self._next_id, self._next_id))

    def _transmit(self, packet: bytes, span: Span) -> None:
        """Number a frame and send it in as many notifications as it takes."""
        self._air.flows()
        first_id = self._next_id
        fate = Fate.DELIVERED
        room = self._air.mtu - ATT_HEADER_BYTES
        step = self._limit() - HEADER_BYTES
        for index, start in enumerate(range(0, len(packet), step)):
            value = self._next_id.to_bytes(2, "little") + bytes([index]) + packet[start : start + step]
            self._next_id = (self._next_id + 1) & 0xFFFF
            self._numbered += 1
            if len(value) > room:
                # the stack refuses it and the firmware gives up the whole frame; its id is gone (dossier §2.3)
                fate = Fate.LOST
                break
            every = self._faults.lose_every
            if self._happens(self._faults.lose) or (every and self._numbered % every == 0):
                fate = Fate.LOST
                continue
            self._air.send_audio(value)
            if self._happens(self._faults.duplicate):
                self._air.send_audio(value)
        self.ledger.note(span, fate)
        if self._storage.persists_live:
            self._storage.take(packet, span, self._clock.boot_us(), (first_id, self._next_id))

    def _limit(self) -> int:
        """Longest notification that the firmware makes, in bytes (dossier §2.3)."""
        if self._profile.fragments_by_data_length:
            return self._air.data_length
        return self._air.mtu if self._profile.ignores_att_header else self._air.mtu - ATT_HEADER_BYTES

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
