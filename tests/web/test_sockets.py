"""The three socket doors of a real daemon on a real port, with a real client: what comes out, and who may come in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.clock import SystemClock
from omi_edge.config import Config, ListenConfig, MemoryConfig, WebConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Codec, ConversationState, Withholding
from omi_edge.opus import Encoder
from omi_edge.store import audio, audit, clients, conversations, sources
from omi_edge.store.connection import Connection
from omi_edge.web import doors, sockets, wire
from tests.helpers import PASSPHRASE, START_US
from tests.scripted import register
from tests.web.conftest import Site, stored

RECORDING = Path(__file__).parents[1] / "recordings" / "short.ogg"
PATIENCE_SECONDS = 40.0
SCRIPTED = Config(
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    web=WebConfig(port=0),
)
DOORS = ("/ws", "/ws_pcm", "/v4/listen")


class Place:
    """A daemon, its address, and a session with a token."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession, token: str) -> None:
        self.daemon = daemon
        self.session = session
        self.token = token

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @contextlib.asynccontextmanager
    async def open(self, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        headers = more.pop("headers", self.bearer)
        async with self.session.ws_connect(path, headers=headers, **more) as ws:
            yield ws

    async def active(self) -> wire.ActiveClients:
        async with self.session.get("/api/active_clients", headers=self.bearer) as response:
            assert response.status == 200
            return msgspec.json.decode(await response.read(), type=wire.ActiveClients)

    async def sources(self) -> list[sources.SourceRow]:
        return [row for row in await self.daemon.db.read(sources.list_all) if row.kind == "socket"]

    async def ticket(self) -> str:
        async with self.session.post("/v1/tickets", headers=self.bearer) as response:
            assert response.status == 201
            return str((await response.json())["ticket"])

    async def until(self, happened: Callable[[], Any], what: str) -> Any:
        """Ask again until something is true; for at most PATIENCE_SECONDS."""
        clock = SystemClock()
        give_up_us = clock.boot_us() + round(PATIENCE_SECONDS * 1e6)
        while not (found := await happened()):
            assert clock.boot_us() < give_up_us, f"{what} did not happen"
            await clock.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def place(folder: Path, config: Config) -> AsyncIterator[Place]:
    register()
    async with Daemon(config, folder, PASSPHRASE, SystemClock()) as daemon:
        _, token = await daemon.db.write(lambda conn: clients.add(conn, "laptop", "owner", START_US))
        async with aiohttp.ClientSession(daemon.address) as session:
            yield Place(daemon, session, token)


@pytest.fixture
async def here(folder: Path) -> AsyncIterator[Place]:
    async with place(folder, SCRIPTED) as found:
        yield found


@pytest.fixture(scope="module")
def spoken() -> np.ndarray[Any, np.dtype[np.int16]]:
    samples = np.concatenate(list(Recording(RECORDING)))
    return samples[: len(samples) // 320 * 320]


@pytest.fixture(scope="module")
def frames(spoken: np.ndarray[Any, np.dtype[np.int16]]) -> list[bytes]:
    encoder = Encoder(Codec.OPUS_20MS)
    return [encoder.encode(frame) for frame in spoken.reshape(-1, 320)]


def path_of(door: str, name: str) -> str:
    if door == "/v4/listen":
        return f"/v4/listen?uid={name}&codec=opus_fs320&sample_rate=16000&language=en&source=phone&new_one=1"
    return f"{door}?device_name={name}"


async def send(ws: aiohttp.ClientWebSocketResponse, door: str, frames: list[bytes], spoken: Any) -> None:
    """Send the recording faster than it was spoken, and say that it ends."""
    if door == "/ws_pcm":
        pcm = spoken.astype("<i2").tobytes()
        for offset in range(0, len(pcm), 3001):  # an odd length: a message may end inside a sample
            await ws.send_bytes(pcm[offset : offset + 3001])
    else:
        for frame in frames:
            await ws.send_bytes(frame)
    await ws.send_str('{"type": "CloseStream"}' if door == "/v4/listen" else '{"type": "audio-stop", "data": {}}\n')


async def message(ws: aiohttp.ClientWebSocketResponse, wanted: Callable[[Any], bool]) -> Any:
    """Return the next message that is ``wanted``."""
    async with SystemClock().time_limit(PATIENCE_SECONDS):
        while True:
            got = await ws.receive()
            assert got.type is aiohttp.WSMsgType.TEXT, got
            told = json.loads(got.data)
            if wanted(told):
                return told


def is_final(told: Any) -> bool:
    """Whether it is a whole text; on /v4/listen partial ones look alike, so the last word decides."""
    if isinstance(told, list):
        return "doctor" in told[0]["text"]
    return bool(told["type"] == "transcript")


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_spoken_comes_back_as_text(folder: Path, door: str, frames: list[bytes], spoken: Any) -> None:
    async with place(folder, Config(web=WebConfig(port=0))) as here, here.open(path_of(door, "phone")) as ws:
        hello = await message(ws, lambda told: isinstance(told, dict))
        assert hello["type"] == ("service_status" if door == "/v4/listen" else "ready")
        await send(ws, door, frames, spoken)
        told = await message(ws, is_final)
        if door == "/v4/listen":
            (segment,) = told
            assert (segment["speaker"], segment["speaker_id"], segment["is_user"]) == ("SPEAKER_00", 0, False)
            text, start, end = segment["text"], segment["start"], segment["end"]
        else:
            text, start, end = told["data"]["text"], told["data"]["start"], told["data"]["end"]
        assert {"call", "doctor", "monday"} <= set(text.split())
        assert 0 <= start < end < 10
        active = (await here.active()).clients["laptop-phone"]
        assert (active.door, active.codec) == (door, "pcm16" if door == "/ws_pcm" else "opus_fs320")
        assert active.frames == len(frames)
        (source,) = await here.sources()
        assert (source.name, source.id, source.audio_bytes > 0) == ("phone", active.source_id, True)


async def test_omi_hears_of_its_conversation(here: Place, frames: list[bytes], spoken: Any) -> None:
    async with here.open(path_of("/v4/listen", "phone")) as ws:
        await send(ws, "/v4/listen", frames, spoken)
        segment = (await message(ws, lambda told: isinstance(told, list)))[0]
        (row,) = await here.until(lambda: here.daemon.db.read(_open), "a conversation")
        await here.daemon.close_conversation(row)
        memory = await message(ws, lambda told: _is(told, "memory_created"))
        assert memory["memory"]["id"] == row
        assert memory["memory"]["status"] == "completed"
        assert memory["memory"]["structured"]["title"] == "Scripted"
        assert memory["memory"]["transcript_segments"][0]["text"].startswith("word")
        assert segment["text"].startswith("word")


def _is(told: Any, kind: str) -> bool:
    return isinstance(told, dict) and told["type"] == kind


def _open(conn: Any) -> list[str]:
    return [row[0] for row in conn.execute("SELECT id FROM conversations WHERE state = 'open'").fetchall()]


async def test_two_clients_have_sources_of_their_own(here: Place, frames: list[bytes], spoken: Any) -> None:
    async with here.open(path_of("/ws", "one")) as one, here.open(path_of("/ws_pcm", "two")) as two:
        await asyncio.gather(send(one, "/ws", frames, spoken), send(two, "/ws_pcm", frames, spoken))
        first = await message(one, is_final)
        second = await message(two, is_final)
        active = await here.active()
        assert active.active_clients_count == 2
        assert set(active.clients) == {"laptop-one", "laptop-two"}
    assert first["data"]["segment_id"] != second["data"]["segment_id"]
    assert {row.name for row in await here.sources()} == {"one", "two"}

    async def nobody() -> bool:
        return not (await here.active()).clients

    await here.until(nobody, "the end of both")


async def test_who_comes_back_has_its_source_and_hears_what_it_missed(
    here: Place, frames: list[bytes], spoken: Any
) -> None:
    async with here.open(path_of("/ws", "phone")) as ws:
        await message(ws, lambda told: told["type"] == "ready")
        for frame in frames:
            await ws.send_bytes(frame)

    async def transcribed() -> bool:
        return bool(await here.daemon.db.read(lambda conn: conn.execute("SELECT 1 FROM utterances").fetchone()))

    await here.until(transcribed, "the text")
    async with here.open(path_of("/ws", "phone")) as ws:
        hello = await message(ws, lambda told: told["type"] == "ready")
        await message(ws, is_final)
        await send(ws, "/ws", frames, spoken)
        await message(ws, is_final)
    (source,) = await here.sources()
    assert hello["source_id"] == source.id
    notices = await here.daemon.db.read(
        lambda conn: conn.execute("SELECT count, subjects FROM notices WHERE code = 'new-source'").fetchall()
    )
    assert [row[0] for row in notices] == [1]


async def test_the_newer_of_two_sockets_of_one_client_stays(here: Place) -> None:
    async with here.open(path_of("/ws", "phone")) as old:
        await message(old, lambda told: told["type"] == "ready")
        async with here.open(path_of("/ws", "phone")) as new:
            await message(new, lambda told: told["type"] == "ready")
            assert (await old.receive()).type is aiohttp.WSMsgType.CLOSE
            assert old.close_code == 4409
            assert (await here.active()).active_clients_count == 1


async def refused(here: Place, path: str, **more: Any) -> wire.Problem:
    """Try to come in as a client does; return what is told before the upgrade."""
    headers = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **more.pop("headers", {}),
    }  # fmt: skip
    async with here.session.get(path, headers=headers) as response:
        assert response.content_type == "application/problem+json"
        problem = msgspec.json.decode(await response.read(), type=wire.Problem)
        assert problem.status == response.status
        return problem


@pytest.mark.parametrize("door", DOORS)
async def test_a_ticket_opens_one_socket(here: Place, door: str) -> None:
    ticket = await here.ticket()
    path = f"{path_of(door, 'page')}&token={ticket}"
    async with here.open(path, headers={}) as ws:
        await message(ws, lambda told: True)
    again = await refused(here, path)
    assert (again.status, "each opens one socket" in again.detail) == (401, True)
    assert [(row.name, row.client_id is not None) for row in await here.sources()] == [("page", True)]


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_in_the_url_is_refused(here: Place, door: str) -> None:
    for headers in ({}, here.bearer):
        problem = await refused(here, f"{path_of(door, 'page')}&token={here.token}", headers=headers)
        assert problem.status == 401
        assert "must not be in a URL" in problem.detail
        assert here.token not in problem.detail
    assert (await refused(here, path_of(door, "page"))).status == 401
    assert not await here.sources()


async def test_a_ticket_of_a_revoked_token_is_worth_nothing(here: Place) -> None:
    ticket = await here.ticket()
    (row,) = await here.daemon.db.read(clients.list_all)
    await here.daemon.db.write(lambda conn: clients.revoke(conn, row.id, START_US))
    assert (await refused(here, f"/ws?token={ticket}")).status == 401


async def test_the_ways_in_are_told(here: Place) -> None:
    async with here.session.get("/api/auth/config") as response:
        told = await response.json()
    assert told["auth_methods"]["ticket"] and told["auth_methods"]["authorization_header"]
    assert not told["auth_methods"]["token_in_url"]
    assert set(told["endpoints"]["sockets"]) == set(DOORS)


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v4/listen?uid=a&codec=aac", 400, "codec"),
        ("/v4/listen?uid=a&codec=pcm16&sample_rate=44100", 400, "sample_rate"),
        ("/v4/listen?uid=a&channels=2", 400, "channels"),
        ("/v4/listen?uid=a&conversation_timeout=1", 400, "conversation_timeout"),
        ("/ws_pcm?sample_rate=12", 400, "sample_rate"),
        ("/ws?uid=a%0Ab", 400, "uid"),
    ],
)
async def test_what_cannot_be_taken_is_told_before_the_upgrade(here: Place, path: str, status: int, field: str) -> None:
    problem = await refused(here, path, headers=here.bearer)
    assert (problem.status, problem.field) == (status, field)
    assert not await here.sources()


async def test_a_plain_request_is_told_to_upgrade(here: Place) -> None:
    async with here.session.get("/ws", headers=here.bearer) as response:
        assert response.status == 426
    assert not await here.sources()


async def test_garbage_ends_its_own_socket_alone(here: Place, frames: list[bytes], spoken: Any) -> None:
    async with here.open(path_of("/ws", "good")) as good, here.open(path_of("/ws", "bad")) as bad:
        for _ in range(99):
            await bad.send_bytes(b"\xff" * 50)
        await bad.send_bytes(frames[0])  # one good frame among them
        for _ in range(100):
            await bad.send_bytes(b"\xff" * 50)
        with pytest.raises(AssertionError):
            await message(bad, lambda told: False)
        assert bad.close_code == 1003
        await send(good, "/ws", frames, spoken)
        await message(good, is_final)
        assert set((await here.active()).clients) == {"laptop-good"}


@pytest.mark.parametrize("text", ["ping", "{", "[]", '{"type": 1}', '{"type": "image_chunk", "data": "x"}', "\0" * 500])
async def test_any_text_is_borne(here: Place, frames: list[bytes], spoken: Any, text: str) -> None:
    async with here.open(path_of("/v4/listen", "phone")) as ws:
        await ws.send_str(text)
        await ws.send_bytes(b"\0")  # a keep-alive
        await send(ws, "/v4/listen", frames, spoken)
        await message(ws, lambda told: isinstance(told, list))
        assert (await here.active()).clients["laptop-phone"].bad_messages == 0


@pytest.mark.parametrize("door", DOORS)
async def test_a_message_that_is_too_long_ends_the_socket(here: Place, door: str) -> None:
    async with here.open(path_of(door, "phone")) as ws:
        with contextlib.suppress(ConnectionError):
            await ws.send_bytes(bytes((1 << 18) + 1))
        with pytest.raises(AssertionError):
            await message(ws, lambda told: False)
        assert ws.close_code == 1009


async def test_a_client_that_never_reads_hurts_nobody(
    here: Place, frames: list[bytes], spoken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "WRITE_SECONDS", 0.5)
    host, port = here.daemon.address.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    try:
        await loop.sock_connect(deaf, (host, int(port)))
        request = (
            f"GET {path_of('/ws', 'deaf')} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {here.token}\r\n\r\n"
        )
        await loop.sock_sendall(deaf, request.encode())

        async def there() -> Any:
            return (await here.active()).clients.get("laptop-deaf")

        client = await here.until(there, "its socket")
        async with here.open(path_of("/ws", "good")) as good:
            for number in range(sockets.TELL_LIMIT):  # 13 MB: more than the buffers of a connection hold
                here.daemon.bus.publish(
                    "partial", START_US, source_id=client.source_id, segment_id="seg_1", start_us=START_US,
                    text=f"{number} " + "x" * 50_000,
                )  # fmt: skip
            await send(good, "/ws", frames, spoken)
            await message(good, is_final)

            async def gone() -> bool:
                return "laptop-deaf" not in (await here.active()).clients

            await here.until(gone, "the end of the deaf client")
            assert "laptop-good" in (await here.active()).clients
    finally:
        deaf.close()


async def test_what_the_owner_withholds_is_never_stored(here: Place, frames: list[bytes], spoken: Any) -> None:
    for door in DOORS:
        async with here.open(path_of(door, "phone")) as ws:
            await ws.send_bytes(frames[0] if door != "/ws_pcm" else spoken[:320].tobytes())
            await here.daemon.withhold(Withholding.OFF_RECORD, None, "test")
            await send(ws, door, frames, spoken)
            if door != "/v4/listen":
                await ws.send_str('{"type": "ping"}')
                await message(ws, lambda told: told["type"] == "pong")

        async def nobody() -> bool:
            return not (await here.active()).clients

        await here.until(nobody, "the end")
        await here.daemon.resume("test")
    rows = await here.daemon.db.read(lambda conn: conn.execute("SELECT count(*) FROM segments").fetchone())
    assert rows[0] == 0
    (source,) = await here.sources()
    assert source.audio_bytes + source.dropped_bytes <= len(DOORS) * 160  # what came before the owner spoke


async def test_a_revoked_token_ends_its_socket(here: Place, frames: list[bytes], spoken: Any) -> None:
    async with here.open(path_of("/ws", "phone")) as ws:
        await message(ws, lambda told: told["type"] == "ready")
        (row,) = await here.daemon.db.read(clients.list_all)
        await here.daemon.db.write(lambda conn: clients.revoke(conn, row.id, START_US))
        await send(ws, "/ws", frames, spoken)
        with pytest.raises(AssertionError):
            await message(ws, is_final)
        assert ws.close_code == 4401


async def test_a_daemon_that_stops_says_so(folder: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(place(folder, SCRIPTED))
        ws = await stack.enter_async_context(here.open(path_of("/ws", "phone")))
        await message(ws, lambda told: told["type"] == "ready")
        await asyncio.gather(here.daemon.stop(), _closed(ws))
        assert ws.close_code == 1001


async def _closed(ws: aiohttp.ClientWebSocketResponse) -> None:
    while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
        pass


async def test_each_socket_leaves_one_audit_row(here: Place) -> None:
    async with here.open(path_of("/v4/listen", "phone")) as ws:
        await message(ws, lambda told: True)
    await refused(here, "/ws")
    rows = await here.daemon.db.read(
        lambda conn: conn.execute("SELECT actor, act, outcome, ids FROM audit ORDER BY rowid").fetchall()
    )
    (source,) = await here.sources()
    assert [tuple(row) for row in rows] == [
        ("client:laptop", "socket.listen", "ok", json.dumps([source.id])),
        ("anonymous", "socket.opus", "denied", "[]"),
    ]


async def test_without_an_audit_row_no_socket_opens(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise RuntimeError

    monkeypatch.setattr(audit, "append", broken)
    for door in DOORS:
        problem = await refused(here, path_of(door, "phone"), headers=here.bearer)
        assert (problem.status, problem.type.rpartition(":")[2]) == (503, "audit-unavailable")
    async with here.session.post("/v1/tickets", headers=here.bearer) as response:
        assert response.status == 503
        assert "oet_" not in await response.text()
    assert not await here.sources()


async def test_there_is_room_for_so_many_sockets(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MOST_OPEN", 1)
    async with here.open(path_of("/ws", "phone")) as ws:
        await message(ws, lambda told: told["type"] == "ready")
        problem = await refused(here, path_of("/ws", "other"), headers=here.bearer)
        assert (problem.status, "active_clients" in problem.detail) == (503, True)


async def test_who_gives_no_sign_of_life_is_cut_off(site: Site) -> None:
    clock = site.controls.clock
    async with (
        site.tcp.ws_connect("/v4/listen?uid=dead", headers=site.bearer, autoping=False) as dead,
        site.tcp.ws_connect("/ws?uid=alive", headers=site.bearer) as alive,
    ):
        await message(alive, lambda told: told["type"] == "ready")
        pings = beats = 0
        while (got := await dead.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING):
            pings += got.type is aiohttp.WSMsgType.PING
            beats += got.type is aiohttp.WSMsgType.TEXT and json.loads(got.data) == {"type": "ping"}
            if got.type is aiohttp.WSMsgType.TEXT:
                await alive.send_str('{"type": "ping"}')
                await message(alive, lambda told: told["type"] == "pong")
                await clock.advance(10.0)
        assert (pings, beats) == (6, 6)
        assert [visit.client for visit in site.controls.doors.visits] == ["laptop-alive"]


async def test_a_ticket_grows_old(site: Site) -> None:
    async with site.tcp.post("/v1/tickets", headers=site.bearer) as response:
        told = await response.json()
    assert told["seconds"] == 60
    await site.controls.clock.advance(61.0)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await site.tcp.ws_connect(f"/ws?token={told['ticket']}")
    assert caught.value.status == 401


async def source_act(here: Place, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with here.session.request(method, f"/v1/sources/{path}", json=body, headers=here.bearer) as response:
        return response.status, await response.json()


async def test_a_source_is_renamed(here: Place) -> None:
    async with here.open(path_of("/ws", "phone")) as ws:
        await message(ws, lambda told: told["type"] == "ready")
    (source,) = await here.sources()
    assert (await source_act(here, "PATCH", source.id, {"name": "\n"}))[0] == 400
    status, told = await source_act(here, "PATCH", source.id, {"name": "kitchen"})
    assert (status, told["name"], told["kind"]) == (200, "kitchen", "socket")
    async with here.open(path_of("/ws", "phone")) as ws:
        assert (await message(ws, lambda told: told["type"] == "ready"))["source_id"] == source.id
    assert [row.name for row in await here.sources()] == ["kitchen"]


async def test_a_refused_source_is_shut_out_until_it_is_allowed(here: Place) -> None:
    async with here.open(path_of("/ws", "phone")) as ws:
        source_id = (await message(ws, lambda told: told["type"] == "ready"))["source_id"]
        assert (await source_act(here, "POST", f"{source_id}/refuse"))[0] == 200
        await _closed(ws)
        assert ws.close_code == 4403
    assert (await refused(here, path_of("/ws", "phone"), headers=here.bearer)).status == 403
    async with here.open(path_of("/ws", "other")):
        pass
    assert (await source_act(here, "POST", f"{source_id}/allow"))[0] == 200
    async with here.open(path_of("/ws", "phone")) as ws:
        assert (await message(ws, lambda told: told["type"] == "ready"))["source_id"] == source_id


async def test_a_client_that_changed_its_name_goes_on_in_its_old_source(here: Place) -> None:
    ids = []
    for name in ("old", "new"):
        async with here.open(path_of("/ws", name)) as ws:
            ids.append((await message(ws, lambda told: told["type"] == "ready"))["source_id"])
    assert (await source_act(here, "POST", f"{ids[1]}/merge", {"into": ids[1]}))[0] == 400
    assert (await source_act(here, "POST", f"{ids[1]}/merge", {"into": "src_none"}))[0] == 404
    status, told = await source_act(here, "POST", f"{ids[1]}/merge", {"into": ids[0]})
    assert (status, told["id"], told["moved"], told["stays"]) == (200, ids[0], True, "")
    assert [account.seconds > 0 for account in (await accounts(here)).values()] == [True]
    async with here.open(path_of("/ws", "new")) as ws:
        assert (await message(ws, lambda told: told["type"] == "ready"))["source_id"] == ids[0]


async def test_a_merge_ends_the_socket_and_is_told_what_it_sent(here: Place, frames: list[bytes], spoken: Any) -> None:
    async with here.open(path_of("/ws", "old")) as ws:
        kept = (await message(ws, lambda told: told["type"] == "ready"))["source_id"]
    async with here.open(path_of("/ws", "new")) as ws:
        gone = (await message(ws, lambda told: told["type"] == "ready"))["source_id"]
        await send(ws, "/ws", frames, spoken)
        await message(ws, is_final)
        status, told = await source_act(here, "POST", f"{gone}/merge", {"into": kept})
        assert (status, told["moved"]) == (200, False)  # its conversation goes on
        assert here.daemon.doors.visits == []  # what it sent is handed over
        await _closed(ws)
        assert ws.close_code == 4409
    found = await accounts(here)
    assert "speech" in states(found[gone])
    await SystemClock().sleep(0.2)
    assert (await accounts(here))[gone].seconds == found[gone].seconds
    assert (await accounts(here))[kept].seconds > found[kept].seconds


async def test_what_a_merged_source_holds_is_found_under_the_other(site: Site, packets: list[bytes]) -> None:
    ids = []
    for name in ("old", "new"):
        async with site.tcp.ws_connect(f"/ws?device_name={name}", headers=site.bearer) as ws:
            ids.append(json.loads((await ws.receive()).data)["source_id"])

    def fill(conn: Connection) -> None:
        for chunk in stored(packets)[:2]:
            audio.put(conn, msgspec.structs.replace(chunk, source_id=ids[1]))
        conversations.create(
            conn, id="con_m", source_id=ids[1], started_us=START_US, ended_us=START_US + 4_000_000, now_us=START_US
        )

    await site.controls.opened.write(fill)

    async def merge() -> Any:
        body = {"into": ids[0]}
        async with site.tcp.post(f"/v1/sources/{ids[1]}/merge", json=body, headers=site.bearer) as response:
            assert response.status == 200
            return await response.json()

    async def played() -> bytes:
        async with site.tcp.get("/v1/conversations/con_m/audio?format=wav", headers=site.bearer) as response:
            assert response.status == 200
            return await response.read()

    before = await played()
    told = await merge()
    assert (told["id"], told["moved"], told["audio_bytes"]) == (ids[0], False, 0)  # the conversation is still open
    assert "not complete" in told["stays"]
    await site.controls.opened.write(lambda conn: conversations.set_state(conn, "con_m", ConversationState.COMPLETED))
    told = await merge()
    assert (told["moved"], told["stays"], told["audio_bytes"]) == (True, "", sum(map(len, packets[:200])))
    async with site.tcp.get(f"/v1/conversations?source={ids[0]}", headers=site.bearer) as response:
        assert [item["id"] for item in (await response.json())["items"]] == ["con_m"]
    assert await played() == before
    assert [row[1:] for row in await site.rows() if row[1] == "source.merge"] == [("source.merge", "ok")] * 2


async def test_only_sources_of_sockets_are_refused_or_merged(here: Place) -> None:
    row = await here.daemon.db.write(
        lambda conn: sources.add(
            conn, id="src_omi", kind="pendant", name="Omi", device_id="A", client_id=None, codec=21, created_us=START_US
        )
    )
    async with here.open(path_of("/ws", "phone")) as ws:
        source_id = (await message(ws, lambda told: told["type"] == "ready"))["source_id"]
    assert (await source_act(here, "POST", f"{row.id}/refuse"))[0] == 400
    assert (await source_act(here, "POST", f"{row.id}/merge", {"into": source_id}))[0] == 400
    assert (await source_act(here, "POST", f"{source_id}/merge", {"into": row.id}))[0] == 400


async def accounts(here: Place) -> dict[str, wire.LedgerAccount]:
    """By source what the ledger says of today."""
    async with here.session.get("/v1/ledger", headers=here.bearer) as response:
        assert response.status == 200
        day = msgspec.json.decode(await response.read(), type=wire.LedgerDay)
    return {item.source_id: item for item in day.items}


def states(account: wire.LedgerAccount) -> set[str]:
    return {row.state for row in account.sums}


async def test_the_ledger_tells_of_who_is_connected_and_who_left(site: Site) -> None:
    clock = site.controls.clock

    async def account() -> wire.LedgerAccount:
        async with site.tcp.get("/v1/ledger", headers=site.bearer) as response:
            (item,) = msgspec.json.decode(await response.read(), type=wire.LedgerDay).items
        return item

    async with site.tcp.ws_connect("/ws?device_name=phone", headers=site.bearer) as ws:
        await ws.receive()
        await clock.advance(4.0)
        assert [(row.state, row.seconds) for row in (await account()).sums] == [("unknown", 4)]  # not decided yet
        await clock.advance(16.0)
        assert [(row.state, row.seconds) for row in (await account()).sums] == [("device_silent", 20)]
    while site.controls.doors.visits:
        await clock.advance(0.0)
    await clock.advance(30.0)
    assert (await account()).seconds == 50
    assert states(await account()) == {"disconnected"}  # what is connected here brings no account of its own


async def test_every_second_of_a_client_has_a_state(here: Place, frames: list[bytes], spoken: Any) -> None:
    async with here.open(path_of("/ws", "phone")) as ws:
        source_id = (await message(ws, lambda told: told["type"] == "ready"))["source_id"]
        await send(ws, "/ws", frames, spoken)
        await message(ws, is_final)
        found = (await accounts(here))[source_id]
        assert "disconnected" not in states(found)
    assert (await source_act(here, "POST", f"{source_id}/refuse"))[0] == 200

    async def gone() -> bool:
        return not here.daemon.doors.visits

    await here.until(gone, "its end")
    found = (await accounts(here))[source_id]
    assert sum(row.seconds for row in found.sums) == pytest.approx(found.seconds, abs=0.01)
    assert "speech" in states(found)
    await SystemClock().sleep(0.2)
    assert (await accounts(here))[source_id].seconds == found.seconds  # nothing is accounted for after it was refused
