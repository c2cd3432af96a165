"""What goes wrong with a virtual pendant: chosen shares and states, acts at a time, and the record of what was so."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Act(StrEnum):
    """What can happen to a pendant at a chosen time."""

    CUT = "cut"
    """The link breaks at once, for both sides."""
    END = "end"
    """The pendant ends the connection."""
    AWAY = "away"
    """Out of range for some seconds."""
    HELD = "held"
    """Another central takes the only link for some seconds."""
    STALL = "stall"
    """Nothing gets through for some seconds, but the link holds."""
    REBOOT = "reboot"
    """It crashes and starts again; the seconds set its clock back further."""
    OFF = "off"
    """Switched off for some seconds."""
    PRESS = "press"
    """A tap on its button; seconds name another code (dossier §4.4)."""


class Timed(msgspec.Struct, frozen=True):
    """One act."""

    act: Act
    at: float
    """Seconds after the pendant was made."""
    seconds: float | None = None
    """How long; what it means for acts without a length is said there."""


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
    timed: tuple[Timed, ...] = ()
    drift_ppm: float = 0.0
    """How much faster than real time its clock and its microphone run, in parts per million."""
    unset_clock: bool = False
    """Nobody has ever set its clock."""
    security_request: bool = False
    """Asks for pairing on each connect (dossier §2.4)."""
    insufficient_encryption: bool = False
    """Refuses content to links that are not encrypted (dossier §2.4)."""
    encryption_error: int = 0x0F
    """With which ATT code it does; 0x05, insufficient authentication, is the other one in use."""
    stale_bond: bool = False
    """Forgets its first bond when that connection ends."""
    tap_power_off: bool = False
    """A single tap switches it off, as one CV1 revision does (dossier §4.4)."""
    storage_not_ready: float = 0.0
    """So many seconds after each connect the ring cannot be asked (dossier §6.5)."""
    storage_speed: float = 1.0
    """How many times as fast as a real pendant it hands over what it stored; 0 for as fast as it can."""
    ring_records: int = 0
    """Room for so many records of a ring, or blocks of files; 0 for what a real one has."""
    done_crc: bool = False
    """The ring tells a checksum at the end of a transfer (dossier §6.7)."""
    no_auto_advance: bool = False
    """The ring frees nothing by itself, unlike that of firmware 3.0.21 (dossier §6.5)."""
    zero_stamps: bool = False
    """A custody pendant that does not know the time writes 0 for it, not its uptime (dossier §6.6)."""
    lose_stored: float = 0.0
    """Share of the notifications of stored audio that get lost: in a client's own Bluetooth stack, unknown to the
    pendant; on generation A in the pendant, which then leaves the block out (dossier §6.2)."""


class Fate(StrEnum):
    """What became of a stretch of audio."""

    DELIVERED = "delivered"
    LOST = "lost"
    """On the air, or refused by the pendant's own stack: its ids are missing."""
    DROPPED = "dropped"
    """Before numbering: no id is missing."""
    ASLEEP = "asleep"
    """The microphone slept (dossier §5.5)."""
    AWAY = "away"
    OFF = "off"
    """Switched off, or restarting."""
    HELD = "held"
    """Another central had the link."""
    CUT = "cut"
    """From a broken or ended link until audio flowed again."""
    UNSUBSCRIBED = "unsubscribed"
    """Connected, but not subscribed, too early after the connection, or with too small an MTU."""
    UNCONNECTED = "unconnected"
    """Nobody was connected, for no reason of the pendant's."""


class Truth(msgspec.Struct, frozen=True):
    """What became of one stretch of what the microphone heard; ends are boot time of the pendant's clock."""

    start_us: int
    end_us: int
    fate: Fate
