"""Who asks: the peer's user id over the Unix socket, a bearer token over TCP."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import sys
from collections.abc import Iterable

from aiohttp import web

from omi_edge.errors import Forbidden, Unauthorized
from omi_edge.store import clients
from omi_edge.web.controls import Controls
from omi_edge.web.route import Caller

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1
_XUCRED_BYTES = 76
"""struct xucred of macOS (sys/ucred.h): version, uid, number of groups, padding, 16 groups."""


def over_unix(request: web.Request) -> bool:
    """Say whether the request came over the Unix socket."""
    peer = _socket(request)
    return peer is not None and peer.family == socket.AF_UNIX


def from_loopback(request: web.Request) -> bool:
    """Say whether the request came from this machine."""
    if over_unix(request):
        return True
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def check_host(request: web.Request, allowed: Iterable[str]) -> None:
    """Raise Forbidden for a Host header that is not ours: a page elsewhere may have its name point at us.

    That is DNS rebinding: the browser then takes us for that page's own server. Over the Unix socket no browser comes.
    """
    if over_unix(request):
        return
    values = request.headers.getall("Host", [])
    match = _HOST.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or match.group(1).lower() not in _LOCAL_NAMES | {name.lower() for name in allowed}:
        raise Forbidden("the Host header does not name this machine; use http://localhost or 127.0.0.1.")


async def identify(request: web.Request, controls: Controls) -> Caller:
    """Return who asks. Raises Unauthorized, or Forbidden for a user of this machine who is not the owner."""
    if over_unix(request):
        return _peer(request)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("this needs the header Authorization: Bearer TOKEN; `omi-edge token create NAME` makes one.")
    row = await controls.db.read(lambda conn: clients.by_token(conn, token.strip()))
    if row is None:
        raise Unauthorized("the token is not valid, or was revoked; `omi-edge token create NAME` makes a new one.")
    if row.role != "owner":
        raise Forbidden("this token's role carries no rights in this version.")
    return Caller(f"client:{row.name}", row.role, row.id)


async def by_ticket(request: web.Request, controls: Controls) -> Caller:
    """Return whose ticket is in the URL. Raises Unauthorized, for a token in its place too."""
    values = request.query.getall("token")
    if len(values) != 1:
        raise Unauthorized("give one ticket in ?token=.")
    caller = controls.doors.tickets.use(values[0])
    if caller.client_id is not None:
        client_id = caller.client_id
        row = await controls.db.read(lambda conn: clients.get(conn, client_id))
        if row.revoked_us is not None:
            raise Unauthorized("the token that this ticket was made with was revoked.")
    return caller


def _peer(request: web.Request) -> Caller:
    peer = _socket(request)
    uid = _peer_uid(peer) if peer is not None else None
    if uid is None or uid not in (os.getuid(), 0):
        raise Forbidden("only the user who runs omi-edge may use this socket.")
    return Caller(f"uid:{uid}", "owner")


def _peer_uid(peer: socket.socket) -> int | None:
    linux = sys.platform.startswith("linux")
    try:
        if linux:
            return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
        return int(struct.unpack_from("=II", peer.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))[1])
    except (OSError, struct.error):
        return None


def _socket(request: web.Request) -> socket.socket | None:
    return None if request.transport is None else request.transport.get_extra_info("socket")
