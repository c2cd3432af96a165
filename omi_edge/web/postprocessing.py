"""/v1/conversations/{id}/post-processing: a second pass over a conversation, of its own audio or of what is sent in.

In this order it is found out whether it can be: who asks, whether there is such a conversation, its state (409), how
much is sent (413), and what (415). Until then nothing of the body is asked for or read. A body is stored as it comes,
still encoded, in the encrypted file; nothing here decodes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Annotated
from urllib.parse import parse_qsl

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta
from multidict import MultiDict

from omi_edge.errors import AudioError, BadInput, TooLarge
from omi_edge.store import conversations, reprocessing, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.uploads import UploadRow
from omi_edge.web import decode, shapes, times, wire
from omi_edge.web.conversations import whole
from omi_edge.web.gate import STALL_SECONDS
from omi_edge.web.listing import Moment
from omi_edge.web.route import Answer, Call, NoQuery, Route

log = logging.getLogger(__name__)

FORM_MEDIA, FIELDS_MEDIA = "multipart/form-data", "application/x-www-form-urlencoded"
FILE_MEDIA = ("application/octet-stream", "application/ogg", "video/mp4", "video/webm", "audio/*")
UPLOAD_LIMIT = 1 << 30
"""Bytes of a recording: nine hours of 16 kHz mono WAV, a hundred minutes of a CD's quality. A choice."""
FORM_LIMIT = 64 * 1024
"""Bytes of everything else in a form."""
FIELD_LIMIT = 1024
"""Bytes of one of its fields."""
_BARE = ("audio/l16", "audio/l24", "audio/pcm", "audio/basic")
"""Samples without a container, which do not tell their rate."""
_MARKS = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"FORM", b"caff", b"#!AMR")
_MARK_BYTES = 12


class PostQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is wanted. A form may tell the same in fields of these names."""

    engine: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    """A recogniser or a model; without it the one of the settings."""
    emotional_feedback: bool = False
    """Kept with it; nothing uses it yet."""
    start: Moment | None = None
    """When what is sent in began. Without it: with the conversation, for all of which it then speaks."""


async def asked(call: Call[PostQuery, None]) -> Answer:
    """Have a conversation transcribed anew."""
    hindrance = await call.read(lambda conn: reprocessing.busy(conn, call.id))
    if hindrance is not None:
        raise hindrance
    call.controls.check_recognizer(_engine(call, call.query))
    async with _Inbox(call) as inbox:
        if call.request.body_exists:
            await inbox.take()
        return await _accept(call, inbox)


async def told(call: Call[NoQuery, None]) -> Answer:
    """Say how it stands."""
    return await call.read(lambda conn: Answer(shapes.postprocessing(conn, call.id), (call.id,)))


async def _accept(call: Call[PostQuery, None], inbox: _Inbox) -> Answer:
    wanted, now_us = inbox.wanted(), call.controls.clock.utc_us()
    engine = _engine(call, wanted)
    call.controls.check_recognizer(engine)

    def act(conn: Connection) -> Answer:
        upload = inbox.row
        if upload is not None:
            uploads.stored(conn, upload)
        reprocessing.ask(
            conn, [call.id], engine=engine, keep=False, actor=call.caller.actor, now_us=now_us,
            upload_id=None if upload is None else upload.id, emotional_feedback=wanted.emotional_feedback,
        )  # fmt: skip
        return Answer(whole(conn, call.id), (call.id,))

    # of an upload the audit row was written before its first byte
    answer = await (call.controls.db.write(act) if call.audited else call.change(act))
    inbox.keep()
    call.controls.poke_jobs()
    return answer


def _engine(call: Call[PostQuery, None], wanted: PostQuery) -> str:
    return wanted.engine or call.controls.config.listen.best


class _Inbox:
    """Takes the body of one request. What it stored is removed again on leaving, unless ``keep`` was called."""

    def __init__(self, call: Call[PostQuery, None]) -> None:
        self.row: UploadRow | None = None
        """What was sent in."""
        self._call = call
        self._fields: MultiDict[str] = MultiDict()
        self._kept = False

    async def __aenter__(self) -> _Inbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.row is None or self._kept:
            return
        upload_id = self.row.id
        # shielded: the daemon's stop cancels this request, and what came is to be gone all the same
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._call.controls.db.write(lambda conn: uploads.remove(conn, upload_id)))

    def keep(self) -> None:
        """Let what came stay."""
        self._kept = True

    def wanted(self) -> PostQuery:
        """Return what query and form ask for together; the form has the last word. Raises BadInput."""
        given = decode.query(self._fields, PostQuery)
        named = {name: getattr(given, name) for name in self._fields}
        return msgspec.structs.replace(self._call.query, **named)

    async def take(self) -> None:
        """Take the whole body. Raises TooLarge, aiohttp's HTTPUnsupportedMediaType, AudioError or BadInput."""
        request = self._call.request
        media = request.content_type.lower()
        form = media in (FORM_MEDIA, FIELDS_MEDIA)
        if (request.content_length or 0) > UPLOAD_LIMIT + (FORM_LIMIT if form else 0):
            raise _too_large()
        if media in _BARE or not (form or media.startswith("audio/") or media in FILE_MEDIA):
            raise web.HTTPUnsupportedMediaType(
                text=f"send the recording as {FORM_MEDIA} in the field file, or as it is ({', '.join(FILE_MEDIA)}); "
                "bare samples need a container, as WAV has one."
            )
        await decode.go_on(request)
        with _told_in_words():
            if media == FIELDS_MEDIA:
                await self._take_fields()
            elif media == FORM_MEDIA:
                await self._take_form()
            else:
                await self._take_file(self._timed(request.content.iter_any()), "")

    async def _take_fields(self) -> None:
        data = bytearray()
        async for piece in self._timed(self._call.request.content.iter_any()):
            data += piece
            if len(data) > FORM_LIMIT:
                raise TooLarge(f"the fields of a form may have {FORM_LIMIT // 1024} KiB.")
        try:
            self._fields.extend(_parsed(data.decode()))
        except UnicodeDecodeError as error:
            raise BadInput("the form is not valid UTF-8.") from error

    async def _take_form(self) -> None:
        reader = await self._call.request.multipart()
        async with self._limit():
            part = await reader.next()
        while part is not None:
            if not isinstance(part, aiohttp.BodyPartReader):
                raise BadInput("the form holds another form; send the recording in the field file.", "file")
            if part.name == "file":
                if self.row is not None:
                    raise BadInput("one recording can be sent in at a time.", "file")
                await self._take_file(self._timed(_chunks(part)), part.filename or "")
            else:
                await self._take_field(part)
            async with self._limit():
                part = await reader.next()

    async def _take_field(self, part: aiohttp.BodyPartReader) -> None:
        if len(self._fields) >= len(PostQuery.__struct_fields__):
            raise BadInput("the form has more fields than there are.")
        if part.name == "start" and self.row is not None:
            raise BadInput("in a form start comes before the file.", "start")
        data = bytearray()
        async for piece in self._timed(_chunks(part)):
            data += piece
            if len(data) > FIELD_LIMIT:
                raise BadInput(f"a field of the form may have {FIELD_LIMIT} bytes.")
        self._fields.add(part.name or "", data.decode(errors="replace"))

    async def _take_file(self, pieces: AsyncIterator[bytes], name: str) -> None:
        """Store a recording as it comes, once its first bytes look like one."""
        waiting, size = bytearray(), 0
        async for piece in pieces:
            waiting += piece
            size += len(piece)
            if size > UPLOAD_LIMIT:
                raise _too_large()
            if len(waiting) >= uploads.PIECE_BYTES:
                await self._store(waiting, name)
        if not size:
            raise AudioError("the recording is empty. Check the file; nothing was changed.")
        await self._store(waiting, name, rest=True)

    async def _store(self, waiting: bytearray, name: str, *, rest: bool = False) -> None:
        row = self.row or await self._begin(bytes(waiting[:_MARK_BYTES]), name)
        while len(waiting) >= uploads.PIECE_BYTES or (rest and waiting):
            data = bytes(waiting[: uploads.PIECE_BYTES])
            del waiting[: uploads.PIECE_BYTES]
            await self._call.controls.db.write(lambda conn: uploads.put_piece(conn, row, data))  # noqa: B023

    async def _begin(self, first: bytes, name: str) -> UploadRow:
        if not looks_like_audio(first):
            raise AudioError(
                "what was sent is no recording that can be read: send WAV, FLAC, MP3, M4A or Ogg. Nothing was changed."
            )
        call = self._call
        start_us = times.moment_or_none(self.wanted().start, "start")
        now_us, client_id = call.controls.clock.utc_us(), call.caller.client_id
        shown = "".join(filter(str.isprintable, name)).strip()[:100] or "sent in"

        def begin(conn: Connection) -> UploadRow:
            hindrance = reprocessing.busy(conn, call.id)
            if hindrance is not None:
                raise hindrance
            if start_us is not None and start_us >= conversations.get(conn, call.id).ended_us:
                raise BadInput("a recording of this conversation began before its end.", "start")
            return uploads.begin(conn, call.id, name=shown, start_us=start_us, client_id=client_id, now_us=now_us)

        await call.audit(Answer(ids=(call.id,)))  # it becomes durable piece by piece, so the row comes first
        self.row = await call.controls.db.write(begin)
        return self.row

    async def _timed(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what comes; a client that stalls is not waited for for ever."""
        while True:
            async with self._limit():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece

    def _limit(self) -> contextlib.AbstractAsyncContextManager[object]:
        return self._call.controls.clock.time_limit(STALL_SECONDS)


def looks_like_audio(first: bytes) -> bool:
    """Say whether a file that begins like this is of a kind that holds audio; nothing else is shown to a decoder."""
    frame = len(first) > 1 and first[0] == 0xFF and first[1] & 0xE0 == 0xE0  # MPEG audio's and ADTS's sync word
    return first.startswith(_MARKS) or first[4:8] == b"ftyp" or frame


@contextlib.contextmanager
def _told_in_words() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise AudioError(
            f"nothing came for {STALL_SECONDS:.0f} s, so nothing of the recording was kept. Send it again."
        ) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        log.warning("an upload broke off; it was let go of", extra={"kind": type(error).__name__})
        raise AudioError("the recording broke off, so nothing of it was kept. Send it again.") from error
    except (ValueError, AssertionError) as error:  # what aiohttp says of a form without an end, or of none
        raise BadInput("the form cannot be read to its end. Send it again.") from error


async def _chunks(part: aiohttp.BodyPartReader) -> AsyncGenerator[bytes, None]:
    while piece := await part.read_chunk(64 * 1024):
        yield piece


def _parsed(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, max_num_fields=len(PostQuery.__struct_fields__))


def _too_large() -> TooLarge:
    return TooLarge(
        f"a recording may have {UPLOAD_LIMIT >> 20} MiB. As FLAC, M4A or Ogg it has less; or send it in parts of which "
        "each is an import of its own."
    )


def _routes(name: str, path: str) -> tuple[Route, Route]:
    return (
        Route(
            method="GET",
            path=path,
            summary=f"Say how the second pass over a conversation stands{name}",
            act="postprocessing.read",
            handler=told,
            returns=wire.Postprocessing,
        ),
        Route(
            method="POST",
            path=path,
            summary=f"Have a conversation transcribed anew, of its own audio or of a recording that is sent in{name}",
            act="postprocessing.create",
            handler=asked,
            query=PostQuery,
            takes=(FORM_MEDIA, FIELDS_MEDIA, *FILE_MEDIA),
            optional=True,
            returns=wire.Conversation,
            status=202,
        ),
    )


ROUTES = (
    *_routes("", "/v1/conversations/{id}/post-processing"),
    *_routes(", by Omi's old name", "/v1/memories/{id}/post-processing"),
)
