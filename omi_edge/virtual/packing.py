"""Codec frames in, blocks of 440 bytes out, as the firmware does it (dossier §6.1).

The firmware fills one and the same buffer again and again: behind the last frame lies what an earlier block left there.
"""

from __future__ import annotations

from omi_edge.virtual.holdings import Block
from omi_edge.virtual.ledger import Span

BLOCK_BYTES = 440
LAST_BYTE = BLOCK_BYTES - 1
"""Never filled, so always stale."""
LONGEST_FRAME = 254
"""A length is one byte, and 255 is the marker of firmware 3.0.16."""
MARKER = 0xFF
MARKER_BYTES = 5
"""``FF, u32 little-endian seconds since 1970`` (dossier §6.1, firmware 3.0.16)."""


class Packer:
    """The buffer."""

    def __init__(self) -> None:
        self._buffer = bytearray(BLOCK_BYTES)
        self._fill = 0
        self._spans: list[Span] = []

    @property
    def spans(self) -> tuple[Span, ...]:
        """Of the frames in the block that is not full yet."""
        return tuple(self._spans)

    def add(self, frame: bytes, span: Span, ids: tuple[int, int] = (0, 0)) -> Block | None:
        """Take a frame of 1 to LONGEST_FRAME bytes; return the block that is full by it.

        ``ids`` are the one that the frame has on the air and the one after it.
        """
        assert 1 <= len(frame) <= LONGEST_FRAME
        size = len(frame) + 1
        full = None
        if self._fill + size > LAST_BYTE:
            # the length is written before the firmware sees that the frame does not fit: trap 10 of the dossier §11
            self._buffer[self._fill] = len(frame)
            full = self._emit(ids[0])
        self._buffer[self._fill : self._fill + size] = bytes([len(frame)]) + frame
        self._fill += size
        self._spans.append(span)
        return self._emit(ids[1]) if self._fill == LAST_BYTE else full

    def mark(self, seconds: int, next_id: int = 0) -> Block | None:
        """Write down a time, seconds since 1970, as firmware 3.0.16 does; return the block that is full by it.

        That a marker which does not fit leaves zeros behind is assumed: the firmware's side is not known (dossier §12).
        """
        full = None
        if self._fill + MARKER_BYTES > LAST_BYTE:
            self._buffer[self._fill :] = bytes(BLOCK_BYTES - self._fill)
            full = self._emit(next_id)
        self._buffer[self._fill : self._fill + MARKER_BYTES] = bytes([MARKER]) + seconds.to_bytes(4, "little")
        self._fill += MARKER_BYTES
        return self._emit(next_id) if self._fill == LAST_BYTE else full

    def lose(self) -> tuple[Span, ...]:
        """Lose what is in RAM; return the spans of its frames."""
        lost = self.spans
        self._buffer = bytearray(BLOCK_BYTES)
        self._fill = 0
        self._spans = []
        return lost

    def _emit(self, next_id: int) -> Block:
        block = Block(bytes(self._buffer), self.spans, next_id)
        self._fill = 0
        self._spans = []
        return block
