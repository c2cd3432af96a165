"""Fetches what a pendant stored while it was away: durable here first, freed there afterwards (dossier §6).

The link must be up, the audio subscription on and the pendant's clock set; none of them is touched. Nothing is ever
wiped: the ring's CLEAR and generation A's nuke are not sent. The firmware's version alone chooses the protocol
(``device.storage_of``); ``placing`` says when the records were heard.
"""

from __future__ import annotations

import msgspec

from omi_edge.capture import multi, ring, single
from omi_edge.capture.blocks import RECORD_BYTES
from omi_edge.capture.device import Storage
from omi_edge.capture.dialogue import Dialogue
from omi_edge.capture.link import Link
from omi_edge.capture.stored import Cursor, Drained, Keeper, Tally
from omi_edge.clock import Clock

FILE_STORAGE_BYTES = 480_000_000
"""Where generations A and B stop recording without a word (dossier §6.6)."""


class Capacity(msgspec.Struct, frozen=True):
    """How full a pendant's storage is."""

    used_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        """0 for empty, 1 for full."""
        return min(1.0, self.used_bytes / self.total_bytes)


async def drain(link: Link, storage: Storage, clock: Clock, keeper: Keeper, cursor: Cursor | None = None) -> Drained:
    """Fetch everything that is stored, from ``cursor`` on; None when nothing was ever fetched from this pendant.

    Raises LinkError's family, and whatever ``keeper`` raises. What was kept by then stays; the keeper has the cursor to
    go on from. Cancelling is safe: the pendant is told to stop, and what arrived is kept. A pendant keeps one file or
    ring after another, so its cursor belongs to the pendant, not to the drain.
    """
    tally = Tally(keeper, cursor)
    if storage is Storage.NONE:
        return tally.summary()
    machine = {Storage.SINGLE_FILE: single.drain, Storage.MULTI_FILE: multi.drain, Storage.RING: ring.drain}[storage]
    async with Dialogue(link, clock) as talk:
        await machine(talk, tally)
    return tally.summary()


def capacity(storage: Storage, status: bytes) -> Capacity | None:
    """Read how full the storage is from characteristic 30295782; None where that cannot be told.

    The status is little-endian (dossier §6.2, §6.4, §6.5). A ring tells used and free bytes; the others only used.
    """
    if storage is Storage.NONE or len(status) < 8:
        return None
    used = int.from_bytes(status[:4], "little")
    if storage is not Storage.RING:
        return Capacity(used, FILE_STORAGE_BYTES)
    unread, free = (int.from_bytes(status[at : at + 4], "little") for at in (4, 8)) if len(status) >= 12 else (0, 0)
    used = used or unread * RECORD_BYTES
    return Capacity(used, used + free) if used + free else None
