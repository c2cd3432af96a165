"""/v1/memories: created, read, changed, deleted, listed."""

from __future__ import annotations

from typing import Any

import msgspec

from omi_edge.store import memories
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.listing import Paged
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[Paged, None]) -> Answer:
    """List memories, newest first."""
    query, filters = call.query, call.query.filters()
    if query.group_by is not None:
        return await call.read(lambda conn: shapes.by_source(conn, filters))

    def read(conn: Connection) -> Answer:
        page = memories.list_memories(conn, filters=filters, limit=query.limit, cursor=query.cursor)
        items = [shapes.memory(row) for row in page.items]
        return Answer(wire.Page(items, page.next), tuple(item.id for item in items))

    return await call.read(read)


async def create(call: Call[NoQuery, wire.MemoryNew]) -> Answer:
    """Make a memory by hand."""
    new, now_us = call.body, call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        row = memories.create_memory(
            conn,
            content=new.content,
            subject=new.subject,
            category=new.category,
            now_us=now_us,
            client_id=call.caller.client_id,
        )
        return Answer(shapes.memory(row), (row.id,), headers={"Location": f"/v1/memories/{row.id}"})

    answer = await call.change(act)
    _tell(call, answer, "created")
    return answer


async def one(call: Call[NoQuery, None]) -> Answer:
    """Read one memory."""
    return await call.read(lambda conn: Answer(shapes.memory(memories.get_memory(conn, call.id)), (call.id,)))


async def change(call: Call[NoQuery, wire.MemoryChange]) -> Answer:
    """Change a memory."""
    changes = {name: value for name, value in msgspec.structs.asdict(call.body).items() if value is not msgspec.UNSET}
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        return Answer(shapes.memory(memories.update_memory(conn, call.id, now_us, **changes)), (call.id,))

    answer = await call.change(act)
    _tell(call, answer, "changed")
    return answer


async def delete(call: Call[NoQuery, None]) -> Answer:
    """Delete a memory."""

    def act(conn: Connection) -> Answer:
        memories.delete_memory(conn, call.id)
        return Answer(ids=(call.id,))

    answer = await call.change(act)
    _tell(call, answer, "deleted")
    return answer


def _tell(call: Call[Any, Any], answer: Answer, act: str) -> None:
    conversation_id = None if answer.body is None else answer.body.conversation_id
    now_us = call.controls.clock.utc_us()
    call.controls.bus.publish("memory", now_us, id=answer.ids[0], conversation_id=conversation_id, act=act)


ROUTES = (
    Route(
        method="GET",
        path="/v1/memories",
        summary="List memories, newest first; or count by source",
        act="memory.list",
        handler=listed,
        query=Paged,
        returns=(wire.Page[wire.MemoryItem], wire.Page[wire.Group]),
    ),
    Route(
        method="POST",
        path="/v1/memories",
        summary="Make a memory by hand",
        act="memory.create",
        handler=create,
        body=wire.MemoryNew,
        returns=wire.MemoryItem,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/memories/{id}",
        summary="Read one memory",
        act="memory.read",
        handler=one,
        returns=wire.MemoryItem,
    ),
    Route(
        method="PATCH",
        path="/v1/memories/{id}",
        summary="Change a memory",
        act="memory.change",
        handler=change,
        body=wire.MemoryChange,
        returns=wire.MemoryItem,
    ),
    Route(
        method="DELETE",
        path="/v1/memories/{id}",
        summary="Delete a memory",
        act="memory.delete",
        handler=delete,
        status=204,
    ),
)
