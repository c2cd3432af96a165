"""/v1/gaps: what is missing, and why."""

from __future__ import annotations

from omi_edge.store import gaps
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.listing import Timeline
from omi_edge.web.route import Answer, Call, Route


async def listed(call: Call[Timeline, None]) -> Answer:
    """List gaps."""
    chosen = call.query.chosen()

    def read(conn: Connection) -> Answer:
        page = gaps.listed(conn, **chosen)
        items = [shapes.gap(row) for row in page.items]
        return Answer(wire.Page(items, page.next), tuple(sorted({item.source_id for item in items})), len(items))

    return await call.read(read)


ROUTES = (
    Route(
        method="GET",
        path="/v1/gaps",
        summary="List stretches without audio and their causes, newest first",
        act="gap.list",
        handler=listed,
        query=Timeline,
        returns=wire.Page[wire.GapItem],
    ),
)
