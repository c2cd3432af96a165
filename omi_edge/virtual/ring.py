"""The ring of generation C as it lies on the medium: numbered records in batches, the oldest overwritten (§6.6)."""

from __future__ import annotations

import random

from omi_edge.virtual.holdings import Block, StoredFate

BATCH_RECORDS = 36
"""Written, read and overwritten together (dossier §6.5, §6.6)."""
RECORD_BYTES = 444
"""Timestamp and block (dossier §6.5)."""
RING_RECORDS = 1_058_976
"""Room on the 482 MB of a CV1 (dossier §6.6): floor((sectors - 64) / 32) × 36, with 941,406 sectors of 512 bytes."""


class Ring:
    """Records from ``read_seq`` up to, and without, ``write_seq`` are unread; ``capacity`` is told as it is given."""

    def __init__(self, capacity: int = RING_RECORDS, seed: int = 0) -> None:
        self.capacity = capacity
        self.store = 1
        """Counts the rings of this pendant: a cleared one is another."""
        self.read_seq = self.write_seq = self.dropped = 0
        self._random = random.Random(f"ring {seed}")  # noqa: S311 a simulation, not a secret
        self.ring_id = self._new_id()
        """Random, never 0 (dossier §6.7)."""
        self._committed = 0
        self._blocks: dict[int, Block] = {}

    @property
    def unread(self) -> int:
        """Records that nobody freed."""
        return self.write_seq - self.read_seq

    def put(self, block: Block) -> None:
        """Append a record; a batch that begins where an old one lies takes its place."""
        batches = max(1, self.capacity // BATCH_RECORDS)
        self._overwrite((self.write_seq // BATCH_RECORDS + 1 - batches) * BATCH_RECORDS)
        block.store, block.seq = self.store, self.write_seq
        self._blocks[self.write_seq] = block
        self.write_seq += 1
        if self.write_seq % BATCH_RECORDS == 0:
            self.commit()

    def get(self, seq: int) -> Block | None:
        """Return a record; None when it is not there any more."""
        return self._blocks.get(seq)

    def commit(self) -> None:
        """Write the unfinished batch, too."""
        self._committed = self.write_seq

    def advance(self, seq: int, *, by_itself: bool) -> None:
        """Free all records before ``seq``: the pendant ``by_itself``, or because it was told to."""
        for freed in range(self.read_seq, seq):
            block = self._blocks.pop(freed)
            if by_itself:
                block.give_up()
            else:
                block.fate = StoredFate.FREED
        self.read_seq = max(self.read_seq, seq)

    def crash(self) -> None:
        """Lose what was not committed: at worst a batch (dossier §6.6)."""
        for seq in range(max(self._committed, self.read_seq), self.write_seq):
            self._blocks.pop(seq).fate = StoredFate.CRASHED
        self.write_seq = max(self._committed, self.read_seq)

    def clear(self) -> None:
        """Begin another ring: numbers from 0, a new id (dossier §6.7). That ``dropped`` begins anew is assumed."""
        for block in self._blocks.values():
            block.fate = StoredFate.WIPED
        self._blocks.clear()
        self.read_seq = self.write_seq = self.dropped = self._committed = 0
        self.store += 1
        self.ring_id = self._new_id()

    def _overwrite(self, seq: int) -> None:
        for lost in range(self.read_seq, seq):
            self._blocks.pop(lost).fate = StoredFate.OVERWRITTEN
            self.dropped += 1
        self.read_seq = max(self.read_seq, seq)

    def _new_id(self) -> int:
        return self._random.randrange(1, 1 << 64)
