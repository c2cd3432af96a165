"""A microphone of this machine: what it hears, at 16 kHz, mono, and how it stands.

PortAudio runs in a process of its own (``portaudio``); this side reads its messages. A microphone that is unplugged is
waited for, one whose process dies or hangs gets a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import numpy as np

from omi_edge.capture.portaudio import AUDIO, HEADER, LOOK_SECONDS, LOST, STALL_SECONDS
from omi_edge.clock import Clock
from omi_edge.errors import MicrophoneError

COMMAND = (sys.executable, "-m", "omi_edge.capture.portaudio")
START_SECONDS = 30.0
"""For Python, PortAudio and a slow sound server; an absent device is told every LOOK_SECONDS."""
HUNG_SECONDS = STALL_SECONDS + 7.0
"""A device that delivers nothing is told after STALL_SECONDS; a process that does not even do that hangs."""
END_SECONDS = 2.0
"""For closing a device; a process that takes longer is killed."""
AGAIN_SECONDS = LOOK_SECONDS
MESSAGE_BYTES = 1 << 20
QUIETEST_DB = -90.0
"""Least level of 16-bit samples, rounded: one step of 32 768."""


class Input(msgspec.Struct, frozen=True):
    """An input device."""

    index: int
    """Counts as long as nothing is plugged in or out."""
    name: str
    channels: int
    rate: int
    """The device's own, in Hz."""
    default: bool


class Opened(msgspec.Struct, frozen=True):
    """From now on it is heard."""

    name: str
    index: int
    rate: int
    """At which the device delivers, in Hz; what comes from here has 16 kHz."""


class Waiting(msgspec.Struct, frozen=True):
    """It is not heard; it is waited for."""

    message: str


class Sound(msgspec.Struct, frozen=True):
    """What it heard."""

    pcm: bytes
    """s16le, 16 kHz, mono."""
    lost: int = 0
    """Samples that were lost just before."""


Heard = Opened | Waiting | Sound


class Microphone:
    """One microphone. ``device`` is "default", an index, a name or a part of one."""

    def __init__(self, device: str, clock: Clock, *, command: Sequence[str] = COMMAND) -> None:
        self._device = device
        self._clock = clock
        self._command = command

    async def listen(self) -> AsyncGenerator[Heard, None]:
        """Yield how it stands and what it hears, for ever. Close it (``contextlib.aclosing``).

        The same Waiting is told once. Raises MicrophoneError when sounddevice or PortAudio is missing.
        """
        told = ""
        while True:
            async with contextlib.aclosing(_messages([*self._command, "open", self._device], self._clock)) as messages:
                async for message in messages:
                    if not isinstance(message, Waiting):
                        told = ""
                        yield message
                    elif message.message != told:
                        told = message.message
                        yield message
            await self._clock.sleep(AGAIN_SECONDS)


async def list_inputs(clock: Clock, *, command: Sequence[str] = COMMAND) -> list[Input]:
    """Return the input devices of this machine. Raises MicrophoneError when they cannot be listed."""
    async with contextlib.aclosing(_messages([*command, "list"], clock)) as messages:
        async for message in messages:
            if isinstance(message, list):
                return message
            if isinstance(message, Waiting):
                raise MicrophoneError(message.message)
    raise MicrophoneError("the sound system of this machine did not answer; look at its settings.")


def level_db(pcm: bytes) -> float:
    """Return how loud s16le samples are: the root of their mean square in dB below full scale, QUIETEST_DB at least."""
    if not pcm:
        return QUIETEST_DB
    power = float(np.mean(np.square(np.frombuffer(pcm, "<i2").astype(np.float64)))) / 32_768.0**2
    return max(QUIETEST_DB, round(10 * math.log10(power), 1)) if power > 0 else QUIETEST_DB


async def _messages(command: Sequence[str], clock: Clock) -> AsyncGenerator[Any, None]:
    """Run the process; yield what it tells, at last a Waiting when it did not say that it ends. Kills it at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # ALSA and JACK tell there whatever they like
        start_new_session=True,  # Ctrl-C is for this side
    )
    assert process.stdout is not None
    seconds, state = START_SECONDS, ""
    try:
        while True:
            try:
                async with clock.time_limit(seconds):
                    kind, length = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
                    if length > MESSAGE_BYTES:
                        break
                    payload = await process.stdout.readexactly(length)
            except (TimeoutError, asyncio.IncompleteReadError):
                break
            if kind == AUDIO:
                yield Sound(payload[LOST.size :], LOST.unpack_from(payload)[0])
                continue
            told = json.loads(payload)
            state, seconds = told["state"], HUNG_SECONDS
            if state == "failed":
                raise MicrophoneError(told["message"])
            if state == "list":
                yield [msgspec.convert(one, Input) for one in told["devices"]]
                return
            yield msgspec.convert(told, Waiting if state == "waiting" else Opened)
        if state != "waiting":
            yield Waiting("the sound system of this machine failed; it is tried anew.")
    finally:
        await _end(process, clock)


async def _end(process: asyncio.subprocess.Process, clock: Clock) -> None:
    assert process.stdin is not None
    process.stdin.close()  # which it ends at, unless its driver hangs
    try:
        async with clock.time_limit(END_SECONDS):
            await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
