"""What is known of models and firmwares, and values that come from the air."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture import device
from omi_edge.capture.device import Button, Features, Model, Storage
from omi_edge.domain import DeviceInfo

CV1 = DeviceInfo("A", "Omi", "Omi CV 1", "3.0.21", "5.0", "Based Hardware")
DEVKIT = DeviceInfo("A", "Omi DevK", "Omi DevKit 2", "2.0.10", "Seeed Xiao BLE Sense", "Based Hardware")
GLASS = DeviceInfo("A", "OMI Glass", "", "2.3.2", "ESP32-S3-v1.0", "Based Hardware")


def info(model: str, firmware: str, hardware: str = "", name: str = "Omi") -> DeviceInfo:
    return DeviceInfo("A", name, model, firmware, hardware)


@pytest.mark.parametrize(
    ("told", "model"),
    [
        (CV1, Model.CV1),
        (DEVKIT, Model.DEVKIT2),
        (GLASS, Model.GLASS),
        (info("OMI_shell", "3.0.9"), Model.CV1),
        (info("Friend DevKit 1 SPI SD", "1.0.4"), Model.DEVKIT1),
        (info("Omi CV 1", "3.0.21", name="Kitchen Glass"), Model.GLASS),
        (info("Somebody's fork", "9.9.9"), Model.UNKNOWN),
        (info("", ""), Model.UNKNOWN),
    ],
)
def test_the_model_is_known_by_what_it_says(told: DeviceInfo, model: Model) -> None:
    assert device.model_of(told) is model


@pytest.mark.parametrize(
    ("model", "firmware", "storage"),
    [
        ("Omi CV 1", "3.0.10", Storage.NONE),
        ("Omi CV 1", "3.0.11", Storage.SINGLE_FILE),
        ("Omi CV 1", "3.0.16", Storage.SINGLE_FILE),
        ("Omi CV 1", "3.0.17", Storage.MULTI_FILE),
        ("Omi CV 1", "3.0.19", Storage.MULTI_FILE),
        ("Omi CV 1", "3.0.20", Storage.RING),
        ("Omi CV 1", "v3.0.21-rc1", Storage.RING),
        ("Omi CV 1", "3.1.0", Storage.RING),
        ("Omi DevKit 2", "2.0.10", Storage.SINGLE_FILE),
        ("Omi CV 1", "", Storage.NONE),
        ("Omi CV 1", "three", Storage.NONE),
        ("Omi CV 1", "3.0", Storage.NONE),
        ("Fork", "3.0.21", Storage.NONE),
        ("OMI Glass", "3.0.21", Storage.NONE),
    ],
)
def test_the_storage_protocol_follows_from_the_version_alone(model: str, firmware: str, storage: Storage) -> None:
    assert device.storage_of(info(model, firmware)) is storage


def test_only_known_pendants_have_their_settings_written() -> None:
    assert device.may_write_settings(CV1)
    assert not any(device.may_write_settings(other) for other in (DEVKIT, GLASS, info("Fork", "3.0.21")))


def test_only_the_newest_firmware_lets_the_microphone_sleep() -> None:
    assert device.mic_sleeps(CV1)
    assert not device.mic_sleeps(info("Omi CV 1", "3.0.20"))
    assert not device.mic_sleeps(DEVKIT)


def test_an_owner_is_told_of_old_and_unknown_firmware_alone() -> None:
    assert device.firmware_note(CV1) is None
    assert device.firmware_note(DEVKIT) is None
    codes = [device.firmware_note(info("Omi CV 1", version)) for version in ("3.0.9", "3.0.15", "3.0.18", "nightly")]
    assert [note.code for note in codes if note is not None] == ["firmware-old"] * 3 + ["firmware-unknown"]


def test_values_of_the_dossier() -> None:
    assert device.features_of(bytes.fromhex("EC010000")) == Features(0x1EC)
    assert device.features_of(bytes.fromhex("EC0100000100000000")) == Features(0x1EC)  # nine bytes of a draft
    assert device.clock_value(1_795_176_000_999_999) == bytes.fromhex("4036006B")
    assert device.clock_of(bytes.fromhex("4036006B")) == 1_795_176_000
    assert device.button_of(bytes.fromhex("0100000000000000")) is Button.SINGLE_TAP
    assert Features(0x1EC).names == ("button", "battery", "haptic", "offline storage", "led dimming", "mic gain")


@pytest.mark.parametrize("seconds", [0, 1, 1_699_999_999])
def test_a_clock_that_was_never_set_is_none(seconds: int) -> None:
    assert device.clock_of(seconds.to_bytes(4, "little")) is None


@pytest.mark.parametrize(("name", "fits"), [
    ("Omi", True), ("", False), (" Omi", False), ("a" * 20, True), ("a" * 21, False), ("é" * 11, False),
    ("a\nb", False),
])  # fmt: skip
def test_a_pendants_own_name_keeps_the_rules_of_its_firmware(name: str, fits: bool) -> None:
    assert (device.own_name_value(name) is not None) is fits


@given(st.binary(max_size=600))
def test_no_value_from_the_air_raises(value: bytes) -> None:
    for read in (device.features_of, device.clock_of, device.percent_of, device.charging_of, device.button_of):
        read(value)
    text = device.text_of(value)
    assert len(text) <= 64
    assert text.isprintable()


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_nothing_a_device_says_of_itself_raises(model: str, firmware: str, hardware: str) -> None:
    told = info(model, firmware, hardware)
    readable = device.version_of(firmware) is not None
    assert readable or device.storage_of(told) is Storage.NONE
    note = device.firmware_note(told)
    assert readable or (note is not None and note.code == "firmware-unknown")
