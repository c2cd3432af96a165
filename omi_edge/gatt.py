"""UUIDs of a pendant's services and characteristics (protocol dossier §3), in full and lower case."""

from __future__ import annotations


def _omi(short: str) -> str:
    return f"19b1{short}-e8f2-537e-4f6c-d104768a1214"


def _sig(short: str) -> str:
    """A number that the Bluetooth SIG assigned, on the Bluetooth base UUID."""
    return f"0000{short}-0000-1000-8000-00805f9b34fb"


AUDIO_SERVICE = _omi("0000")
AUDIO_DATA = _omi("0001")
AUDIO_CODEC = _omi("0002")
BATTERY_SERVICE = _sig("180f")
BATTERY_LEVEL = _sig("2a19")
DEVICE_INFORMATION_SERVICE = _sig("180a")
MODEL_NUMBER = _sig("2a24")
FIRMWARE_REVISION = _sig("2a26")
HARDWARE_REVISION = _sig("2a27")
MANUFACTURER_NAME = _sig("2a29")
