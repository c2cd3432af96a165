"""/v1/sources: what recordings came from."""

from __future__ import annotations

import msgspec

from omi_edge.store import ledger, merging, senders, sources
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.doors import CLOSE_MERGED, CLOSE_REFUSED
from omi_edge.web.ledger import moment
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List sources."""

    def read(conn: Connection) -> Answer:
        items = [shapes.source_item(conn, row) for row in sources.list_all(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


async def rename(call: Call[NoQuery, wire.SourceChange]) -> Answer:
    """Call a source otherwise."""
    name = call.body.name

    def act(conn: Connection) -> Answer:
        return Answer(shapes.source_item(conn, sources.rename(conn, call.id, name)), (call.id,))

    return await call.change(act)


async def refuse(call: Call[NoQuery, None]) -> Answer:
    """Take nothing more from a source's clients, and end their socket."""
    now = moment(call.controls.clock)

    def act(conn: Connection) -> Answer:
        senders.refuse(conn, call.id, now.utc_us)
        ledger.end(conn, call.id, now.boot_us + ledger.tick(conn, now))
        return Answer(shapes.source_item(conn, sources.get(conn, call.id)), (call.id,))

    answer = await call.change(act)
    call.controls.doors.end(call.id, CLOSE_REFUSED)
    return answer


async def allow(call: Call[NoQuery, None]) -> Answer:
    """Take audio again from a source's clients."""

    def act(conn: Connection) -> Answer:
        senders.allow(conn, call.id)
        return Answer(shapes.source_item(conn, sources.get(conn, call.id)), (call.id,))

    return await call.change(act)


async def merge(call: Call[NoQuery, wire.SourceMerge]) -> Answer:
    """Make two sources one: clients send to the other from now on, and what is there moves where that can be."""
    into, now = call.body.into, moment(call.controls.clock)

    def act(conn: Connection) -> Answer:
        senders.redirect(conn, call.id, into)
        ledger.end(conn, call.id, now.boot_us + ledger.tick(conn, now))
        return Answer(ids=(call.id, into))

    answer = await call.change(act)
    await call.controls.doors.ended(call.id, CLOSE_MERGED)

    def move(conn: Connection) -> wire.SourceMerged:
        why = merging.move(conn, call.id, into, now.utc_us)
        item = shapes.source_item(conn, sources.get(conn, into))
        return wire.SourceMerged(**msgspec.structs.asdict(item), moved=not why, stays=why)

    answer.body = await call.controls.db.write(move)
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
        summary="Make two sources one: what the first holds and gets from now on goes into the other",
        act="source.merge",
        handler=merge,
        body=wire.SourceMerge,
        returns=wire.SourceMerged,
    ),
)
