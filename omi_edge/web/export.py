"""/v1/export: everything as one JSON document, made while it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator

import msgspec

from omi_edge.store import export
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.web.route import Call, Route, Stream

MEDIA = "application/json"
PIECE_CHARS = 64 * 1024
QUEUE_PIECES = 8
"""Pieces made ahead of the client: half a megabyte at most."""


class ExportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to put in."""

    audio: bool = False
    """Whether the packets of the audio come along, in base64."""


async def whole(call: Call[ExportQuery, None]) -> Stream:
    """Export everything."""
    headers = {"Content-Disposition": 'attachment; filename="omi-edge-export.json"'}
    return Stream(_told(call.controls.db, call.query.audio), MEDIA, headers=headers)


async def _told(db: Database, include_audio: bool) -> AsyncGenerator[bytes, None]:
    """Yield the document; a reader of the vault makes it, and waits while the client is slow."""
    loop = asyncio.get_running_loop()
    made: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_PIECES)
    gone = threading.Event()

    def make(conn: Connection) -> None:
        for piece in _pieces(export.document(conn, include_audio=include_audio)):
            if gone.is_set():
                return
            asyncio.run_coroutine_threadsafe(made.put(piece), loop).result()

    async def read() -> None:
        try:
            await db.read(make)
        finally:
            if not gone.is_set():
                await made.put(None)

    reading = asyncio.create_task(read(), name="export")
    try:
        while (piece := await made.get()) is not None:
            yield piece
        await reading  # raises what went wrong
    finally:
        gone.set()
        while not made.empty():  # the reader waits for room at most once more, then sees that the client is gone
            made.get_nowait()
        await asyncio.gather(reading, return_exceptions=True)


def _pieces(parts: Iterable[str]) -> Iterator[bytes]:
    """Join small parts: each piece costs a turn of the event loop."""
    waiting: list[str] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_CHARS:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()


ROUTES = (
    Route(
        method="GET",
        path="/v1/export",
        summary="Export everything as one JSON document",
        act="export",
        handler=whole,
        query=ExportQuery,
        gives=(MEDIA,),
    ),
)
