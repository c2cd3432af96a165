"""Inside the process that holds the microphone: which device is meant, and what of its sound is lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omi_edge.capture.portaudio import AUDIO, HEADER, LOST, STATE, Listening, chosen, hold, inputs, load, write
from omi_edge.clock import DrivenClock
from omi_edge.errors import MicrophoneAbsent
from tests.microphones import needs_portaudio

DEVICES: list[dict[str, Any]] = [
    {"index": 0, "name": "HDA Intel PCH: ALC257 Analog (hw:0,0)", "default": False},
    {"index": 3, "name": "USB Audio (hw:1,0)", "default": True},
    {"index": 4, "name": "USB Camera (hw:2,0)", "default": False},
    {"index": 7, "name": "pulse", "default": False},
    {"index": 9, "name": "pulse", "default": False},
]


@pytest.mark.parametrize(
    ("wanted", "index"), [("default", 3), ("4", 4), ("camera", 4), ("usb audio (HW:1,0)", 3), ("pulse", 7)]
)
def test_a_device_is_chosen_by_number_or_name(wanted: str, index: int) -> None:
    assert chosen(DEVICES, wanted)["index"] == index


@pytest.mark.parametrize(("wanted", "word"), [("2", "not there"), ("bluetooth", "not there"), ("USB", "several")])
def test_what_is_not_meant_clearly_is_not_taken(wanted: str, word: str) -> None:
    with pytest.raises(MicrophoneAbsent, match=word):
        chosen(DEVICES, wanted)
    with pytest.raises(MicrophoneAbsent, match="default"):
        chosen([], "default")


class Library:
    """Stands in for sounddevice; the test calls what PortAudio would."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.devices: list[dict[str, Any]] = []
        self.begun = 0
        self.hear: Callable[..., None] = print

    def query_devices(self, kind: str = "") -> Any:
        if not kind:
            return self.devices
        if not self.devices:
            raise ValueError("no input device")
        return self.devices[0]

    def plug(self) -> None:
        self.devices = [{"index": 5, "name": "Mic", "max_input_channels": 1, "default_samplerate": 16_000.0}]

    def RawInputStream(self, *, callback: Callable[..., None], **_: object) -> SimpleNamespace:  # noqa: N802
        self.hear = lambda pcm, overflow=False: callback(
            pcm, len(pcm) // 2, None, SimpleNamespace(input_overflow=overflow)
        )
        return SimpleNamespace(start=lambda: None)

    def _terminate(self) -> None:
        self.begun += 1

    def _initialize(self) -> None:
        pass


BLOCK = bytes(range(64)) * 50
SAMPLES = len(BLOCK) // 2


def listening(library: Library, clock: DrivenClock, blocks: int) -> Listening:
    library.plug()
    return Listening(library, inputs(library)[0], clock, blocks)


def test_what_does_not_fit_is_counted_before_what_comes_next(clock: DrivenClock) -> None:
    library = Library()
    open_ = listening(library, clock, 2)
    for _ in range(5):
        library.hear(BLOCK)
    assert [open_.read(), open_.read()] == [(0, BLOCK), (0, BLOCK)]
    library.hear(BLOCK)
    library.hear(BLOCK)
    assert [open_.read(), open_.read()] == [(3 * SAMPLES, BLOCK), (0, BLOCK)]


async def test_what_the_driver_lost_is_told_by_the_time_that_went_by(clock: DrivenClock) -> None:
    library = Library()
    open_ = listening(library, clock, 10)
    library.hear(BLOCK)
    await clock.advance(0.1)
    library.hear(BLOCK, overflow=True)
    await clock.advance(0.5)
    library.hear(BLOCK, overflow=True)
    lost = [open_.read()[0] for _ in range(3)]
    assert lost == [0, 320, 8000 - SAMPLES]  # it lost something, so a frame at least


async def test_a_device_that_comes_later_is_found(clock: DrivenClock) -> None:
    library = Library()
    sent: list[tuple[bytes, bytes]] = []

    def wait(_: float) -> None:
        if library.begun == 1:
            library.plug()

    def send(kind: bytes, payload: bytes) -> None:
        sent.append((kind, payload))
        if b'"open"' in payload:
            library.hear(BLOCK)
        if kind == AUDIO:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        hold("default", send, wait, library, clock)
    assert [kind for kind, _ in sent] == [STATE, STATE, STATE, AUDIO]
    assert library.begun == 2
    assert sent[-1][1] == LOST.pack(0) + BLOCK


def test_a_message_is_written_whole(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    payload = bytes(300_000)  # more than a pipe holds
    thread = threading.Thread(target=write, args=(writable, AUDIO, payload))
    thread.start()
    with os.fdopen(readable, "rb") as file:
        found = file.read(HEADER.size + len(payload))
    thread.join()
    os.close(writable)
    assert HEADER.unpack(found[: HEADER.size]) == (AUDIO, len(payload))


@needs_portaudio
def test_the_real_library_has_what_is_used() -> None:
    library = load()
    for name in ("query_devices", "RawInputStream", "PortAudioError", "_terminate", "_initialize"):
        assert hasattr(library, name), name
