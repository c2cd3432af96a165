"""Who sends over a socket, and where it goes."""

from __future__ import annotations

import pytest

from omi_edge.errors import BadInput, Forbidden, NotFound
from omi_edge.store import senders, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.senders import MOST_DEVICES, Admitted
from tests.helpers import START_US


def admit(conn: Connection, device: str, client_id: str = "cli_1") -> Admitted:
    return senders.admit(conn, client_id=client_id, device=device, name=device or "laptop", now_us=START_US)


async def test_a_sender_is_registered_once(db: Database) -> None:
    first = await db.write(lambda conn: admit(conn, "phone"))
    again = await db.write(lambda conn: admit(conn, "phone"))
    assert (first.is_new, again.is_new) == (True, False)
    assert first.source == again.source
    assert (first.source.kind, first.source.name, first.source.device_id) == ("socket", "phone", None)
    others = [
        await db.write(lambda conn: admit(conn, "")),
        await db.write(lambda conn: admit(conn, "phone", "cli_2")),
        await db.write(lambda conn: admit(conn, "phone", "")),
    ]
    assert len({other.source.id for other in others} | {first.source.id}) == 4


@pytest.mark.parametrize("device", ["a\nb", "x" * 101, "\x1b[2J"])
async def test_a_name_that_cannot_be_shown_is_refused(db: Database, device: str) -> None:
    with pytest.raises(BadInput):
        await db.write(lambda conn: admit(conn, device))
    assert await db.read(sources.list_all) == []


async def test_a_client_cannot_fill_the_file_with_names(db: Database) -> None:
    def many(conn: Connection) -> None:
        for number in range(MOST_DEVICES):
            admit(conn, f"phone {number}")

    await db.write(many)
    with pytest.raises(Forbidden):
        await db.write(lambda conn: admit(conn, "one more"))
    assert not (await db.write(lambda conn: admit(conn, "phone 0"))).is_new
    assert (await db.write(lambda conn: admit(conn, "one more", "cli_2"))).is_new


async def test_refused_and_allowed(db: Database) -> None:
    source = (await db.write(lambda conn: admit(conn, "phone"))).source
    await db.write(lambda conn: senders.refuse(conn, source.id, START_US))
    with pytest.raises(Forbidden):
        await db.write(lambda conn: admit(conn, "phone"))
    await db.write(lambda conn: senders.allow(conn, source.id))
    assert (await db.write(lambda conn: admit(conn, "phone"))).source == source
    for act in (senders.allow, lambda conn, source_id: senders.refuse(conn, source_id, START_US)):
        with pytest.raises(NotFound):
            await db.write(lambda conn: act(conn, "src_none"))  # noqa: B023


async def test_several_names_lead_to_one_source(db: Database) -> None:
    old = (await db.write(lambda conn: admit(conn, "old"))).source
    new = (await db.write(lambda conn: admit(conn, "new"))).source
    await db.write(lambda conn: senders.redirect(conn, new.id, old.id))
    for device in ("old", "new"):
        assert (await db.write(lambda conn: admit(conn, device))).source.id == old.id  # noqa: B023
    with pytest.raises(BadInput):
        await db.write(lambda conn: senders.redirect(conn, old.id, old.id))
