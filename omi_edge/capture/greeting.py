"""What a pendant is asked on each connection, once its audio flows. What it refuses or lacks is left out."""

from __future__ import annotations

import contextlib

import msgspec

from omi_edge import gatt
from omi_edge.capture import device
from omi_edge.capture.link import Link
from omi_edge.clock import Clock
from omi_edge.domain import DeviceInfo
from omi_edge.errors import AttRefused, BadPeripheral, NotEncrypted

_INFORMATION = (gatt.MODEL_NUMBER, gatt.FIRMWARE_REVISION, gatt.HARDWARE_REVISION, gatt.MANUFACTURER_NAME)
_REFUSALS = (AttRefused, BadPeripheral, NotEncrypted)


class Greeting(msgspec.Struct, frozen=True):
    """What a pendant told when it was connected; None where it does not tell."""

    info: DeviceInfo
    rssi: int | None = None
    """dBm, as it was seen before the connection."""
    features: device.Features | None = None
    clock_offset_us: int | None = None
    """Its clock minus ours, measured before ours was set; None when it was never set."""
    clock_us: int = 0
    """When that was, in UTC."""
    clock_set: bool = False
    battery: int | None = None
    charging: bool | None = None
    led: int | None = None
    mic_gain: int | None = None


async def introduce(link: Link, name: str) -> DeviceInfo:
    """Return who answers. Raises LinkLost or LinkUnavailable."""
    return DeviceInfo(link.address, name, *[device.text_of(await _optional(link, uuid)) for uuid in _INFORMATION])


async def ask(link: Link, clock: Clock, info: DeviceInfo, rssi: int | None) -> Greeting:
    """Return what it tells; its clock is read, and only then set. Raises LinkLost or LinkUnavailable."""
    offset_us, was_set = await _settle_clock(link, clock, info)
    clock_us = clock.utc_us()
    features = device.features_of(await _optional(link, gatt.FEATURES))
    battery = device.percent_of(await _optional(link, gatt.BATTERY_LEVEL))
    if not device.may_write_settings(info):
        return Greeting(info, rssi, features, offset_us, clock_us, was_set, battery)
    return Greeting(
        info, rssi, features, offset_us, clock_us, was_set, battery,
        charging=device.charging_of(await _optional(link, gatt.CHARGING)),
        led=_at_most(await _optional(link, gatt.LED_DIM_RATIO), device.LED_MAX),
        mic_gain=_at_most(await _optional(link, gatt.MIC_GAIN), device.MIC_GAIN_MAX),
    )  # fmt: skip


async def _settle_clock(link: Link, clock: Clock, info: DeviceInfo) -> tuple[int | None, bool]:
    """Read the pendant's clock, then set it; the difference tells when stored audio was really heard."""
    if device.model_of(info) is device.Model.GLASS or not link.offers(gatt.TIME_SET):
        return None, False
    before_us = clock.utc_us()
    seconds = device.clock_of(await _optional(link, gatt.TIME_GET))
    after_us = clock.utc_us()
    # it counts whole seconds: the middle of the second, against the middle of the read
    offset_us = None if seconds is None else seconds * 1_000_000 + 500_000 - (before_us + after_us) // 2
    try:
        await link.write(gatt.TIME_SET, device.clock_value(clock.utc_us()))
    except _REFUSALS:
        return offset_us, False
    return offset_us, True


async def _optional(link: Link, uuid: str) -> bytes:
    if link.offers(uuid):
        with contextlib.suppress(*_REFUSALS):
            return await link.read(uuid)
    return b""


def _at_most(value: bytes, most: int) -> int | None:
    return value[0] if value and value[0] <= most else None
