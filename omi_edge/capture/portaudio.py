"""The process that holds a microphone: PortAudio, through sounddevice, in; samples at 16 kHz, mono, out.

It is a process of its own, since a driver that hangs must not hang the daemon, since PortAudio sees devices that come
only when it begins anew, and since ALSA and JACK write to standard error whatever they like. Standard output carries
messages: one byte for the kind, four for the length (big-endian), then AUDIO, the number of samples that were lost just
before and s16le samples, or STATE, JSON. It ends when its standard input does.

    python -m omi_edge.capture.portaudio list          the input devices, as one STATE
    python -m omi_edge.capture.portaudio open DEVICE   waits for DEVICE, then sends what it hears until it is gone
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from omi_edge.clock import Clock, SystemClock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import MicrophoneAbsent, MicrophoneError

AUDIO, STATE = b"A", b"S"
HEADER = struct.Struct(">cI")
LOST = struct.Struct(">I")
BLOCK_SECONDS = 0.1
"""What PortAudio hands over at once: five of the pendant's frames."""
QUEUE_BLOCKS = 100
"""Between PortAudio's thread and the pipe: ten seconds."""
STALL_SECONDS = 3.0
"""A device that is there delivers every BLOCK_SECONDS; where the system does not tell that it is gone this does."""
LOOK_SECONDS = 2.0
"""How often an absent device is looked for."""
AHEAD_SECONDS = 10.0
"""What delivers so much more than time has passed is no microphone (ALSA's null device is the one that is known)."""
FRAME_SECONDS = 0.02
DEFAULT = "default"

NO_LIBRARY = "the library sounddevice is missing. Install it: pip install 'omi-edge[mic]'."
NO_PORTAUDIO = "PortAudio is missing. Install it: sudo apt install libportaudio2 (macOS: reinstall sounddevice)."


def load() -> Any:
    """Return sounddevice. Raises MicrophoneError with its cure when it or PortAudio is missing."""
    try:
        return importlib.import_module("sounddevice")
    except ModuleNotFoundError as error:
        raise MicrophoneError(NO_LIBRARY) from error
    except OSError as error:
        raise MicrophoneError(NO_PORTAUDIO) from error
    except Exception as error:  # sounddevice starts PortAudio as it is imported: PortAudioError
        raise MicrophoneError("PortAudio cannot be started; look at the sound settings of this machine.") from error


def inputs(library: Any) -> list[dict[str, Any]]:
    """Return the input devices: index, name, channels, rate (Hz) and whether it is the default."""
    try:
        default = library.query_devices(kind="input")["index"]
    except (ValueError, library.PortAudioError):  # sounddevice says so when there is none
        default = -1
    return [
        {
            "index": one["index"],
            "name": one["name"],
            "channels": one["max_input_channels"],
            "rate": round(one["default_samplerate"]),
            "default": one["index"] == default,
        }
        for one in library.query_devices()
        if one["max_input_channels"] > 0
    ]


def chosen(devices: Sequence[dict[str, Any]], wanted: str) -> dict[str, Any]:
    """Return the device that ``wanted`` names: "default", an index, a name or a part of one.

    Raises MicrophoneAbsent when there is none, or several whose names hold it.
    """
    if wanted == DEFAULT:
        found = [one for one in devices if one["default"]]
        if not found:
            raise MicrophoneAbsent("this machine has no microphone that is the default; plug one in.")
        return found[0]
    if wanted.isdecimal():
        found = [one for one in devices if one["index"] == int(wanted)]
    else:
        name = wanted.casefold()
        # the same device may be there once for each of the system's sound interfaces
        found = [one for one in devices if one["name"].casefold() == name][:1]
        found = found or [one for one in devices if name in one["name"].casefold()]
    if not found:
        raise MicrophoneAbsent("the microphone is not there: unplugged, or named otherwise (`omi-edge stream "
                               "--list-mics`).")  # fmt: skip
    if len(found) > 1:
        raise MicrophoneAbsent("several microphones are called like that; give more of the name (`omi-edge stream "
                               "--list-mics`).")  # fmt: skip
    return found[0]


class Converter:
    """Samples of a device to 16 kHz, mono, with FFmpeg's resampler where they are something else."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._layout = "mono" if channels == 1 else "stereo"
        self._same = rate == SAMPLE_RATE and channels == 1
        if not self._same:
            self._av = importlib.import_module("av")
            self._numpy = importlib.import_module("numpy")
            self._resampler = self._av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def __call__(self, data: bytes) -> bytes:
        """Take s16 samples, channels side by side."""
        if self._same:
            return data
        samples = self._numpy.frombuffer(data, self._numpy.int16).reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(samples, format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        return b"".join(one.to_ndarray().tobytes() for one in self._resampler.resample(frame))


class Listening:
    """An open device. ``read`` is for one thread; PortAudio's own calls ``_hear``."""

    def __init__(self, library: Any, device: dict[str, Any], clock: Clock, blocks: int = QUEUE_BLOCKS) -> None:
        self._clock = clock
        self._queue: queue.Queue[tuple[int, bytes]] = queue.Queue(blocks)
        self._lost = 0
        self._heard_us = 0
        self._ended = threading.Event()
        self.rate, self.channels, self._stream = self._open(library, device)
        self._convert = Converter(self.rate, self.channels)
        self._began_us = clock.boot_us()
        self._delivered = 0

    def _open(self, library: Any, device: dict[str, Any]) -> tuple[int, int, Any]:
        """Open at 16 kHz mono where the system can, else at the device's own rate. Raises MicrophoneAbsent."""
        own, several = device["rate"], min(2, device["channels"])
        for rate, channels in dict.fromkeys([(SAMPLE_RATE, 1), (own, 1), (own, several)]):
            self.rate = rate
            with contextlib.suppress(library.PortAudioError):
                stream = library.RawInputStream(
                    samplerate=rate, channels=channels, dtype="int16", device=device["index"], latency="high",
                    blocksize=round(rate * BLOCK_SECONDS), callback=self._hear, finished_callback=self._ended.set,
                )  # fmt: skip
                stream.start()
                return rate, channels, stream
        raise MicrophoneAbsent("the microphone cannot be opened: another program may hold it, or this one lacks the "
                               "right to use it.")  # fmt: skip

    def _hear(self, data: Any, frames: int, _: Any, status: Any) -> None:
        """Take a block from PortAudio; must not wait."""
        now_us = self._clock.boot_us()
        if status.input_overflow:  # it does not say how much: what the time since the last block tells
            since = round((now_us - self._heard_us) / 1e6 * self.rate) - frames if self._heard_us else 0
            self._lost += max(round(self.rate * FRAME_SECONDS), since)
        self._heard_us = now_us
        try:
            self._queue.put_nowait((self._lost, bytes(data)))
            self._lost = 0
        except queue.Full:
            self._lost += frames

    def read(self) -> tuple[int, bytes]:
        """Wait for sound; return how many samples were lost before it, and samples, both at 16 kHz.

        Raises MicrophoneAbsent when the device is gone.
        """
        lost, data = self._next()
        self._delivered += len(data) // 2 // self.channels
        if self._delivered / self.rate - (self._clock.boot_us() - self._began_us) / 1e6 > AHEAD_SECONDS:
            raise MicrophoneAbsent("the device delivers sound faster than time passes: it is no microphone; choose "
                                   "another.")  # fmt: skip
        return round(lost * SAMPLE_RATE / self.rate), self._convert(data)

    def _next(self) -> tuple[int, bytes]:
        for _ in range(round(STALL_SECONDS / BLOCK_SECONDS)):
            ended = self._ended.is_set()  # looked at first: whatever it heard is in the queue then
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.0 if ended else BLOCK_SECONDS)
            if ended:
                break
        raise MicrophoneAbsent("the microphone is gone; listening goes on when it is back.")


def state(**told: object) -> tuple[bytes, bytes]:
    """Return a STATE message."""
    return STATE, json.dumps(told).encode()


def hold(
    wanted: str, send: Callable[[bytes, bytes], None], wait: Callable[[float], object], library: Any, clock: Clock
) -> None:
    """Wait for the device and send what it hears, until it is gone. ``wait`` is handed seconds."""
    while True:
        try:
            device = chosen(inputs(library), wanted)
            listening = Listening(library, device, clock)
            break
        except MicrophoneAbsent as error:
            send(*state(state="waiting", message=str(error)))
        wait(LOOK_SECONDS)
        library._terminate()  # PortAudio looks for devices when it starts, and then no more
        library._initialize()
    send(*state(state="open", name=device["name"], index=device["index"], rate=listening.rate))
    try:
        while True:
            lost, pcm = listening.read()
            send(AUDIO, LOST.pack(lost) + pcm)
    except MicrophoneAbsent as error:
        send(*state(state="waiting", message=str(error)))


def write(file: int, kind: bytes, payload: bytes) -> None:
    """Write one message. Waits for the reader; raises BrokenPipeError when there is none."""
    rest = memoryview(HEADER.pack(kind, len(payload)) + payload)
    while rest:
        rest = rest[os.write(file, rest) :]


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(arguments: Iterable[str]) -> None:
    """Do what the module says. Ends the process: a driver that hangs must not be waited for."""
    what, *rest = arguments
    out = os.dup(1)
    os.dup2(2, 1)  # whatever libraries print is no message
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        try:
            library = load()
            if what == "list":
                write(out, *state(state="list", devices=inputs(library)))
            else:
                hold(rest[0], lambda *message: write(out, *message), threading.Event().wait, library, SystemClock())
        except MicrophoneError as error:
            write(out, *state(state="failed", message=str(error)))
        except Exception as error:  # noqa: BLE001 whatever a driver makes of it, the other side hears why
            write(out, *state(state="waiting", message=f"PortAudio failed ({type(error).__name__}); it is tried anew."))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
