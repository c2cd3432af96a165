"""/v1/search: by words and by meaning."""

from __future__ import annotations

import logging
from typing import Annotated

from msgspec import Meta

from omi_edge.errors import BadInput, EngineError
from omi_edge.store import search
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.listing import Where
from omi_edge.web.route import Answer, Call, Route

log = logging.getLogger(__name__)


class SearchQuery(Where, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to look for."""

    q: Annotated[str, Meta(min_length=1, max_length=1000)]
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


async def found(call: Call[SearchQuery, None]) -> Answer:
    """Search utterances, memories, tasks and summaries, best first."""
    query, filters, index = call.query, call.query.filters(), call.controls.index
    if not query.q.strip():
        raise BadInput("q must hold a word to look for.", "q")
    try:
        vector = await call.controls.embed_query(query.q)
    except EngineError as error:  # words alone still find most things
        log.warning("searching without the embedder", extra={"cause": error.slug})
        vector = None

    def read(conn: Connection) -> Answer:
        rows = search.search(conn, index, query.q, vector, filters=filters, limit=query.limit)
        hits = [shapes.hit(conn, row) for row in rows]
        return Answer(wire.SearchResult(query.q, hits), tuple(hit.id for hit in hits))

    return await call.read(read)


ROUTES = (
    Route(
        method="GET",
        path="/v1/search",
        summary="Search by words and by meaning",
        act="search",
        handler=found,
        query=SearchQuery,
        returns=wire.SearchResult,
    ),
)
