"""What the owner sees of stored audio: progress, one notice for what is held, health, and conversations."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from omi_edge.cli import offline as verbs
from omi_edge.cli.settings import Settings
from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Notice, Withholding
from omi_edge.errors import BadInput, LinkError, LinkLost, NotReady
from omi_edge.events import Subscription
from omi_edge.paths import socket_path
from omi_edge.store import conversations, notices, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.offline import RunRow, RunState
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.pendant import Pendant
from omi_edge.web import offlinewire, wire
from omi_edge.web.client import ApiClient
from tests.helpers import drive
from tests.scripted import register
from tests.test_devices import BASE, World

FAST = Faults(storage_speed=0)
HELD = "stored-audio-held"


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


@pytest.fixture
def world(folder: Path, clock: DrivenClock) -> World:
    return World(folder, clock, msgspec.structs.replace(BASE, audio=AudioConfig(keep_silence=864_000)))


async def runs_of(daemon: Daemon, pendant: Pendant) -> list[RunRow]:
    def work(conn: Connection) -> list[RunRow]:
        source = sources.for_device(conn, pendant.address)
        assert source is not None
        return offline.latest(conn, source.id, 1000)[::-1]

    return await daemon.db.read(work)


async def standing(daemon: Daemon) -> list[Notice]:
    return [notice for notice in await daemon.db.read(notices.active) if notice.code == HELD]


async def state_of(daemon: Daemon, pendant: Pendant) -> offlinewire.Offline:
    async with ApiClient(socket=socket_path(daemon.folder)) as client:
        return await client.request("GET", f"/v1/devices/{pendant.address}/offline", returns=offlinewire.Offline)


async def part(daemon: Daemon) -> wire.Part:
    (found,) = [part for part in (await daemon.health()).parts if part.name == "stored audio"]
    return found


async def withheld_walk(world: World, daemon: Daemon, pendant: Pendant) -> None:
    """A walk with a mute inside, of a pendant that tells no times and was off for a while."""
    pendant.go_away(70)
    await world.hear(pendant, 5)
    pendant.power_off(10)
    await world.hear(pendant, 15)
    await daemon.withhold(Withholding.MUTED, None, "test")
    await world.hear(pendant, 10)
    await daemon.resume("test")
    await world.hear(pendant, 60)


def offline_events(heard: Subscription) -> list[dict[str, object]]:
    found = []
    while heard.waiting:
        event = heard._queue.popleft()
        if event.kind == "offline":
            found.append(event.data)
    return found


async def test_a_walk_is_seen_as_it_comes_home(world: World) -> None:
    pendant = world.pendant("cv1-3.0.18", faults=Faults(storage_speed=2), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        assert (await part(daemon)).state == "ok"
        pendant.go_away(120)
        await world.hear(pendant, 60)
        assert (await state_of(daemon, pendant)).state == "away"
        with pytest.raises(LinkLost, match="Bring it near"):
            await daemon.fetch_offline(pendant.address)
        with daemon.bus.subscribe() as heard:
            seen: list[tuple[offlinewire.Offline, wire.Part, wire.Status]] = []
            for _ in range(90):  # it may take a while until it is found again
                await world.clock.advance(2)
                state = await state_of(daemon, pendant)
                if state.state == "fetching" and state.done_bytes and not seen:
                    seen.append((state, await part(daemon), await daemon.status()))
            told = offline_events(heard)
        ((state, at_work, status),) = seen
        assert 0 < state.done_bytes <= state.total_bytes
        assert (at_work.state, [one.state for one in status.offline]) == ("busy", ["fetching"])
        progress = [one["done_bytes"] for one in told if one["state"] == "fetching"]
        assert len(progress) > 3
        assert progress == sorted(progress)  # type: ignore[type-var]
        assert [one["state"] for one in told if one["state"] != "fetching"][:1] == ["done"]
        assert "heard" in [one["state"] for one in told]
        found = await state_of(daemon, pendant)
        assert (found.state, found.waiting_bytes, found.held) == ("done", 0, 0)
        assert [run.state for run in found.runs] == ["heard"]
        assert ((await part(daemon)).state, (await daemon.status()).offline) == ("ok", [])
        before = found.event
        await daemon.fetch_offline(pendant.address)
        await world.clock.advance(8)
        assert [e.data["state"] for e in daemon.bus._recent if e.number > before and e.kind == "offline"] == [
            "fetching", "done",
        ]  # fmt: skip


async def test_a_conversation_of_a_walk_says_so(world: World) -> None:
    pendant = world.pendant(faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        pendant.go_away(60)
        await world.hear(pendant, 40, 9000.0)
        await world.clock.advance(120)
        (run,) = await runs_of(daemon, pendant)
        assert run.start_us is not None
        source_id, start_us = run.source_id, run.start_us

        def talk(conn: Connection, at_us: int, name: str) -> None:
            conversations.create(
                conn, id=name, source_id=source_id, started_us=at_us, ended_us=at_us + 5_000_000, now_us=at_us
            )

        await daemon.db.write(lambda conn: talk(conn, start_us + 10_000_000, "con_walk"))
        await daemon.db.write(lambda conn: talk(conn, start_us - 60_000_000, "con_live"))
        async with ApiClient(socket=socket_path(daemon.folder)) as client:
            walk, live = [
                await client.request("GET", f"/v1/conversations/{name}", returns=wire.Conversation)
                for name in ("con_walk", "con_live")
            ]
        assert (walk.offline, live.offline) == (True, False)
        assert walk.time_uncertainty_seconds == run.uncertainty_us / 1e6
        assert not walk.time_guessed


@pytest.mark.parametrize("wanted", [True, pytest.param(False, marks=pytest.mark.full)])
async def test_what_is_held_is_told_once_until_it_is_decided(world: World, wanted: bool) -> None:
    pendant = world.pendant("devkit2-2.0.10", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant, name="grey")
        await world.hear(pendant, 5)
        await withheld_walk(world, daemon, pendant)
        (notice,) = await standing(daemon)
        assert (notice.subject_ids, notice.count) == ((pendant.address,), 1)
        for word in ("1 recording that grey stored", "withheld", "omi-edge devices held"):
            assert word in notice.message
        await withheld_walk(world, daemon, pendant)
        (notice,) = await standing(daemon)
        assert "2 recordings" in notice.message
        found = await part(daemon)
        assert (found.state, "devices held" in found.advice) == ("ok", True)
        (state,) = (await daemon.status()).offline
        assert (state.held, state.waiting_seconds, state.waiting_bytes > 0) == (2, 0.0, True)
        first, second = await runs_of(daemon, pendant)
        path = f"/v1/devices/{pendant.address}/offline/held"
        async with ApiClient(socket=socket_path(daemon.folder)) as client:
            with daemon.bus.subscribe() as heard:
                for run in (first, second):
                    await client.request(
                        "POST", f"{path}/{run.id}", body=offlinewire.HeldDecision(wanted),
                        returns=offlinewire.OfflineRun,
                    )  # fmt: skip
                    assert len(await standing(daemon)) == (0 if run is second else 1)
                words = [one for one in offline_events(heard) if "run" in one]
        assert [(one["run"], one["state"]) for one in words] == [
            (run.id, "placed" if wanted else "discarded") for run in (first, second)
        ]
        await world.clock.advance(120)
        runs = await runs_of(daemon, pendant)
        assert {run.state for run in runs} == {RunState.HEARD if wanted else RunState.DISCARDED}
        assert await daemon.db.read(lambda conn: offline.waiting_bytes(conn, first.source_id)) == 0
        assert ((await part(daemon)).state, await standing(daemon)) == ("ok", [])


async def test_a_notice_stands_over_a_restart_and_counts_once(world: World) -> None:
    pendant = world.pendant("cv1-3.0.15", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        await withheld_walk(world, daemon, pendant)
        (before,) = await standing(daemon)
    async with world.daemon() as daemon:
        await world.clock.advance(20)
        (after,) = await standing(daemon)
        assert (after.id, after.count) == (before.id, 1)


async def test_what_a_forgotten_pendant_stored_still_waits_for_a_word(world: World) -> None:
    pendant = world.pendant("devkit2-2.0.10", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        await withheld_walk(world, daemon, pendant)
        (run,) = await runs_of(daemon, pendant)
        await drive(world.clock, daemon.forget_device(pendant.address))
        daemon.spine.recovery.poke()
        await world.clock.advance(2)
        assert len(await standing(daemon)) == 1
        async with ApiClient(socket=socket_path(daemon.folder)) as client:
            await client.request(
                "POST", f"/v1/devices/{pendant.address}/offline/held/{run.id}",
                body=offlinewire.HeldDecision(False), returns=offlinewire.OfflineRun,
            )  # fmt: skip
        assert await standing(daemon) == []


async def test_a_pendant_that_stores_nothing_or_is_not_listened_to_cannot_be_asked(world: World) -> None:
    pendant = world.pendant("glass")
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        with pytest.raises(BadInput, match="stores no audio"):
            await daemon.fetch_offline(pendant.address)
    async with world.daemon(listen=False) as daemon:
        with pytest.raises(NotReady, match="omi-edge run"):
            await daemon.fetch_offline(pendant.address)
        assert (await state_of(daemon, pendant)).state == "away"


@pytest.mark.parametrize("terminal", [True, False])
async def test_the_command_line_follows_until_all_is_here(
    world: World, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "wants_progress", lambda _: terminal)
    monkeypatch.setattr(verbs, "Console", functools.partial(Console, force_terminal=True, width=100))
    pendant = world.pendant("cv1-3.0.18", faults=Faults(storage_speed=4), mic_sleep=False)
    async with world.daemon() as daemon:
        settings = Settings(data_option=daemon.folder)
        await world.paired(daemon, pendant, name="grey")
        await world.hear(pendant, 5)
        pendant.go_away(60)
        await world.hear(pendant, 50)
        while (await state_of(daemon, pendant)).state != "fetching":
            await world.clock.advance(1)
        await drive(world.clock, verbs._offline(settings, "grey", True, 5))
        shown = capsys.readouterr()
        assert "fetching  all of it is here (" in shown.out
        assert ("grey" in shown.err) == terminal
        await drive(world.clock, verbs._fetch(settings, "grey", False))
        assert capsys.readouterr().out == "grey: all of it is here\n"
        await drive(world.clock, verbs._fetch(settings, "grey", True))
        shown = capsys.readouterr()
        assert (shown.out, "grey is asked" in shown.err) == ("", True)


async def test_the_command_line_says_when_the_pendant_leaves_in_between(world: World) -> None:
    pendant = world.pendant("cv1-3.0.18", faults=Faults(storage_speed=1), mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant, name="grey")
        await world.hear(pendant, 5)
        pendant.go_away(60)
        await world.hear(pendant, 50)
        while (await state_of(daemon, pendant)).state != "fetching":
            await world.clock.advance(1)
        pendant.go_away(60)
        with pytest.raises(LinkError, match="went away; the rest"):
            await drive(world.clock, verbs._fetch(Settings(data_option=daemon.folder), "grey", False))
