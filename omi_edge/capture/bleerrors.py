"""What goes wrong in a Bluetooth stack, in our own words: each foreign error becomes one of LinkError's family.

Foreign errors are told apart by their names and by what bleak keeps in them, so that neither bleak nor a D-Bus library
is needed here.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import AsyncIterator

from omi_edge.clock import Clock
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
)

CALL_SECONDS = 5.0
"""For one call to the host stack. An ATT request fails by itself after 30 s (Core specification, Vol 3, Part F,
§3.3.3), but a pendant that has not answered by now is better connected anew."""

INSUFFICIENT = {0x05: "authentication", 0x08: "authorization", 0x0C: "key size", 0x0F: "encryption"}
"""ATT errors that a bond cures, where there is one (Core specification, Vol 3, Part F, §3.4.1.1)."""
WRITE_NOT_PERMITTED = 0x03
INVALID_VALUE_LENGTH = 0x0D

_BUS = "org.freedesktop.DBus.Error."
_BLUEZ = "org.bluez.Error."
_NO_SERVICE = ("ServiceUnknown", "NameHasNoOwner", "NoReply", "TimedOut", "Timeout", "Disconnected", "NoServer")
_LOST = ("NotConnected", "UnknownObject", "UnknownMethod", "UnknownInterface", "DoesNotExist")
_NOT_PAIRED = re.compile(r"not paired|insufficient (authentication|authorization|encryption)", re.IGNORECASE)

MACOS = sys.platform == "darwin"


def bluetooth_off() -> BluetoothOff:
    """The adapter has no power."""
    if MACOS:
        return BluetoothOff("Bluetooth is switched off. Switch it on in System Settings > Bluetooth.")
    return BluetoothOff(
        "Bluetooth is switched off. Run: rfkill unblock bluetooth; bluetoothctl power on. "
        "AutoEnable=true in /etc/bluetooth/main.conf keeps it on after a restart."
    )


def no_adapter(wanted: str = "", there: tuple[str, ...] = ()) -> NoAdapter:
    """There is none, or not the one of the settings."""
    if wanted:
        known = f"there is {', '.join(there)}" if there else "there is no other either"
        return NoAdapter(f"there is no Bluetooth adapter {wanted}; {known}. Check device.adapter and the plug.")
    return NoAdapter("this machine has no working Bluetooth LE adapter. Plug one in, or see dmesg for its firmware.")


def no_service() -> NoBluetoothService:
    """Nobody is behind org.bluez."""
    return NoBluetoothService(
        "the Bluetooth service does not run. Run: sudo systemctl enable --now bluetooth (package bluez). "
        "Where there is no adapter it does not start."
    )


def no_bus() -> NoBluetoothService:
    """There is not even a system bus."""
    return NoBluetoothService(
        "the system's D-Bus cannot be reached, and with it Bluetooth. Is the package dbus installed and running? "
        "In a container, hand in /run/dbus/system_bus_socket."
    )


def no_permission() -> NoBluetoothPermission:
    """The system says no."""
    if MACOS:
        return NoBluetoothPermission(
            "macOS does not let this program use Bluetooth. Allow it in System Settings > Privacy & Security > "
            "Bluetooth (for the terminal, or for omi-edge), then start it again."
        )
    return NoBluetoothPermission(
        "this user may not use Bluetooth. Run: sudo usermod -aG bluetooth $USER, then log in again; "
        "or let polkit and /etc/dbus-1/system.d/bluetooth.conf allow it."
    )


def silent_host() -> LinkUnavailable:
    """The machine's own stack hangs: no matter of the pendant."""
    if MACOS:
        return LinkUnavailable(
            "macOS does not answer about Bluetooth. Does it ask for permission on the screen? "
            "See System Settings > Privacy & Security > Bluetooth."
        )
    return LinkUnavailable("the Bluetooth service does not answer. Run: sudo systemctl restart bluetooth.")


def absent(address: str) -> PendantAbsent:
    """Nobody advertises under this address. A pendant has one link and is silent while it is taken (dossier §2.1)."""
    return PendantAbsent(
        f"{_the_pendant(address)} is not in sight. It is off, out of range, or held by a phone, for it talks to one "
        "device at a time: close the Omi app, or switch the phone's Bluetooth off."
    )


def bond_lost(address: str) -> BondLost:
    """Keys are on this side alone."""
    cure = "Remove it in System Settings > Bluetooth" if MACOS else f"Run: omi-edge devices pair {address}".rstrip()
    return BondLost(f"{_the_pendant(address)} no longer knows this machine's pairing. {cure}, and pair again.")


def _the_pendant(address: str) -> str:
    return f"the pendant {address}" if address else "the pendant"


@contextlib.asynccontextmanager
async def limited(
    clock: Clock, what: str, seconds: float = CALL_SECONDS, *, late: LinkError | None = None
) -> AsyncIterator[None]:
    """Give calls to a Bluetooth stack a time limit in machine time, and their errors names of ours.

    ``what`` is done, for people: "reading from the pendant". Raises ``late`` instead of LinkLost when the time is over.
    """
    try:
        async with clock.time_limit(seconds):
            yield
    except LinkError:
        raise
    except TimeoutError as error:
        raise (late or LinkLost(f"{what} took too long and was given up.")) from error
    except Exception as error:  # a stack may raise anything, and nothing of it may leave this folder
        raise named(error, what) from error


def named(error: Exception, what: str) -> LinkError:
    """Return the error of ours that a foreign one stands for."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "BleakBluetoothNotAvailableError" in kinds:
        return _not_available(getattr(getattr(error, "reason", None), "name", ""))
    if "BleakGATTProtocolError" in kinds:
        return _att(int(getattr(error, "code", 0)), what)
    if "BleakDBusError" in kinds:
        return dbus_error(error.args[0], str(error.args[1]) if len(error.args) > 1 else "", what)
    if "BleakCharacteristicNotFoundError" in kinds:
        return BadPeripheral(f"{what} failed: this device lacks what every pendant has. Is it one?")
    if "BleakDeviceNotFoundError" in kinds:
        return absent(getattr(error, "identifier", ""))
    if kinds & {"FileNotFoundError", "ConnectionError", "EOFError"}:  # the socket is not there, or breaks
        return no_bus()
    if kinds & {"PermissionError", "AuthError"}:
        return no_permission()
    if "BleakError" in kinds:
        return _by_text(str(error), what)
    # bleak stumbles over a device that BlueZ removes meanwhile
    return LinkLost(
        f"{what} failed: the pendant, or Bluetooth, went away meanwhile ({type(error).__name__}). Try again."
    )


def dbus_error(name: str, text: str, what: str) -> LinkError:
    """Return the error of ours that an error reply on the bus stands for."""
    short = name.removeprefix(_BUS).removeprefix(_BLUEZ)
    if name.startswith(_BUS):
        if short in _NO_SERVICE or short.startswith("Spawn."):
            return no_service()
        if short in ("AccessDenied", "AuthFailed", "InteractiveAuthorizationRequired"):
            return no_permission()
    if name.startswith("org.freedesktop.systemd1."):  # the bus asked systemd to start bluetoothd, in vain
        return no_service()
    if short == "NotReady":
        return bluetooth_off()
    if _NOT_PAIRED.search(text) or short == "NotAuthorized":
        return _not_encrypted("pairing", what)
    if short == "InvalidValueLength":
        return _att(INVALID_VALUE_LENGTH, what)
    if short in ("NotSupported", "NotPermitted"):
        return BadPeripheral(f"{what} failed: the device does not offer it. Is it a pendant?")
    if short in _LOST or "not connected" in text.lower():
        return LinkLost(f"{what} failed: the link is gone.")
    return LinkLost(f"{what} failed: {short}.")


def _not_available(reason: str) -> LinkUnavailable:
    if reason in ("NO_BLUETOOTH", "NO_BLE_CENTRAL_ROLE"):
        return no_adapter()
    if reason == "POWERED_OFF":
        return bluetooth_off()
    if reason.startswith("DENIED"):
        return no_permission()
    return silent_host()


def _att(code: int, what: str) -> LinkError:
    if code in INSUFFICIENT:
        return _not_encrypted(INSUFFICIENT[code], what)
    return AttRefused(f"{what} failed: the pendant refused with ATT error 0x{code:02X}.", code)


def _not_encrypted(lacks: str, what: str) -> NotEncrypted:
    return NotEncrypted(f"{what} failed: the pendant wants {lacks} first. Pair with it: omi-edge devices pair.")


def _by_text(text: str, what: str) -> LinkError:
    """Bleak's errors without a type of their own."""
    if "Peer removed pairing information" in text:  # CBErrorPeerRemovedPairingInformation, 14 (dossier §2.4)
        return bond_lost("")
    if match := re.match(r"adapter '(\w+)' not found", text):
        return no_adapter(match[1])
    if "requires BlueZ" in text:
        return LinkUnavailable("this machine's BlueZ is too old. Version 5.55 or newer is needed.")
    return LinkLost(f"{what} failed: the link is gone.")
