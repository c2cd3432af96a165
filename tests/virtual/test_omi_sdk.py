"""The official Python SDK, unmodified and with the bleak that it pins, hears what a virtual pendant hears."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("BlueZ is Linux's", allow_module_level=True)

from omi_edge import gatt
from omi_edge.clock import SystemClock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.virtual import bus
from omi_edge.virtual.bluez import BluezAdapter
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_21, DEVKIT2_2_0_10, Profile

IN_CI = os.environ.get("CI") == "true"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not bus.available() and not IN_CI, reason="apt install dbus-daemon"),
    pytest.mark.skipif(ctypes.util.find_library("opus") is None and not IN_CI, reason="apt install libopus0"),
]
SDK = "omi-sdk==0.2.1"
TONE_HZ = 440
SECONDS = 3
START_SECONDS = 30
LISTENER = """
import asyncio, sys
from omi import OmiOpusDecoder, listen_to_omi

decoder = OmiOpusDecoder()
with open(sys.argv[3], "wb", buffering=0) as file:
    asyncio.run(listen_to_omi(sys.argv[1], sys.argv[2], lambda _, data: file.write(decoder.decode_packet(data))))
"""


async def ran(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")


@pytest.fixture(scope="module")
def sdk_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python in a virtual environment of its own that has the SDK and nothing of ours."""
    folder = tmp_path_factory.mktemp("sdk")
    python = str(folder / "bin" / "python")

    async def install() -> None:
        await ran(sys.executable, "-m", "venv", str(folder))
        await ran(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK)

    asyncio.run(install())
    return python


@pytest.mark.parametrize("profile", [CV1_3_0_21, DEVKIT2_2_0_10], ids=lambda profile: profile.name)
async def test_the_official_sdk_hears_the_tone_that_is_played(
    sdk_python: str, tmp_path: Path, profile: Profile
) -> None:
    clock = SystemClock()
    pendant = Pendant(clock, profile)
    heard = tmp_path / "heard.pcm"
    times = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    tone = (8000 * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.int16)
    async with bus.PrivateBus(clock), BluezAdapter(pendant):
        listening = await asyncio.create_subprocess_exec(
            sdk_python, "-c", LISTENER, pendant.address, gatt.AUDIO_DATA, str(heard), stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await pendant.wait_streaming()
            await pendant.play([tone])
            async with asyncio.timeout(START_SECONDS):  # what was sent last is on its way through three processes
                while heard.stat().st_size < 0.95 * 2 * len(tone):
                    await clock.sleep(0.05)
        finally:
            listening.kill()
            await listening.wait()
            pendant.close()
    pcm = np.frombuffer(heard.read_bytes(), np.int16).astype(np.float64)
    assert len(pcm) > 0.95 * len(tone)
    steady = pcm[SAMPLE_RATE // 2 : SAMPLE_RATE // 2 + 2 * SAMPLE_RATE]  # without the codec's start
    spectrum = np.abs(np.fft.rfft(steady)) ** 2
    peak = int(np.argmax(spectrum))
    assert peak / 2 == pytest.approx(TONE_HZ, abs=1), "a bin is half a hertz wide"
    assert spectrum[peak - 4 : peak + 5].sum() > 0.95 * spectrum.sum(), "most of the energy is the tone's"
    assert np.sqrt(np.mean(steady**2)) == pytest.approx(8000 / np.sqrt(2), rel=0.1)
