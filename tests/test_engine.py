"""The engine host, with real worker processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from omi_edge.clock import Clock, DrivenClock, SystemClock
from omi_edge.engine import EngineProcess, EngineSpec
from omi_edge.errors import EnginePermanent, EngineTransient
from tests.helpers import START_US

PARROT = EngineSpec("tests.engines:Parrot", {"greeting": "hello "})


def process(clock: Clock, *, idle: float = 300.0, call_limit: float = 60.0) -> EngineProcess:
    return EngineProcess("test", clock, idle=idle, call_limit=call_limit)


@pytest.fixture
async def engine() -> AsyncIterator[EngineProcess]:
    running = process(SystemClock())
    yield running
    await running.close()


async def test_calls_go_to_one_process_that_is_started_by_the_first(engine: EngineProcess) -> None:
    assert (engine.state, engine.pid, engine.starts) == ("unloaded", None, 0)
    assert await engine.call(PARROT, "say", "you", returns=str) == "hello you"
    assert await engine.call(PARROT, "calls", returns=int) == 1
    assert await engine.call(PARROT, "pid", returns=int) == engine.pid != os.getpid()
    assert (engine.state, engine.starts, engine.failures) == ("idle", 1, 0)
    assert engine.busy_us > 0


async def test_engines_of_different_options_live_side_by_side(engine: EngineProcess) -> None:
    other = EngineSpec("tests.engines:Parrot", {"greeting": "bye "})
    assert await engine.call(PARROT, "say", "you", returns=str) == "hello you"
    assert await engine.call(other, "say", "you", returns=str) == "bye you"
    assert engine.starts == 1


async def test_ten_minutes_of_audio_go_through(engine: EngineProcess) -> None:
    assert await engine.call(PARROT, "size", bytes(19_200_000), returns=int) == 19_200_000


async def test_what_a_library_prints_does_not_disturb(engine: EngineProcess) -> None:
    assert await engine.call(PARROT, "print_out", "noise\n", returns=str) == "noise\n"
    assert await engine.call(PARROT, "say", "you", returns=str) == "hello you"


async def test_the_worker_gets_little_of_the_environment(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_EDGE_TEST_SECRET", "swordfish")
    environment = await engine.call(PARROT, "environment", returns=dict[str, str])
    assert "swordfish" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("method", ["die", "run_out"])
async def test_a_crash_is_transient_and_the_next_call_starts_anew(engine: EngineProcess, method: str) -> None:
    first = await engine.call(PARROT, "pid", returns=int)
    with pytest.raises(EngineTransient):
        await engine.call(PARROT, method, returns=type(None))
    assert (engine.state, engine.failures) == ("unloaded", 1)
    assert await engine.call(PARROT, "pid", returns=int) != first
    assert engine.starts == 2


async def test_a_killed_worker_is_replaced(engine: EngineProcess) -> None:
    os.kill(await engine.call(PARROT, "pid", returns=int), signal.SIGKILL)
    with pytest.raises(EngineTransient):
        # the first call may find the pipe still open; it must never hang or give a wrong answer
        while True:
            await engine.call(PARROT, "calls", returns=int)
            if engine.starts == 2:
                raise EngineTransient("replaced before the call")
    assert await engine.call(PARROT, "say", "you", returns=str) == "hello you"


async def test_a_hanging_engine_is_ended_at_its_limit() -> None:
    engine = process(SystemClock(), call_limit=2.0)
    try:
        with pytest.raises(EngineTransient, match="did not answer in 2 s"):
            await engine.call(PARROT, "hang", returns=type(None))
        assert await engine.call(PARROT, "say", "you", returns=str) == "hello you"
    finally:
        await engine.close()


@pytest.mark.parametrize(("method", "kind"), [("refuse", EnginePermanent), ("stumble", EngineTransient)])
async def test_an_engines_own_error_keeps_its_text_inside(
    engine: EngineProcess, method: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        await engine.call(PARROT, method, returns=type(None))
    assert "content" not in str(caught.value)
    assert method in str(caught.value)
    assert engine.state == "idle"


async def test_an_engine_that_is_not_there_is_permanent(engine: EngineProcess) -> None:
    with pytest.raises(EnginePermanent):
        await engine.call(EngineSpec("tests.engines:Nobody"), "say", "you", returns=str)
    with pytest.raises(EnginePermanent):
        await engine.call(PARROT, "sing", returns=str)


async def test_an_idle_worker_is_ended_and_comes_back() -> None:
    clock = DrivenClock(START_US)
    engine = process(clock, idle=30.0)
    try:
        await engine.call(PARROT, "say", "you", returns=str)
        await clock.advance(29.0)
        assert engine.state == "idle"
        await engine.call(PARROT, "say", "you", returns=str)
        await clock.advance(29.0)
        assert engine.state == "idle"
        await clock.advance(2.0)
        assert engine.state == "unloaded"
        assert await engine.call(PARROT, "calls", returns=int) == 0
    finally:
        await engine.close()


async def test_a_session_keeps_the_worker_while_somebody_thinks() -> None:
    clock = DrivenClock(START_US)
    engine = process(clock, idle=30.0)
    try:
        async with engine.session() as session:
            await session(PARROT, "say", "one", returns=str)
            await clock.advance(100.0)
            await session(PARROT, "say", "two", returns=str)
            assert await session(PARROT, "calls", returns=int) == 2
            assert session.seconds > 0
    finally:
        await engine.close()


async def test_a_session_says_so_when_its_worker_was_replaced(engine: EngineProcess) -> None:
    async with engine.session() as session:
        await session(PARROT, "say", "one", returns=str)
        with pytest.raises(EngineTransient):
            await session(PARROT, "die", returns=type(None))
        with pytest.raises(EngineTransient):
            await session(PARROT, "calls", returns=int)


async def test_closing_ends_the_worker_and_is_harmless_twice(engine: EngineProcess) -> None:
    pid = await engine.call(PARROT, "pid", returns=int)
    await engine.close()
    await engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the filter")
async def test_a_worker_can_open_no_network_socket(engine: EngineProcess) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        assert await engine.call(PARROT, "connect", int(family), returns=str) == "PermissionError"
    assert await engine.call(PARROT, "connect", int(socket.AF_UNIX), returns=str) == "made"
