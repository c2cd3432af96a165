"""`omi-edge virtual-pendant` as its users have it: anybody's client finds it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from omi_edge.cli.main import run
from omi_edge.clock import SystemClock
from omi_edge.virtual import bus
from omi_edge.virtual.profiles import PROFILES
from tests.cli.conftest import Place


def test_the_profiles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["virtual-pendant", "--list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PROFILES)
    assert run(["virtual-pendant", "--list", "--json"]) == 0
    listed = msgspec.json.decode(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(PROFILES)
    assert listed[0] == {"name": "cv1-3.0.21", "model": "Omi CV 1", "firmware": "3.0.21", "codec": 21}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--profile", "devkit2"), "did you mean devkit2-2.0.10?"),
        (("--fault", "loose=1"), "did you mean lose?"),
        (("--script", "nowhere"), "cannot be read"),
        (("--audio", "nowhere"), "no such recording"),
        (("--mtu", "22"), "23"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["virtual-pendant", *arguments]) != 0
    assert says in capsys.readouterr().err


def test_a_bus_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("D-Bus is Linux's")
    monkeypatch.setenv(bus.ADDRESS_VARIABLE, "unix:path=/unchanged")
    for address in (f"unix:path={tmp_path}/none", "nonsense"):
        assert run(["virtual-pendant", "--bus", address]) == 8
        assert "no D-Bus at this address" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.skipif(not bus.available() and os.environ.get("CI") != "true", reason="apt install dbus-daemon")
async def test_unmodified_bleak_finds_it_and_hears_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from bleak import BleakClient, BleakScanner

    from omi_edge import gatt

    script = place.home / "evening.txt"
    script.write_text("end=60\n", encoding="utf-8")
    arguments = (
        "--audio",
        str(place.home / "talk.wav"),
        "--script",
        str(script),
        "--fault",
        "lose-every=5",
        "--stored",
        "1",
    )
    with place.start("virtual-pendant", "--profile", "devkit2-2.0.10", *arguments) as process:
        assert process.stdout is not None
        try:
            export = await asyncio.to_thread(process.stdout.readline)
            assert export.startswith("export DBUS_SYSTEM_BUS_ADDRESS=unix:path=")
            monkeypatch.setenv(bus.ADDRESS_VARIABLE, export.strip().partition("=")[2])
            device = await BleakScanner.find_device_by_filter(
                lambda _, seen: gatt.AUDIO_SERVICE in seen.service_uuids, timeout=10
            )
            assert device is not None
            assert device.name == "Omi DevK"
            heard: list[bytes] = []
            enough = asyncio.Event()

            def take(_: object, value: bytearray) -> None:
                heard.append(bytes(value))
                if len(heard) == 50:
                    enough.set()

            async with BleakClient(device) as client:
                await client.start_notify(gatt.AUDIO_DATA, take)
                assert int.from_bytes((await client.read_gatt_char(gatt.STORAGE_STATUS))[:4], "little") > 0
                async with SystemClock().time_limit(10):
                    await enough.wait()
            ids = [int.from_bytes(value[:2], "little") for value in heard]
            assert all(number % 5 != 4 for number in ids)
            assert {value[3] for value in heard} == {0xB0}
        finally:
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0, err
    for event in (
        "connected",
        f"subscribed to {gatt.AUDIO_DATA}",
        "the recording begins",
        "disconnected (local)",
        "ended",
    ):
        assert event in out
