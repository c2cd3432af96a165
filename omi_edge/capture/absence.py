"""Why a source was silent: every cause that fits what this side could see, and no other.

A ``Witness`` writes down what happened on one pendant's link. When audio comes again, ``causes`` judges the hole by it.
Much looks the same from here: a pendant that was carried away, one whose link a phone has taken without listening, and
one beside a microwave oven are all "nothing was heard for four seconds". Then several causes are named.

What the ids tell is the best evidence (dossier §5.2): they count notifications over all connections of one boot.
"""

from __future__ import annotations

from collections import deque

import msgspec

from omi_edge.domain import Cause, Ending

SPLIT_IDS = 0x8000
"""An id further ahead than half the range has gone back (dossier §5.3)."""
IN_FLIGHT_IDS = 150
"""Ids that a breaking link can swallow: the pendant's queue of 64 frames (dossier §5.4), its stack's buffers, and what
its three tries a notification use up before the supervision timeout."""
IDS_PER_SECOND = 200
"""Most that a pendant sends, with uncompressed audio (dossier §5.1)."""
STALL_US = 1_500_000
"""A link that stalls for less hides itself: the pendant's queue holds 1.28 s (dossier §5.4)."""
EDGE_US = 200_000
"""So near to an edge of a hole it may belong to the audio beside it: bursts are 100 ms apart (dossier §5.4)."""
SLEEP_AFTER_US = 9_000_000
"""The microphone sleeps after 10 s of quiet (dossier §5.5); what was lost of them must not count against it."""
KEPT_EVENTS = 256


class Hole(msgspec.Struct, frozen=True):
    """A stretch of a timeline without frames, as the frames around it show it. Times are boot time."""

    start_us: int
    end_us: int
    lost: int = 0
    """Frames that ids within one connection say are missing."""
    jump: int | None = None
    """Frame.jump, when the frame after the hole is the first of a connection."""
    reconnected: bool = False
    """Whether the frame after the hole is the first of a connection."""
    quiet_us: int = 0
    """How long before the hole the microphone had heard next to nothing."""
    frame_us: int = 20_000
    unseen: bool = False
    """Whether notifications were thrown away unseen meanwhile, because the owner wished so."""

    @property
    def lost_in_flight(self) -> int:
        """Notifications that the breaking link swallowed, as far as the ids tell."""
        if self.jump is None or not self.reconnected or self.unseen or self.jump > IN_FLIGHT_IDS:
            return 0
        return self.jump


class _Event(msgspec.Struct, frozen=True):
    at_us: int
    ending: Ending | None = None
    """Set when a connection ended."""
    radio_down: bool = False


class Witness:
    """What was seen of one pendant's link."""

    def __init__(self) -> None:
        self.mic_sleeps = True
        """Whether its firmware lets the microphone sleep; True until it is known."""
        self._events: deque[_Event] = deque(maxlen=KEPT_EVENTS)
        self._alive_us: deque[int] = deque(maxlen=KEPT_EVENTS)

    def ended(self, at_us: int, ending: Ending) -> None:
        """A connection ended."""
        self._events.append(_Event(at_us, ending))

    def radio_down(self, at_us: int) -> None:
        """This machine's Bluetooth could not be used."""
        self._events.append(_Event(at_us, radio_down=True))

    def alive(self, at_us: int) -> None:
        """The pendant answered or told something other than audio."""
        self._alive_us.append(at_us)

    def causes(self, hole: Hole) -> tuple[Cause, ...]:
        """Return every cause that fits, the likelier first; one alone is certain."""
        return self._apart(hole) if hole.reconnected else self._connected(hole)

    def _connected(self, hole: Hole) -> tuple[Cause, ...]:
        length_us = hole.end_us - hole.start_us
        lost_us = hole.lost * hole.frame_us
        if hole.lost and length_us - lost_us < STALL_US:
            return (Cause.LOST,)
        if not self.mic_sleeps or hole.quiet_us < SLEEP_AFTER_US:
            return (Cause.LOST,)  # a microphone that is awake makes frames: they were lost without leaving a gap in ids
        # a stalled link delivers nothing at all, and at its end first of all the audio that waited
        told = any(hole.start_us + EDGE_US < at_us < hole.end_us - EDGE_US for at_us in self._alive_us)
        if told and not hole.lost:
            return (Cause.DEVICE_SILENT,)
        return (Cause.DEVICE_SILENT, Cause.LOST)

    def _apart(self, hole: Hole) -> tuple[Cause, ...]:
        seconds = (hole.end_us - hole.start_us) / 1e6
        possible = IN_FLIGHT_IDS + round(seconds * IDS_PER_SECOND)
        during = [event for event in self._events if hole.start_us - STALL_US <= event.at_us <= hole.end_us]
        if hole.jump is not None:
            ahead = hole.jump
            if ahead >= SPLIT_IDS or ahead > possible:
                # the ids went back; further ahead than anybody could have listened they can only have begun anew
                here_too = any(event.radio_down or event.ending is Ending.RADIO for event in during)
                return (Cause.PENDANT_OFF, Cause.DISCONNECTED) if here_too else (Cause.PENDANT_OFF,)
            if ahead > IN_FLIGHT_IDS and not hole.unseen:
                return (Cause.DISCONNECTED,)  # somebody else listened meanwhile
        endings = [event.ending for event in during if event.ending is not None]
        away = (Cause.OUT_OF_RANGE, Cause.DISCONNECTED)
        # without ids to compare it may have been off as well
        off = () if hole.jump is not None else (Cause.PENDANT_OFF,)
        if not endings and not any(event.radio_down for event in during):
            return (Cause.UNKNOWN,)
        first = endings[0] if endings else Ending.RADIO
        here = {Ending.RADIO, Ending.LOCAL, Ending.AUTHENTICATION}
        if first in here and set(endings) <= here:
            return (Cause.DISCONNECTED, *off)
        if first is Ending.REMOTE and not off:
            return (Cause.DISCONNECTED,)
        return (*away, *off)
