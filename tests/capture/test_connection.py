"""The end of a connection, told in pieces and in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from omi_edge.capture import connection as module
from omi_edge.capture.connection import Connection
from omi_edge.clock import DrivenClock
from omi_edge.domain import Ending

Step = Callable[[Connection], None]


def over(connection: Connection) -> None:
    connection.dropped()


def why(ending: Ending) -> Step:
    return lambda connection: connection.reason(ending)


def end(ending: Ending) -> Step:
    return lambda connection: connection.end(ending)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REASON_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([why(Ending.TIMEOUT), over], Ending.TIMEOUT),
        ([over, why(Ending.REMOTE)], Ending.REMOTE),
        ([over], Ending.UNKNOWN),
        ([over, why(Ending.LOCAL)], Ending.LOCAL),
        ([why(Ending.LOCAL), over, end(Ending.RADIO)], Ending.RADIO),
        ([over, end(Ending.RADIO), why(Ending.LOCAL)], Ending.RADIO),
        ([end(Ending.RADIO), over], Ending.RADIO),
        ([end(Ending.LOCAL), why(Ending.TIMEOUT), over], Ending.LOCAL),
        ([over, why(Ending.TIMEOUT), end(Ending.LOCAL)], Ending.TIMEOUT),
        ([end(Ending.LOCAL), end(Ending.RADIO)], Ending.LOCAL),
    ],
)
async def test_the_best_of_what_was_told(clock: DrivenClock, steps: list[Step], expected: Ending) -> None:
    connection = Connection()
    waiting = asyncio.create_task(connection.ending(clock))
    for step in steps:
        step(connection)
        await asyncio.sleep(0)
    assert await waiting is expected
    connection.end(Ending.STALE)
    assert await connection.ending(clock) is expected


async def test_a_failed_attempts_reason_is_not_that_of_the_connection_after_it(clock: DrivenClock) -> None:
    connection = Connection()
    connection.reason(Ending.TIMEOUT)
    connection.established()
    connection.dropped()
    assert await connection.ending(clock) is Ending.UNKNOWN


async def test_simulated_time_stands_still_while_the_reason_is_awaited(clock: DrivenClock) -> None:
    connection = Connection()
    waiting = asyncio.create_task(connection.ending(clock))
    connection.dropped()
    await clock.advance(60)
    assert waiting.done()
