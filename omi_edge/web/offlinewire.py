"""What the API tells of audio that a pendant stored while it was away."""

from __future__ import annotations

import msgspec


class OfflineRun(msgspec.Struct, frozen=True):
    """Audio without a hole that a pendant stored."""

    id: str
    state: str
    """unknown (nobody knows yet when it was recorded), held (it waits for the owner's word), placed (it waits to be
    heard, or the rest of it), heard or discarded (the owner did not want it)."""
    start: str | None
    """Null while it is unknown."""
    seconds: float
    heard_seconds: float
    """What of it is dealt with."""
    left_out_seconds: float
    """What of that was thrown away undecoded because recording was withheld then, or was there already."""
    uncertainty_seconds: float
    """How far off its start may be, as far as anything tells."""
    guessed: bool
    """Whether its start is only the latest that it can be."""
    earliest: str | None
    latest: str | None
    """Between which it was recorded, where its time was not known."""


class OfflineLoss(msgspec.Struct, frozen=True):
    """Audio that a pendant stored and gave up before it was here."""

    why: str
    """overwritten (its storage was full), freed (its firmware freed it while the link broke off) or garbled."""
    records: int
    """How many of its blocks."""
    start: str | None
    end: str | None
    """About when; null where nothing tells, or not yet."""


class OfflineState(msgspec.Struct, frozen=True):
    """How it stands with what a pendant stored."""

    id: str
    """The pendant's address."""
    state: str
    """away (not connected, or it stores nothing), fetching, done (all that it held is here) or waiting (something is
    in the way)."""
    since: str
    done_bytes: int
    total_bytes: int
    done_seconds: float
    total_seconds: float
    """Of audio; of what has not come it is an estimate."""
    left_seconds: float | None
    """How long the rest will take at the speed so far; null where that cannot be told."""
    message: str
    """What is in the way, and the cure."""
    waiting_bytes: int
    """Here and not heard yet, held recordings included."""
    waiting_seconds: float
    """Of audio that has its time and will be heard without anybody's word."""
    held: int
    """Recordings that wait for the owner's word."""
    event: int
    """Number of the newest event: what follows it is news to this."""


class Offline(OfflineState, frozen=True):
    """The same with the newest recordings and losses, the newest first."""

    runs: list[OfflineRun]
    losses: list[OfflineLoss]


class HeldDecision(msgspec.Struct, forbid_unknown_fields=True):
    """What the owner says about a held recording."""

    wanted: bool
    """True: it is heard, at the latest time that it can be of. False: it is let go of, undecoded."""
