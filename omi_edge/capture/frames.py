"""Notifications in, whole codec frames out: the reassembly rules of the protocol dossier §5.3. Knows no radio.

A notification is ``u16 id (little-endian), u8 fragment index, codec bytes``. Ids count notifications, wrap, and go on
across reconnects. In *immediate* mode every index-0 notification is one frame (Opus, where a frame always fits); an
index above 0 turns to *deferred* mode, in which a frame ends when the next one begins, or after a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

from omi_edge.domain import Codec, Frame, Notification

HEADER_BYTES = 3
VALUE_LIMIT = 512
"""No attribute value is longer (Bluetooth Core specification, Vol 3, Part F, §3.2.9)."""
DEFERRED_PAUSE_US = 150_000
"""A frame without a successor for this long is whole; a normal pause between bursts is 100 ms (dossier §5.3)."""
FRAME_LIMIT = 4096
"""Largest frame that is put together; the largest legitimate one has 320 bytes (dossier §5.1)."""
LOST_LIMIT = 0x7FFF
"""An id further ahead than half the range is one that went back: the counter started anew (dossier §5.3)."""
_TOC = {Codec.OPUS_10MS: 0xB0, Codec.OPUS_20MS: 0xB8}
"""First byte that a stock pendant's frames have (dossier §5.3)."""


@dataclass
class Counters:
    """What went through, for status and tests."""

    notifications: int = 0
    frames: int = 0
    lost: int = 0
    """Notifications that the ids say are missing."""
    duplicates: int = 0
    orphans: int = 0
    """Fragments whose frame did not begin, or misses a part."""
    malformed: int = 0
    """Too short or too long to be of a pendant."""
    restarts: int = 0
    """Times that the ids began anew: reboots of the pendant."""
    unusual: int = 0
    """Opus frames with another first byte than a stock pendant's; passed on all the same."""


class Reassembler:
    """One stream of notifications. Takes any bytes, never raises, keeps at most one frame."""

    def __init__(self, codec: Codec) -> None:
        self.counters = Counters()
        self._deferred = codec not in _TOC
        self._toc = _TOC.get(codec)
        self._current: bytearray | None = None
        self._current_boot_us = 0
        self._current_fragments = 0
        self._last_index = -1
        self._expected: int | None = None
        self._previous = b""
        self._missing = 0
        """Notifications since the last frame that belong to none."""
        self._per_frame = 1
        """Notifications of the last whole frame."""
        self._new_connection = False
        self._jump: int | None = None

    @property
    def deferred(self) -> bool:
        """Whether a frame ends only where the next begins; then call ``flush`` when nothing comes for a while."""
        return self._deferred

    def feed(self, notification: Notification) -> list[Frame]:
        """Take one notification; return the frames that are whole now (at most two).

        A frame bears the time at which its first fragment came.
        """
        value = notification.data
        self.counters.notifications += 1
        if not HEADER_BYTES < len(value) <= VALUE_LIMIT:
            self.counters.malformed += 1
            return []
        number = value[0] | value[1] << 8
        index = value[2]
        out: list[Frame] = []
        if self._deferred and notification.boot_us - self._current_boot_us > DEFERRED_PAUSE_US:
            self._emit(out)
        if self._new_connection:
            self._new_connection = False
            self._jump = None if self._expected is None else (number - self._expected) & 0xFFFF
        elif self._expected is not None and not self._continues(number, value):
            return out
        if index == 0:
            self._emit(out)
            self._current = bytearray(value[HEADER_BYTES:])
            self._current_boot_us = notification.boot_us
            self._current_fragments = 1
        else:
            self._add_fragment(index, value)
        self._last_index = index
        self._expected = (number + 1) & 0xFFFF
        self._previous = value
        if not self._deferred:
            self._emit(out)
        return out

    def flush(self) -> list[Frame]:
        """Return the frame that waits for a successor, when the link is gone or has paused (DEFERRED_PAUSE_US)."""
        out: list[Frame] = []
        self._emit(out)
        return out

    def reconnected(self) -> None:
        """Say that a new connection begins, or that what came was thrown away unseen: a step is then no loss.

        It is told as Frame.jump. Ids go on across connections of one boot (dossier §5.2), so what they did meanwhile
        tells what happened: they began anew (a restart), went on (nobody else listened) or ran ahead (somebody did).
        """
        self._new_connection = True
        self._current = None
        self._missing = 0

    def _continues(self, number: int, value: bytes) -> bool:
        """Compare with the id that was due; return False for a repeat, which is to be left out."""
        assert self._expected is not None
        ahead = (number - self._expected) & 0xFFFF
        if ahead == 0xFFFF and value == self._previous:
            self.counters.duplicates += 1
            return False
        if ahead > LOST_LIMIT:  # a reboot, not a loss: what came before it is no measure of what is missing
            self.counters.restarts += 1
            self._current = None
            self._missing = 0
        elif ahead > 0:
            self.counters.lost += ahead
            self._missing += ahead
            self._discard()
        return True

    def _add_fragment(self, index: int, value: bytes) -> None:
        self._deferred = True  # this pendant does fragment
        if self._current is None or index != self._last_index + 1:
            self.counters.orphans += 1
            self._discard(fragments=1)
        elif len(self._current) + len(value) > FRAME_LIMIT:
            self.counters.malformed += 1
            self._discard(fragments=1)
        else:
            self._current += value[HEADER_BYTES:]
            self._current_fragments += 1

    def _discard(self, fragments: int = 0) -> None:
        """Give up the frame in the making; ``fragments`` more belong to no frame."""
        if self._current is not None:
            fragments += self._current_fragments
            self._current = None
        if self._per_frame > 1:  # before a whole frame was seen, nobody knows which frame a fragment is of
            self._missing += fragments

    def _emit(self, out: list[Frame]) -> None:
        if self._current is None:
            return
        lost_frames = -(-self._missing // self._per_frame)
        out.append(Frame(bytes(self._current), self._current_boot_us, lost_frames, self._jump))
        self._jump = None
        self.counters.frames += 1
        if self._toc is not None and self._current[0] != self._toc:
            self.counters.unusual += 1
        self._per_frame = self._current_fragments
        self._current = None
        self._missing = 0
