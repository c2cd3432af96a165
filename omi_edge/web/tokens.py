"""/v1/tokens: who may use the API over the network."""

from __future__ import annotations

from omi_edge.store import clients
from omi_edge.store.clients import ClientRow
from omi_edge.store.connection import Connection
from omi_edge.web import wire
from omi_edge.web.route import Answer, Call, NoQuery, Route
from omi_edge.web.times import iso, iso_or_none


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List clients; tokens themselves are not kept."""

    def read(conn: Connection) -> Answer:
        items = [_item(row) for row in clients.list_all(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


async def create(call: Call[NoQuery, wire.TokenNew]) -> Answer:
    """Make a token, which is shown this once."""
    new, now_us = call.body, call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        row, token = clients.add(conn, new.name, new.role, now_us)
        return Answer(wire.TokenMade(row.id, row.name, row.role, token), (row.id,))

    return await call.change(act)


async def revoke(call: Call[NoQuery, None]) -> Answer:
    """Revoke a token; it is refused from now on."""
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        clients.revoke(conn, call.id, now_us)
        return Answer(ids=(call.id,))

    return await call.change(act)


def _item(row: ClientRow) -> wire.TokenItem:
    return wire.TokenItem(row.id, row.name, row.role, iso(row.created_us), iso_or_none(row.revoked_us))


ROUTES = (
    Route(
        method="GET",
        path="/v1/tokens",
        summary="List the clients that hold a token",
        act="token.list",
        handler=listed,
        returns=wire.Page[wire.TokenItem],
    ),
    Route(
        method="POST",
        path="/v1/tokens",
        summary="Make a token, shown this once",
        act="token.create",
        handler=create,
        body=wire.TokenNew,
        returns=wire.TokenMade,
        status=201,
    ),
    Route(
        method="DELETE",
        path="/v1/tokens/{id}",
        summary="Revoke a token",
        act="token.revoke",
        handler=revoke,
        status=204,
    ),
)
