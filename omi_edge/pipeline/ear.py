"""Hears one run of stored audio, and knows which frame is in which record.

A *run* is audio without a hole, as ``capture.placing`` found it. What is decided of it, with no segment open, is given
out together with the place in the records up to which that is: both are stored in one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from omi_edge.capture.blocks import RECORD_BYTES, Record, record_of_file, record_of_ring
from omi_edge.domain import Frame
from omi_edge.pipeline.hearing import ChunkReady, Heard, Hearing
from omi_edge.pipeline.intake import Span
from omi_edge.store.offline import ReadingRow, RecordRow, RunRow

SAME_FRAMES = 5
"""Consecutive frames that are there already, byte for byte, are there; fewer may be alike by chance."""


class Ear:
    """Hears one run, and knows which frame is in which record."""

    def __init__(
        self, hearing: Hearing, run: RunRow, reading: ReadingRow, start_us: int, leave_out: Sequence[Span]
    ) -> None:
        self.reading = reading
        self.start_us = start_us
        self.frame_us = reading.codec.frame_us
        self.fed = self.settled = self.committed = run.heard
        """Frames since the run began: handed over, decided, and durable."""
        self.next_seq = run.at_seq
        self._skip = run.at_frame
        self._hearing = hearing
        self._leave_out = leave_out
        self._base = run.heard
        """Frame at which the hearing's own run began."""
        self._places: deque[tuple[int, int, int, int]] = deque([(run.heard, run.at_seq, run.at_frame, 0)])
        """Of each record: number of its first frame, its seq, where in it that is, and how many follow."""
        self._items: list[ChunkReady] = []
        """Of frames before ``settled``,"""
        self._open: list[ChunkReady] = []
        """and of those behind: to be stored once the segment that is open has closed."""
        self._spans: deque[list[int]] = deque()
        """Stretches of frames that were fed, not those that were left out."""
        self._left_out = 0
        self.left_out = run.left_out_us // self.frame_us
        """Frames that were left out, in all."""

    def at_us(self, frame: int) -> int:
        """Return when a frame begins, in UTC."""
        return self.start_us + frame * self.frame_us

    def frames_of(self, rows: Sequence[RecordRow], total: int) -> list[bytes]:
        """Return the frames of the next records, not beyond the run's ``total``."""
        found: list[bytes] = []
        for row in rows:
            if row.seq != self.next_seq:  # the run has grown since it was heard to its end, whose record is gone
                self._skip = 0
            frames = record_of(row).frames[self._skip :]
            room = total - self.fed - len(found)
            self._places.append((self.fed + len(found), row.seq, self._skip, min(room, len(frames))))
            found += frames[:room]
            if len(frames) > room:
                self._skip += room
                self.next_seq = row.seq
                break
            self._skip = 0
            self.next_seq = row.seq + (1 if len(row.raw) == RECORD_BYTES else len(row.raw))
        return found

    def place_of(self, frame: int) -> tuple[int, int]:
        """Return the record and the place in it at which a frame is, or would be; forgets those before it."""
        while len(self._places) > 1 and self._places[1][0] <= frame:
            self._places.popleft()
        first, seq, skipped, count = self._places[0]
        return seq, skipped + min(count, frame - first)

    def feed(self, frames: Sequence[bytes], known: frozenset[bytes]) -> None:
        """Hear frames, but those that are to be left out or are there already. Runs in the capture thread."""
        wanted = [not self._withheld(self.fed + index) for index in range(len(frames))]
        for first, end in same(frames, known):
            wanted[first:end] = [False] * (end - first)
        index = 0
        while index < len(frames):
            end = next((at for at in range(index, len(frames)) if wanted[at] is not wanted[index]), len(frames))
            if wanted[index]:
                self._hear(frames[index:end])
            else:
                self._pass_over(end - index)
            index = end
        point = self._hearing.checkpoint()
        if point is not None:
            self._take_items(point[0])
            self._settle(self._base + point[1])

    def finish(self, total: int) -> None:
        """End the run: everything is decided."""
        self._take_items(self._hearing.finish())
        self._base = self.fed = max(self.fed, total)
        self._settle(self.fed)

    def take(self) -> tuple[list[ChunkReady], list[Span], int]:
        """Return what is to be stored, the stretches of time that it is of, and how many frames were left out."""
        items, self._items = self._items, []
        left_out, self._left_out = self._left_out, 0
        self.left_out += left_out
        spans: list[Span] = []
        while self._spans and self._spans[0][0] < self.settled:
            first, end = self._spans[0]
            spans.append((self.at_us(first), self.at_us(min(end, self.settled))))
            if end > self.settled:
                self._spans[0][0] = self.settled
                break
            self._spans.popleft()
        return items, spans, left_out

    def _hear(self, frames: Sequence[bytes]) -> None:
        if self._spans and self._spans[-1][1] == self.fed:
            self._spans[-1][1] += len(frames)
        else:
            self._spans.append([self.fed, self.fed + len(frames)])
        stretch = [(Frame(data, 0), self.at_us(self.fed + index + 1)) for index, data in enumerate(frames)]
        self.fed += len(frames)
        self._take_items(self._hearing.feed(stretch))

    def _pass_over(self, count: int) -> None:
        self._take_items(self._hearing.finish())
        self.fed += count
        self._left_out += count
        self._base = self.fed
        self._settle(self.fed)

    def _settle(self, frame: int) -> None:
        """Note that everything before ``frame`` is decided, and that no segment is open there."""
        self.settled = frame
        self._items += self._open
        self._open = []

    def _withheld(self, frame: int) -> bool:
        start_us, end_us = self.at_us(frame), self.at_us(frame + 1)
        return any(low < end_us and start_us < high for low, high in self._leave_out)

    def _take_items(self, heard: Sequence[Heard]) -> None:
        self._open += [item for item in heard if isinstance(item, ChunkReady)]


def record_of(row: RecordRow) -> Record:
    """Return a record as it was handed over by the pendant."""
    if len(row.raw) == RECORD_BYTES:
        return record_of_ring(row.store, row.seq, row.raw)
    return record_of_file(row.store, row.seq, row.raw, row.began)


def same(frames: Sequence[bytes], known: frozenset[bytes]) -> list[tuple[int, int]]:
    """Return the stretches, from and to, of ``frames`` that are all ``known``: at least SAME_FRAMES, not all alike."""
    found: list[tuple[int, int]] = []
    first = 0
    while known and first < len(frames):
        end = first
        while end < len(frames) and frames[end] in known:
            end += 1
        if end - first >= SAME_FRAMES and len(set(frames[first:end])) > 1:
            found.append((first, end))
        first = max(end, first + 1)
    return found
