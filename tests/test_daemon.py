"""The daemon's life: ordered start, staged stop, and what is left when a start fails."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.config import Config, ConversationConfig, ListenConfig, MemoryConfig, WebConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import LinkState, Severity
from omi_edge.errors import AlreadyRunning, ConfigError, NotReady, PassphraseError, PortInUse
from omi_edge.paths import socket_path
from omi_edge.store import migrations, notices
from omi_edge.store.connection import Connection
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.web import wire
from omi_edge.web.client import ApiClient
from tests.helpers import PASSPHRASE, drive
from tests.scripted import register

CONFIG = Config(
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
    web=WebConfig(port=0),
)


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


async def _states(folder: Path) -> tuple[wire.Readiness, wire.Health]:
    async with ApiClient(socket=socket_path(folder)) as client:
        readiness = await client.request("GET", "/readiness", returns=wire.Readiness, accept=(503,))
        return readiness, await client.request("GET", "/health", returns=wire.Health, accept=(503,))


async def test_it_starts_in_order_and_leaves_nothing_behind(folder: Path, clock: DrivenClock) -> None:
    tasks = asyncio.all_tasks()
    threads = threading.active_count()
    daemon = Daemon(CONFIG, folder, PASSPHRASE, clock)
    assert daemon.state == "new"
    with pytest.raises(NotReady):
        _ = daemon.db
    async with daemon:
        assert daemon.state == "running"
        assert daemon.address.startswith("http://127.0.0.1:")
        readiness, health = await _states(folder)
        assert (readiness.ready, health.status) == (True, "healthy")
        assert {part.name for part in health.parts} >= {"vault", "jobs", "capture", "web", "engine live"}
    assert daemon.state == "stopped"
    await daemon.stop()
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() <= threads + 1  # the loop's own pool keeps a thread
    assert not socket_path(folder).exists()


async def test_a_second_one_on_the_same_folder_is_refused_and_the_first_goes_on(
    folder: Path, clock: DrivenClock
) -> None:
    async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False):
        with pytest.raises(AlreadyRunning):
            await Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False).start()
        readiness, _ = await _states(folder)
        assert readiness.ready


@pytest.mark.parametrize(
    ("passphrase", "port", "error"),
    [("wrong", 0, PassphraseError), (PASSPHRASE, None, PortInUse)],
)
async def test_a_start_that_fails_can_be_repeated(
    folder: Path, clock: DrivenClock, taken_port: int, passphrase: str, port: int | None, error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    config = msgspec.structs.replace(CONFIG, web=WebConfig(port=taken_port if port is None else port))
    failing = Daemon(config, folder, passphrase, clock)
    with pytest.raises(error):
        await failing.start()
    await failing.stop()
    states = [vars(record)["state"] for record in caplog.records if record.getMessage() == "daemon"]
    assert states == ["starting", "failed"]
    async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False) as daemon:
        assert daemon.state == "running"


async def test_a_long_migration_is_seen_while_it_runs(
    folder: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, go_on = threading.Event(), threading.Event()
    real = migrations.migrate

    def slow(conn: Connection, progress: Callable[[str, float], None] | None = None) -> None:
        assert progress is not None
        progress("bringing the file up to date", 0.25)
        going.set()
        assert go_on.wait(30)
        progress("bringing the file up to date", 1.0)
        real(conn, progress)

    monkeypatch.setattr(migrations, "migrate", slow)
    daemon = Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False)
    starting = asyncio.create_task(daemon.start())
    await asyncio.to_thread(going.wait, 30)
    readiness, health = await _states(folder)
    assert (readiness.ready, readiness.state) == (False, "starting")
    part = next(part for part in health.parts if part.name == "bringing the file up to date")
    assert (part.state, part.advice) == ("busy", "25% done; please wait.")
    go_on.set()
    await starting
    assert (await daemon.status()).progress == []
    await daemon.stop()


async def test_a_pendant_that_is_away_is_told_and_comes_back(folder: Path, clock: DrivenClock) -> None:
    pendant = Pendant(clock)
    radio = LoopbackRadio(clock, [pendant])
    async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, radio=radio) as daemon:
        _, health = await _states(folder)
        assert {part.name: part.state for part in health.parts}["capture"] == "off"
        await drive(clock, daemon.pair_device(None, None))
        await clock.advance(1)
        _, health = await _states(folder)
        assert {part.name: part.state for part in health.parts}["capture"] == "ok"
        pendant.go_away(60)
        await clock.advance(10)
        _, health = await _states(folder)
        capture = next(part for part in health.parts if part.name == "capture")
        assert (capture.state, "held by a phone" in capture.advice) == ("degraded", True)
        await clock.advance(80)
        assert daemon.device_state(pendant.address).state is LinkState.CONNECTED


async def test_settings_are_read_again_or_kept(folder: Path, clock: DrivenClock) -> None:
    wanted: list[Config | Exception] = [
        msgspec.structs.replace(CONFIG, conversation=ConversationConfig(silence=7.0), web=WebConfig(port=9)),
        ConfigError("no"),
    ]

    def reload() -> Config:
        found = wanted.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False, reload=reload) as daemon:
        daemon._re_read()
        assert daemon.config.conversation.silence == 7.0
        assert daemon.config.web == CONFIG.web  # waits for a restart
        daemon._re_read()
        assert daemon.config.conversation.silence == 7.0


async def test_a_transcript_that_could_not_be_made_anew_is_told_until_it_is_seen(
    folder: Path, clock: DrivenClock
) -> None:
    async with Daemon(CONFIG, folder, PASSPHRASE, clock, serve_tcp=False) as daemon:

        async def told() -> tuple[str, str]:
            health = await daemon.health()
            return health.status, {part.name: part.state for part in health.parts}["transcripts made anew"]

        assert await told() == ("healthy", "ok")
        notice = await daemon.spine.raise_notice("reprocess-failed", Severity.ERROR, ("con_1",), "It failed.")
        assert await told() == ("degraded", "degraded")
        assert [one.message for one in (await daemon.status()).notices] == ["It failed."]
        await daemon.db.write(lambda conn: notices.acknowledge(conn, notice.id, clock.utc_us()))
        assert await told() == ("healthy", "ok")
