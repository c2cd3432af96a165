"""The daemon that a verb starts for itself. Apart, because a verb that finds one running need not load a daemon."""

from __future__ import annotations

from pathlib import Path

from omi_edge import observe
from omi_edge.capture.ble import BleRadio
from omi_edge.capture.link import Radio
from omi_edge.cli.passphrase import passphrase
from omi_edge.cli.settings import Settings
from omi_edge.clock import Clock
from omi_edge.config import DeviceConfig
from omi_edge.daemon import Daemon
from omi_edge.errors import VaultMissing
from omi_edge.store import database, keys


def require_vault(folder: Path) -> None:
    """Raise VaultMissing when there is nothing to open, before a passphrase is asked for."""
    if not any((folder / name).exists() for name in (database.NAME, keys.NAME, keys.SECOND_NAME)):
        raise VaultMissing(f"there is no vault in {folder}; make one with: omi-edge init")


def secret(settings: Settings) -> str:
    """Return the passphrase of the vault. Raises VaultMissing or PassphraseError."""
    require_vault(settings.folder)
    found = passphrase(settings)
    observe.set_up(style=settings.config.log.format, level="error")  # a verb says itself what happened
    return found


def make(settings: Settings, phrase: str, clock: Clock) -> Daemon:
    """Return a daemon that serves the local socket alone."""
    config = settings.config
    return Daemon(
        config, settings.folder, phrase, clock, serve_tcp=False, radio=radio(config.device, clock), listen=False
    )


def radio(config: DeviceConfig, clock: Clock) -> Radio | None:
    """Return this machine's Bluetooth, None where the owner does not want it used."""
    return BleRadio(clock, config.adapter) if config.bluetooth else None
