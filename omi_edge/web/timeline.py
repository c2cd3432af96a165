"""The audio of a stretch of a source's timeline as one sequence of codec frames, planned before a byte is sent.

    wanted       from ├───────────────────────────────┤ to
    stored    ▓▓▓▓▓▓▓▓▓▓▓▓        ▓▓▓▓▓▓▓▓▓▓▓▓▓▓   ▓▓▓▓▓▓▓▓
    drop       ▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓                 ▒ frames before, for the decoder to settle
    keep       ▒▓▓▓▓▓▓▓▓▓▓········▓▓▓▓▓▓▓▓▓▓▓▓▓···▓▓▓▓         · silence put in

The plan knows the size of every packet, so lengths and ranges are computed; packets are read again as they are sent.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence

import msgspec

from omi_edge.domain import SECOND_US, AudioChunk, Codec
from omi_edge.errors import AudioError, NotFound
from omi_edge.opus import silence_packet
from omi_edge.store import audio
from omi_edge.store.database import Database

WINDOW_US = 60 * SECOND_US
"""Audio read at once: a quarter of a megabyte at the pendant's 32 kbit/s (protocol dossier §7)."""
SETTLE_US = 1_000_000
"""Audio a decoder is given before what is heard when it starts in the middle of a stream. RFC 7845 §4.2 asks for 80 ms
at least; measured with libopus, after a second the samples are those of one decoder for the whole."""


class Piece(msgspec.Struct, frozen=True):
    """Consecutive frames of one stored chunk, or of silence put in where ``chunk_id`` is 0."""

    chunk_id: int
    at_us: int
    """UTC of the chunk's first sample."""
    skip: int
    """Frames of the chunk before the piece."""
    count: int
    seam: bool
    """Whether the piece does not follow in time from the one before."""


Packet = tuple[bytes, bool]
"""One codec frame, empty for a lost one, and whether a decoder has to begin anew with it."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be played, frame by frame."""

    source_id: str
    codec: Codec
    pieces: tuple[Piece, ...]
    sizes: array[int]
    """Bytes of each packet, 0 for a lost frame."""
    settle: int
    """Frames at the head that are decoded and not heard."""
    lead_us: int
    """Part of the first heard frame that lies before the wanted start."""
    tail_us: int
    """Part of the last frame that lies behind the wanted end."""

    @property
    def duration_us(self) -> int:
        """How long it plays."""
        return (len(self.sizes) - self.settle) * self.codec.frame_us - self.lead_us - self.tail_us

    def tag(self, *of: object) -> str:
        """Return a strong entity tag: chunks never change, so their ids and the cut say it all."""
        cut = [(p.chunk_id, p.skip, p.count) for p in self.pieces]
        text = repr((cut, self.codec.value, self.settle, self.lead_us, self.tail_us, of))
        return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'

    async def packets(self, db: Database, first: int = 0) -> AsyncGenerator[list[Packet], None]:
        """Yield the packets from number ``first`` on, in order and in windows.

        Raises AudioError when a chunk has been dropped since the plan was made.
        """
        silence = silence_packet(self.codec)
        for window in _windows(list(_from(self.pieces, first))):
            stored = [piece for piece in window if piece.chunk_id]
            chunks: dict[int, AudioChunk] = {}
            if stored:
                between = functools.partial(
                    audio.between, source_id=self.source_id, start_us=stored[0].at_us, end_us=stored[-1].at_us + 1
                )
                chunks = {chunk.id: chunk for chunk in await db.read(between)}
            out: list[Packet] = []
            for piece in window:
                if not piece.chunk_id:
                    run: tuple[bytes, ...] = (silence,) * piece.count
                elif piece.chunk_id in chunks:
                    run = chunks[piece.chunk_id].packets[piece.skip : piece.skip + piece.count]
                else:
                    raise AudioError("silence was cleared away while it was being played; ask again.")
                out += [(packet, piece.seam and index == 0) for index, packet in enumerate(run)]
            yield out


async def plan(db: Database, source_id: str, from_us: int, to_us: int, *, keep_silence: bool) -> Plan:
    """Return what to play of [from_us, to_us). Raises NotFound without audio, AudioError where the codec changes."""
    planner = _Planner(source_id, from_us, to_us, keep_silence)
    for low in range(from_us - SETTLE_US, to_us, WINDOW_US):
        high = min(low + WINDOW_US, to_us)
        between = functools.partial(audio.between, source_id=source_id, start_us=low, end_us=high, silence=keep_silence)
        for chunk in await db.read(between):
            planner.add(chunk)
    return planner.finished()


class _Planner:
    def __init__(self, source_id: str, from_us: int, to_us: int, keep_silence: bool) -> None:
        self._source_id = source_id
        self._from_us = from_us
        self._to_us = to_us
        self._keep = keep_silence
        self._codec: Codec | None = None
        self._seen: set[int] = set()
        self._cursor_us = from_us
        """Time on the true timeline up to which frames have been planned."""
        self._heard_us: int | None = None
        """End of the last stored frame that was taken."""
        self._before: list[tuple[Piece, list[int], int]] = []
        """Frames right before the wanted start: piece, sizes, end."""
        self._pieces: list[Piece] = []
        self._sizes = array("H")
        self._settle = 0
        self._lead_us = 0

    def add(self, chunk: AudioChunk) -> None:
        """Take one chunk; windows may show a chunk twice."""
        if chunk.id in self._seen:
            return
        self._seen.add(chunk.id)
        frame_us = chunk.codec.frame_us
        # frames by their place: those for settling, then those that meet the wanted stretch
        first = _clamp((self._from_us - chunk.start_us) // frame_us, 0, len(chunk.packets))
        stop = _clamp(-((chunk.start_us - self._to_us) // frame_us), 0, len(chunk.packets))
        if first > 0 and not self._pieces:
            skip = max(0, first - SETTLE_US // frame_us)
            self._take_before(chunk, skip, first)
        if stop > first:
            self._take(chunk, first, stop)

    def finished(self) -> Plan:
        if self._codec is None:
            raise NotFound("no audio is kept of this stretch.")
        tail_us = max(0, (self._heard_us or 0) - self._to_us)
        if self._keep:
            self._fill(self._to_us)
            tail_us = max(0, self._cursor_us - self._to_us)
        return Plan(
            self._source_id, self._codec, tuple(self._pieces), self._sizes, self._settle, self._lead_us, tail_us
        )

    def _take_before(self, chunk: AudioChunk, skip: int, stop: int) -> None:
        frame_us = chunk.codec.frame_us
        piece = Piece(chunk.id, chunk.start_us, skip, stop - skip, True)
        self._before.append((piece, _sizes(chunk, skip, stop), chunk.start_us + stop * frame_us))

    def _take(self, chunk: AudioChunk, first: int, stop: int) -> None:
        frame_us = chunk.codec.frame_us
        if self._codec is None:
            self._codec = chunk.codec
        elif self._codec is not chunk.codec:
            raise AudioError("the codec changes inside this stretch; ask for its parts with from and to.")
        start_us = chunk.start_us + first * frame_us
        follows = self._heard_us is not None and abs(start_us - self._heard_us) < frame_us
        if not self._pieces:
            self._begin(start_us)
            follows = self._settle > 0
        if self._keep:
            follows = not self._fill(start_us) and follows
            self._cursor_us += (stop - first) * frame_us
        self._pieces.append(Piece(chunk.id, chunk.start_us, first, stop - first, not follows))
        self._sizes.extend(_sizes(chunk, first, stop))
        self._heard_us = chunk.start_us + stop * frame_us

    def _begin(self, start_us: int) -> None:
        """The first heard frame: frames that lead up to it settle the decoder, if they touch it."""
        assert self._codec is not None
        frame_us = self._codec.frame_us
        next_us = start_us
        for piece, sizes, end_us in reversed(self._before):
            count = min(piece.count, SETTLE_US // frame_us - self._settle)
            if abs(next_us - end_us) >= frame_us or count == 0:
                break
            cut = piece.count - count
            self._pieces.insert(0, msgspec.structs.replace(piece, skip=piece.skip + cut, count=count))
            self._sizes = array("H", sizes[cut:]) + self._sizes
            self._settle += count
            next_us = end_us - count * frame_us
        self._lead_us = max(0, self._from_us - start_us)
        self._cursor_us = self._from_us - self._lead_us

    def _fill(self, until_us: int) -> bool:
        """Put in silence up to ``until_us``; positions stay true to half a frame and errors do not add up."""
        assert self._codec is not None
        frame_us = self._codec.frame_us
        count = (until_us - self._cursor_us + frame_us // 2) // frame_us
        if count <= 0:
            return False
        most = WINDOW_US // frame_us
        for done in range(0, count, most):
            part = min(most, count - done)
            self._pieces.append(Piece(0, self._cursor_us, 0, part, done == 0))
            self._cursor_us += part * frame_us
        self._sizes.extend([len(silence_packet(self._codec))] * count)
        return True


def _sizes(chunk: AudioChunk, first: int, stop: int) -> list[int]:
    return [len(packet) for packet in chunk.packets[first:stop]]


def _from(pieces: Sequence[Piece], first: int) -> Iterator[Piece]:
    """The pieces from frame ``first`` on."""
    for piece in pieces:
        if first >= piece.count:
            first -= piece.count
        elif first:
            yield Piece(piece.chunk_id, piece.at_us, piece.skip + first, piece.count - first, False)
            first = 0
        else:
            yield piece


def _windows(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    for _, group in itertools.groupby(pieces, lambda piece: (piece.at_us - pieces[0].at_us) // WINDOW_US):
        yield list(group)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
