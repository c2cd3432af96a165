"""`run`: the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from omi_edge import observe
from omi_edge.cli.own import radio, require_vault
from omi_edge.cli.passphrase import passphrase
from omi_edge.cli.session import LOOK_AGAIN_SECONDS, used
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.clock import SystemClock
from omi_edge.config import Config
from omi_edge.daemon import Daemon
from omi_edge.errors import AlreadyRunning
from omi_edge.paths import socket_path

WAIT_SECONDS = 10.0
"""How long the daemon waits for a command that works on the folder by itself. A choice."""


@verb("run", examples=("omi-edge --passphrase-file F run", "OMI_EDGE_WEB_PORT=8099 omi-edge --data D run"))
@pass_settings
def run(settings: Settings) -> None:
    """Run the daemon until it is told to stop (SIGTERM, Ctrl-C). SIGHUP re-reads the settings."""
    config, folder = settings.config, settings.folder
    require_vault(folder)
    secret = passphrase(settings)
    observe.set_up(style="json" if settings.json else config.log.format, level=config.log.level)

    def reload() -> Config:
        return Settings(settings.config_option, settings.data_option).config

    asyncio.run(_run(config, folder, secret, reload))


async def _run(config: Config, folder: Path, secret: str, reload: Callable[[], Config]) -> None:
    """Run; while another command works on the folder by itself, which is soon over, try again."""
    clock = SystemClock()
    give_up_us = clock.boot_us() + round(WAIT_SECONDS * 1e6)
    while True:
        daemon = Daemon(config, folder, secret, clock, radio=radio(config.device, clock), reload=reload)
        try:
            return await daemon.run_until_signal()
        except AlreadyRunning:
            if clock.boot_us() > give_up_us or not used(socket_path(folder)):
                raise
        await clock.sleep(LOOK_AGAIN_SECONDS)
