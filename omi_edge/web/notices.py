"""/v1/notices: what the owner should know."""

from __future__ import annotations

from omi_edge.store import notices
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List the notices that hold now."""

    def read(conn: Connection) -> Answer:
        items = [shapes.notice(row) for row in notices.active(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


async def acknowledge(call: Call[NoQuery, None]) -> Answer:
    """Take note of a notice."""
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        return Answer(shapes.notice(notices.acknowledge(conn, call.id, now_us)), (call.id,))

    return await call.change(act)


ROUTES = (
    Route(
        method="GET",
        path="/v1/notices",
        summary="List what the owner should know",
        act="notice.list",
        handler=listed,
        returns=wire.Page[wire.NoticeItem],
    ),
    Route(
        method="POST",
        path="/v1/notices/{id}/acknowledge",
        summary="Take note of a notice",
        act="notice.acknowledge",
        handler=acknowledge,
        returns=wire.NoticeItem,
    ),
)
