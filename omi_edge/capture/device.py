"""What is known of pendants: models, firmware versions, and the values of their small services (dossier §0.1, §1, §4).

Nothing here talks to anybody. What a value does not allow (too short, out of range) gives None, never an exception: the
other side is a radio.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum, IntFlag, StrEnum

import msgspec

from omi_edge.domain import DeviceInfo

MIN_EPOCH = 1_700_000_000
"""Seconds; a pendant's clock below this was never set (dossier §4.3)."""
LED_MAX = 100
MIC_GAIN_MAX = 8
OWN_NAME_BYTES = 20
"""Longest name that the firmware takes (dossier §4.9)."""


class Model(StrEnum):
    """A kind of pendant."""

    CV1 = "cv1"
    DEVKIT2 = "devkit2"
    DEVKIT1 = "devkit1"
    GLASS = "glass"
    UNKNOWN = "unknown"


class Storage(StrEnum):
    """The protocol that a pendant's stored audio is read with; one UUID, three that do not mix (dossier §6)."""

    NONE = "none"
    SINGLE_FILE = "single-file"
    MULTI_FILE = "multi-file"
    RING = "ring"


class Features(IntFlag):
    """Bits of characteristic 19B10021 (dossier §4.2)."""

    SPEAKER = 1 << 0
    ACCELEROMETER = 1 << 1
    BUTTON = 1 << 2
    BATTERY = 1 << 3
    USB = 1 << 4
    HAPTIC = 1 << 5
    OFFLINE_STORAGE = 1 << 6
    LED_DIMMING = 1 << 7
    MIC_GAIN = 1 << 8
    WIFI = 1 << 9
    DEVICE_NAME = 1 << 10

    @property
    def names(self) -> tuple[str, ...]:
        """The known bits that are set, in words."""
        return tuple((bit.name or "").lower().replace("_", " ") for bit in Features if bit in self)


class Button(IntEnum):
    """First number of a button notification (dossier §4.4)."""

    IDLE = 0
    SINGLE_TAP = 1
    DOUBLE_TAP = 2
    LONG_PRESS = 3
    PRESS = 4
    RELEASE = 5


class FirmwareNote(msgspec.Struct, frozen=True):
    """What an owner should know of a firmware."""

    code: str
    message: str


def model_of(info: DeviceInfo) -> Model:
    """Return the model, from what Device Information says; the advertised name only tells OMI Glass apart."""
    said = f"{info.model} {info.hardware}".lower()
    if "glass" in said or "esp32" in said or "glass" in info.name.lower():
        return Model.GLASS
    if "devkit 2" in said:
        return Model.DEVKIT2
    if "devkit 1" in said or info.model.lower() == "friend":
        return Model.DEVKIT1
    # some consumer units left the factory with the name of the bare board (dossier §1)
    if "omi cv" in said or info.model == "OMI_shell":
        return Model.CV1
    return Model.UNKNOWN


def version_of(firmware: str) -> tuple[int, int, int] | None:
    """Return a version like "3.0.21" as numbers, None when it is none."""
    found = re.fullmatch(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:[-+ ].*)?", firmware.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def storage_of(info: DeviceInfo) -> Storage:
    """Return the storage protocol by version alone, as Omi's own app does (dossier §0.1).

    Nothing is probed: an answer of one protocol looks like data of another. What is not known gets no command.
    """
    model, version = model_of(info), version_of(info.firmware)
    if version is None:
        return Storage.NONE
    if model is Model.DEVKIT2:
        return Storage.SINGLE_FILE
    if model is not Model.CV1 or version < (3, 0, 11):
        return Storage.NONE
    if version >= (3, 0, 20):
        return Storage.RING
    return Storage.MULTI_FILE if version >= (3, 0, 17) else Storage.SINGLE_FILE


def mic_sleeps(info: DeviceInfo) -> bool:
    """Say whether this firmware switches the microphone off in silence (dossier §5.5)."""
    version = version_of(info.firmware)
    return model_of(info) is Model.CV1 and version is not None and version >= (3, 0, 21)


def may_write_settings(info: DeviceInfo) -> bool:
    """Say whether 19B10010 is the settings service here; on OMI Glass it updates the firmware (dossier §1)."""
    return model_of(info) is Model.CV1


def firmware_note(info: DeviceInfo) -> FirmwareNote | None:
    """Return what is known of this firmware that concerns its owner, from the dossier §0.1 and §12."""
    model, version = model_of(info), version_of(info.firmware)
    if version is None:
        return FirmwareNote(
            "firmware-unknown",
            f"The pendant's firmware calls itself {info.firmware[:20]!r}, which omi-edge cannot place: live audio "
            "works, stored audio is left alone.",
        )
    for models, before, note in _NOTES:
        if model is models and version < before:
            return note
    return None


_NOTES = (
    (
        Model.CV1,
        (3, 0, 11),
        FirmwareNote(
            "firmware-old",
            "This firmware stores no audio while the pendant is away. The Omi app can install a newer one (3.0.21 was "
            "current in autumn 2026).",
        ),
    ),
    (
        Model.CV1,
        (3, 0, 17),
        FirmwareNote(
            "firmware-old",
            "This firmware has no clock: the time of audio stored while away can only be guessed. The Omi app can "
            "install a newer one (3.0.21 was current in autumn 2026).",
        ),
    ),
    (
        Model.CV1,
        (3, 0, 20),
        FirmwareNote(
            "firmware-old",
            "This firmware may ask for pairing again and again, and deletes stored audio by itself once it was sent. "
            "The Omi app can install a newer one (3.0.21 was current in autumn 2026).",
        ),
    ),
    (
        Model.DEVKIT2,
        (2, 0, 10),
        FirmwareNote("firmware-old", "A newer firmware, 2.0.10, is known for this development kit."),
    ),
)


def features_of(value: bytes) -> Features | None:
    """Read the feature mask: the first four bytes, little-endian; drafts append more (dossier §4.2)."""
    return Features(int.from_bytes(value[:4], "little") & 0xFFFF) if len(value) >= 4 else None


def clock_of(value: bytes) -> int | None:
    """Read the pendant's clock, seconds since 1970 UTC; None when it was never set."""
    seconds = int.from_bytes(value[:4], "little") if len(value) >= 4 else 0
    return seconds if seconds >= MIN_EPOCH else None


def clock_value(utc_us: int) -> bytes:
    """Return what sets the pendant's clock: exactly four bytes, little-endian seconds (dossier §4.3)."""
    return struct.pack("<I", utc_us // 1_000_000)


def percent_of(value: bytes) -> int | None:
    """Read a battery level."""
    return value[0] if value and value[0] <= 100 else None


def charging_of(value: bytes) -> bool | None:
    """Read whether it charges."""
    return bool(value[0]) if value and value[0] <= 1 else None


def button_of(value: bytes) -> Button | None:
    """Read a button event: the first byte of eight (dossier §4.4)."""
    try:
        return Button(value[0]) if len(value) >= 4 else None
    except ValueError:
        return None


def text_of(value: bytes) -> str:
    """Read a string of Device Information: at most 64 characters that can be printed."""
    text = value[:64].decode("utf-8", "replace").strip("\0 ")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def own_name_value(name: str) -> bytes | None:
    """Return what sets the pendant's own name, None for a name that its firmware refuses (dossier §4.9)."""
    value = name.encode()
    fits = 1 <= len(value) <= OWN_NAME_BYTES and name.isprintable() and name == name.strip()
    return value if fits else None
