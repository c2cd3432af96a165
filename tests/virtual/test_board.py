"""The GATT table of each profile, and the live test vectors of the protocol dossier §10.1, byte for byte."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from omi_edge import gatt
from omi_edge.clock import DrivenClock
from omi_edge.domain import Codec, Ending
from omi_edge.virtual.attributes import AttError
from omi_edge.virtual.connection import Connection
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.pendant import LATE_START_SECONDS, SUPERVISION_SECONDS, Pendant
from omi_edge.virtual.profiles import (
    CV1_3_0_15,
    CV1_3_0_18,
    CV1_3_0_21,
    CV1_CUSTODY,
    DEVKIT2_2_0_10,
    FRIEND,
    GLASS,
    PROFILES,
    Profile,
)
from tests.helpers import START_US

NOON = 1_795_176_000
"""2026-11-20T12:00:00Z (dossier §10.1)."""


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(NOON * 1_000_000)


def made(clock: DrivenClock, profile: Profile = CV1_3_0_21, **options: object) -> tuple[Pendant, Connection]:
    pendant = Pendant(clock, profile, **options)  # type: ignore[arg-type]
    return pendant, pendant.connect("here")


async def refused(link: Connection, uuid: str, value: bytes) -> int:
    with pytest.raises(AttError) as caught:
        await link.write(uuid, value)
    return caught.value.code


class TestVectors:
    @pytest.mark.parametrize(("first_id", "headers"), [(258, ["020100b8"]), (65_535, ["ffff00b8", "000000b8"])])
    async def test_audio_ids(self, clock: DrivenClock, first_id: int, headers: list[str]) -> None:
        pendant, link = made(clock, first_id=first_id)
        values: list[bytes] = []
        await link.subscribe(gatt.AUDIO_DATA, values.append)
        await clock.advance(LATE_START_SECONDS)
        await asyncio.gather(pendant.play([np.full(1600, 900, np.int16)]), clock.advance(0.1))
        assert [value[:4].hex() for value in values[: len(headers)]] == headers

    @pytest.mark.parametrize(
        ("profile", "uuid", "value"),
        [
            (CV1_3_0_21, gatt.AUDIO_CODEC, "15"),
            (DEVKIT2_2_0_10, gatt.AUDIO_CODEC, "14"),
            (CV1_3_0_21, gatt.FEATURES, "ec010000"),
            (CV1_3_0_15, gatt.FEATURES, "ec030000"),
            (CV1_3_0_21, gatt.TIME_GET, "4036006b"),
            (CV1_3_0_21, gatt.BUTTON, "0000000000000000"),
        ],
    )
    async def test_reads(self, clock: DrivenClock, profile: Profile, uuid: str, value: str) -> None:
        _, link = made(clock, profile)
        assert (await link.read(uuid)).hex() == value

    async def test_time_write(self, clock: DrivenClock) -> None:
        pendant, link = made(clock, faults=Faults(unset_clock=True))
        assert (await link.read(gatt.TIME_GET)).hex() == "00000000"
        await link.write(gatt.TIME_SET, bytes.fromhex("4036006B"))
        assert pendant.clock.now() == NOON
        await clock.advance(90)
        assert int.from_bytes(await link.read(gatt.TIME_GET), "little") == NOON + 90

    async def test_single_tap(self, clock: DrivenClock) -> None:
        pendant, link = made(clock)
        values: list[bytes] = []
        await link.subscribe(gatt.BUTTON, values.append)
        pendant.press()
        assert [value.hex() for value in values] == ["0100000000000000"]
        assert (await link.read(gatt.BUTTON)).hex() == "0100000000000000"  # never reset


class TestSettings:
    @pytest.mark.parametrize(
        ("uuid", "default", "written", "read"),
        [
            (gatt.LED_DIM_RATIO, 50, 100, 100),
            (gatt.LED_DIM_RATIO, 50, 255, 100),
            (gatt.MIC_GAIN, 6, 0, 0),
            (gatt.MIC_GAIN, 6, 9, 8),
        ],
    )
    async def test_they_are_clamped(self, clock: DrivenClock, uuid: str, default: int, written: int, read: int) -> None:
        _, link = made(clock)
        assert await link.read(uuid) == bytes([default])
        await link.write(uuid, bytes([written]))
        assert await link.read(uuid) == bytes([read])

    @pytest.mark.parametrize("uuid", [gatt.LED_DIM_RATIO, gatt.MIC_GAIN, gatt.HAPTIC])
    @pytest.mark.parametrize("value", [b"", b"\x01\x02"])
    async def test_a_wrong_length(self, clock: DrivenClock, uuid: str, value: bytes) -> None:
        pendant, link = made(clock)
        assert await refused(link, uuid, value) == 0x0D
        assert pendant.board.writes == [(uuid, value)]

    @pytest.mark.parametrize(
        ("value", "code"),
        [(bytes(3), 0x0D), (bytes(5), 0x0D), ((1_699_999_999).to_bytes(4, "little"), 0x0E), (bytes(4), 0x0E)],
    )
    async def test_times_that_cannot_be(self, clock: DrivenClock, value: bytes, code: int) -> None:
        pendant, link = made(clock)
        assert await refused(link, gatt.TIME_SET, value) == code
        assert pendant.clock.now() == NOON

    async def test_gain_zero_is_mute(self, clock: DrivenClock) -> None:
        pendant, link = made(clock)
        values: list[bytes] = []
        await link.subscribe(gatt.AUDIO_DATA, values.append)
        await link.write(gatt.MIC_GAIN, b"\x00")
        await clock.advance(LATE_START_SECONDS)
        await asyncio.gather(pendant.play([np.full(1600, 9000, np.int16)]), clock.advance(0.1))
        assert {value[3:] for value in values} == {b"\xb8\xff\xfe"}

    async def test_charging_is_told_on_subscribing_and_on_change(self, clock: DrivenClock) -> None:
        pendant, link = made(clock)
        values: list[bytes] = []
        await link.subscribe(gatt.CHARGING, values.append)
        pendant.board.charge(60, charging=True)
        pendant.board.charge(61, charging=True)
        assert values == [b"\x00", b"\x01"]
        assert await link.read(gatt.BATTERY_LEVEL) == bytes([61])

    async def test_haptic(self, clock: DrivenClock) -> None:
        pendant, link = made(clock)
        for level in (1, 3, 4, 2):
            await link.write(gatt.HAPTIC, bytes([level]))
        assert pendant.board.buzzes == [1, 3, 2]

    @pytest.mark.parametrize(
        ("name", "code"),
        [("Näme", None), ("a" * 20, None), ("", 0x0D), ("a" * 21, 0x0D), (" a", 0x0E), ("a\n", 0x0E), ("a\x07b", 0x0E)],
    )
    async def test_the_name(self, clock: DrivenClock, name: str, code: int | None) -> None:
        pendant, link = made(clock, CV1_CUSTODY)
        if code is not None:
            assert await refused(link, gatt.DEVICE_NAME, name.encode()) == code
            assert pendant.advertised_name == "Omi"
        else:
            await link.write(gatt.DEVICE_NAME, name.encode())
            assert (await link.read(gatt.DEVICE_NAME)).decode() == name
            assert pendant.advertised_name == name[:8]

    async def test_a_name_that_is_no_text(self, clock: DrivenClock) -> None:
        _, link = made(clock, CV1_CUSTODY)
        assert await refused(link, gatt.DEVICE_NAME, b"\xff\xfe") == 0x0E


COMMON = {
    gatt.AUDIO_DATA: "notify read",
    gatt.AUDIO_CODEC: "read",
    gatt.BATTERY_LEVEL: "notify read",
    gatt.MODEL_NUMBER: "read",
    gatt.FIRMWARE_REVISION: "read",
    gatt.HARDWARE_REVISION: "read",
    gatt.MANUFACTURER_NAME: "read",
}
CV1 = COMMON | {
    gatt.LED_DIM_RATIO: "read write",
    gatt.MIC_GAIN: "read write",
    gatt.FEATURES: "read",
    gatt.BUTTON: "notify read",
    gatt.HAPTIC: "write",
    gatt.STORAGE_CONTROL: "notify write",
    gatt.STORAGE_STATUS: "notify read",
    gatt.SMP: "notify write-without-response",
}
TIMED = {gatt.TIME_SET: "write", gatt.TIME_GET: "read", gatt.CHARGING: "notify read"}
PHOTO = [uuid for uuid in Pendant(DrivenClock(START_US), GLASS).characteristics if uuid[4:8] in ("0005", "0006")]
TABLES = {
    "cv1-3.0.21": CV1 | TIMED,
    "cv1-3.0.18": CV1 | TIMED,
    "cv1-3.0.15": CV1 | {gatt.STORAGE_WIFI: "notify write"},
    "cv1-3.0.16": CV1 | {gatt.STORAGE_WIFI: "notify write"},
    "cv1-custody": CV1 | TIMED | {gatt.DEVICE_NAME: "read write"},
    "devkit2-2.0.10": COMMON
    | {
        gatt.SPEAKER: "notify write",
        gatt.BUTTON: "notify read",
        gatt.HAPTIC: "notify write",
        gatt.STORAGE_CONTROL: "notify write",
        gatt.STORAGE_STATUS: "notify read",
        gatt.LEGACY_DFU_CONTROL: "notify write",
    },
    "friend": COMMON | {gatt.LEGACY_DFU_CONTROL: "notify write"},
    "glass": {uuid: properties for uuid, properties in COMMON.items() if uuid != gatt.MODEL_NUMBER}
    | {gatt.LED_DIM_RATIO: "write", gatt.MIC_GAIN: "notify"}
    | dict(zip(PHOTO, ("notify", "write"), strict=True)),
}


class TestProfiles:
    def test_all_of_them_are_here(self) -> None:
        assert TABLES.keys() == PROFILES.keys()
        assert len({profile.device.address for profile in PROFILES.values()}) == len(PROFILES)

    @pytest.mark.parametrize("name", TABLES)
    async def test_table(self, clock: DrivenClock, name: str) -> None:
        pendant, link = made(clock, PROFILES[name])
        found = {uuid: " ".join(sorted(one.properties)) for uuid, one in pendant.characteristics.items()}
        assert found == TABLES[name]
        for uuid, properties in found.items():
            if "read" not in properties:
                with pytest.raises(AttError, match="0x02"):
                    await link.read(uuid)
            if "write" not in properties:
                assert await refused(link, uuid, b"\x01") == 0x03
            if "notify" not in properties:
                with pytest.raises(AttError, match="0x06"):
                    await link.subscribe(uuid, lambda _: None)
        with pytest.raises(KeyError):
            await link.read("19b10099-e8f2-537e-4f6c-d104768a1214")

    async def test_what_else_differs(self, clock: DrivenClock) -> None:
        pendant, link = made(clock, DEVKIT2_2_0_10)
        assert pendant.advertised_name == "Omi DevK"
        assert pendant.profile.device.name == "Omi DevKit 2"
        levels: list[int] = []
        await link.subscribe(gatt.BATTERY_LEVEL, lambda _: levels.append(clock.boot_us()))
        start_us = clock.boot_us()
        await clock.advance(31)
        assert [at_us - start_us for at_us in levels] == [15_000_000, 30_000_000]
        answers: list[bytes] = []
        await link.subscribe(gatt.SPEAKER, answers.append)
        await link.write(gatt.SPEAKER, bytes(4))
        assert answers == [b"\x90\x01"]
        assert made(clock, CV1_3_0_18)[1].wants_security
        assert not made(clock)[1].wants_security
        assert made(clock, FRIEND)[0].profile.codec is Codec.PCM8

    async def test_glass_notes_what_is_written(self, clock: DrivenClock) -> None:
        pendant, link = made(clock, GLASS)
        assert pendant.board.writes == []
        await link.write(gatt.LED_DIM_RATIO, b"\x02")
        assert pendant.board.writes == [(gatt.LED_DIM_RATIO, b"\x02")]

    @pytest.mark.parametrize(("value", "down"), [(b"\x06", True), (b"\x01\x04", True), (b"\x01", False), (b"", False)])
    async def test_the_bootloader_is_the_end(self, clock: DrivenClock, value: bytes, down: bool) -> None:
        pendant, link = made(clock, DEVKIT2_2_0_10)
        await link.write(gatt.LEGACY_DFU_CONTROL, value)
        await clock.advance(SUPERVISION_SECONDS + 1)
        assert link.alive != down
        if down:
            assert link.ended.result() is Ending.TIMEOUT
            assert not pendant.advertising


class TestStorage:
    async def test_wifi_is_not_there(self, clock: DrivenClock) -> None:
        _, link = made(clock, CV1_3_0_15)
        answers: list[bytes] = []
        await link.subscribe(gatt.STORAGE_WIFI, answers.append)
        await link.write(gatt.STORAGE_WIFI, b"\x02")
        assert answers == [b"\xfe"]
