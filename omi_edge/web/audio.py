"""/v1/conversations/{id}/audio: Ogg Opus as it was heard, or WAV; any part of it, by seconds or by bytes."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from omi_edge import ogg
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError, BadInput, NotFound
from omi_edge.opus import Decoder
from omi_edge.store import conversations, sources, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.web import ranges, timeline
from omi_edge.web.route import Call, Route, Stream
from omi_edge.web.timeline import Packet, Plan

OGG_MEDIA, WAV_MEDIA = "audio/ogg; codecs=opus", "audio/wav"
MAX_SECONDS = 1e6
"""More than eleven days: no conversation is as long (conversation.max_length ends at one)."""
BLOCK_FRAMES = 500
"""Frames that one fresh decoder makes, so that any part of a WAV can be made without the rest of it."""
WARM_UP_FRAMES = 50
"""Frames a fresh decoder is given before its block; see tests/web/test_audio.py, which compares the seams."""
_WAV = struct.Struct("<4sI4s4sIHHIIHH4sI")


class AudioQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to play."""

    format: Literal["ogg", "wav"] = "ogg"
    silence: Literal["keep", "drop"] = "drop"
    """drop: what was heard, without the pauses that were not kept. keep: in true time, silence put in."""
    start: Annotated[float, Meta(ge=-MAX_SECONDS, le=MAX_SECONDS)] | None = msgspec.field(name="from", default=None)
    """Seconds from the start of the conversation, pauses included; negative only in a recording that began before."""
    end: Annotated[float, Meta(ge=-MAX_SECONDS, le=MAX_SECONDS)] | None = msgspec.field(name="to", default=None)
    source: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Which recording of it: its own source, as when absent, or that of one that was sent in for it."""


async def played(call: Call[AudioQuery, None]) -> Stream:
    """Play a conversation or a part of it."""
    query, db = call.query, call.controls.db
    row, source_id, first_us, last_us = await call.read(lambda conn: _recorded(conn, call.id, query.source))
    from_us = first_us if query.start is None else row.started_us + round(query.start * 1e6)
    to_us = last_us if query.end is None else min(last_us, row.started_us + round(query.end * 1e6))
    own = source_id == row.source_id
    for name, given in (("from", query.start), ("to", query.end)):
        if own and given is not None and given < 0:
            raise BadInput(f"{name} must not lie before the conversation.", name)
    from_us = max(from_us, first_us)  # offsets are to the millisecond, and a recording's beginning is not
    if from_us >= to_us:
        raise BadInput(f"from must lie before to, and inside the {'conversation' if own else 'recording'}.", "from")
    plan = await timeline.plan(db, source_id, from_us, to_us, keep_silence=query.silence == "keep")
    form = OggForm(plan) if query.format == "ogg" else WavForm(plan)
    total = await asyncio.to_thread(form.length)
    etag = plan.tag(query.format)
    ranged = call.request if call.request.method == "GET" else call.request.clone(headers={})
    part = ranges.wanted(ranged, total, etag)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Disposition": f'inline; filename="{row.id}.{query.format}"',
        **part.headers,
    }
    pieces = form.pieces(db, part.first, part.last)
    return Stream(pieces, form.media, (row.id,), status=200 if part.whole else 206, headers=headers, length=part.length)


def _recorded(conn: Connection, conversation_id: str, source_id: str | None) -> tuple[ConversationRow, str, int, int]:
    """Return a conversation, the source that is meant, and from when to when that recorded it. Raises NotFound."""
    row = conversations.get(conn, conversation_id)
    if source_id is None or source_id == row.source_id:
        return row, row.source_id, row.started_us, row.ended_us
    upload = uploads.of_source(conn, conversation_id, source_id)
    if upload is None:
        raise NotFound("the conversation has no such source.")
    heard_us = sources.get(conn, source_id).heard_until_us
    return row, source_id, upload.start_us, upload.start_us if heard_us is None else heard_us


class OggForm:
    """Packets as they are, in pages."""

    media = OGG_MEDIA

    def __init__(self, plan: Plan) -> None:
        if plan.codec not in (Codec.OPUS_10MS, Codec.OPUS_20MS):
            raise AudioError(f"this recording is stored as {plan.codec.name}, not Opus; ask with format=wav.")
        self._plan = plan
        hidden_us = plan.settle * plan.codec.frame_us + plan.lead_us
        self._pre_skip = ogg.PRE_SKIP + hidden_us * ogg.GRANULE_RATE // 1_000_000
        self._page = ogg.PAGE_US // plan.codec.frame_us + 1
        """Packets that are taken, at most, to make one page: one that does not fit is taken as well."""

    def length(self) -> int:
        """Bytes of the whole file."""
        return ogg.length(self._plan.sizes, self._plan.codec.frame_us)

    async def pieces(self, db: Database, first: int, last: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes ``first`` to ``last``."""
        cut = _Cut(first, last)
        waiting: deque[bytes] = deque()
        pages = ogg.stream(_drained(waiting), self._plan.codec.frame_us, pre_skip=self._pre_skip)
        async with contextlib.aclosing(self._plan.packets(db)) as windows:
            async for window in windows:
                waiting.extend(packet for packet, _ in window)
                out = bytearray()
                while len(waiting) > self._page:  # the generator must not run dry before the end
                    out += cut.take(next(pages))
                if out:
                    yield bytes(out)
                if cut.done:
                    return
        yield cut.take(b"".join(pages))


class WavForm:
    """Decoded: 16-bit PCM at 16 kHz, one channel."""

    media = WAV_MEDIA

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._frame = plan.codec.frame_us * SAMPLE_RATE // 1_000_000
        self._skip = plan.settle * self._frame + plan.lead_us * SAMPLE_RATE // 1_000_000
        """Samples of the plan before the first that is heard."""
        self.samples = plan.duration_us * SAMPLE_RATE // 1_000_000
        """How many are heard."""

    def length(self) -> int:
        """Bytes of the whole file."""
        return _WAV.size + 2 * self.samples

    async def pieces(self, db: Database, first: int, last: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes ``first`` to ``last``; only the blocks they lie in are decoded."""
        header = wav_header(self.samples)
        if first < len(header):
            yield header[first : last + 1]
        if last < len(header):
            return
        # from here on in samples of the plan
        low = self._skip + max(0, first - len(header)) // 2
        block = low // self._frame // BLOCK_FRAMES
        # bytes of the file at which this block's samples begin; negative when it begins with samples that are skipped
        at = len(header) + 2 * (block * BLOCK_FRAMES * self._frame - self._skip)
        cut = _Cut(max(first, len(header)) - at, last - at)
        async with contextlib.aclosing(_blocks(self._plan, db, block)) as blocks:
            async for before, frames in blocks:
                yield cut.take(await asyncio.to_thread(_decode, self._plan.codec, before, frames))
                if cut.done:
                    return


class _Cut:
    """Lets bytes ``first`` to ``last`` of what it is shown through."""

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._stop = last + 1
        self._at = 0

    def take(self, data: bytes) -> bytes:
        low, high = self._first - self._at, self._stop - self._at
        self._at += len(data)
        return data[max(0, low) : max(0, high)]

    @property
    def done(self) -> bool:
        return self._at >= self._stop


async def _blocks(plan: Plan, db: Database, block: int) -> AsyncGenerator[tuple[list[Packet], list[Packet]], None]:
    """Yield each block from number ``block`` on, with the frames before it that warm its decoder up."""
    first = block * BLOCK_FRAMES
    before_count = min(first, WARM_UP_FRAMES)
    waiting: list[Packet] = []
    async with contextlib.aclosing(plan.packets(db, first - before_count)) as windows:
        async for window in windows:
            waiting += window
            while len(waiting) >= before_count + BLOCK_FRAMES:
                yield waiting[:before_count], waiting[before_count : before_count + BLOCK_FRAMES]
                del waiting[: before_count + BLOCK_FRAMES - WARM_UP_FRAMES]
                before_count = WARM_UP_FRAMES
    if len(waiting) > before_count:
        yield waiting[:before_count], waiting[before_count:]


def _decode(codec: Codec, before: list[Packet], frames: list[Packet]) -> bytes:
    """Return s16le PCM of ``frames``; blocking."""
    decoder = Decoder(codec)
    pcm = []
    for packet, anew in before + frames:
        if anew:
            decoder.reset()
        pcm.append(decoder.decode(packet))
    return np.concatenate(pcm[len(before) :]).astype("<i2").tobytes()


def _drained(waiting: deque[bytes]) -> Iterator[bytes]:
    while waiting:
        yield waiting.popleft()


def wav_header(samples: int) -> bytes:
    """RIFF WAVE, PCM (Microsoft and IBM, Multimedia Programming Interface 1.0, 1991)."""
    size = 2 * samples
    return _WAV.pack(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16, b"data", size)


ROUTES = (
    Route(
        method="GET",
        path="/v1/conversations/{id}/audio",
        summary="Play a conversation, or some seconds of it",
        act="audio.read",
        handler=played,
        query=AudioQuery,
        gives=(OGG_MEDIA, WAV_MEDIA),
        also=(206,),
        head=True,
    ),
)
