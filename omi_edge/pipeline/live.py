"""Text while a person speaks: the segment that is open goes to the live recogniser block by block.

The result is kept until the segment's transcribe job asks for it, so partial and stored text come from one decoding
pass. When the recogniser is busy, behind or broken, the segment is simply left to the job, which reads the same audio
from the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable

from omi_edge.clock import Clock
from omi_edge.engine import NO_HINTS, Hints, Recognition
from omi_edge.errors import EngineError, VaultError
from omi_edge.events import Bus
from omi_edge.pipeline.engines import Engines
from omi_edge.pipeline.hearing import LiveAudio

log = logging.getLogger(__name__)

BLOCKS_LIMIT = 600
"""Blocks waiting for the recogniser; when it is this far behind, the segment is left to its job."""
RESULTS_LIMIT = 100


class LiveTranscriber:
    """One segment at a time, of whichever source speaks first."""

    def __init__(
        self, engines: Engines, bus: Bus, clock: Clock, backlog: Callable[[], bool],
        hints: Callable[[], Awaitable[Hints]] | None = None,
    ) -> None:  # fmt: skip
        """``hints``: asked for each segment what is known before it is heard."""
        self._hints = hints
        self._engines = engines
        self._bus = bus
        self._clock = clock
        self._backlog = backlog
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_LIMIT)
        self._segment_id = ""
        self._task: asyncio.Task[Recognition | None] | None = None
        self._results: OrderedDict[str, asyncio.Task[Recognition | None]] = OrderedDict()

    def offer(self, source_id: str, audio: LiveAudio) -> None:
        """Take the next piece of an open segment."""
        if audio.first:
            if (self._task is not None and not self._task.done()) or self._backlog():
                return
            self._begin(source_id, audio)
        if audio.segment_id != self._segment_id or self._task is None or self._task.done():
            return
        try:
            if audio.pcm:
                self._blocks.put_nowait(audio.pcm)
            if audio.last:
                self._blocks.put_nowait(None)
                self._segment_id = ""
        except asyncio.QueueFull:
            log.warning("live recogniser is behind", extra={"segment": audio.segment_id})
            self._task.cancel()
            self._segment_id = ""

    async def result(self, segment_id: str) -> Recognition | None:
        """Wait for what was heard live of a closed segment; None when it was not heard live."""
        task = self._results.pop(segment_id, None)
        if task is None:
            return None
        if segment_id == self._segment_id:  # never closed: its end did not come through
            task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def close(self) -> None:
        """Stop listening."""
        for task in self._results.values():
            task.cancel()
        if self._results:
            await asyncio.wait(self._results.values())
        self._results.clear()

    def _begin(self, source_id: str, audio: LiveAudio) -> None:
        self._segment_id = audio.segment_id
        self._blocks = asyncio.Queue(BLOCKS_LIMIT)
        self._task = asyncio.create_task(self._recognize(source_id, audio.segment_id, audio.start_us, self._blocks))
        self._results[audio.segment_id] = self._task
        while len(self._results) > RESULTS_LIMIT:
            self._results.popitem(last=False)[1].cancel()

    async def _recognize(
        self, source_id: str, segment_id: str, start_us: int, blocks: asyncio.Queue[bytes | None]
    ) -> Recognition | None:
        said = ""

        def partial(text: str) -> None:
            nonlocal said
            if text and text != said:
                said = text
                self._bus.publish(
                    "partial", self._clock.utc_us(), source_id=source_id, segment_id=segment_id, start_us=start_us,
                    text=text,
                )  # fmt: skip

        try:
            hints = NO_HINTS if self._hints is None else await self._hints()
            return await self._engines.recognize_live(_drain(blocks), partial, hints)
        except (EngineError, VaultError) as error:
            log.warning("live recognition failed", extra={"segment": segment_id, "cause": type(error).__name__})
            return None


async def _drain(blocks: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (pcm := await blocks.get()) is not None:
        while not blocks.empty():  # behind: fewer, larger blocks
            more = blocks.get_nowait()
            if more is None:
                yield pcm
                return
            pcm += more
        yield pcm
