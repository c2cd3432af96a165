"""Tickets: what stands in for a token in a URL. Each opens one socket, within a minute, and is kept in memory alone.

URLs end up in histories, proxies' logs and screenshots; a browser cannot send a header with a WebSocket, and old
clients do not. So whoever has a token asks for a ticket with it, and puts that into ``?token=``.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

import msgspec

from omi_edge.clock import Clock
from omi_edge.errors import Unauthorized
from omi_edge.store import clients
from omi_edge.web import wire
from omi_edge.web.route import Access, Answer, Call, Caller, NoQuery, Route
from omi_edge.web.times import iso

PREFIX = "oet_"
LIFE_SECONDS = 60.0
"""Time for a page to open its socket."""
MOST = 1000
"""Tickets that wait; the oldest falls out."""
TICKET_BYTES = 32


class _Waiting(msgspec.Struct, frozen=True):
    caller: Caller
    until_us: int


class Tickets:
    """The tickets of one daemon."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()

    def make(self, caller: Caller) -> tuple[str, float]:
        """Return a ticket for ``caller`` and for how many seconds it holds."""
        ticket = PREFIX + secrets.token_urlsafe(TICKET_BYTES)
        self._waiting[_hash(ticket)] = _Waiting(caller, self._clock.boot_us() + round(LIFE_SECONDS * 1e6))
        while len(self._waiting) > MOST:
            self._waiting.popitem(last=False)
        return ticket, LIFE_SECONDS

    def use(self, text: str) -> Caller:
        """Return who made a ticket, and let it hold no more. Raises Unauthorized."""
        if text.startswith(clients.PREFIX):
            raise Unauthorized(
                "a token must not be in a URL, where histories and logs keep it: revoke this one if others can see "
                "them. Send it in the header Authorization: Bearer TOKEN, or POST it to /v1/tickets for a ticket."
            )
        found = self._waiting.pop(_hash(text), None)
        if found is None or found.until_us < self._clock.boot_us():
            raise Unauthorized(
                "the ticket is unknown, used or too old: each opens one socket within a minute. POST /v1/tickets with "
                "a token in the Authorization header makes another."
            )
        return found.caller


async def make(call: Call[NoQuery, None]) -> Answer:
    """Make a ticket for whoever asks."""
    answer = Answer(count=1)
    await call.audit(answer)
    ticket, seconds = call.controls.doors.tickets.make(call.caller)
    answer.body = wire.TicketMade(ticket, iso(call.controls.clock.utc_us() + round(seconds * 1e6)), seconds)
    return answer


async def ways(call: Call[NoQuery, None]) -> Answer:
    """Tell how a client may say who it is."""
    methods = wire.AuthMethods(authorization_header=True, ticket=True, token_in_url=False)
    endpoints = wire.AuthEndpoints(ticket="/v1/tickets", sockets=["/ws", "/ws_pcm", "/v4/listen"])
    return Answer(wire.AuthConfig(methods, endpoints, LIFE_SECONDS))


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()


ROUTES = (
    Route(
        method="GET",
        path="/api/auth/config",
        summary="Ask how a client may say who it is",
        act="auth.config",
        handler=ways,
        returns=wire.AuthConfig,
        access=Access.OPEN,
    ),
    Route(
        method="POST",
        path="/v1/tickets",
        summary="Make a ticket that opens one socket within a minute, for ?token=",
        act="ticket.create",
        handler=make,
        returns=wire.TicketMade,
        status=201,
    ),
)
