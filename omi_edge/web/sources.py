"""/v1/sources: what recordings came from."""

from __future__ import annotations

from omi_edge.store import sources
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List sources."""

    def read(conn: Connection) -> Answer:
        items = [shapes.source_item(row) for row in sources.list_all(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


ROUTES = (
    Route(
        method="GET",
        path="/v1/sources",
        summary="List pendants, files and other sources",
        act="source.list",
        handler=listed,
        returns=wire.Page[wire.SourceItem],
    ),
)
