"""A second pass over the API: what is checked before a byte is read, what comes, and what breaks off."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from omi_edge.domain import Stage
from omi_edge.errors import AudioReleased, Conflict, NotFound
from omi_edge.store import jobs, reprocessing, sources, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.uploads import PIECE_BYTES, UploadRow
from omi_edge.web import postprocessing, wire
from omi_edge.web.postprocessing import looks_like_audio
from tests.helpers import START_US
from tests.web.conftest import BEGAN_US, CONVERSATION, Site
from tests.web.test_transcripts import complete

PATH = f"/v1/conversations/{CONVERSATION}/post-processing"
OLD_PATH = f"/v1/memories/{CONVERSATION}/post-processing"
WAV = b"RIFF\x00\x00\x00\x00WAVE" + bytes(range(256)) * 2500
"""Three pieces of something that begins like a recording."""


async def post(site: Site, path: str = PATH, **request: Any) -> tuple[int, bytes]:
    headers = site.bearer | request.pop("headers", {})
    async with site.tcp.post(path, headers=headers, **request) as response:
        return response.status, await response.read()


async def problem(site: Site, path: str = PATH, **request: Any) -> tuple[int, str, str]:
    status, body = await post(site, path, **request)
    told = msgspec.json.decode(body, type=wire.Problem)
    return status, told.type.rpartition(":")[2], told.detail


async def state(site: Site, path: str = PATH) -> wire.Postprocessing:
    return await site.unix.request("GET", path, returns=wire.Postprocessing)


async def kept(site: Site) -> tuple[int, int, list[str]]:
    """How many uploads and pieces are there, and the kinds of all sources."""

    def read(conn: Connection) -> tuple[int, int, list[str]]:
        counts = [conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("uploads", "upload_pieces")]
        return counts[0], counts[1], [row.kind for row in sources.list_all(conn)]

    return await site.controls.opened.read(read)


NOTHING = (0, 0, ["pendant"])


async def sent(site: Site) -> tuple[UploadRow, bytes]:
    """What was last sent in, and its bytes."""

    def read(conn: Connection) -> tuple[UploadRow, bytes]:
        row = uploads.latest(conn, CONVERSATION)
        assert row is not None
        pieces = [uploads.read(conn, row, at, PIECE_BYTES) for at in range(0, row.size, PIECE_BYTES)]
        return row, b"".join(pieces)

    return await site.controls.opened.read(read)


@pytest.mark.parametrize("path", [PATH, OLD_PATH])
async def test_without_audio_its_own_is_transcribed_anew(site: Site, path: str) -> None:
    await complete(site)
    assert await state(site, path) == wire.Postprocessing()
    status, body = await post(site, f"{path}?emotional_feedback=true&engine=other")
    told = msgspec.json.decode(body, type=wire.Conversation)
    assert (status, told.id, told.state) == (202, CONVERSATION, "completed")
    now = await state(site, path)
    assert told.postprocessing == now
    assert (now.status, now.model, now.fail_reason, now.emotional_feedback, now.total) == (
        "in_progress", "other", None, True, 1,
    )  # fmt: skip
    assert await site.controls.opened.read(jobs.counts) == {Stage.REPROCESS.value: {"queued": 1}}
    assert ("poke",) in site.controls.asked
    status, slug, detail = await problem(site, path)
    assert (status, slug) == (409, "conflict")
    assert now.id
    assert now.id in detail
    await site.unix.request("DELETE", f"/v1/reprocess/{now.id}", returns=wire.Reprocessing)
    assert (await state(site)).status == "canceled"
    assert [row[1:] for row in await site.rows()] == [
        ("postprocessing.read", "ok"), ("postprocessing.create", "ok"), ("postprocessing.read", "ok"),
        ("postprocessing.create", "failed"), ("reprocess.cancel", "ok"), ("postprocessing.read", "ok"),
    ]  # fmt: skip


@pytest.mark.parametrize(("end", "word"), [("done", "completed"), ("failed", "failed")])
async def test_how_it_ended_is_told_in_omis_words(site: Site, end: str, word: str) -> None:
    await complete(site)
    await post(site)

    def work(conn: Connection) -> None:
        row = reprocessing.latest(conn, CONVERSATION)
        assert row is not None
        reprocessing.end(conn, row, end, "It broke." if end == "failed" else None, START_US)

    await site.controls.opened.write(work)
    now = await state(site)
    assert (now.status, now.fail_reason) == (word, "It broke." if end == "failed" else None)
    shown = await site.unix.request("GET", f"/v1/conversations/{CONVERSATION}", returns=wire.Conversation)
    assert shown.postprocessing == now


@pytest.mark.parametrize("way", ["form", "raw", "chunked"])
async def test_a_recording_is_stored_as_it_came(site: Site, way: str) -> None:
    await complete(site)
    if way == "form":
        form = aiohttp.FormData()
        form.add_field("emotional_feedback", "true")
        form.add_field("file", WAV, filename="talk.wav", content_type="audio/wav")
        form.add_field("engine", "other")
        status, body = await post(site, data=form)
    else:

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(WAV), 7001):
                yield WAV[at : at + 7001]

        query = "?emotional_feedback=true&engine=other"
        data = WAV if way == "raw" else pieces()
        status, body = await post(site, PATH + query, data=data, headers={"Content-Type": "audio/x-wav"})
    told = msgspec.json.decode(body, type=wire.Conversation).postprocessing
    assert (status, told.status, told.model, told.emotional_feedback) == (202, "in_progress", "other", True)
    row, data_there = await sent(site)
    assert (data_there, row.size, row.state) == (WAV, len(WAV), "stored")
    assert (row.source_id, row.start_us, row.covers_from_us) == (told.source_id, BEGAN_US, BEGAN_US)
    source = await site.controls.opened.read(lambda conn: sources.get(conn, row.source_id))
    assert (source.kind, source.name, source.time_known) == (
        "upload", "talk.wav" if way == "form" else "sent in", False,
    )  # fmt: skip
    assert source.client_id is not None
    assert [row[1:] for row in await site.rows()] == [("postprocessing.create", "ok")]


async def test_the_flag_may_come_in_a_form_without_a_file(site: Site) -> None:
    await complete(site)
    status, body = await post(site, data={"emotional_feedback": "1"})
    told = msgspec.json.decode(body, type=wire.Conversation).postprocessing
    assert (status, told.emotional_feedback, told.source_id) == (202, True, None)


async def test_its_beginning_may_be_told(site: Site) -> None:
    await complete(site)
    form = aiohttp.FormData()
    form.add_field("start", "2026-03-02T09:00:05Z")
    form.add_field("file", WAV, filename="talk.wav")
    assert (await post(site, data=form))[0] == 202
    row, _ = await sent(site)
    assert (row.start_us, row.covers_from_us) == (START_US + 5_000_000, START_US + 5_000_000)


async def raw(site: Site, request: bytes, *, until_s: float = 5.0) -> bytes:
    """Send bytes over a plain connection; return the first answer's head."""
    host = urllib.parse.urlsplit(site.base)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    try:
        writer.write(request)
        async with asyncio.timeout(until_s):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


def head(site: Site, path: str, *lines: str) -> bytes:
    netloc = urllib.parse.urlsplit(site.base).netloc
    fixed = (f"Host: {netloc}", f"Authorization: Bearer {site.token}", "Content-Type: audio/wav")
    return "\r\n".join((f"POST {path} HTTP/1.1", *fixed, *lines, "", "")).encode()


UNKNOWN = PATH.replace(CONVERSATION, "con_nobody")


@pytest.mark.parametrize(
    ("path", "line", "status"),
    [
        (UNKNOWN, "Content-Length: 5000000000", b"404"),
        (UNKNOWN, "Transfer-Encoding: chunked", b"404"),
        (PATH, "Content-Length: 1000", b"409"),
    ],
)
async def test_who_waits_to_be_told_to_go_on_is_not_told_to(site: Site, path: str, line: str, status: bytes) -> None:
    answer = await raw(site, head(site, path, line, "Expect: 100-continue"))
    assert answer.split(b" ", 2)[1] == status
    assert (await kept(site)) == NOTHING


async def test_who_waits_to_be_told_to_go_on_is_told_once_all_is_well(site: Site) -> None:
    await complete(site)
    lines = ("Content-Length: 5000000000", "Expect: 100-continue")
    assert (await raw(site, head(site, PATH, *lines))).split(b" ", 2)[1] == b"413"
    host = urllib.parse.urlsplit(site.base)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    writer.write(head(site, PATH, f"Content-Length: {len(WAV)}", "Expect: 100-continue"))
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(WAV)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
    writer.close()
    assert (await sent(site))[1] == WAV
    assert (await raw(site, head(site, PATH, "Expect: the-moon"))).split(b" ", 2)[1] == b"417"


async def test_gigabytes_for_nobody_are_refused_at_once(site: Site) -> None:
    host = urllib.parse.urlsplit(site.base)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    writer.write(head(site, UNKNOWN, "Content-Length: 5000000000"))
    taken = 0

    async def flood() -> None:
        nonlocal taken
        while True:
            writer.write(WAV)
            taken += len(WAV)
            await writer.drain()

    flooding = asyncio.create_task(flood())
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
    assert taken < 50_000_000  # what the sockets of both sides hold, and some more
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    writer.transport.abort()
    assert (await kept(site)) == NOTHING


@pytest.mark.parametrize(
    ("media", "body", "status", "slug"),
    [
        ("text/plain", WAV, 415, "unsupported-media-type"),
        ("application/json", b"{}", 415, "unsupported-media-type"),
        ("audio/L16", WAV, 415, "unsupported-media-type"),
        ("audio/wav", b"hello, this is a text", 422, "audio"),
        ("application/octet-stream", b"#EXTM3U\nfile:///etc/passwd", 422, "audio"),
        ("multipart/form-data", b"x", 400, "bad-input"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nRIFF" + bytes(20),
         400, "bad-input"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\n\r\n--b--\r\n",
         422, "audio"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=colour\r\n\r\nx\r\n--b--\r\n",
         400, "bad-input"),
        ("multipart/form-data; boundary=b",
         b"--b\r\nContent-Disposition: form-data; name=engine\r\n\r\n" + b"x" * 2000 + b"\r\n--b--\r\n",
         400, "bad-input"),
        ("application/x-www-form-urlencoded", b"emotional_feedback=perhaps", 400, "bad-input"),
        ("application/x-www-form-urlencoded", b"x=" + b"y" * 70_000, 413, "too-large"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 9), 400, "bad-input"),
    ],
)  # fmt: skip
async def test_what_is_no_recording_is_refused_and_leaves_nothing(
    site: Site, media: str, body: bytes, status: int, slug: str
) -> None:
    await complete(site)
    assert (await problem(site, data=body, headers={"Content-Type": media}))[:2] == (status, slug)
    assert (await kept(site), (await state(site)).status) == (NOTHING, "not_started")


@pytest.mark.parametrize("first", [True, False])
async def test_an_unknown_engine_is_refused_before_and_after_the_recording(site: Site, first: bool) -> None:
    await complete(site)
    form = aiohttp.FormData()
    form.add_field("file", WAV, filename="talk.wav")
    if not first:
        form.add_field("engine", "nobody")
    status, _, detail = await problem(site, PATH + ("?engine=nobody" if first else ""), data=form)
    assert (status, detail) == (400, "there is no such recogniser.")
    assert (await kept(site)) == NOTHING


async def test_one_that_turns_out_too_long_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await complete(site)
    monkeypatch.setattr(postprocessing, "UPLOAD_LIMIT", PIECE_BYTES + 1000)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(WAV), 100_000):
            yield WAV[at : at + 100_000]

    status, slug, detail = await problem(site, data=pieces(), headers={"Content-Type": "audio/wav"})
    assert (status, slug) == (413, "too-large")
    assert "FLAC" in detail
    assert (await kept(site)) == NOTHING


async def until(site: Site, *, there: bool) -> None:
    """Wait until something of an upload is there, or nothing any more."""
    async with asyncio.timeout(10):
        while (await kept(site) != NOTHING) is not there:
            pass


async def test_one_that_breaks_off_leaves_nothing_and_two_at_once_are_not_taken(site: Site) -> None:
    await complete(site)
    stay = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield WAV[: PIECE_BYTES + 1]
        await stay.wait()

    sending = asyncio.create_task(post(site, data=pieces(), headers={"Content-Type": "audio/wav"}))
    await until(site, there=True)
    audio = {"Content-Type": "audio/wav"}
    for data, headers in ((None, {}), (WAV, audio)):
        status, _, detail = await problem(site, data=data, headers=headers)
        assert (status, "being sent in" in detail) == (409, True)
    assert (await state(site)).status == "not_started"
    sending.cancel()
    await until(site, there=False)
    assert (await state(site)).status == "not_started"
    assert (await post(site, data=WAV, headers=audio))[0] == 202


async def test_what_was_sent_in_can_be_asked_for_again_and_only_of_one(site: Site) -> None:
    await complete(site)
    again = wire.ReprocessNew(conversation_id=CONVERSATION, upload=True)
    with pytest.raises(Conflict, match="--audio FILE"):
        await site.unix.request("POST", "/v1/reprocess", body=again, returns=wire.Reprocessing)
    assert (await post(site, data=WAV, headers={"Content-Type": "audio/wav"}))[0] == 202
    first = await state(site)

    def fail(conn: Connection) -> None:
        row = reprocessing.latest(conn, CONVERSATION)
        assert row is not None
        reprocessing.end(conn, row, "failed", "EnginePermanent", START_US)

    await site.controls.opened.write(fail)
    assert (await state(site)).source_id == first.source_id
    await site.unix.request("POST", "/v1/reprocess", body=again, returns=wire.Reprocessing)
    now = await state(site)
    assert (now.status, now.source_id) == ("in_progress", first.source_id)
    status, _, _ = await problem(site, "/v1/reprocess", json={"all": True, "upload": True})
    assert status == 400


async def test_released_audio_has_a_code_of_its_own(site: Site) -> None:
    await complete(site)
    await site.controls.opened.write(lambda conn: conn.execute("DELETE FROM audio_chunks"))
    status, slug, detail = await problem(site)
    assert (status, slug) == (409, "audio-released")
    assert "no longer kept" in detail
    assert "--audio FILE" in detail
    new = wire.ReprocessNew(conversation_id=CONVERSATION)
    with pytest.raises(AudioReleased):
        await site.unix.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)
    with pytest.raises(NotFound):
        await site.unix.request("POST", UNKNOWN, returns=wire.Conversation)
    assert (await post(site, data=WAV, headers={"Content-Type": "audio/wav"}))[0] == 202


@pytest.mark.parametrize(
    ("first", "is_audio"),
    [
        (b"RIFF\0\0\0\0WAVE", True), (b"OggS", True), (b"\0\0\0\x20ftypM4A ", True), (b"\xff\xfb\x90", True),
        (b"\xff\xf1P\x80", True), (b"", False), (b"\xff", False), (b"%PDF-1.7", False), (b"#EXTM3U", False),
        (b"\xff\xd8\xff\xe0", False),
    ],
)  # fmt: skip
def test_kinds_of_files_are_told_apart_by_their_beginning(first: bytes, is_audio: bool) -> None:
    assert looks_like_audio(first) is is_audio
