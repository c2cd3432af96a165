"""What many tests share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar
from unittest import mock

from omi_edge.clock import DrivenClock
from omi_edge.store import keys

T = TypeVar("T")

START_US = int(datetime(2026, 3, 2, 9, 0, tzinfo=UTC).timestamp()) * 1_000_000
"""A Monday morning: where driven clocks of tests begin."""

PASSPHRASE = "correct horse battery staple"
"""Of every vault that tests make."""


def least_cost() -> contextlib.AbstractContextManager[object]:
    """Passphrases that are set meanwhile cost the least that Argon2 can (RFC 9106 §3.1); a slot names its own cost."""
    return mock.patch.multiple(keys, ARGON2_MEMORY_KIB=8, ARGON2_ROUNDS=1, ARGON2_LANES=1)


async def drive(clock: DrivenClock, work: Coroutine[Any, Any, T], *, step: float = 0.1) -> T:
    """Move the clock until ``work`` is done."""
    task = asyncio.create_task(work)
    while not task.done():
        await clock.advance(step)
    return task.result()
