"""Who sends audio over a socket: a token's holder and the device it names, and the source that its audio belongs to."""

from __future__ import annotations

import msgspec

from omi_edge.domain import Codec
from omi_edge.errors import BadInput, Forbidden
from omi_edge.ids import new_id
from omi_edge.store import sources
from omi_edge.store.connection import Connection
from omi_edge.store.sources import SourceRow

MOST_DEVICES = 100
"""Devices that one client may name: a program that makes up a new name each time must not fill the file."""
NAME_LIMIT = 100


class Admitted(msgspec.Struct, frozen=True):
    """Where a sender's audio goes."""

    source: SourceRow
    is_new: bool
    """Whether it was never seen before."""


def admit(conn: Connection, *, client_id: str, device: str, name: str, now_us: int) -> Admitted:
    """Return the source of a sender; of one that was never seen before, a new one called ``name``.

    ``client_id`` is "" for the owner's own programs on this machine. Raises Forbidden for a sender that the owner
    refused or for too many devices, BadInput for a device that cannot be named.
    """
    check_device(device)
    known = conn.execute(
        "SELECT o.id, d.refused_us FROM senders d JOIN sources o ON o.n = d.source_n"
        " WHERE d.client_id = ? AND d.device = ?",
        (client_id, device),
    ).fetchone()
    if known is not None:
        if known[1] is not None:
            raise Forbidden("the owner refused this source; nothing is taken from it.")
        conn.execute("UPDATE senders SET last_us = ? WHERE client_id = ? AND device = ?", (now_us, client_id, device))
        return Admitted(sources.get(conn, known[0]), is_new=False)
    count = conn.execute("SELECT count(*) FROM senders WHERE client_id = ?", (client_id,)).fetchone()[0]
    if count >= MOST_DEVICES:
        raise Forbidden(
            f"this token has brought {MOST_DEVICES} devices already. A client must keep its name; send one that is "
            "known, or make a token of its own for this client."
        )
    row = sources.add(
        conn, id=new_id("src", now_us), kind="socket", name=name[:NAME_LIMIT], device_id=None,
        client_id=client_id or None, codec=Codec.OPUS_20MS, created_us=now_us,
    )  # fmt: skip
    conn.execute(
        "INSERT INTO senders (client_id, device, source_n, first_us, last_us) VALUES (?, ?, ?, ?, ?)",
        (client_id, device, sources.number(conn, row.id), now_us, now_us),
    )
    return Admitted(row, is_new=True)


def check_device(device: str) -> None:
    """Raise BadInput for what cannot name a device."""
    if len(device) > NAME_LIMIT or not device.isprintable():
        raise BadInput(f"a client's name has at most {NAME_LIMIT} printable characters.", "uid")


def refuse(conn: Connection, source_id: str, now_us: int) -> None:
    """Take nothing more from whoever sends to a source. Raises NotFound, BadInput for one that nobody sends to."""
    number = sources.number(conn, source_id)
    changed = conn.execute(
        "UPDATE senders SET refused_us = coalesce(refused_us, ?) WHERE source_n = ?", (now_us, number)
    ).rowcount
    if not changed:
        raise BadInput("nobody sends to this source over a socket, so there is nobody to refuse.")


def allow(conn: Connection, source_id: str) -> None:
    """Take audio again from whoever sends to a source. Raises NotFound."""
    conn.execute("UPDATE senders SET refused_us = NULL WHERE source_n = ?", (sources.number(conn, source_id),))


def is_refused(conn: Connection, source_id: str) -> bool:
    """Say whether nothing more is taken from a client of a source. Raises NotFound."""
    row = conn.execute(
        "SELECT 1 FROM senders WHERE source_n = ? AND refused_us IS NOT NULL LIMIT 1",
        (sources.number(conn, source_id),),
    ).fetchone()
    return row is not None


def expected(conn: Connection, source_id: str) -> bool:
    """Say whether somebody who is not refused sends to a source. Raises NotFound."""
    row = conn.execute(
        "SELECT 1 FROM senders WHERE source_n = ? AND refused_us IS NULL LIMIT 1", (sources.number(conn, source_id),)
    ).fetchone()
    return row is not None


def redirect(conn: Connection, source_id: str, into_id: str) -> None:
    """Let whoever sends to a source send to another from now on. What it holds ``merging.move`` moves.

    Raises NotFound, or BadInput unless both are of sockets.
    """
    if source_id == into_id:
        raise BadInput("a source cannot be merged into itself.", "into")
    if sources.get(conn, source_id).kind != "socket" or sources.get(conn, into_id).kind != "socket":
        raise BadInput("only sources of clients that send over sockets can be merged.", "into")
    number, into = sources.number(conn, source_id), sources.number(conn, into_id)
    conn.execute("UPDATE senders SET source_n = ? WHERE source_n = ?", (into, number))
