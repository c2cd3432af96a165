"""The radio as on a Mac, with a bleak that answers as CoreBluetooth does."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from bleak.exc import BleakBluetoothNotAvailableError, BleakBluetoothNotAvailableReason

from omi_edge import gatt
from omi_edge.capture import ble, bleerrors
from omi_edge.capture.ble import BleRadio
from omi_edge.capture.host import Host
from omi_edge.capture.macos import MacHost
from omi_edge.clock import DrivenClock
from omi_edge.domain import Ending, Security
from omi_edge.errors import LinkUnavailable, NoBluetoothPermission, PairingFailed

IDENTIFIER = "5D3B3B4C-6D5B-4C3A-9D7E-000000000001"


class Client:
    """bleak.BleakClient."""

    def __init__(self, device: Any, disconnected: Any, *, timeout: float) -> None:
        self.device = device
        self.disconnected = disconnected
        self.services = SimpleNamespace(
            characteristics={handle: SimpleNamespace(handle=handle, uuid=gatt.AUDIO_CODEC.upper()) for handle in (7, 3)}
        )
        made.append(self)

    async def connect(self) -> None:
        pass

    async def disconnect(self) -> None:
        self.disconnected(self)

    async def read_gatt_char(self, characteristic: Any) -> bytearray:
        assert characteristic.handle == 3
        return bytearray(b"\x15")


class Scanner:
    """bleak.BleakScanner that sees one pendant at once."""

    def __init__(self, on_detected: Any, services: list[str]) -> None:
        assert services == [gatt.AUDIO_SERVICE]
        self.on_detected = on_detected

    async def start(self) -> None:
        device = SimpleNamespace(address=IDENTIFIER, name="Omi", details=(None, None))
        self.on_detected(device, SimpleNamespace(local_name=None, rssi=-127))

    async def stop(self) -> None:
        pass


class Adapter:
    """bleak.BleakAdapter."""

    error: Exception | None = None

    @classmethod
    async def get(cls) -> Adapter:
        if cls.error is not None:
            raise cls.error
        return cls()

    async def get_connected_devices(self, services: list[str]) -> list[Any]:
        return []


made: list[Client] = []


@pytest.fixture
def radio(clock: DrivenClock, monkeypatch: pytest.MonkeyPatch) -> BleRadio:
    made.clear()
    for name, double in (("BleakClient", Client), ("BleakScanner", Scanner), ("BleakAdapter", Adapter)):
        monkeypatch.setattr(f"bleak.{name}", double)
    monkeypatch.setattr(ble, "SystemHost", MacHost)
    monkeypatch.setattr(bleerrors, "MACOS", True)
    monkeypatch.setattr(Adapter, "error", None)
    return BleRadio(clock)


def conforms(host: MacHost) -> Host:
    """For mypy."""
    return host


async def test_a_link_without_bonds_and_reasons(radio: BleRadio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omi_edge.capture.connection.REASON_SECONDS", 0.01)
    await radio.check()
    [sighting] = await radio.scan(0.01)
    assert (sighting.address, sighting.rssi) == (IDENTIFIER, None)
    radio.trust([IDENTIFIER])
    link = radio.link(IDENTIFIER)
    assert (await link.connect()).name == "Omi"
    assert link.security is Security.UNKNOWN
    assert await link.read(gatt.AUDIO_CODEC) == b"\x15"
    made[0].disconnected(made[0])
    assert await link.wait_disconnected() is Ending.UNKNOWN
    await link.connect()
    await radio.close()
    assert await link.wait_disconnected() is Ending.LOCAL


async def test_pairing_is_the_systems(radio: BleRadio) -> None:
    assert not radio.can_pair
    link = radio.link(IDENTIFIER)
    await link.connect()
    for act in (link.pair(), link.unpair()):
        with pytest.raises(PairingFailed, match="System Settings"):
            await act


async def test_permission_is_named_with_the_place_to_give_it(radio: BleRadio, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = BleakBluetoothNotAvailableError("", BleakBluetoothNotAvailableReason.DENIED_BY_USER)
    monkeypatch.setattr(Adapter, "error", denied)
    for act in (radio.check(), radio.link(IDENTIFIER).connect()):
        with pytest.raises(NoBluetoothPermission, match="Privacy & Security > Bluetooth"):
            await act


async def test_a_question_on_the_screen_is_not_waited_for_for_ever(
    radio: BleRadio, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asks() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Adapter, "get", asks)
    monkeypatch.setattr("omi_edge.capture.macos.limited", partial(bleerrors.limited, seconds=0.01))
    with pytest.raises(LinkUnavailable, match="on the screen"):
        await radio.check()
