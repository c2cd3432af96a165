"""The audit gate: no content leaves and nothing changes without one durable row that says so.

A row is written before the first byte of an answer, in the same transaction as a change where there is one. When it
cannot be written, the answer is 503 and nothing was given or changed. Refused and failed requests leave a row as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re

import msgspec
from aiohttp import web

from omi_edge.errors import AuditUnavailable, OmiEdgeError
from omi_edge.store import audit
from omi_edge.store.audit import AuditEntry
from omi_edge.store.connection import Connection
from omi_edge.web import decode
from omi_edge.web.controls import Controls
from omi_edge.web.route import Access, Answer, Call, Caller, Given, Route, Socket, Stream

log = logging.getLogger(__name__)

STALL_SECONDS = 60.0
"""A client that takes no byte for so long is cut off: it may hold a reader of the vault."""
CLOSE_SECONDS = 1.0
"""How long a client has to answer the end of a socket; the whole daemon has five seconds to stop."""
MAX_REASON = 123
"""Bytes of a close frame's reason (RFC 6455 §5.5: 125 less the code)."""
MAX_IDS = 200
"""Ids in one row; ``count`` tells the rest. The longest page has as many things."""
UNKNOWN_ACT = "unknown"
"""Act of a request that no route answers."""
_ID = re.compile(r"[a-z]{3}_[0-9a-z]{1,40}")


async def serve(route: Route, controls: Controls, request: web.Request, caller: Caller, request_id: str) -> Ready:
    """Decode the request, run the route's handler and write the row; return what is to be sent."""
    write = functools.partial(_append, controls=controls, route=route, caller=caller, request_id=request_id)
    if route.takes and not route.optional:
        decode.check_media(request, route.takes)
    query = decode.query(request.query, route.query, strict=not route.upgrade)
    if route.upgrade and not web.WebSocketResponse().can_prepare(request):
        raise web.HTTPUpgradeRequired(text="this route is a WebSocket; connect to it with a ws:// client.")
    body = None if route.body is None else await decode.body(request, route.body)
    call = Call(controls, request, caller, query, body, write)
    answer = await route.handler(call)
    try:
        if route.access is Access.CONTENT and not call.audited:
            await call.audit(answer)
        return await Ready.of(route, answer)
    except BaseException:
        if isinstance(answer, Stream):
            await answer.pieces.aclose()
        elif isinstance(answer, Socket) and answer.abandon is not None:
            await answer.abandon()
        raise


class Ready:
    """An answer whose row is written and whose first piece is made."""

    def __init__(self, route: Route, answer: Given, first: bytes | None) -> None:
        self._route = route
        self._answer = answer
        self._first = first

    @classmethod
    async def of(cls, route: Route, answer: Given) -> Ready:
        """Make the first piece of a stream, whose errors can still be told."""
        return cls(route, answer, await anext(answer.pieces, b"") if isinstance(answer, Stream) else None)

    async def send(self, request: web.Request, controls: Controls, headers: dict[str, str]) -> web.StreamResponse:
        """Send it; a client that goes away or stalls ends it quietly."""
        if isinstance(self._answer, Answer):
            status = self._answer.status or self._route.status
            body = None if status == 204 else msgspec.json.encode(self._answer.body)
            media = None if body is None else "application/json"
            return web.Response(status=status, body=body, content_type=media, headers=self._answer.headers | headers)
        if isinstance(self._answer, Socket):
            return await _converse(self._answer, request, headers)
        async with contextlib.aclosing(self._answer.pieces) as pieces:
            response = web.StreamResponse(status=self._answer.status, headers=self._answer.headers | headers)
            response.headers["Content-Type"] = self._answer.media
            response.content_length = self._answer.length
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            try:
                await _write(response, self._first or b"", controls)
                async for piece in pieces:
                    await _write(response, piece, controls)
                await response.write_eof()
            except (ConnectionResetError, TimeoutError):
                log.debug("the client went away", extra={"act": self._route.act})
                _cut(request)
            except Exception as error:  # noqa: BLE001  headers are out, so the only way to tell is to cut the answer off
                kind = error.slug if isinstance(error, OmiEdgeError) else type(error).__name__
                log.error("an answer broke off", extra={"act": self._route.act, "cause": kind})
                _cut(request)
            return response


async def _converse(answer: Socket, request: web.Request, headers: dict[str, str]) -> web.WebSocketResponse:
    """Open the WebSocket, let it be talked over, and close it."""
    # pings are ours: they go by the clock. Compression would let a small message unfold into a large one
    socket = web.WebSocketResponse(
        timeout=CLOSE_SECONDS, autoping=False, compress=False, max_msg_size=answer.message_limit
    )
    socket.headers.update(headers)
    try:
        await socket.prepare(request)
    except BaseException:
        if answer.abandon is not None:
            await answer.abandon()
        raise
    code, reason = 1011, "something went wrong inside omi-edge"
    try:
        code, reason = await answer.talk(socket)
    except asyncio.CancelledError:
        code, reason = 1001, "omi-edge is stopping"
        raise
    except Exception as error:  # noqa: BLE001  the upgrade is done, so the close code is the only way to tell
        kind = error.slug if isinstance(error, OmiEdgeError) else type(error).__name__
        log.error("a socket broke off", extra={"cause": kind})
    finally:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await socket.close(code=code, message=reason.encode()[:MAX_REASON])
    return socket


async def _write(response: web.StreamResponse, piece: bytes, controls: Controls) -> None:
    if piece:
        async with controls.clock.time_limit(STALL_SECONDS):
            await response.write(piece)


def _cut(request: web.Request) -> None:
    """End the connection without the mark of a whole answer, so that nobody takes a part for it."""
    if request.transport is not None:
        request.transport.abort()


async def note_failure(
    route: Route | None, controls: Controls, request: web.Request, caller: Caller, request_id: str, error: Exception
) -> None:
    """Leave a row for a request that failed. It gave nothing, so a row that cannot be written is only logged."""
    if not controls.ready:
        return
    if isinstance(error, AuditUnavailable):
        return
    status = error.status if isinstance(error, OmiEdgeError | web.HTTPException) else 500
    outcome = "denied" if status in (401, 403) else "not-found" if status == 404 else "failed"
    subject = request.match_info.get("id", "")
    entry = AuditEntry(
        actor=caller.actor,
        role=caller.role,
        act=route.act if route is not None else UNKNOWN_ACT,
        ids=(subject,) if _ID.fullmatch(subject) else (),
        outcome=outcome,
        request_id=request_id,
    )
    now_us = controls.clock.utc_us()
    try:
        await controls.db.write(lambda conn: audit.append(conn, entry, now_us))
    except Exception as failure:  # noqa: BLE001  whatever hinders it must not hide the error that is being told
        kind = failure.slug if isinstance(failure, OmiEdgeError) else type(failure).__name__
        log.error("a failed request could not be audited", extra={"act": entry.act, "cause": kind})


def _append(
    conn: Connection, answer: Given, *, controls: Controls, route: Route, caller: Caller, request_id: str
) -> None:
    entry = AuditEntry(
        actor=caller.actor,
        role=caller.role,
        act=route.act,
        ids=answer.ids[:MAX_IDS],
        outcome="ok",
        count=answer.count or len(answer.ids),
        request_id=request_id,
    )
    try:
        audit.append(conn, entry, controls.clock.utc_us())
    except Exception as error:
        cause = error.slug if isinstance(error, OmiEdgeError) else "internal"
        raise AuditUnavailable(
            f"the audit row could not be written ({cause}), so nothing was given or changed. Ask again; `omi-edge "
            "status` tells what is wrong with the vault."
        ) from error
