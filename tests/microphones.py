"""Microphones without hardware: ALSA's file device behind the real PortAudio, and a sounddevice that tests script."""

from __future__ import annotations

import ctypes.util
import os
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from omi_edge.capture.microphone import COMMAND
from omi_edge.domain import SAMPLE_RATE

needs_portaudio = pytest.mark.skipif(
    sys.platform != "linux" or (ctypes.util.find_library("portaudio") is None and os.environ.get("CI") != "true"),
    reason="apt install libportaudio2",
)
NAME = "desk"


def tone(seconds: float, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (8000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


class Desk:
    """An ALSA device called ``desk`` that hears what is written into a pipe, as fast as it is written."""

    def __init__(self, folder: Path) -> None:
        self._pipe = folder / "heard"
        self._config = folder / "asound.conf"
        os.mkfifo(self._pipe)
        self._file = os.open(self._pipe, os.O_RDWR)  # open at both ends: PortAudio's look at it must not wait
        self.plug()

    def plug(self, name: str = NAME) -> None:
        """Let the device be there."""
        self._write(
            f'pcm.{name} {{ type file slave.pcm "null" file "/dev/null" infile "{self._pipe}" format "raw" '
            'hint { show on description "Desk" } }\n'
        )

    def unplug(self) -> None:
        """Let no program find it any more."""
        self._write("")

    def _write(self, device: str) -> None:
        text = device + "pcm.null { type null }\npcm.!default { type null }\n"
        fresh = self._config.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._config)

    @property
    def environment(self) -> dict[str, str]:
        return {"ALSA_CONFIG_PATH": str(self._config)}

    @property
    def command(self) -> tuple[str, ...]:
        """What runs PortAudio with this machine's sound."""
        return ("env", *(f"{name}={value}" for name, value in self.environment.items()), *COMMAND)

    def say(self, samples: npt.NDArray[np.int16]) -> None:
        """Let it hear something; returns at once."""
        data = samples.astype("<i2").tobytes()
        threading.Thread(target=self._feed, args=(data,), daemon=True).start()

    def _feed(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            return  # the test is over

    def close(self) -> None:
        os.set_blocking(self._file, False)
        os.close(self._file)


SCRIPTED = '''
"""Stands in for sounddevice: one microphone with {rates} Hz, {channels} channel(s)."""
import threading

import numpy as np

class PortAudioError(Exception): ...

DEVICE = {{"index": 0, "name": "Scripted", "max_input_channels": {channels}, "default_samplerate": {own}}}

def query_devices(kind=None):
    return DEVICE if kind else [DEVICE]

class Status:
    input_overflow = False

class RawInputStream:
    def __init__(self, *, samplerate, channels, blocksize, callback, finished_callback, **_):
        if samplerate not in {rates} or channels != {channels}:
            raise PortAudioError
        self.work = lambda: self.run(samplerate, channels, blocksize, callback, finished_callback)

    def start(self):
        threading.Thread(target=self.work, daemon=True).start()

    def run(self, rate, channels, size, callback, finished):
        samples = 8000 * np.sin(2 * np.pi * 440 * np.arange(rate * 2) / rate)
        data = np.repeat(samples.astype("<i2"), channels)
        for block in data.reshape(-1, size * channels):
            callback(block.tobytes(), size, None, Status)
        finished()

def _initialize(): ...
def _terminate(): ...
'''


def scripted(folder: Path, text: str) -> tuple[str, ...]:
    """Return what runs with ``text`` in place of sounddevice."""
    (folder / "sounddevice.py").write_text(text, encoding="utf-8")
    return ("env", f"PYTHONPATH={folder}", *COMMAND)
