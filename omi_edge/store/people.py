"""People whose names are known."""

from __future__ import annotations

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.store.connection import Connection

LIST_LIMIT = 10_000


class PersonRow(msgspec.Struct, frozen=True):
    """Somebody."""

    id: str
    name: str
    is_user: bool
    created_us: int


def add(conn: Connection, name: str, *, now_us: int, is_user: bool = False) -> PersonRow:
    """Register somebody. Raises BadInput when the name is taken or empty."""
    _check(conn, name)
    person_id = new_id("per", now_us)
    conn.execute(
        "INSERT INTO people (id, name, is_user, created_us) VALUES (?, ?, ?, ?)",
        (person_id, name.strip(), int(is_user), now_us),
    )
    return get(conn, person_id)


def get(conn: Connection, person_id: str) -> PersonRow:
    """Return somebody. Raises NotFound."""
    row = conn.execute("SELECT id, name, is_user, created_us FROM people WHERE id = ?", (person_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such person.")
    return PersonRow(row[0], row[1], bool(row[2]), row[3])


def rename(conn: Connection, person_id: str, name: str) -> PersonRow:
    """Give somebody another name. Raises NotFound or BadInput."""
    if get(conn, person_id).name.casefold() != name.strip().casefold():
        _check(conn, name)
    conn.execute("UPDATE people SET name = ? WHERE id = ?", (name.strip(), person_id))
    return get(conn, person_id)


def list_all(conn: Connection) -> list[PersonRow]:
    """Return everybody by name."""
    rows = conn.execute(f"SELECT id, name, is_user, created_us FROM people ORDER BY name LIMIT {LIST_LIMIT}")
    return [PersonRow(row[0], row[1], bool(row[2]), row[3]) for row in rows]


def _check(conn: Connection, name: str) -> None:
    if not name.strip():
        raise BadInput("a person needs a name.", "name")
    if conn.execute("SELECT 1 FROM people WHERE name = ?", (name.strip(),)).fetchone() is not None:
        raise BadInput("there is somebody of this name already.", "name")
