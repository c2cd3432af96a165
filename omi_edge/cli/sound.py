"""What `stream` sends: a recording, a tone, or a microphone, as frames of samples."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from omi_edge.capture.microphone import QUIETEST_DB, Microphone, Opened, Sound, level_db
from omi_edge.domain import SAMPLE_RATE, Codec

CODEC = Codec.OPUS_20MS
FRAME_SAMPLES = CODEC.frame_us * SAMPLE_RATE // 1_000_000
TONE_HZ = 440
TONE_LEVEL = 8000
TONE_SECONDS = 10.0
WAITING_FRAMES = 500
"""Of a microphone, while the connection takes none: ten seconds."""
METER_CELLS = 30

Show = Callable[[str, Any], None]


class Source(Protocol):
    """Where frames come from."""

    live: bool
    """Whether it has a pace of its own."""

    def start(self, show: Show) -> None:
        """Begin; ``show`` tells what happens to it."""

    async def next(self) -> npt.NDArray[np.int16] | None:
        """Return the next frame, None after the last."""

    def connected(self) -> None:
        """A new connection takes frames from now on."""

    def step_aside(self) -> None:
        """Text is printed now."""

    async def close(self) -> None:
        """Let go of it; harmless twice."""


class Recorded:
    """What is there already."""

    live = False

    def __init__(self, frames: Iterator[npt.NDArray[np.int16]]) -> None:
        self._frames = frames

    def start(self, show: Show) -> None:
        """See Source."""

    async def next(self) -> npt.NDArray[np.int16] | None:
        """See Source."""
        return next(self._frames, None)

    def connected(self) -> None:
        """See Source."""

    def step_aside(self) -> None:
        """See Source."""

    async def close(self) -> None:
        """See Source."""


class Live:
    """A microphone. It is listened to without a connection too; what it hears then is not sent."""

    live = True

    def __init__(self, microphone: Microphone, duration: float | None, meter: Meter) -> None:
        self._microphone = microphone
        self._left = None if duration is None else max(1, round(duration * 1e6 / CODEC.frame_us))
        self._meter = meter
        self._frames: deque[npt.NDArray[np.int16]] = deque()
        self._came = asyncio.Event()
        self._rest = b""
        self._lost = 0
        """Samples that were heard and are not sent."""
        self._connections = 0
        self._waits = False
        self._pump: asyncio.Task[None] | None = None
        self._show: Show = lambda kind, data: None

    @property
    def left_out_seconds(self) -> float:
        """What was heard and is not sent, as far as that was not told yet."""
        return round(self._lost / SAMPLE_RATE, 3)

    def start(self, show: Show) -> None:
        """See Source."""
        self._show = show
        self._pump = asyncio.create_task(self._listen())
        self._pump.add_done_callback(lambda _: self._came.set())

    def connected(self) -> None:
        """See Source."""
        self._lost += len(self._frames) * FRAME_SAMPLES
        self._frames.clear()
        if not self._connections:
            self._lost = 0  # nobody had begun
        self._connections += 1

    def step_aside(self) -> None:
        """See Source."""
        self._meter.clear()

    async def next(self) -> npt.NDArray[np.int16] | None:
        """See Source. Raises MicrophoneError when there can be none."""
        assert self._pump is not None
        if self._left is not None and not self._left:
            return None
        if self._lost:
            self._show("lost", {"seconds": self.left_out_seconds})
            self._lost = 0
        while not self._frames:
            if self._pump.done():
                self._pump.result()
            self._came.clear()
            await self._came.wait()
        if self._left is not None:
            self._left -= 1
        return self._frames.popleft()

    async def close(self) -> None:
        """See Source."""
        self._meter.clear()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _listen(self) -> None:
        async with contextlib.aclosing(self._microphone.listen()) as heard:
            async for item in heard:
                if isinstance(item, Sound):
                    self._hear(item)
                    continue
                self._meter.clear()
                self._rest = b""
                if isinstance(item, Opened):
                    self._waits = False
                    self._show("microphone", {"state": "listening", "name": item.name, "rate": item.rate})
                elif not self._waits:  # one sentence, however often it is looked for
                    self._waits = True
                    self._show("microphone", {"state": "waiting", "message": item.message})

    def _hear(self, sound: Sound) -> None:
        self._meter.show(level_db(sound.pcm))
        if sound.lost:
            self._lost += sound.lost
            self._rest = b""
            # silence in its place, as long as that is short: else what follows would be taken for spoken earlier
            missing = min(-(-sound.lost // FRAME_SAMPLES), WAITING_FRAMES)
            self._frames.extend([np.zeros(FRAME_SAMPLES, np.int16)] * missing)
        pcm = self._rest + sound.pcm
        whole = len(pcm) - len(pcm) % (2 * FRAME_SAMPLES)
        self._rest = pcm[whole:]
        self._frames.extend(np.frombuffer(pcm[:whole], "<i2").astype(np.int16).reshape(-1, FRAME_SAMPLES))
        while len(self._frames) > WAITING_FRAMES:
            self._frames.popleft()
            self._lost += FRAME_SAMPLES
        self._came.set()


class Meter:
    """A bar on the terminal that follows the level; nothing where nobody watches."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._shown = False

    def show(self, level: float) -> None:
        """Draw a level, in dB below full scale."""
        if self._wanted:
            cells = round((level - QUIETEST_DB) / -QUIETEST_DB * METER_CELLS)
            sys.stderr.write(f"\r{'█' * cells:░<{METER_CELLS}} {level:6.1f} dB\x1b[K")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Leave the line to others."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def sine(seconds: float) -> Iterator[npt.NDArray[np.int16]]:
    """Yield a tone, a second at a time."""
    at = 0
    while at < seconds * SAMPLE_RATE:
        times = np.arange(at, at + SAMPLE_RATE) / SAMPLE_RATE
        yield np.asarray(TONE_LEVEL * np.sin(2 * np.pi * TONE_HZ * times), np.int16)
        at += SAMPLE_RATE


def frames(blocks: Iterator[npt.NDArray[np.int16]], duration: float | None) -> Iterator[npt.NDArray[np.int16]]:
    """Yield whole frames, the last one filled with silence, of at most ``duration`` seconds."""
    left = None if duration is None else max(1, round(duration * 1e6 / CODEC.frame_us))
    rest = np.zeros(0, np.int16)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // FRAME_SAMPLES
        for frame in rest[: whole * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES):
            if left is not None:
                if not left:
                    return
                left -= 1
            yield frame
        rest = rest[whole * FRAME_SAMPLES :]
    if len(rest) and (left is None or left):
        yield np.pad(rest, (0, FRAME_SAMPLES - len(rest)))
