"""Vectors in memory: sign bits of all of them, for a scan that finds the nearest candidates."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from omi_edge.store.connection import Connection

Vector = npt.NDArray[np.float32]


class VectorIndex:
    """The sign bits of all vectors of one model, in memory: 48 bytes each at 384 dimensions.

    The writer thread notes changes while its transaction runs and applies them after the commit; readers scan a
    consistent copy.
    """

    def __init__(self) -> None:
        self.model = ""
        self._lock = threading.Lock()
        self._ids = np.zeros(0, np.int64)
        self._bits = np.zeros((0, 0), np.uint8)
        self._count = 0
        self._places: dict[int, int] = {}
        self._pending: list[tuple[int, bytes | None]] = []

    def __len__(self) -> int:
        return self._count

    def load(self, conn: Connection, model: str) -> None:
        """Read everything anew."""
        rows = conn.execute(
            "SELECT document_id, bits FROM vectors WHERE model = ? ORDER BY document_id", (model,)
        ).fetchall()
        with self._lock:
            self.model = model
            self._count = len(rows)
            self._ids = np.array([row[0] for row in rows], np.int64)
            self._bits = (
                np.frombuffer(b"".join(row[1] for row in rows), np.uint8).reshape(len(rows), -1).copy()
                if rows
                else np.zeros((0, 0), np.uint8)
            )
            self._places = {int(document_id): place for place, document_id in enumerate(self._ids)}

    def note(self, document_id: int, bits: bytes | None) -> None:
        """Remember a change of the running transaction: new bits, or None for a removal."""
        self._pending.append((document_id, bits))

    def forget_pending(self) -> None:
        """The transaction was undone."""
        self._pending.clear()

    def take_pending(self) -> None:
        """The transaction is durable."""
        if not self._pending:
            return
        with self._lock:
            for document_id, bits in self._pending:
                if bits is None:
                    self._remove(document_id)
                else:
                    self._put(document_id, np.frombuffer(bits, np.uint8))
            self._pending.clear()

    def nearest(self, vector: Vector, count: int) -> list[int]:
        """Return up to ``count`` document ids by Hamming distance of the sign bits, nearest first."""
        wanted = sign_bits(vector)
        with self._lock:
            ids, bits = self._ids[: self._count], self._bits[: self._count]
            if not len(ids) or bits.shape[1] != len(wanted):
                return []
            apart = np.bitwise_count(np.bitwise_xor(bits, wanted)).sum(axis=1, dtype=np.uint16)
            if count < len(ids):
                chosen = np.argpartition(apart, count)[:count]
                chosen = chosen[np.argsort(apart[chosen], kind="stable")]
            else:
                chosen = np.argsort(apart, kind="stable")
            return [int(document_id) for document_id in ids[chosen]]

    def _put(self, document_id: int, bits: npt.NDArray[np.uint8]) -> None:
        place = self._places.get(document_id)
        if place is None:
            if self._bits.shape[1] != len(bits):  # the first vector says how wide they are
                self._bits = np.zeros((0, len(bits)), np.uint8)
                self._ids = np.zeros(0, np.int64)
                self._count = 0
                self._places.clear()
            if self._count == len(self._ids):
                room = max(1024, self._count)
                self._ids = np.concatenate([self._ids[: self._count], np.zeros(room, np.int64)])
                self._bits = np.concatenate([self._bits[: self._count], np.zeros((room, len(bits)), np.uint8)])
            place = self._count
            self._count += 1
            self._places[document_id] = place
            self._ids[place] = document_id
        self._bits[place] = bits

    def _remove(self, document_id: int) -> None:
        place = self._places.pop(document_id, None)
        if place is None:
            return
        last = self._count - 1
        if place != last:
            self._ids[place] = self._ids[last]
            self._bits[place] = self._bits[last]
            self._places[int(self._ids[place])] = place
        self._count = last


def sign_bits(vector: Vector) -> npt.NDArray[np.uint8]:
    """Return one bit for each dimension, packed: whether it is above zero."""
    return np.packbits(vector > 0)
