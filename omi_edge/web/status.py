"""/health, /readiness, /v1/status: whether it works, and how well; /openapi.json: how to ask."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from omi_edge.web import wire
from omi_edge.web.middleware import DESCRIPTION
from omi_edge.web.route import ANONYMOUS, Access, Answer, Call, NoQuery, Route


async def health(call: Call[NoQuery, None]) -> Answer:
    """Check each part; who is not known is not told what to do about it, for advice may name files and addresses."""
    found = await call.controls.health()
    if call.caller == ANONYMOUS:
        found = replace(found, parts=[replace(part, advice="") for part in found.parts])
    return Answer(found, status=503 if found.status == "critical" else 200)


async def readiness(call: Call[NoQuery, None]) -> Answer:
    """Say whether requests are served."""
    found = call.controls.readiness()
    return Answer(found, status=200 if found.ready else 503)


async def status(call: Call[NoQuery, None]) -> Answer:
    """Gather what `omi-edge status` shows."""
    return Answer(await call.controls.status())


async def described(call: Call[NoQuery, None]) -> Answer:
    """Describe the API."""
    return Answer(await asyncio.to_thread(call.request.app[DESCRIPTION]))


ROUTES = (
    Route(
        method="GET",
        path="/health",
        summary="Check each part of the appliance",
        act="health.read",
        handler=health,
        returns=wire.Health,
        also=(503,),
        access=Access.OPEN,
    ),
    Route(
        method="GET",
        path="/readiness",
        summary="Ask whether requests are served",
        act="readiness.read",
        handler=readiness,
        returns=wire.Readiness,
        also=(503,),
        access=Access.OPEN,
    ),
    Route(
        method="GET",
        path="/v1/status",
        summary="Read the state of sources, jobs, engines and audio",
        act="status.read",
        handler=status,
        returns=wire.Status,
    ),
    Route(
        method="GET",
        path="/openapi.json",
        summary="Read this description",
        act="openapi.read",
        handler=described,
        returns=dict,
        access=Access.PLAIN,
    ),
)
