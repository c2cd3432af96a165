"""/v1/vocabulary: the owner's words, and what was put right often enough to become one."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from omi_edge.store import vocabulary
from omi_edge.store.connection import Connection
from omi_edge.web import wire, wordwire
from omi_edge.web.route import Answer, Call, NoQuery, Route
from omi_edge.web.times import iso


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which word."""

    text: Annotated[str, Meta(min_length=1, max_length=200)]


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List the words, and what is offered."""

    def read(conn: Connection) -> Answer:
        rows = [wire.VocabularyWord(row.text, row.actor, iso(row.created_us)) for row in vocabulary.listed(conn)]
        offered = [
            wire.Suggestion(one.before, one.after, one.count, one.as_word) for one in vocabulary.suggestions(conn)
        ]
        return Answer(wire.Vocabulary(rows, offered), count=len(rows) + len(offered))

    return await call.read(read)


async def add(call: Call[NoQuery, wire.VocabularyNew]) -> Answer:
    """Add a word."""
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        row = vocabulary.add(conn, call.body.text, actor=call.caller.actor, now_us=now_us)
        return Answer(wire.VocabularyWord(row.text, row.actor, iso(row.created_us)), count=1)

    return await call.change(act)


async def remove(call: Call[Named, None]) -> Answer:
    """Remove a word."""

    def act(conn: Connection) -> Answer:
        vocabulary.remove(conn, call.query.text)
        return Answer(count=1)

    return await call.change(act)


async def dismiss(call: Call[NoQuery, wordwire.Dismissal]) -> Answer:
    """Offer something never again."""
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        vocabulary.dismiss(conn, call.body.before, call.body.after, actor=call.caller.actor, now_us=now_us)
        return Answer(count=1)

    return await call.change(act)


ROUTES = (
    Route(
        method="GET",
        path="/v1/vocabulary",
        summary="List the owner's words, and corrections made often enough to become one",
        act="vocabulary.list",
        handler=listed,
        returns=wire.Vocabulary,
    ),
    Route(
        method="POST",
        path="/v1/vocabulary",
        summary="Add a word or a name for recognisers to expect",
        act="vocabulary.add",
        handler=add,
        body=wire.VocabularyNew,
        returns=wire.VocabularyWord,
        status=201,
    ),
    Route(
        method="DELETE",
        path="/v1/vocabulary",
        summary="Remove a word",
        act="vocabulary.remove",
        handler=remove,
        query=Named,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/vocabulary/dismiss",
        summary="Offer a correction that was made often never again",
        act="vocabulary.dismiss",
        handler=dismiss,
        body=wordwire.Dismissal,
        status=204,
    ),
)
