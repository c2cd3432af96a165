"""The pendants that can be had, with the values of the protocol dossier §1 to §4; addresses are made up."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from omi_edge.domain import Codec, DeviceInfo


class StorageKind(StrEnum):
    """Generation of the protocol of the stored audio (dossier §6)."""

    NONE = "none"
    SINGLE_FILE = "single-file"
    MULTI_FILE = "multi-file"
    RING = "ring"


class Profile(msgspec.Struct, frozen=True):
    """What differs between pendants."""

    name: str
    device: DeviceInfo
    codec: Codec
    advertised_name: str = ""
    """What fits into the advertisement; empty for the whole name."""
    battery_seconds: float = 5.0
    """Between two notifications of the charge (dossier §4.8)."""
    queue_frames: int = 64
    """Frames that wait for a stalled link; more are dropped before they have an id (dossier §5.4)."""
    ignores_att_header: bool = False
    """Cuts fragments three bytes too long for ATT, so that the frames concerned never arrive (dossier §2.3, CV1)."""
    fragments_by_data_length: bool = False
    """Fragments by the length of a link layer packet, not by the MTU (dossier §2.3, DevKit)."""
    features: int | None = None
    """The bitmask (dossier §4.2); None without that service."""
    settings: bool = False
    charging: bool = False
    keeps_name: bool = False
    """Has the draft characteristic of the device name (dossier §4.9)."""
    keeps_time: bool = False
    button: bool = False
    haptic: str = ""
    """Properties of the haptic characteristic; empty without one."""
    speaker: bool = False
    storage: StorageKind = StorageKind.NONE
    custody: bool = False
    """Its ring speaks the draft of that name (dossier §6.7), and after a crash its clock waits to be set (§4.3)."""
    marks_times: bool = False
    """Writes down in its file when a recording begins (dossier §6.1, §6.2, firmware 3.0.16)."""
    wifi: bool = False
    legacy_dfu: bool = False
    smp: bool = False
    glass: bool = False
    """The service that sets a CV1's LED updates this one's firmware."""
    asks_for_bond: bool = False
    mic_sleep: bool = False
    """The microphone sleeps when it is quiet (dossier §5.5)."""


def _cv1(address: str, firmware: str, name: str, **different: object) -> Profile:
    device = DeviceInfo(address, "Omi", "Omi CV 1", firmware, "5.0", "Based Hardware")
    common = Profile(
        name, device, Codec.OPUS_20MS, ignores_att_header=True, features=0x1EC, settings=True, charging=True,
        keeps_time=True, button=True, haptic="write", storage=StorageKind.RING, smp=True,
    )  # fmt: skip
    return msgspec.structs.replace(common, **different)


CV1_3_0_21 = _cv1("C0:FF:EE:00:30:21", "3.0.21", "cv1-3.0.21", mic_sleep=True)
"""The current consumer pendant."""
CV1_3_0_15 = _cv1(
    "C0:FF:EE:00:30:15", "3.0.15", "cv1-3.0.15", features=0x3EC, charging=False, keeps_time=False,
    storage=StorageKind.SINGLE_FILE, wifi=True,
)  # fmt: skip
CV1_3_0_16 = _cv1(
    "C0:FF:EE:00:30:16", "3.0.16", "cv1-3.0.16", features=0x3EC, charging=False, keeps_time=False,
    storage=StorageKind.SINGLE_FILE, wifi=True, marks_times=True,
)  # fmt: skip
"""As Omi's app expects it: the firmware's side is not known (dossier §12)."""
CV1_3_0_18 = _cv1(
    "C0:FF:EE:00:30:18", "3.0.18", "cv1-3.0.18", storage=StorageKind.MULTI_FILE, asks_for_bond=True
)  # fmt: skip
"""One of the builds that ask for bonding (dossier §2.4)."""
CV1_CUSTODY = _cv1(
    "C0:FF:EE:00:31:00", "3.1.0", "cv1-custody", features=0x5EC, keeps_name=True, mic_sleep=True, custody=True
)  # fmt: skip
"""The drafts of a later firmware, the device name among them; its version number is made up (dossier §0.1)."""
DEVKIT2_2_0_10 = Profile(
    "devkit2-2.0.10",
    DeviceInfo("C0:FF:EE:00:20:10", "Omi DevKit 2", "Omi DevKit 2", "2.0.10", "Seeed Xiao BLE Sense", "Based Hardware"),
    Codec.OPUS_10MS, advertised_name="Omi DevK", battery_seconds=15.0, queue_frames=32, fragments_by_data_length=True,
    button=True, haptic="write notify", speaker=True, storage=StorageKind.SINGLE_FILE, legacy_dfu=True,
)  # fmt: skip
FRIEND = Profile(
    "friend",
    DeviceInfo(
        "C0:FF:EE:00:10:02", "Friend", "Friend DevKit 1 SPI SD", "1.0.2", "Seeed Xiao BLE Sense", "Based Hardware"
    ),
    Codec.PCM8, battery_seconds=15.0, queue_frames=32, fragments_by_data_length=True, legacy_dfu=True,
)  # fmt: skip
"""A first DevKit from before Opus (dossier §5.1); give it another legacy codec with ``Pendant(codec=…)``."""
GLASS = Profile(
    "glass", DeviceInfo("C0:FF:EE:00:23:02", "OMI Glass", "", "2.3.2", "ESP32-S3-v1.0", "Based Hardware"),
    Codec.OPUS_20MS, battery_seconds=90.0, glass=True,
)  # fmt: skip

PROFILES = {
    profile.name: profile
    for profile in (CV1_3_0_21, CV1_3_0_15, CV1_3_0_16, CV1_3_0_18, CV1_CUSTODY, DEVKIT2_2_0_10, FRIEND, GLASS)
}
