"""`run`: the daemon."""

from __future__ import annotations

import asyncio

from omi_edge import observe
from omi_edge.cli.own import radio, require_vault
from omi_edge.cli.passphrase import passphrase
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.clock import SystemClock
from omi_edge.config import Config
from omi_edge.daemon import Daemon


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

    clock = SystemClock()
    daemon = Daemon(config, folder, secret, clock, radio=radio(config.device, clock), reload=reload)
    asyncio.run(daemon.run_until_signal())
