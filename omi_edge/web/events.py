"""/v1/events: what happens, as server-sent events, with replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from omi_edge.clock import Clock
from omi_edge.errors import BadInput
from omi_edge.events import KINDS, Bus, Event
from omi_edge.store import clients
from omi_edge.web import wire
from omi_edge.web.middleware import STOPPING
from omi_edge.web.route import Call, Route, Stream
from omi_edge.web.times import iso, iso_or_none

MEDIA = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
"""The HTML standard proposes a comment about every 15 seconds against proxies that end quiet connections (§9.2.7)."""
MAX_NUMBER = 2**53
"""The largest number that every JSON reader keeps."""


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to listen to."""

    after: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None
    """Number of the last event that is known; the header Last-Event-ID says the same."""
    kinds: Annotated[str, Meta(max_length=200)] | None = None
    """Kinds, separated by commas; all when absent."""


async def followed(call: Call[EventsQuery, None]) -> Stream:
    """Follow what happens."""
    controls = call.controls
    kinds = _kinds(call.query.kinds)
    after = call.query.after
    known = call.request.headers.get("Last-Event-ID", "")
    if known:
        if not known.isascii() or not known.isdigit() or len(known) > 16:
            raise BadInput("Last-Event-ID must be the number of an event.", "Last-Event-ID")
        after = int(known)
    if after is not None and after > controls.bus.last_number:
        after = 0  # numbers began anew with the daemon: everything kept is news

    async def may_listen() -> bool:
        client_id = call.caller.client_id
        if client_id is None:
            return True
        row = await controls.db.read(lambda conn: clients.get(conn, client_id))
        return row.revoked_us is None

    pieces = _told(controls.bus, controls.clock, call.request.app[STOPPING], after, kinds, may_listen)
    return Stream(pieces, MEDIA, headers={"X-Accel-Buffering": "no"})


def wire_event(event: Event) -> bytes:
    """Return one event as the stream carries it."""
    data = msgspec.json.encode(wire.EventItem(event.number, event.kind, iso(event.at_us), _timed(event.data)))
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.kind.encode(), event.number, data)


def _timed(data: dict[str, Any]) -> dict[str, Any]:
    """Times as everywhere in the API: ``start_us`` becomes ``start``, RFC 3339."""
    return {name.removesuffix("_us"): iso_or_none(at) if name.endswith("_us") else at for name, at in data.items()}


async def _told(
    bus: Bus,
    clock: Clock,
    stopping: asyncio.Event,
    after: int | None,
    kinds: frozenset[str],
    may_listen: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[bytes, None]:
    """Yield events as they come; a slow reader loses the oldest and is told how many. A revoked token ends it."""
    with bus.subscribe(after=after) as subscription:
        yield b": listening\n\n"
        dropped = 0
        stop = asyncio.create_task(stopping.wait(), name="events stop")
        beat = asyncio.create_task(clock.sleep(HEARTBEAT_SECONDS), name="events heartbeat")
        coming = asyncio.create_task(subscription.get(), name="events next")
        try:
            while not stop.done():
                await asyncio.wait((stop, coming, beat), return_when=asyncio.FIRST_COMPLETED)
                if subscription.dropped > dropped:
                    yield b": %d events were lost to slow reading\n\n" % (subscription.dropped - dropped)
                    dropped = subscription.dropped
                if beat.done():
                    beat = asyncio.create_task(clock.sleep(HEARTBEAT_SECONDS), name="events heartbeat")
                    yield b": still here\n\n"
                if coming.done():
                    event = coming.result()
                    coming = asyncio.create_task(subscription.get(), name="events next")
                    if not await may_listen():
                        return
                    if event.kind in kinds:
                        yield wire_event(event)
        finally:
            for task in (stop, beat, coming):
                task.cancel()
            await asyncio.gather(stop, beat, coming, return_exceptions=True)


def _kinds(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset(KINDS)
    wanted = frozenset(part.strip() for part in text.split(","))
    if not wanted <= set(KINDS):
        raise BadInput(f"kinds must be some of {', '.join(KINDS)}.", "kinds")
    return wanted


ROUTES = (
    Route(
        method="GET",
        path="/v1/events",
        summary="Follow what happens, as server-sent events",
        act="events.follow",
        handler=followed,
        query=EventsQuery,
        gives=(MEDIA,),
    ),
)
