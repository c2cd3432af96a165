"""What many tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from omi_edge.clock import DrivenClock

T = TypeVar("T")

START_US = int(datetime(2026, 3, 2, 9, 0, tzinfo=UTC).timestamp()) * 1_000_000
"""A Monday morning: where driven clocks of tests begin."""

PASSPHRASE = "correct horse battery staple"
"""Of every vault that tests make."""


async def drive(clock: DrivenClock, work: Coroutine[Any, Any, T], *, step: float = 0.1) -> T:
    """Move the clock until ``work`` is done."""
    task = asyncio.create_task(work)
    while not task.done():
        await clock.advance(step)
    return task.result()
