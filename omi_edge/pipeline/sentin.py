"""A recording that was sent in for a conversation, heard: its audio into a source of its own, with its speech.

It makes no conversation, asks for no recognition and takes no part in the ledger: it is of a time that the ledger has
an account of already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from omi_edge.clock import Clock, held
from omi_edge.domain import SAMPLE_RATE, Frame, Outcome
from omi_edge.errors import AudioError
from omi_edge.opus import Encoder
from omi_edge.pipeline.engines import Engines
from omi_edge.pipeline.hearing import ChunkReady, Heard, Hearing
from omi_edge.store import audio, conversations, segments, sources, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.uploads import UploadRow

CURE = "Send it again, whole, as WAV, FLAC, MP3, M4A or Ogg."
START = "Send it again with the time at which it began, or without any."
FRAME_BYTES = uploads.CODEC.frame_us * SAMPLE_RATE // 1_000_000 * 2


async def hear(
    db: Database,
    clock: Clock,
    engines: Engines,
    hearing: Hearing,
    upload: UploadRow,
    wanted: Callable[[Connection], bool],
) -> bool:
    """Bring an upload's audio into its source; what an attempt before left there is thrown away. False once not wanted.

    Raises AudioError, with the cure, for one that cannot be read to its end, in which nobody speaks, or which lies
    outside of its conversation.
    """

    async def read(offset: int, size: int) -> bytes:
        return await db.read(lambda conn: uploads.read(conn, upload, offset, size))

    def begin(conn: Connection) -> bool:
        if not wanted(conn):
            return False
        if upload.start_us >= conversations.get(conn, upload.conversation_id).ended_us:
            raise AudioError(f"the recording begins after the conversation's end. {START}")
        uploads.begin_to_hear(conn, upload)
        return True

    if not await db.write(begin):
        return False
    taken = _Taken(hearing, upload.start_us)
    try:
        async with contextlib.aclosing(engines.decode(upload.size, read)) as pieces:
            async for pcm in pieces:
                with held(clock):
                    heard = await asyncio.to_thread(taken.take, pcm)
                if not await _keep(db, upload, heard, wanted):
                    return False
    except AudioError as error:
        raise AudioError(f"{error} {CURE}") from error
    with held(clock):
        heard = await asyncio.to_thread(taken.finish)
    if not await _keep(db, upload, heard, wanted):
        return False

    def end(conn: Connection) -> bool:
        if not wanted(conn):
            return False
        if taken.end_us <= conversations.get(conn, upload.conversation_id).started_us:
            raise AudioError(f"the recording ends before the conversation begins. {START}")
        if not uploads.spoken(conn, upload):
            raise AudioError("nobody speaks in the recording. Check that it is the right one.")
        uploads.heard(conn, upload, taken.end_us, clock.utc_us())
        return True

    return await db.write(end)


class _Taken:
    """PCM into frames, and these into chunks and segments."""

    def __init__(self, hearing: Hearing, start_us: int) -> None:
        self.end_us = start_us
        self._hearing = hearing
        self._encoder = Encoder(uploads.CODEC)
        self._rest = b""

    def take(self, pcm: bytes) -> list[Heard]:
        """Hear what has come in whole frames."""
        data = self._rest + pcm
        whole = len(data) // FRAME_BYTES * FRAME_BYTES
        self._rest = data[whole:]
        stretch = []
        for samples in np.frombuffer(data[:whole], np.int16).reshape(-1, FRAME_BYTES // 2):
            self.end_us += uploads.CODEC.frame_us
            stretch.append((Frame(self._encoder.encode(samples), 0), self.end_us))
        return self._hearing.feed(stretch)

    def finish(self) -> list[Heard]:
        """Hear the rest."""
        last = self.take(b"\0" * (FRAME_BYTES - len(self._rest))) if self._rest else []
        return [*last, *self._hearing.finish()]


async def _keep(db: Database, upload: UploadRow, heard: Sequence[Heard], wanted: Callable[[Connection], bool]) -> bool:
    items = [item for item in heard if isinstance(item, ChunkReady)]

    def commit(conn: Connection) -> bool:
        if not wanted(conn):
            return False
        for item in items:
            if item.chunk is not None:
                audio.put(conn, item.chunk)
            sources.advance(
                conn, upload.source_id, heard_until_us=item.heard_until_us, dropped_bytes=item.dropped_bytes,
                dropped_us=item.dropped_us,
            )  # fmt: skip
            for segment in item.segments:
                segments.put(conn, segment)
                segments.settle(  # no job waits for it
                    conn, segment.id, outcome=Outcome.EXPECTED_SILENCE, reason=None, engine=None, conversation_id=None
                )
        return True

    return await db.write(commit) if items else await db.read(wanted)
