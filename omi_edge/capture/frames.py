"""Notifications in, whole codec frames out: the reassembly rules of the protocol dossier §5.3. Knows no radio.

A notification is ``u16 id (little-endian), u8 fragment index, codec bytes``. Ids count notifications, wrap, and go on
across reconnects. In *immediate* mode every index-0 notification is one frame (Opus, where a frame always fits); an
index above 0 turns to *deferred* mode, in which a frame ends when the next one begins, or after a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

from omi_edge.domain import Codec, Frame, Notification

HEADER_BYTES = 3
DEFERRED_PAUSE_US = 150_000
"""A frame without a successor for this long is whole; a normal pause between bursts is 100 ms (dossier §5.3)."""
FRAME_LIMIT = 4096
"""Largest frame that is put together; the largest legitimate one has 320 bytes."""
LOST_LIMIT = 0x7FFF


@dataclass
class Counters:
    """What went through, for status and tests."""

    notifications: int = 0
    frames: int = 0
    lost: int = 0
    duplicates: int = 0
    orphans: int = 0
    malformed: int = 0
    restarts: int = 0


class Reassembler:
    """One stream of notifications. Takes any bytes, never raises, keeps at most one frame."""

    def __init__(self, codec: Codec) -> None:
        self.counters = Counters()
        self._deferred = codec not in (Codec.OPUS_10MS, Codec.OPUS_20MS)
        self._current: bytearray | None = None
        self._current_boot_us = 0
        self._last_index = -1
        self._expected: int | None = None
        self._previous = b""
        self._lost = 0

    @property
    def deferred(self) -> bool:
        """Whether a frame ends only where the next begins."""
        return self._deferred

    def feed(self, notification: Notification) -> list[Frame]:
        """Take one notification; return the frames that are whole now (at most two)."""
        value = notification.data
        self.counters.notifications += 1
        if len(value) <= HEADER_BYTES:
            self.counters.malformed += 1
            return []
        number = value[0] | value[1] << 8
        index = value[2]
        out: list[Frame] = []
        if (
            self._deferred
            and self._current is not None
            and notification.boot_us - self._current_boot_us > DEFERRED_PAUSE_US
        ):
            self._emit(out)
        if self._expected is not None and not self._continues(number, value):
            return out
        if index == 0:
            self._emit(out)
            self._current = bytearray(value[HEADER_BYTES:])
            self._current_boot_us = notification.boot_us
        else:
            self._add_fragment(index, value)
        self._last_index = index
        self._expected = (number + 1) & 0xFFFF
        self._previous = value
        if not self._deferred and index == 0:
            self._emit(out)
        return out

    def flush(self) -> list[Frame]:
        """Return the frame that waits for a successor, when the link is gone or has paused."""
        out: list[Frame] = []
        self._emit(out)
        return out

    def _continues(self, number: int, value: bytes) -> bool:
        assert self._expected is not None
        ahead = (number - self._expected) & 0xFFFF
        if ahead == 0xFFFF and value == self._previous:
            self.counters.duplicates += 1
            return False
        if ahead > LOST_LIMIT:  # the counter started anew: a reboot, not a loss
            self.counters.restarts += 1
            self._current = None
        elif ahead > 0:
            self.counters.lost += ahead
            self._lost += ahead
            self._current = None
        return True

    def _add_fragment(self, index: int, value: bytes) -> None:
        if not self._deferred:
            self._deferred = True  # this pendant does fragment
        if self._current is None or index != self._last_index + 1:
            self.counters.orphans += 1
            self._current = None
        elif len(self._current) + len(value) > FRAME_LIMIT:
            self.counters.malformed += 1
            self._current = None
        else:
            self._current += value[HEADER_BYTES:]

    def _emit(self, out: list[Frame]) -> None:
        if self._current is None:
            return
        out.append(Frame(bytes(self._current), self._current_boot_us, self._lost))
        self.counters.frames += 1
        self._current = None
        self._lost = 0
