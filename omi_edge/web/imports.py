"""/v1/imports: recordings sent in, and where they stand."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

import aiohttp
import msgspec
import numpy as np
from aiohttp import StreamReader
from msgspec import Meta

from omi_edge.errors import AudioError
from omi_edge.web import times, wire
from omi_edge.web.listing import Moment
from omi_edge.web.route import Answer, Call, NoQuery, Route

log = logging.getLogger(__name__)

RAW_MEDIA, L16_MEDIA = "application/octet-stream", "audio/L16;rate=16000"
_MARKS = {b"RIFF": "WAV", b"OggS": "Ogg", b"fLaC": "FLAC", b"ID3": "MP3", b"\x1aE\xdf\xa3": "WebM"}
PIECE_BYTES = 64 * 1024
"""Two seconds of PCM: the longest stretch that becomes durable at once."""


class ImportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the recording is called and when it began."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    start: Moment | None = None
    """Unknown when absent: then the present is taken, and the source says that its time is not known."""


async def taken(call: Call[ImportQuery, None]) -> Answer:
    """Take a recording; what arrived before a broken connection is kept."""
    request, controls = call.request, call.controls
    swap = request.content_type != RAW_MEDIA
    if swap and request.headers["Content-Type"].lower().replace(" ", "") != L16_MEDIA.lower():
        raise AudioError(f"the recording must be 16 kHz mono: {RAW_MEDIA} (little-endian) or {L16_MEDIA}.")
    start_us = times.moment_or_none(call.query.start, "start")
    sent = _samples(request.content, swap)
    first = await anext(sent, b"")
    if not first:
        raise AudioError("the recording holds no audio. Check the file; nothing was changed.")
    if (kind := _container(first)) is not None:
        raise AudioError(
            f"this is a {kind} file, while this route takes bare 16 kHz mono PCM; `omi-edge import FILE` decodes it."
        )
    await call.audit(Answer())  # the recording becomes durable piece by piece, so the row comes first
    source_id = await controls.begin_import(
        call.query.name,
        controls.clock.utc_us() if start_us is None else start_us,
        start_us is not None,
        call.caller.client_id,
    )
    await controls.take_import(source_id, _chained(first, sent))
    state = await controls.import_state(source_id)
    return Answer(state, (source_id,), headers={"Location": f"/v1/imports/{source_id}"})


async def state(call: Call[NoQuery, None]) -> Answer:
    """Say where a recording stands."""
    return Answer(await call.controls.import_state(call.id), (call.id,))


async def _samples(content: StreamReader, swap: bool) -> AsyncIterator[bytes]:
    """Yield whole s16le samples, without half a one at the end. RFC 2586 sends L16 big-endian: that is swapped."""
    rest = b""
    try:
        async for piece in content.iter_chunked(PIECE_BYTES):
            rest += piece
            whole = len(rest) // 2 * 2
            if whole:
                pcm, rest = rest[:whole], rest[whole:]
                yield np.frombuffer(pcm, np.uint16).byteswap().tobytes() if swap else pcm
    except (aiohttp.ClientError, ConnectionError) as error:
        log.warning("a recording broke off; what came is kept", extra={"kind": type(error).__name__})


def _container(first: bytes) -> str | None:
    """Return what kind of file the body is, None for bare samples, which hardly begin like one."""
    if first[4:8] == b"ftyp":
        return "MP4"
    return next((kind for mark, kind in _MARKS.items() if first.startswith(mark)), None)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


ROUTES = (
    Route(
        method="POST",
        path="/v1/imports",
        summary="Send a recording in; answered once all of its audio is stored",
        act="import",
        handler=taken,
        query=ImportQuery,
        takes=(RAW_MEDIA, L16_MEDIA),
        returns=wire.ImportState,
        status=202,
    ),
    Route(
        method="GET",
        path="/v1/imports/{id}",
        summary="Ask where a recording stands",
        act="import.read",
        handler=state,
        returns=wire.ImportState,
    ),
)
