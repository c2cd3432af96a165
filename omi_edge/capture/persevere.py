"""Trying a transfer again, a few times, as long as each gets further."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from omi_edge.capture.dialogue import Dialogue
from omi_edge.capture.stored import Stumble, Tally
from omi_edge.errors import LinkError

log = logging.getLogger(__name__)

TRIES = 4
"""In a row without getting further, then a drain is given up."""
RETRY_SECONDS = 1.5
"""Before the first repetition, then twice and three times that: storage may need 5 s to be ready (dossier §6.5)."""


async def persevere(talk: Dialogue, tally: Tally, stop: bytes, once: Callable[[], Awaitable[bool]]) -> None:
    """Send STOP and wait (dossier §6.5), then call ``once`` until it returns False. Raises LinkError's family."""
    await talk.hush(stop)
    failures, furthest = 0, (0, 0)
    while True:
        try:
            if not await once():
                return
            failures = 0
        except Stumble as stumble:
            tally.retries += 1
            here = (tally.cursor.store, tally.cursor.position)
            failures = 1 if here > furthest else failures + 1
            furthest = max(here, furthest)
            log.info("stored audio: %s", stumble, extra={"tries": failures})
            if failures >= TRIES:
                raise LinkError(
                    f"fetching stored audio failed {failures} times: {stumble}. It goes on with the next connection."
                ) from None
            await talk.clock.sleep(RETRY_SECONDS * failures)
            await talk.hush(stop)
