"""What a route is: its declaration, the call that a handler is given, and the answers that it may return.

A handler never touches the response. It returns an Answer or a Stream, and the gate sends it, after the audit row.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from enum import Enum
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from omi_edge.errors import AuditUnavailable, VaultError
from omi_edge.store.connection import Connection
from omi_edge.web.controls import Controls

Q = TypeVar("Q")
B = TypeVar("B")
T = TypeVar("T")


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route without query parameters."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    actor: str
    """``uid:NNN`` over the Unix socket, ``client:NAME`` with a token, ``anonymous``."""
    role: str
    client_id: str | None = None


ANONYMOUS = Caller("anonymous", "none")


class Access(Enum):
    """Who may ask, and whether the answer is content."""

    OPEN = "open"
    """Anybody on this machine, before the vault is open too; no content, no audit row for success."""
    PLAIN = "plain"
    """A caller who is known; no content, no audit row for success."""
    CONTENT = "content"
    """A caller who is known; one audit row for each request."""


class Answer(msgspec.Struct):
    """A whole answer, sent as JSON."""

    body: Any = None
    ids: tuple[str, ...] = ()
    """What was read or changed, for the audit row."""
    count: int = 0
    """How many things were given."""
    status: int | None = None
    """The route's own when None."""
    headers: dict[str, str] = {}


class Stream(msgspec.Struct):
    """An answer that is made while it is sent. The first piece is made before the headers leave."""

    pieces: AsyncGenerator[bytes, None]
    media: str
    ids: tuple[str, ...] = ()
    count: int = 0
    status: int = 200
    headers: dict[str, str] = {}
    length: int | None = None


class Socket(msgspec.Struct):
    """An answer that goes on as a WebSocket (RFC 6455): ``talk`` is given it open and returns the close code."""

    talk: Callable[[web.WebSocketResponse], Awaitable[tuple[int, str]]]
    """Returns code and reason (RFC 6455 §7.4); never raises for a client that goes away."""
    message_limit: int
    """Bytes of the longest message that is taken; a longer one ends the connection with 1009."""
    ids: tuple[str, ...] = ()
    count: int = 0
    abandon: Callable[[], Awaitable[None]] | None = None
    """Called when it never came to talk."""


Given = Answer | Stream | Socket
"""What a handler may return."""


class Call(Generic[Q, B]):
    """One request, decoded."""

    def __init__(
        self,
        controls: Controls,
        request: web.Request,
        caller: Caller,
        query: Q,
        body: B,
        audit: Callable[[Connection, Given], None],
    ) -> None:
        self.controls = controls
        self.request = request
        self.caller = caller
        self.query = query
        self.body = body
        self.audited = False
        """Whether the row of this request has been written."""
        self._audit = audit

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.request.match_info["id"]

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a reader."""
        return await self.controls.db.read(work)

    async def change(self, work: Callable[[Connection], Answer]) -> Answer:
        """Run ``work`` on the writer, with the audit row in the same transaction. AuditUnavailable undoes both."""

        def act(conn: Connection) -> Answer:
            answer = work(conn)
            self._audit(conn, answer)
            return answer

        answer = await self.controls.db.write(act)
        self.audited = True
        return answer

    async def audit(self, answer: Given) -> None:
        """Write the row, for an answer or before an act that is no single transaction. Raises AuditUnavailable."""
        try:
            await self.controls.db.write(lambda conn: self._audit(conn, answer))
        except VaultError as error:  # the row fitted but could not be made durable
            raise AuditUnavailable(f"the audit row could not be stored, so nothing was given: {error}") from error
        self.audited = True


Handler = Callable[[Call[Any, Any]], Awaitable[Given]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route of the API: what serves it, what guards it and what describes it."""

    method: str
    path: str
    summary: str
    act: str
    """Name in the audit."""
    handler: Handler
    query: type[msgspec.Struct] = NoQuery
    body: Any = None
    """Struct of a JSON body; None for none."""
    takes: tuple[str, ...] = ()
    """Media types of a body that the handler reads as it comes."""
    optional: bool = False
    """Whether the body may be left out. Then nothing of it is asked for, and its media type is not looked at, before
    the handler does: it knows first whether there is what the path names (RFC 9110 §10.1.1)."""
    returns: Any = None
    """Type of the JSON answer, or a tuple of those it may have; None for none."""
    gives: tuple[str, ...] = ()
    """Media types of an answer that is no JSON."""
    status: int = 200
    also: tuple[int, ...] = ()
    """Further statuses of the same shape."""
    access: Access = Access.CONTENT
    head: bool = False
    """Whether HEAD is answered as well."""
    upgrade: bool = False
    """Whether it is a WebSocket: a ticket in ``?token=`` opens it too, and parameters that it does not know are left
    alone, for its clients were made for other servers."""
