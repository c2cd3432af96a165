"""/v1/imports: recordings sent in, and where they stand."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import aiohttp
import msgspec
import numpy as np
from aiohttp import StreamReader
from msgspec import Meta

from omi_edge.domain import Codec
from omi_edge.errors import AudioError, BadInput, NotFound
from omi_edge.store import conversations, jobs, recordings, sources
from omi_edge.store.connection import Connection
from omi_edge.store.recordings import RecordingRow
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
    guessed: bool = False
    """Whether ``start`` is a guess: the source then says that its time is not known."""
    codec: Literal["pcm", "opus", "opus_fs320"] = "pcm"
    """What the body is: PCM, or Opus frames of 10 or 20 ms, each with its length (u32, little-endian) before it."""
    device: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Name or address of a remembered pendant: the recording is put into its source, at its place in time."""
    content: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    """What /v1/imports/check answered: an import that broke off goes on, one that is there is refused."""
    again: bool = False
    """Take it although it is there."""


def import_state(conn: Connection, recording_id: str, receiving: float | None) -> wire.ImportState:
    """Return where a recording stands; ``receiving`` is how much came so far, in seconds, None when none comes.

    Raises NotFound.
    """
    recording = _recording(conn, recording_id)
    source = sources.get(conn, recording_id if recording is None else recording.source_id)
    if recording is None or recording.own_source:  # one of its own, also from before recordings were noted
        left, failed = jobs.of_source(conn, source.id)
        found = conversations.ids_of_source(conn, source.id)
        left_open = any(state != "completed" for _, state in found)
        ids = [conversation_id for conversation_id, _ in found]
        start_us = source.first_us or source.created_us
        end_us, over = source.heard_until_us, source.ended_us is not None
    else:
        left, failed, ids = recordings.progress(conn, recording)
        left_open = False
        start_us, end_us, over = recording.start_us, recording.end_us, recording.ended_us is not None
    state = "processing" if left or left_open else "failed" if failed else "done"
    if not over:
        state = "processing" if receiving is None else "receiving"
    taken = max(((end_us or start_us) - start_us) / 1e6, receiving or 0.0)
    return wire.ImportState(
        source.id, source.name if recording is None else recording.name, state, taken, left, failed,
        times.iso(start_us), ids, recording_id, recording is None or recording.complete,
        0.0 if recording is None else times.seconds(recording.left_out_us),
    )  # fmt: skip


async def checked(call: Call[NoQuery, wire.ImportContent]) -> Answer:
    """Say whether a recording is there already."""
    digest, known = await call.controls.known_import(bytes.fromhex(call.body.sha256))
    return Answer(wire.ImportCheck(digest.hex(), known), () if known is None else (known.source_id,))


async def taken(call: Call[ImportQuery, None]) -> Answer:
    """Take a recording; what arrived before a broken connection is kept."""
    request = call.request
    swap = request.content_type != RAW_MEDIA
    if swap and request.headers["Content-Type"].lower().replace(" ", "") != L16_MEDIA.lower():
        raise AudioError(f"the recording must be 16 kHz mono: {RAW_MEDIA} (little-endian) or {L16_MEDIA}.")
    query = call.query
    start_us = times.moment_or_none(query.start, "start")
    if query.device is not None and (start_us is None or query.guessed):
        raise BadInput("a recording of a pendant needs to know when it began. Give its start.", "start")
    body = _unbroken(request.content)
    if query.codec != "pcm":
        return await _take(call, start_us, body)
    sent = _samples(body, swap)
    first = await anext(sent, b"")
    if not first:
        raise AudioError("the recording holds no audio. Check the file; nothing was changed.")
    if (kind := _container(first)) is not None:
        raise AudioError(
            f"this is a {kind} file, while this route takes bare 16 kHz mono PCM; `omi-edge import FILE` decodes it."
        )
    return await _take(call, start_us, _chained(first, sent))


async def state(call: Call[NoQuery, None]) -> Answer:
    """Say where a recording stands."""
    return Answer(await call.controls.import_state(call.id), (call.id,))


def _recording(conn: Connection, recording_id: str) -> RecordingRow | None:
    try:
        return recordings.get(conn, recording_id)
    except NotFound:
        return None


async def _take(call: Call[ImportQuery, None], start_us: int | None, body: AsyncIterator[bytes]) -> Answer:
    query, controls = call.query, call.controls
    await call.audit(Answer())  # the recording becomes durable piece by piece, so the row comes first
    recording_id = await controls.begin_import(
        query.name,
        controls.clock.utc_us() if start_us is None else start_us,
        start_us is not None and not query.guessed,
        call.caller.client_id,
        codec=Codec.OPUS_10MS if query.codec == "opus" else Codec.OPUS_20MS,
        digest=None if query.content is None else bytes.fromhex(query.content),
        device=query.device,
        again=query.again,
    )
    await controls.take_import(recording_id, body, framed=query.codec != "pcm")
    state = await controls.import_state(recording_id)
    return Answer(state, (state.source_id,), headers={"Location": f"/v1/imports/{recording_id}"})


async def _samples(body: AsyncIterator[bytes], swap: bool) -> AsyncIterator[bytes]:
    """Yield whole s16le samples, without half a one at the end. RFC 2586 sends L16 big-endian: that is swapped."""
    rest = b""
    async for piece in body:
        rest += piece
        whole = len(rest) // 2 * 2
        if whole:
            pcm, rest = rest[:whole], rest[whole:]
            yield np.frombuffer(pcm, np.uint16).byteswap().tobytes() if swap else pcm


async def _unbroken(content: StreamReader) -> AsyncIterator[bytes]:
    """Yield a body as it comes. Raises AudioError when it breaks off, so that nobody takes it for whole."""
    try:
        async for piece in content.iter_chunked(PIECE_BYTES):
            yield piece
    except (aiohttp.ClientError, ConnectionError) as error:
        log.warning("a recording broke off; what came is kept", extra={"kind": type(error).__name__})
        raise AudioError("the recording broke off; what came of it is kept. Send it again for the rest.") from error


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
        method="POST",
        path="/v1/imports/check",
        summary="Ask whether a recording is there already, by the SHA-256 of what the sender takes for its content",
        act="import.check",
        handler=checked,
        body=wire.ImportContent,
        returns=wire.ImportCheck,
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
