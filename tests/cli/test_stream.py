"""`stream` against a real daemon: what is sent, what comes back, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from omi_edge.clock import SystemClock
from omi_edge.config import Config, WebConfig
from omi_edge.daemon import Daemon
from omi_edge.store import clients, sources
from tests.cli.conftest import Done, Place, free_port
from tests.helpers import PASSPHRASE, START_US

FAST = ("--speed", "20", "--token-file", "T")


class Served:
    """A daemon on a port, and a place with a token for it."""

    def __init__(self, daemon: Daemon, place: Place) -> None:
        self.daemon = daemon
        self.place = place
        self.base = daemon.address.replace("http://", "ws://")

    async def stream(self, *arguments: str) -> Done:
        return await asyncio.to_thread(self.place, "stream", *arguments)


@pytest.fixture
async def served(folder: Path, tmp_path: Path) -> AsyncIterator[Served]:
    home = tmp_path / "home"
    home.mkdir()
    place = Place(home)
    async with Daemon(Config(web=WebConfig(port=0)), folder, PASSPHRASE, SystemClock()) as daemon:
        _, token = await daemon.db.write(lambda conn: clients.add(conn, "laptop", "owner", START_US))
        place.secret("T", token + "\n")
        yield Served(daemon, place)


def messages(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.parametrize("door", ["/ws", pytest.param("/ws_pcm", marks=pytest.mark.full)])
async def test_a_recording_comes_back_as_text(served: Served, door: str) -> None:
    done = await served.stream("talk.wav", "--to", served.base + door, *FAST, "--uid", "kitchen", "--json")
    assert done.code == 0, done
    told = messages(done)
    assert [one["kind"] for one in told[:2]] == ["format", "connected"]
    texts = [one["data"]["data"]["text"] for one in told if one["kind"] == "message" and "is_final" in str(one)]
    assert "doctor" in texts[-1]
    last = told[-1]
    assert last["kind"] == "done"
    assert (last["data"]["samples"], last["data"]["frames"]) == (205 * 320, 205)
    rows = await served.daemon.db.read(sources.list_all)
    assert [(row.kind, row.name) for row in rows] == [("socket", "kitchen")]


@pytest.mark.full
async def test_a_person_reads_the_text_alone(served: Served) -> None:
    done = await served.stream("talk.wav", "--to", served.base + "/v4/listen", *FAST, "--linger", "4")
    assert done.code == 0, done
    assert "doctor on monday" in done.out.splitlines()[-1]
    assert "samples" in done.err


async def test_a_tone_is_as_long_as_it_should_be(served: Served) -> None:
    done = await served.stream(
        "--tone", "--duration", "1.5", "--to", served.base + "/ws", *FAST, "--linger", "0", "--json"
    )
    assert messages(done)[-1]["data"] == {
        "format": "tone of 440 Hz", "samples": 24_000, "frames": 75, "seconds": 1.5, "connections": 1, "texts": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("talk.wav", "--tone"), 2, "FILE"),
        (("talk.wav", "--to", "http://127.0.0.1/ws"), 2, "ws://"),
        (("talk.wav", "--to", "ws://127.0.0.1/other"), 2, "/ws_pcm"),
        (("talk.wav", "--to", "ws://127.0.0.1/ws?token=x"), 2, "--token-file"),
        (("none.wav",), 6, "no such recording"),
        (("talk.wav", "--token-file", "none"), 2, "token file"),
        (("talk.wav", "--token-file", "open"), 2, "chmod 600"),
    ],
)
async def test_a_wrong_call_is_told(served: Served, arguments: tuple[str, ...], code: int, word: str) -> None:
    served.place.secret("open", "oe_x\n", 0o644)
    more = () if "--to" in arguments else ("--to", served.base + "/ws")
    done = await served.stream(
        *((*FAST, *more, *arguments) if "--token-file" not in arguments else (*more, *arguments))
    )
    assert (done.code, done.out) == (code, ""), done
    assert word in done.err
    assert done.err.count("\n") == 1


async def test_a_wrong_token_is_told_with_its_cure(served: Served) -> None:
    served.place.secret("wrong", "oe_wrong\n")
    done = await served.stream("talk.wav", "--to", served.base + "/ws", "--token-file", "wrong")
    assert done.code == 3
    assert "omi-edge token create" in done.err


async def test_nobody_there_is_told(served: Served) -> None:
    done = await served.stream("talk.wav", "--to", f"ws://127.0.0.1:{free_port()}/ws", *FAST)
    assert done.code == 9, done


async def test_a_broken_connection_is_made_again_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """A server that breaks off after fifty frames, as a proxy in between may."""
    place = Place(tmp_path)
    place.secret("T", "oe_any\n")
    counts: list[int] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        counts.append(0)
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            counts[-1] += 1
            if len(counts) == 1 and counts[0] == 50:
                assert request.transport is not None
                request.transport.abort()
        await ws.close()
        return ws

    app = web.Application()
    app.router.add_get("/ws", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        to = f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
        done = await asyncio.to_thread(
            place, "stream", "talk.wav", "--to", to, *FAST, "--speed", "4", "--linger", "0", "--json"
        )
    finally:
        await runner.cleanup()
    assert done.code == 0, done
    kinds = [one["kind"] for one in messages(done)]
    assert kinds.count("connected") == 2
    assert "waiting" in kinds
    last = messages(done)[-1]["data"]
    assert (last["frames"], last["connections"]) == (205, 2)
    assert counts[1] > 0
