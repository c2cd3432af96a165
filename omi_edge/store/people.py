"""People whose names are known, and what language they speak."""

from __future__ import annotations

import re

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.store import conversations
from omi_edge.store.connection import Connection

LIST_LIMIT = 10_000
LONGEST = 100
_LANGUAGE = re.compile("([a-z]{2,3})?")
"""As listen.language: ISO 639."""
LANGUAGES = frozenset(
    (
        "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu "
        "hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt "
        "ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh yue"
    ).split()
)
"""Codes of the languages that Whisper knows: _LANGUAGE_CODES of faster-whisper 1.2 (tokenizer.py)."""
_SELECT = "SELECT id, name, is_user, created_us, language FROM people"


class PersonRow(msgspec.Struct, frozen=True):
    """Somebody."""

    id: str
    name: str
    is_user: bool
    created_us: int
    language: str = ""
    """Code of what they speak, "" for whatever the settings say."""


def add(conn: Connection, name: str, *, now_us: int, is_user: bool = False, language: str = "") -> PersonRow:
    """Register somebody. Raises BadInput when the name is taken, empty or too long, and for what is no language."""
    _check(conn, name)
    _check_language(language)
    person_id = new_id("per", now_us)
    conn.execute(
        "INSERT INTO people (id, name, is_user, created_us, language) VALUES (?, ?, ?, ?, ?)",
        (person_id, name.strip(), int(is_user), now_us, language),
    )
    return get(conn, person_id)


def get(conn: Connection, person_id: str) -> PersonRow:
    """Return somebody. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE id = ?", (person_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such person.")
    return _row(row)


def rename(conn: Connection, person_id: str, name: str) -> PersonRow:
    """Give somebody another name. Raises NotFound or BadInput."""
    if get(conn, person_id).name.casefold() != name.strip().casefold():
        _check(conn, name)
    conn.execute("UPDATE people SET name = ? WHERE id = ?", (name.strip(), person_id))
    return get(conn, person_id)


def speaks(conn: Connection, person_id: str, language: str) -> PersonRow:
    """Lock the language of somebody; "" for whatever the settings say. Raises NotFound or BadInput."""
    _check_language(language)
    get(conn, person_id)
    conn.execute("UPDATE people SET language = ? WHERE id = ?", (language, person_id))
    return get(conn, person_id)


def forget(conn: Connection, person_id: str) -> None:
    """Remove somebody; what they said stays, without their name. Raises NotFound."""
    get(conn, person_id)
    conn.execute("UPDATE utterances SET person_id = NULL WHERE person_id = ?", (person_id,))
    conn.execute("DELETE FROM people WHERE id = ?", (person_id,))


def list_all(conn: Connection) -> list[PersonRow]:
    """Return everybody by name."""
    return [_row(row) for row in conn.execute(f"{_SELECT} ORDER BY name LIMIT {LIST_LIMIT}")]


def language_of(conn: Connection, conversation_id: str, segment_id: str) -> str:
    """Return the language that all who speak in a segment share, as far as the shown version knows who they are.

    "" when one of them is unknown or has none, when they differ, and when nobody speaks: the settings' rule holds then.
    Raises NotFound.
    """
    rows = conn.execute(
        "SELECT DISTINCT coalesce(p.language, '') FROM utterances u LEFT JOIN people p ON p.id = u.person_id"
        " WHERE u.version_n = (SELECT n FROM transcript_versions WHERE id = ?) AND u.segment_id = ? AND u.text <> ''",
        (conversations.get(conn, conversation_id).version_id, segment_id),
    ).fetchall()
    return str(rows[0][0]) if len(rows) == 1 else ""


def _check(conn: Connection, name: str) -> None:
    if not name.strip() or len(name) > LONGEST:
        raise BadInput(f"a person needs a name, of at most {LONGEST} characters.", "name")
    if conn.execute("SELECT 1 FROM people WHERE name = ?", (name.strip(),)).fetchone() is not None:
        raise BadInput("there is somebody of this name already.", "name")


def _check_language(language: str) -> None:
    if not _LANGUAGE.fullmatch(language):
        raise BadInput(
            "a language is a code of two or three letters like en or de; leave it empty for the one of the settings.",
            "language",
        )
    if language and language not in LANGUAGES:
        raise BadInput(
            "Whisper knows no language of this code; take one that it knows, like en or de.",
            "language",
        )


def _row(row: tuple[object, ...]) -> PersonRow:
    return PersonRow(str(row[0]), str(row[1]), bool(row[2]), int(str(row[3])), str(row[4]))
