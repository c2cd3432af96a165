"""UUIDs of a pendant's services and characteristics (protocol dossier §3), in full and lower case."""

from __future__ import annotations


def _omi(short: str) -> str:
    return f"19b1{short}-e8f2-537e-4f6c-d104768a1214"


def _storage(short: str) -> str:
    return f"3029{short}-4301-eabd-2904-2849adfeae43"


def _sig(short: str) -> str:
    """A number that the Bluetooth SIG assigned, on the Bluetooth base UUID."""
    return f"0000{short}-0000-1000-8000-00805f9b34fb"


AUDIO_SERVICE = _omi("0000")
AUDIO_DATA = _omi("0001")
AUDIO_CODEC = _omi("0002")
SPEAKER = _omi("0003")
SETTINGS_SERVICE = _omi("0010")
"""On OMI Glass this is the service that updates its firmware: never written there (dossier §1)."""
LED_DIM_RATIO = _omi("0011")
MIC_GAIN = _omi("0012")
CHARGING = _omi("0013")
DEVICE_NAME = _omi("0014")
FEATURES_SERVICE = _omi("0020")
FEATURES = _omi("0021")
TIME_SERVICE = _omi("0030")
TIME_SET = _omi("0031")
TIME_GET = _omi("0032")
BUTTON_SERVICE = "23ba7924-0000-1000-7450-346eac492e92"
BUTTON = "23ba7925-0000-1000-7450-346eac492e92"
HAPTIC_SERVICE = "cab1ab95-2ea5-4f4d-bb56-874b72cfc984"
HAPTIC = "cab1ab96-2ea5-4f4d-bb56-874b72cfc984"
STORAGE_SERVICE = _storage("5780")
STORAGE_CONTROL = _storage("5781")
STORAGE_STATUS = _storage("5782")
STORAGE_WIFI = _storage("5783")
BATTERY_SERVICE = _sig("180f")
BATTERY_LEVEL = _sig("2a19")
DEVICE_INFORMATION_SERVICE = _sig("180a")
MODEL_NUMBER = _sig("2a24")
SERIAL_NUMBER = _sig("2a25")
FIRMWARE_REVISION = _sig("2a26")
HARDWARE_REVISION = _sig("2a27")
MANUFACTURER_NAME = _sig("2a29")
LEGACY_DFU_SERVICE = "00001530-1212-efde-1523-785feabcd123"
LEGACY_DFU_CONTROL = "00001531-1212-efde-1523-785feabcd123"
SMP_SERVICE = "8d53dc1d-1db7-4cd3-868b-8a527460aa84"
SMP = "da2e7828-fbce-4e01-ae9e-261174997c48"

NEVER_WRITTEN = frozenset({LEGACY_DFU_CONTROL, SMP})
"""Writing these restarts a pendant into its bootloader, or changes its firmware (dossier §4.10)."""
