"""/v1/bookmarks: moments that the wearer marks."""

from __future__ import annotations

from omi_edge.store import bookmarks, sources
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.listing import Timeline
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[Timeline, None]) -> Answer:
    """List bookmarks."""
    chosen = call.query.chosen()

    def read(conn: Connection) -> Answer:
        page = bookmarks.listed(conn, **chosen)
        items = [shapes.bookmark(row) for row in page.items]
        return Answer(wire.Page(items, page.next), tuple(item.id for item in items))

    return await call.read(read)


async def create(call: Call[NoQuery, wire.BookmarkNew]) -> Answer:
    """Mark this moment."""
    source_id = call.body.source_id
    if source_id is not None:
        await call.read(lambda conn: sources.get(conn, source_id))
    await call.audit(Answer(ids=() if source_id is None else (source_id,)))  # the daemon stores it, and tells of it
    row = await call.controls.add_bookmark(source_id, call.caller.actor)
    return Answer(shapes.bookmark(row), (row.id,))


ROUTES = (
    Route(
        method="GET",
        path="/v1/bookmarks",
        summary="List marked moments, newest first",
        act="bookmark.list",
        handler=listed,
        query=Timeline,
        returns=wire.Page[wire.BookmarkItem],
    ),
    Route(
        method="POST",
        path="/v1/bookmarks",
        summary="Mark this moment",
        act="bookmark.create",
        handler=create,
        body=wire.BookmarkNew,
        returns=wire.BookmarkItem,
        status=201,
    ),
)
