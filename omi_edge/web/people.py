"""/v1/people: whose names are known, and what language they speak."""

from __future__ import annotations

from omi_edge.store import people
from omi_edge.store.connection import Connection
from omi_edge.store.people import PersonRow
from omi_edge.web import wire, wordwire
from omi_edge.web.route import Answer, Call, NoQuery, Route
from omi_edge.web.times import iso


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List everybody by name."""

    def read(conn: Connection) -> Answer:
        items = [_person(row) for row in people.list_all(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items), len(items))

    return await call.read(read)


async def add(call: Call[NoQuery, wordwire.PersonNew]) -> Answer:
    """Add somebody."""
    new, now_us = call.body, call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        row = people.add(conn, new.name, now_us=now_us, language=new.language)
        return Answer(_person(row), (row.id,), 1)

    return await call.change(act)


async def change(call: Call[NoQuery, wordwire.PersonChange]) -> Answer:
    """Change the name or the language of somebody."""
    new = call.body

    def act(conn: Connection) -> Answer:
        row = people.get(conn, call.id)
        if new.name is not None:
            row = people.rename(conn, row.id, new.name)
        if new.language is not None:
            row = people.speaks(conn, row.id, new.language)
        return Answer(_person(row), (row.id,), 1)

    return await call.change(act)


async def forget(call: Call[NoQuery, None]) -> Answer:
    """Forget who somebody is; what they said stays."""

    def act(conn: Connection) -> Answer:
        people.forget(conn, call.id)
        return Answer(None, (call.id,), 1)

    return await call.change(act)


def _person(row: PersonRow) -> wordwire.Person:
    return wordwire.Person(row.id, row.name, row.is_user, row.language, iso(row.created_us))


ROUTES = (
    Route(
        method="GET",
        path="/v1/people",
        summary="List the people whose names are known",
        act="people.list",
        handler=listed,
        returns=wire.Page[wordwire.Person],
    ),
    Route(
        method="POST",
        path="/v1/people",
        summary="Add somebody; recognisers expect the name from the next segment on",
        act="people.add",
        handler=add,
        body=wordwire.PersonNew,
        returns=wordwire.Person,
        status=201,
    ),
    Route(
        method="PATCH",
        path="/v1/people/{id}",
        summary="Change somebody's name, or the language that they speak",
        act="people.change",
        handler=change,
        body=wordwire.PersonChange,
        returns=wordwire.Person,
    ),
    Route(
        method="DELETE",
        path="/v1/people/{id}",
        summary="Forget who somebody is; what they said stays, without the name",
        act="people.forget",
        handler=forget,
        status=204,
    ),
)
