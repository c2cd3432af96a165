"""What `stream` takes of a microphone: whole frames, silence for what was lost, nothing of when nobody took it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import numpy as np

from omi_edge.capture.microphone import Heard, Microphone, Opened, Sound
from omi_edge.cli.sound import FRAME_SAMPLES, WAITING_FRAMES, Live, Meter

BLOCK = np.full(1600, 7, "<i2").tobytes()


class Scripted:
    def __init__(self, *told: Heard) -> None:
        self._told = told

    async def listen(self) -> AsyncGenerator[Heard, None]:
        for item in self._told:
            yield item


def live(*told: Heard, duration: float | None = None) -> tuple[Live, list[tuple[str, Any]]]:
    shown: list[tuple[str, Any]] = []
    source = Live(cast(Microphone, Scripted(Opened("Mic", 0, 16_000), *told)), duration, Meter(False))
    source.start(lambda kind, data: shown.append((kind, data)))
    return source, shown


async def test_samples_become_whole_frames_and_a_loss_becomes_silence() -> None:
    source, shown = live(Sound(BLOCK), Sound(BLOCK, lost=600), duration=0.24)
    frames = []
    while (frame := await source.next()) is not None:
        frames.append(frame)
    assert {len(frame) for frame in frames} == {FRAME_SAMPLES}
    assert [int(frame[0]) for frame in frames] == [7] * 5 + [0] * 2 + [7] * 5
    assert ("lost", {"seconds": 0.037}) in shown
    await source.close()


async def test_what_was_heard_between_two_connections_is_said_and_not_sent() -> None:
    source, shown = live(*[Sound(BLOCK)] * 20)
    await source.next()
    source.connected()  # the first: nobody had begun
    assert [kind for kind, _ in shown] == ["microphone"]
    await source.close()
    source, shown = live(*[Sound(BLOCK)] * 20)
    source.connected()
    await source.next()
    source.connected()
    assert source.left_out_seconds == (20 * 5 - 1) * 0.02
    await source.close()


async def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    source, shown = live(Sound(BLOCK, lost=0), *[Sound(BLOCK)] * (WAITING_FRAMES // 5 + 3))
    await source.next()
    await source.next()
    assert shown[-1] == ("lost", {"seconds": 0.4})
    await source.close()
