"""What every request passes through: id, Host check, identity, gate; and what every error becomes."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from omi_edge.errors import NotReady, OmiEdgeError
from omi_edge.ids import new_id
from omi_edge.web import gate, identity, problems
from omi_edge.web.controls import Controls
from omi_edge.web.route import ANONYMOUS, Access, Caller, Route

log = logging.getLogger(__name__)

CONTROLS: web.AppKey[Controls] = web.AppKey("controls", Controls)
ROUTES: web.AppKey[Mapping[Any, Route]] = web.AppKey("routes", dict)
"""Which route an aiohttp handler serves."""
STOPPING: web.AppKey[asyncio.Event] = web.AppKey("stopping", asyncio.Event)
"""Set when the server stops: endless answers end."""
DESCRIPTION: web.AppKey[Callable[[], dict[str, Any]]] = web.AppKey("description")
"""Makes the OpenAPI document, or returns what was made; blocks."""

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "omi-edge"}
"""No answer may lie in a browser's cache: content belongs in the encrypted file alone."""


@web.middleware
async def guard(request: web.Request, handler: Next) -> web.StreamResponse:
    """Serve one request, or tell what is in the way."""
    controls = request.app[CONTROLS]
    route = request.app[ROUTES].get(request.match_info.handler)
    given = request.headers.get("X-Request-ID", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req", controls.clock.utc_us())
    headers = _HEADERS | {"X-Request-ID": request_id}
    started_us = controls.clock.work_us()
    caller = ANONYMOUS
    try:
        identity.check_host(request, (controls.config.web.host,))
        caller = await _identify(request, controls, route)
        if route is None:
            await handler(request)  # aiohttp's own, which raises 404 or 405
            raise web.HTTPNotFound
        ready = await gate.serve(route, controls, request, caller, request_id)
        response = await ready.send(request, controls, headers)
    except Exception as error:  # noqa: BLE001  the one place where any error becomes an answer
        response = await _refuse(error, route, request, caller, headers)
    log.debug(
        "request",
        extra={
            "act": route.act if route is not None else gate.UNKNOWN_ACT,
            "status": response.status,
            "ms": (controls.clock.work_us() - started_us) // 1000,
            "request_id": request_id,
        },
    )
    return response


async def _identify(request: web.Request, controls: Controls, route: Route | None) -> Caller:
    """Return who asks; on an open route anybody of this machine may."""
    is_open = route is not None and route.access is Access.OPEN and identity.from_loopback(request)
    try:
        if not controls.ready and not is_open:
            raise NotReady(f"the daemon is {controls.readiness().state}; ask again in a moment.")
        if route is not None and route.upgrade and "token" in request.query:
            return await identity.by_ticket(request, controls)
        return await identity.identify(request, controls)
    except OmiEdgeError:
        if is_open:
            return ANONYMOUS
        raise


async def _refuse(
    error: Exception, route: Route | None, request: web.Request, caller: Caller, headers: Mapping[str, str]
) -> web.Response:
    controls = request.app[CONTROLS]
    problem, extra = problems.problem_of(error)
    if problem.status >= 500 and not isinstance(error, OmiEdgeError):
        log.error("a request failed", extra={"kind": type(error).__name__, "request_id": headers["X-Request-ID"]})
    await gate.note_failure(route, controls, request, caller, headers["X-Request-ID"], error)
    body = b"" if request.method == "HEAD" else msgspec.json.encode(problem)
    return web.Response(status=problem.status, body=body, content_type=problems.MEDIA, headers={**headers, **extra})
