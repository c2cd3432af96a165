"""`stream --mic` through the real PortAudio, against a real daemon; and the microphones it lists."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.clock import SystemClock
from omi_edge.config import Config, WebConfig
from omi_edge.daemon import Daemon
from omi_edge.store import clients, sources
from tests.cli.conftest import RECORDINGS, Place
from tests.helpers import PASSPHRASE, START_US
from tests.microphones import NAME, SCRIPTED, Desk, needs_portaudio, scripted, tone


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Place:
    (tmp_path / "home").mkdir()
    place = Place(tmp_path / "home")
    place.secret("T", "oe_any\n")
    return place


@needs_portaudio
def test_the_microphones_are_listed(home: Place, desk: Desk) -> None:
    done = home("stream", "--list-mics", environment=desk.environment)
    assert done.code == 0, done
    header, *rows = done.out.splitlines()
    assert header.split() == ["number", "name", "channels", "rate"]
    assert any(re.match(rf"\d+ +{NAME} ", row) for row in rows)
    found = home("stream", "--list-mics", "--json", environment=desk.environment).json
    assert {"index", "name", "channels", "rate", "default"} == set(found[0])
    assert [one["name"] for one in found if one["default"]] == ["default"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("talk.wav", "--mic", "0"), 2, "FILE"),
        (("--mic", "--speed", "2"), 2, "--speed"),
        (("--mic", " "), 2, "--mic"),
        (("--tone",), 2, "--to"),
    ],
)
def test_a_wrong_call_is_told(home: Place, arguments: tuple[str, ...], code: int, word: str) -> None:
    more = ("--to", "ws://127.0.0.1:9/ws", "--token-file", "T") if "--tone" not in arguments else ()
    done = home("stream", *arguments, *more)
    assert (done.code, done.out) == (code, ""), done
    assert word in done.err


def test_a_missing_library_is_told_with_its_cure(home: Place, tmp_path: Path) -> None:
    scripted(tmp_path, "raise OSError('PortAudio library not found')")
    done = home("stream", "--list-mics", environment={"PYTHONPATH": str(tmp_path)})
    assert done.code == 8
    assert "apt install libportaudio2" in done.err


@pytest.mark.full
@needs_portaudio
async def test_what_is_said_comes_back_as_text_and_an_unplugged_one_is_waited_for(
    home: Place, desk: Desk, folder: Path
) -> None:
    said = np.concatenate([*Recording(RECORDINGS / "short.ogg"), np.zeros(16_000 * 3, np.int16)])
    async with Daemon(Config(web=WebConfig(port=0)), folder, PASSPHRASE, SystemClock()) as daemon:
        _, token = await daemon.db.write(lambda conn: clients.add(conn, "laptop", "owner", START_US))
        home.secret("T", token + "\n")
        to = daemon.address.replace("http://", "ws://") + "/ws"
        with home.start(
            "stream", "--mic", NAME, "--to", to, "--token-file", "T", "--uid", "kitchen", "--json", "--duration", "8",
            "--linger", "4",
            environment=desk.environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stderr is not None
            told: list[dict[str, Any]] = []

            async def until(kind: str, **wanted: object) -> dict[str, Any]:
                assert process.stdout is not None
                while line := await asyncio.to_thread(process.stdout.readline):
                    told.append(json.loads(line))
                    data = told[-1]["data"]
                    if told[-1]["kind"] == kind and all(data.get(name) == value for name, value in wanted.items()):
                        return dict(data)
                pytest.fail(f"{kind} {wanted} did not come: {told}")

            await until("connected")
            if not any(one["kind"] == "microphone" for one in told):
                await until("microphone", state="listening", name=NAME, rate=16_000)
            desk.say(said)
            message = await until("microphone", state="waiting")
            assert message["message"].count(".") == 1
            desk.say(tone(3.0))  # it is back, and hears more than is wanted
            await until("microphone", state="listening")
            done = await until("done")
            assert process.wait() == 0
            assert process.stderr.read() == ""  # no meter where nobody watches
        assert (done["seconds"], done["connections"]) == (8.0, 1)
        assert [one["kind"] for one in told].count("microphone") == 3
        assert "monday" in json.dumps(told)
        rows = await daemon.db.read(sources.list_all)
        assert [(row.kind, row.name) for row in rows] == [("socket", "kitchen")]


async def test_a_level_is_drawn_on_a_terminal_and_gives_way_to_text(home: Place, tmp_path: Path, folder: Path) -> None:
    scripted(tmp_path, SCRIPTED.format(rates=(16_000,), own=16_000.0, channels=1))
    ours, theirs = pty.openpty()
    async with Daemon(Config(web=WebConfig(port=0)), folder, PASSPHRASE, SystemClock()) as daemon:
        _, token = await daemon.db.write(lambda conn: clients.add(conn, "laptop", "owner", START_US))
        home.secret("T", token + "\n")
        to = daemon.address.replace("http://", "ws://") + "/ws_pcm"
        with home.start(
            "stream", "--mic", "--to", to, "--token-file", "T", "--duration", "1", "--linger", "0",
            environment={"PYTHONPATH": str(tmp_path)}, stderr=theirs,
        ) as process:  # fmt: skip
            os.close(theirs)
            seen = await asyncio.to_thread(read_all, ours)
            assert process.wait() == 0
    os.close(ours)
    text = seen.decode().replace("\r\n", "\n")
    assert f"\r{'█' * 25}{'░' * 5}  -15.3 dB\x1b[K" in text
    assert "\r\x1b[Ksent: samples 16000, frames 50, seconds 1.0\n" in text


def read_all(file: int) -> bytes:
    seen = b""
    try:
        while chunk := os.read(file, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    return seen
