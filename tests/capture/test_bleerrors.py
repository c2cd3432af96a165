"""What a Bluetooth stack can throw, and what becomes of it."""

from __future__ import annotations

import asyncio

import pytest
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakCharacteristicNotFoundError,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
)  # fmt: skip
from bleak.exc import (
    BleakBluetoothNotAvailableReason as Reason,
)

from omi_edge.capture.bleerrors import limited, named
from omi_edge.clock import SystemClock
from omi_edge.errors import (
    AttRefused,
    BadPeripheral,
    BluetoothOff,
    BondLost,
    LinkError,
    LinkLost,
    LinkUnavailable,
    NoAdapter,
    NoBluetoothPermission,
    NoBluetoothService,
    NotEncrypted,
    PendantAbsent,
)  # fmt: skip

BUS = "org.freedesktop.DBus.Error."
BLUEZ = "org.bluez.Error."


def dbus(name: str, text: str = "") -> BleakDBusError:
    return BleakDBusError(name, [text] if text else [])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BleakBluetoothNotAvailableError("", Reason.NO_BLUETOOTH), NoAdapter),
        (BleakBluetoothNotAvailableError("", Reason.NO_BLE_CENTRAL_ROLE), NoAdapter),
        (BleakBluetoothNotAvailableError("", Reason.POWERED_OFF), BluetoothOff),
        (BleakBluetoothNotAvailableError("", Reason.DENIED_BY_USER), NoBluetoothPermission),
        (BleakBluetoothNotAvailableError("", Reason.DENIED_BY_SYSTEM), NoBluetoothPermission),
        (BleakBluetoothNotAvailableError("", Reason.DENIED_BY_UNKNOWN), NoBluetoothPermission),
        (BleakBluetoothNotAvailableError("", Reason.UNKNOWN), LinkUnavailable),
        (dbus(BUS + "ServiceUnknown", "The name org.bluez was not provided by any .service files"), NoBluetoothService),
        (dbus(BUS + "NameHasNoOwner"), NoBluetoothService),
        (dbus(BUS + "NoReply"), NoBluetoothService),
        (dbus(BUS + "Spawn.ChildExited"), NoBluetoothService),
        (dbus("org.freedesktop.systemd1.NoSuchUnit"), NoBluetoothService),
        (dbus(BUS + "AccessDenied", "Rejected send message"), NoBluetoothPermission),
        (dbus(BUS + "UnknownObject"), LinkLost),
        (dbus(BLUEZ + "NotReady"), BluetoothOff),
        (dbus(BLUEZ + "NotPermitted", "Not paired"), NotEncrypted),
        (dbus(BLUEZ + "NotPermitted", "Notify acquired"), BadPeripheral),
        (dbus(BLUEZ + "NotSupported"), BadPeripheral),
        (dbus(BLUEZ + "NotConnected"), LinkLost),
        (dbus(BLUEZ + "Failed", "Not connected"), LinkLost),
        (dbus(BLUEZ + "Failed", "Software caused connection abort"), LinkLost),
        (dbus(BLUEZ + "InvalidValueLength"), AttRefused),
        (BleakGATTProtocolError(0x05), NotEncrypted),
        (BleakGATTProtocolError(0x08), NotEncrypted),
        (BleakGATTProtocolError(0x0C), NotEncrypted),
        (BleakGATTProtocolError(0x0F), NotEncrypted),
        (BleakGATTProtocolError(0x0E), AttRefused),
        (BleakGATTProtocolError(0x80), AttRefused),
        (BleakCharacteristicNotFoundError("2a19"), BadPeripheral),
        (BleakDeviceNotFoundError("C0:FF:EE:00:30:21"), PendantAbsent),
        (BleakError("adapter 'hci1' not found"), NoAdapter),
        (BleakError("Bleak requires BlueZ >= 5.55."), LinkUnavailable),
        (BleakError("failed to connect: Error Code=14 Peer removed pairing information"), BondLost),
        (BleakError("failed to discover services, device disconnected"), LinkLost),
        (FileNotFoundError(2, "No such file or directory"), NoBluetoothService),
        (ConnectionRefusedError(), NoBluetoothService),
        (BrokenPipeError(), NoBluetoothService),
        (EOFError(), NoBluetoothService),
        (PermissionError(), NoBluetoothPermission),
        (AttributeError("'NoneType' object has no attribute 'error_name'"), LinkLost),
        (AssertionError(), LinkLost),
    ],
    ids=repr,
)  # fmt: skip
def test_each_foreign_error_has_a_name_of_ours(error: Exception, kind: type[LinkError]) -> None:
    found = named(error, "reading from the pendant")
    assert type(found) is kind
    text = str(found)
    assert text[-1] in ".?"
    assert "Bleak" not in text and "org." not in text, "a person reads this"


def test_an_att_error_keeps_its_code() -> None:
    refused = named(BleakGATTProtocolError(0x0E), "writing")
    assert isinstance(refused, AttRefused)
    assert refused.code == 0x0E


async def test_time_limits_and_cancelling() -> None:
    with pytest.raises(LinkLost, match="too long"):
        async with limited(SystemClock(), "reading", 0.01):
            await asyncio.Event().wait()
    with pytest.raises(BluetoothOff):
        async with limited(SystemClock(), "reading", 0.01, late=BluetoothOff("x")):
            await asyncio.Event().wait()
    with pytest.raises(asyncio.CancelledError):
        async with limited(SystemClock(), "reading"):
            raise asyncio.CancelledError
    ours = PendantAbsent("x")
    with pytest.raises(PendantAbsent) as raised:
        async with limited(SystemClock(), "reading"):
            raise ours
    assert raised.value is ours
