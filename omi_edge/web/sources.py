"""/v1/sources: what recordings came from."""

from __future__ import annotations

from omi_edge.store import senders, sources
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.doors import CLOSE_MERGED, CLOSE_REFUSED
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List sources."""

    def read(conn: Connection) -> Answer:
        items = [shapes.source_item(row) for row in sources.list_all(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


async def rename(call: Call[NoQuery, wire.SourceChange]) -> Answer:
    """Call a source otherwise."""
    name = call.body.name

    def act(conn: Connection) -> Answer:
        return Answer(shapes.source_item(sources.rename(conn, call.id, name)), (call.id,))

    return await call.change(act)


async def refuse(call: Call[NoQuery, None]) -> Answer:
    """Take nothing more from a source's clients, and end their socket."""
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        senders.refuse(conn, call.id, now_us)
        return Answer(shapes.source_item(sources.get(conn, call.id)), (call.id,))

    answer = await call.change(act)
    call.controls.doors.end(call.id, CLOSE_REFUSED)
    return answer


async def allow(call: Call[NoQuery, None]) -> Answer:
    """Take audio again from a source's clients."""

    def act(conn: Connection) -> Answer:
        senders.allow(conn, call.id)
        return Answer(shapes.source_item(sources.get(conn, call.id)), (call.id,))

    return await call.change(act)


async def merge(call: Call[NoQuery, wire.SourceMerge]) -> Answer:
    """Let a source's clients send to another source from now on; what it holds stays where it is."""
    into = call.body.into

    def act(conn: Connection) -> Answer:
        senders.redirect(conn, call.id, into)
        return Answer(shapes.source_item(sources.get(conn, into)), (call.id, into))

    answer = await call.change(act)
    call.controls.doors.end(call.id, CLOSE_MERGED)
    return answer


ROUTES = (
    Route(
        method="GET",
        path="/v1/sources",
        summary="List pendants, files and other sources",
        act="source.list",
        handler=listed,
        returns=wire.Page[wire.SourceItem],
    ),
    Route(
        method="PATCH",
        path="/v1/sources/{id}",
        summary="Call a source otherwise",
        act="source.rename",
        handler=rename,
        body=wire.SourceChange,
        returns=wire.SourceItem,
    ),
    Route(
        method="POST",
        path="/v1/sources/{id}/refuse",
        summary="Take nothing more from the clients of a source",
        act="source.refuse",
        handler=refuse,
        returns=wire.SourceItem,
    ),
    Route(
        method="POST",
        path="/v1/sources/{id}/allow",
        summary="Take audio again from the clients of a refused source",
        act="source.allow",
        handler=allow,
        returns=wire.SourceItem,
    ),
    Route(
        method="POST",
        path="/v1/sources/{id}/merge",
        summary="Let the clients of a source send to another from now on; what it holds stays",
        act="source.merge",
        handler=merge,
        body=wire.SourceMerge,
        returns=wire.SourceItem,
    ),
)
