"""Clients of the API and their tokens, of which only hashes are kept."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.store.connection import Connection

PREFIX = "oe_"
TOKEN_BYTES = 32
ROLES = ("owner",)
_COLUMNS = "id, name, role, created_us, last_seen_us, revoked_us"
LIST_LIMIT = 1000


class ClientRow(msgspec.Struct, frozen=True):
    """Somebody with a token."""

    id: str
    name: str
    role: str
    created_us: int
    last_seen_us: int | None
    revoked_us: int | None


def add(conn: Connection, name: str, role: str, now_us: int) -> tuple[ClientRow, str]:
    """Register a client; return it and its token, which cannot be shown again. Raises BadInput."""
    name = name.strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise BadInput("a token's name has 1 to 100 printable characters.", "name")
    if role not in ROLES:
        raise BadInput(f"role must be one of {', '.join(ROLES)}.", "role")
    if conn.execute("SELECT 1 FROM clients WHERE name = ?", (name,)).fetchone() is not None:
        raise BadInput("there is a token of this name already; revoked names are not used again.", "name")
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    client_id = new_id("cli", now_us)
    conn.execute(
        "INSERT INTO clients (id, name, token_hash, role, created_us) VALUES (?, ?, ?, ?, ?)",
        (client_id, name, _hash(token), role, now_us),
    )
    return get(conn, client_id), token


def get(conn: Connection, client_id: str) -> ClientRow:
    """Return a client. Raises NotFound."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM clients WHERE id = ?", (client_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such token.")
    return _client(row)


def by_token(conn: Connection, token: str) -> ClientRow | None:
    """Return whose token it is, None for one that is unknown or revoked.

    The lookup is by the hash of a random 256-bit token: its timing tells nothing that helps to guess one.
    """
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM clients WHERE token_hash = ? AND revoked_us IS NULL", (_hash(token),)
    ).fetchone()
    return _client(row) if row is not None else None


def list_all(conn: Connection) -> list[ClientRow]:
    """Return all clients, revoked ones as well."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM clients ORDER BY created_us LIMIT {LIST_LIMIT}")
    return [_client(row) for row in rows]


def revoke(conn: Connection, client_id: str, now_us: int) -> None:
    """Make a token useless, for good. Raises NotFound."""
    get(conn, client_id)
    conn.execute("UPDATE clients SET revoked_us = coalesce(revoked_us, ?) WHERE id = ?", (now_us, client_id))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _client(row: Sequence[Any]) -> ClientRow:
    return ClientRow(*row)
