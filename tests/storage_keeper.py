"""A keeper of stored audio in memory whose transactions can be crashed, and what must hold by a pendant's truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from omi_edge.capture.blocks import Record
from omi_edge.capture.stored import Cursor, Loss
from omi_edge.virtual.holdings import Block, StoredFate
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import StorageKind

BY_ITSELF = (StoredFate.SELF_FREED, StoredFate.SELF_FREED_UNSEEN, StoredFate.OVERWRITTEN)
"""What a pendant gives up without our word."""


class Crashed(Exception):
    """The process that keeps is gone: from here on nothing of it is durable."""


class CrashingKeeper:
    """Conforms to Keeper. Each call is one transaction: all of it is there afterwards, or nothing."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], Record] = {}
        self.cursor: Cursor | None = None
        self.met: Cursor | None = None
        """The first: what was gone before it was never ours to miss."""
        self.final = (0, 0)
        """Store and number before which nothing changes any more."""
        self.losses: list[Loss] = []
        self.transactions = 0
        self.on_crash: Callable[[], None] = lambda: None
        """What dies with the process: its links."""
        self._crash_at: int | None = None
        self._after = False
        self._dead = False

    def crash_at(self, transaction: int, *, after: bool = False) -> None:
        """Die at that transaction from now, counted from 1: before it is durable, or right ``after``."""
        self._crash_at, self._after = self.transactions + transaction, after

    def restart(self) -> None:
        """Live again with what is durable."""
        self._crash_at, self._dead = None, False

    async def keep(self, records: Sequence[Record], cursor: Cursor) -> None:
        """See Keeper."""
        self._commit(cursor, records=records)

    async def freed(self, cursor: Cursor) -> None:
        """See Keeper."""
        self._commit(cursor, final=True)

    async def lost(self, loss: Loss, cursor: Cursor) -> None:
        """See Keeper."""
        self._commit(cursor, loss=loss)

    async def kept(self, store: int, since: int, most: int) -> Sequence[tuple[int, bytes]]:
        """See Keeper."""
        if self._dead:
            self._die()
        first = max((store, since), self.final)
        places = sorted(place for place in self.records if place[0] == store and place >= first)
        return [(place[1], self.records[place].raw) for place in places[:most]]

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """See Keeper."""
        assert 0 <= done_bytes <= total_bytes

    @property
    def raws(self) -> Counter[bytes]:
        """How often each record was kept, by its bytes."""
        return Counter(record.raw for record in self.records.values())

    def _commit(
        self, cursor: Cursor, *, records: Sequence[Record] = (), loss: Loss | None = None, final: bool = False
    ) -> None:
        self.transactions += 1
        dies = self._crash_at is not None and self.transactions >= self._crash_at
        if self._dead or (dies and not self._after):
            self._die()
        # as a file would have it: read back from its bytes
        self.cursor = msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor)
        self.met = self.met or self.cursor
        assert all((record.store, record.seq) >= self.final for record in records), "what is final is replaced"
        if final:
            self.final = max(self.final, (cursor.store, cursor.position))
        self.records |= {(record.store, record.seq): record for record in records}
        if loss is not None:
            self.losses.append(loss)
        if dies:
            self._die()

    def _die(self) -> None:
        if not self._dead:
            self._dead = True
            self.on_crash()
        raise Crashed


def raw_of(pendant: Pendant, block: Block) -> bytes:
    """Return a block as a client keeps it."""
    return block.record if pendant.profile.storage is StorageKind.RING else block.raw


def check_freed(pendant: Pendant, keeper: CrashingKeeper) -> None:
    """Assert that the pendant was told to free nothing that is not durable."""
    raws = keeper.raws
    for block in pendant.storage.blocks:
        assert block.fate is not StoredFate.FREED or raw_of(pendant, block) in raws, f"{block.store}, {block.seq}"


def check_all(pendant: Pendant, keeper: CrashingKeeper) -> None:
    """Assert that everything is home: once, in order, and that what is missing is named, no less and no more.

    After a drain that ended well, of a pendant of which no notification gets lost on the way, or which frees nothing
    until it is told.
    """
    check_freed(pendant, keeper)
    blocks, raws = pendant.storage.blocks, keeper.raws
    had = [block for block in blocks if block.fate in (StoredFate.FREED, *BY_ITSELF)]
    assert not [block for block in blocks if block.fate is StoredFate.STORED], "something was left behind"
    assert max(raws.values(), default=1) == 1, "something came twice"
    assert not set(raws) - {raw_of(pendant, block) for block in had}, "something came that was never stored"
    missing = [block for block in had if raw_of(pendant, block) not in raws]
    if pendant.profile.storage is StorageKind.RING and keeper.met is not None:
        missing = [block for block in missing if block.seq >= keeper.met.position]
    assert all(block.fate in BY_ITSELF for block in missing)
    assert sum(loss.records for loss in keeper.losses) == len(missing), "a loss is missing, or invented"
    if pendant.profile.storage is StorageKind.RING:
        named = {seq for loss in keeper.losses for seq in range(loss.first, loss.last + 1)}
        assert named == {block.seq for block in missing}
    places = {raw_of(pendant, block): (block.store, block.seq) for block in had}
    kept = [(store, *places[keeper.records[store, seq].raw]) for store, seq in sorted(keeper.records)]
    if pendant.profile.storage is StorageKind.MULTI_FILE:
        # files go by their names, which a clock gave that may have gone back: what counts is the order in each
        assert all(here[0] != there[0] or here[1:] < there[1:] for here, there in pairwise(kept)), "out of order"
    else:
        assert kept == sorted(kept, key=lambda place: place[1:]), "out of order"


def check_lossy_files(pendant: Pendant, keeper: CrashingKeeper) -> None:
    """Assert that all is home that can be, of a pendant whose notifications get lost and that frees them by itself.

    What it was told to free is there once and in order. Of a file that it freed by itself the rest may be shifted, and
    is named: as many blocks as are missing where a notification is a block; else what is behind the hole is no block.
    """
    check_freed(pendant, keeper)
    blocks, raws = pendant.storage.blocks, keeper.raws
    assert not [block for block in blocks if block.fate is StoredFate.STORED], "something was left behind"
    assert max(raws.values(), default=1) == 1, "something came twice"
    had = {block.raw: (block.store, block.seq) for block in blocks if block.fate in (StoredFate.FREED, *BY_ITSELF)}
    holed = {loss.store for loss in keeper.losses}
    kept = [(store, had.get(keeper.records[store, seq].raw)) for store, seq in sorted(keeper.records)]
    assert all(place is not None or store in holed for store, place in kept), "something came that was never stored"
    here = [place for _, place in kept if place is not None]
    assert all(one[0] != other[0] or one < other for one, other in pairwise(here)), "out of order"
    missing = len(had) - len(here)
    assert missing == 0 or keeper.losses, "a loss is not named"
    if pendant.mtu >= 447:
        assert sum(loss.records for loss in keeper.losses) == missing, "a loss is missing, or invented"
