"""/v1/vault: what is in the encrypted file, by counts alone."""

from __future__ import annotations

from omi_edge.store import inspect
from omi_edge.store.connection import Connection
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def contents(call: Call[NoQuery, None]) -> Answer:
    """Count the rows of each table."""

    def read(conn: Connection) -> Answer:
        return Answer(dict(inspect.counts(conn)))

    return await call.read(read)


ROUTES = (
    Route(
        method="GET",
        path="/v1/vault",
        summary="Count the rows of each table in the encrypted file",
        act="vault.inspect",
        handler=contents,
        returns=dict[str, int],
    ),
)
