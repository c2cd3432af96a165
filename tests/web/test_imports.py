"""Recordings over the API: what is sent, what is known already, and what broke off."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest

from omi_edge.domain import Codec
from omi_edge.errors import BadInput
from omi_edge.store import recordings, sources
from omi_edge.store.connection import Connection
from omi_edge.web import wire
from omi_edge.web.imports import import_state
from tests.helpers import START_US
from tests.web.conftest import BEGAN_US, CONVERSATION, SOURCE, Site

SHA256 = hashlib.sha256(b"content").hexdigest()


async def upload(site: Site, body: bytes, **query: str) -> wire.ImportState:
    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return await site.unix.upload("/v1/imports", pieces(), query={"name": "talk", **query}, returns=wire.ImportState)


async def test_frames_are_handed_on_with_what_is_known_of_them(site: Site) -> None:
    body = b"\x04\0\0\0\xb8abc"
    start = "2026-03-02T09:00:00.000Z"
    content = "ab" * 32
    state = await upload(site, body, codec="opus", start=start, device="grey", content=content, again="true")
    assert bytes(site.controls.taken[state.source_id]) == body
    assert site.controls.begun[state.source_id][:3] == ("talk", START_US, True)
    digest = bytes.fromhex(content)
    assert site.controls.begun_with[state.source_id] == (Codec.OPUS_10MS, digest, "grey", True)
    state = await upload(site, body, codec="opus_fs320", start=start, guessed="true")
    assert site.controls.begun[state.source_id][2] is False
    assert site.controls.begun_with[state.source_id][0] is Codec.OPUS_20MS


@pytest.mark.parametrize(
    "query", [{"device": "grey"}, {"device": "grey", "start": "2026-03-02T09:00:00Z", "guessed": "true"}]
)
async def test_a_pendants_place_on_the_timeline_is_not_guessed(site: Site, query: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="start"):
        await upload(site, bytes(4), **query)
    assert site.controls.begun == {}


async def test_the_same_content_is_known_again(site: Site) -> None:
    body = wire.ImportContent(SHA256)
    check = await site.unix.request("POST", "/v1/imports/check", body=body, returns=wire.ImportCheck)
    assert (check.known, check.content == SHA256) == (None, False)
    state = await upload(site, bytes(4), content=check.content)
    again = await site.unix.request("POST", "/v1/imports/check", body=body, returns=wire.ImportCheck)
    assert again.known is not None
    assert (again.content, again.known.source_id) == (check.content, state.source_id)
    assert [row[1] for row in await site.rows()] == ["import.check", "import", "import.check"]
    for bad in ("", "xyz", SHA256.upper(), SHA256 + "00"):
        with pytest.raises(BadInput):
            await site.unix.request("POST", "/v1/imports/check", body={"sha256": bad}, returns=wire.ImportCheck)


@pytest.mark.parametrize("codec", ["pcm", "opus"])
async def test_what_breaks_off_is_not_taken_for_whole(site: Site, codec: str) -> None:
    stay = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(64_000)
        await stay.wait()

    query = urlencode({"name": "talk", "codec": codec})
    headers = {"Content-Type": "application/octet-stream", **site.bearer}
    sending = asyncio.create_task(site.tcp.post(f"/v1/imports?{query}", data=pieces(), headers=headers))
    await site.controls.coming.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await site.controls.ended.wait()
    assert len(site.controls.taken["src_import0"]) > 0
    assert site.controls.whole == set()


async def test_where_a_recording_stands(site: Site) -> None:
    def prepare(conn: Connection) -> None:
        sources.add(
            conn, id="src_old", kind="file", name="old", device_id=None, client_id=None, codec=21, created_us=START_US,
            first_us=START_US,
        )  # fmt: skip
        for name, source_id in (("rec_1", SOURCE), ("src_new", "src_new")):
            if name == source_id:
                sources.add(
                    conn, id=name, kind="file", name="new", device_id=None, client_id=None, codec=21,
                    created_us=START_US, first_us=START_US,
                )  # fmt: skip
            recordings.add(
                conn, id=name, source_id=source_id, name="talk", digest=None, codec=Codec.OPUS_20MS, start_us=BEGAN_US,
                now_us=START_US,
            )  # fmt: skip

    await site.controls.opened.write(prepare)

    async def state(recording_id: str, receiving: float | None = None) -> wire.ImportState:
        return await site.controls.opened.read(lambda conn: import_state(conn, recording_id, receiving))

    assert (await state("src_old")).state == "processing"  # from before recordings were noted
    assert (await state("src_new", 2.5)).state == "receiving"
    assert (await state("src_new", 2.5)).seconds == 2.5
    assert not (await state("src_new")).complete

    await site.controls.opened.write(
        lambda conn: recordings.end(
            conn, "rec_1", end_us=BEGAN_US + 60_000_000, left_out_us=1_500_000, complete=True, now_us=START_US
        )
    )
    found = await state("rec_1")
    assert (found.id, found.source_id, found.conversations) == ("rec_1", SOURCE, [CONVERSATION])
    assert (found.complete, found.left_out, found.seconds) == (True, 1.5, 60.0)
