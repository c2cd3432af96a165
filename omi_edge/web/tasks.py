"""/v1/tasks: created, read, changed, completed, deleted, listed."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from omi_edge.config import zone
from omi_edge.store import memories
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, times, wire
from omi_edge.web.listing import Paged
from omi_edge.web.route import Answer, Call, NoQuery, Route


class ListQuery(Paged, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of tasks, or how many each source holds."""

    state: Literal["open", "completed"] | None = None


async def listed(call: Call[ListQuery, None]) -> Answer:
    """List tasks."""
    query, filters = call.query, call.query.filters()
    if query.group_by is not None:
        return await call.read(lambda conn: shapes.by_source(conn, filters))

    def read(conn: Connection) -> Answer:
        page = memories.list_tasks(conn, filters=filters, state=query.state, limit=query.limit, cursor=query.cursor)
        items = [shapes.task(row) for row in page.items]
        return Answer(wire.Page(items, page.next), tuple(item.id for item in items))

    return await call.read(read)


async def create(call: Call[NoQuery, wire.TaskNew]) -> Answer:
    """Make a task by hand."""
    new, now_us = call.body, call.controls.clock.utc_us()
    due_us, has_time = times.due(new.due, zone(call.controls.config))

    def act(conn: Connection) -> Answer:
        row = memories.create_task(
            conn,
            description=new.description,
            owner=new.owner,
            owner_name=new.owner_name,
            due_us=due_us,
            due_has_time=has_time,
            priority=new.priority,
            now_us=now_us,
            client_id=call.caller.client_id,
        )
        return Answer(shapes.task(row), (row.id,), headers={"Location": f"/v1/tasks/{row.id}"})

    answer = await call.change(act)
    _tell(call, answer, "created")
    return answer


async def one(call: Call[NoQuery, None]) -> Answer:
    """Read one task."""
    return await call.read(lambda conn: Answer(shapes.task(memories.get_task(conn, call.id)), (call.id,)))


async def change(call: Call[NoQuery, wire.TaskChange]) -> Answer:
    """Change or complete a task."""
    changes = {name: value for name, value in msgspec.structs.asdict(call.body).items() if value is not msgspec.UNSET}
    if "due" in changes:
        changes["due_us"], changes["due_has_time"] = times.due(changes.pop("due"), zone(call.controls.config))
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        return Answer(shapes.task(memories.update_task(conn, call.id, now_us, **changes)), (call.id,))

    answer = await call.change(act)
    _tell(call, answer, "changed")
    return answer


async def delete(call: Call[NoQuery, None]) -> Answer:
    """Delete a task."""

    def act(conn: Connection) -> Answer:
        memories.delete_task(conn, call.id)
        return Answer(ids=(call.id,))

    answer = await call.change(act)
    _tell(call, answer, "deleted")
    return answer


def _tell(call: Call[Any, Any], answer: Answer, act: str) -> None:
    conversation_id = None if answer.body is None else answer.body.conversation_id
    now_us = call.controls.clock.utc_us()
    call.controls.bus.publish("task", now_us, id=answer.ids[0], conversation_id=conversation_id, act=act)


ROUTES = (
    Route(
        method="GET",
        path="/v1/tasks",
        summary="List tasks; or count by source",
        act="task.list",
        handler=listed,
        query=ListQuery,
        returns=(wire.Page[wire.TaskItem], wire.Page[wire.Group]),
    ),
    Route(
        method="POST",
        path="/v1/tasks",
        summary="Make a task by hand",
        act="task.create",
        handler=create,
        body=wire.TaskNew,
        returns=wire.TaskItem,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/tasks/{id}",
        summary="Read one task",
        act="task.read",
        handler=one,
        returns=wire.TaskItem,
    ),
    Route(
        method="PATCH",
        path="/v1/tasks/{id}",
        summary="Change or complete a task",
        act="task.change",
        handler=change,
        body=wire.TaskChange,
        returns=wire.TaskItem,
    ),
    Route(
        method="DELETE",
        path="/v1/tasks/{id}",
        summary="Delete a task",
        act="task.delete",
        handler=delete,
        status=204,
    ),
)
