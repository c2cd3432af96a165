"""`sources`, as a person types it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from omi_edge.cli.named import named
from omi_edge.clock import SystemClock
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import senders, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.sources import SourceRow
from tests.cli.conftest import Place
from tests.helpers import PASSPHRASE

D = ("--data", "D", "--passphrase-file", "F")


@pytest.fixture(scope="module")
def home(place: Place, empty_vault: Path) -> Place:
    """A place with two clients that sent something, and a recording."""
    shutil.copytree(empty_vault, place.home / "D")
    place.secret("F", PASSPHRASE + "\n")
    asyncio.run(_fill(place.home / "D"))
    return place


async def _fill(folder: Path) -> None:
    clock = SystemClock()

    def work(conn: Connection) -> None:
        for device in ("old tablet", "new tablet"):
            senders.admit(conn, client_id="", device=device, name=device, now_us=clock.utc_us())
        sources.add(
            conn, id="src_c", kind="file", name="talk.wav", device_id=None, client_id=None, codec=21,
            created_us=clock.utc_us(),
        )  # fmt: skip

    vault = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    await vault.write(work)
    await vault.close()


def test_sources_are_listed_renamed_refused_and_merged(home: Place) -> None:
    listed, renamed, refused, after, allowed, unsure, merged, nobody = (
        home(*call)
        for call in (
            (*D, "sources"),
            (*D, "sources", "rename", "src_c", "Tuesday's talk"),
            (*D, "sources", "refuse", "old"),
            (*D, "sources", "--json"),
            (*D, "sources", "allow", "old tablet"),
            (*D, "sources", "merge", "old", "new"),
            (*D, "sources", "merge", "old", "new", "--yes", "--json"),
            (*D, "sources", "refuse", "old tablit"),
        )
    )
    assert listed.code == 0 and all(name in listed.out for name in ("old tablet", "new tablet", "talk.wav"))
    assert "Tuesday's talk" in renamed.out and "refused" in refused.out and "refused" not in allowed.out
    assert {item["name"]: item["refused"] for item in json.loads(after.out)["items"]} == {
        "old tablet": True, "new tablet": False, "Tuesday's talk": False,
    }  # fmt: skip
    assert unsure.code == 2 and "--yes" in unsure.err and "cannot be undone" in unsure.err
    assert merged.code == 0 and json.loads(merged.out)["name"] == "new tablet"
    assert nobody.code != 0 and "did you mean old tablet?" in nobody.err


def _source(id: str, name: str) -> SourceRow:
    return SourceRow(id, "file", name, None, None, 21, 0, None, None, None, 0, 0, 0, 0, True)


def test_two_of_one_name_are_told_apart_by_their_ids() -> None:
    known = [_source("src_1", "talk.wav"), _source("src_2", "talk.wav"), _source("src_30", "music")]
    with pytest.raises(BadInput, match="src_1, src_2; write its id"):
        named("talk", known, "source")
    assert named("src_2", known, "source").id == "src_2" and named("MUS", known, "source").id == "src_30"
    with pytest.raises(NotFound, match="known: none"):
        named("x", [], "source")
