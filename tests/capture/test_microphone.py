"""A microphone through the real PortAudio on an ALSA file device: heard, unplugged, returned; and what goes wrong."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from omi_edge.capture import microphone
from omi_edge.capture.microphone import QUIETEST_DB, Input, Microphone, Opened, Sound, Waiting, level_db, list_inputs
from omi_edge.clock import SystemClock
from omi_edge.errors import MicrophoneError
from tests.microphones import NAME, SCRIPTED, Desk, needs_portaudio, scripted, tone


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def heard_by(device: str, command: tuple[str, ...]) -> AsyncIterator[AsyncIterator[microphone.Heard]]:
    async with contextlib.aclosing(Microphone(device, SystemClock(), command=command).listen()) as heard:
        yield heard


async def samples(heard: AsyncIterator[microphone.Heard], count: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """The next ``count`` samples, none of which may have been lost."""
    pcm = b""
    while len(pcm) < count * 2:
        item = await anext(heard)
        assert isinstance(item, Sound) and not item.lost, item
        pcm += item.pcm
    return np.frombuffer(pcm[: count * 2], "<i2").astype(np.int16)


@needs_portaudio
async def test_what_is_there_is_listed(desk: Desk) -> None:
    found = await list_inputs(SystemClock(), command=desk.command)
    assert NAME in [one.name for one in found]
    assert [one.name for one in found if one.default] == ["default"]
    assert all(one.channels > 0 and one.rate > 0 for one in found)


@needs_portaudio
async def test_every_sample_is_heard_in_order(desk: Desk) -> None:
    said = tone(3.0)
    async with heard_by("DES", desk.command) as heard:  # a part of its name, in any case
        opened = await anext(heard)
        assert isinstance(opened, Opened) and (opened.name, opened.rate) == (NAME, 16_000)
        desk.say(said)
        assert np.array_equal(await samples(heard, 30_000), said[:30_000])


@pytest.mark.full
@needs_portaudio
async def test_unplugged_and_returned(desk: Desk) -> None:
    async with heard_by(NAME, desk.command) as heard:
        assert isinstance(await anext(heard), Opened)
        desk.say(tone(1.0))
        await samples(heard, 8000)
        desk.unplug()  # nothing comes any more, and nobody finds it
        while isinstance(item := await anext(heard), Sound):
            pass
        assert isinstance(item, Waiting) and "when it is back" in item.message
        item = await anext(heard)
        assert isinstance(item, Waiting) and "unplugged" in item.message
        desk.plug()
        item = await anext(heard)
        assert isinstance(item, Opened) and item.name == NAME
        desk.say(tone(1.0))
        await samples(heard, 3200)


@needs_portaudio
async def test_what_hears_faster_than_time_passes_is_no_microphone(desk: Desk) -> None:
    async with heard_by("default", desk.command) as heard:  # ALSA's null device
        assert isinstance(await anext(heard), Opened)
        while isinstance(item := await anext(heard), Sound):
            pass
    assert isinstance(item, Waiting) and "no microphone" in item.message


@pytest.mark.parametrize(
    ("fault", "cure"),
    [
        ("raise ModuleNotFoundError('sounddevice')", "pip install 'omi-edge[mic]'"),
        ("raise OSError('PortAudio library not found')", "apt install libportaudio2"),
        ("raise RuntimeError('no sound')", "sound settings"),
    ],
)
async def test_what_is_missing_is_told_with_its_cure(tmp_path: Path, fault: str, cure: str) -> None:
    command = scripted(tmp_path, fault)
    with pytest.raises(MicrophoneError) as told:
        await list_inputs(SystemClock(), command=command)
    assert cure in str(told.value)
    with pytest.raises(MicrophoneError) as told:
        async with heard_by("default", command) as heard:
            await anext(heard)
    assert cure in str(told.value)


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (8000, 1), (16_000, 2)])
async def test_what_a_device_has_becomes_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    command = scripted(tmp_path, SCRIPTED.format(rates=(rate,), own=float(rate), channels=channels))
    assert await list_inputs(SystemClock(), command=command) == [Input(0, "Scripted", channels, rate, True)]
    async with heard_by("0", command) as heard:
        assert await anext(heard) == Opened("Scripted", 0, rate)
        found = await samples(heard, 16_000)
    strength = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert int(np.argmax(strength)) == 440  # one second: a bin is a hertz
    assert np.abs(found[1000:]).max() == pytest.approx(8000, rel=0.1)
    assert strength[:430].max() < strength[440] / 100


async def test_a_device_that_ends_is_waited_for(tmp_path: Path) -> None:
    command = scripted(tmp_path, SCRIPTED.format(rates=(16_000,), own=16_000.0, channels=1))
    async with heard_by("scripted", command) as heard:
        for _ in range(2):
            assert isinstance(await anext(heard), Opened)
            await samples(heard, 32_000)
            assert isinstance(await anext(heard), Waiting)


async def test_a_device_that_cannot_be_opened_is_told_once(tmp_path: Path) -> None:
    command = scripted(tmp_path, SCRIPTED.format(rates=(), own=44_100.0, channels=2))
    async with heard_by("0", command) as heard:
        item = await anext(heard)
    assert isinstance(item, Waiting) and "another program" in item.message


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "raise SystemExit(3)", "print('A' * 9)"])
async def test_a_process_that_hangs_or_dies_is_told(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(microphone, "START_SECONDS", 0.5)
    monkeypatch.setattr(microphone, "END_SECONDS", 0.1)
    async with heard_by("default", (sys.executable, "-c", code)) as heard:
        item = await anext(heard)
    assert isinstance(item, Waiting) and "failed" in item.message


def test_levels() -> None:
    assert level_db(b"") == level_db(bytes(3200)) == QUIETEST_DB
    assert level_db(np.full(1600, -32_768, "<i2").tobytes()) == 0.0
    assert level_db(tone(0.1).astype("<i2").tobytes()) == pytest.approx(20 * np.log10(8000 / 32_768) - 3.01, abs=0.1)
    assert level_db(b"\1\0" * 100) == QUIETEST_DB  # the quietest that is not silent
