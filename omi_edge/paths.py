"""Where things are on this machine: settings, data, and the socket of a data folder's daemon."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import platformdirs

from omi_edge.errors import DaemonError

_NAME = "omi-edge"
_SOCKET_PATH_LIMIT = 100
"""Bytes of a socket's path that every system takes: sun_path has 108 on Linux (unix(7)) and 104 on macOS (sys/un.h)."""


def default_data_folder() -> Path:
    """Return the data folder of this user."""
    return platformdirs.user_data_path(_NAME)


def default_config_file() -> Path:
    """Return where this user's config.toml is looked for."""
    return platformdirs.user_config_path(_NAME) / "config.toml"


def models_folder(data_folder: Path, chosen: str) -> Path:
    """Return where models lie: ``chosen``, the setting ``models.folder``, else ``models`` in the data folder."""
    return Path(chosen).expanduser().absolute() if chosen else data_folder.absolute() / "models"


def socket_path(folder: Path) -> Path:
    """Return the Unix socket of the daemon on ``folder``, the same for everybody who names that folder.

    Makes the runtime folder around it, mode 0700. Raises DaemonError when somebody else could write there.
    """
    digest = hashlib.sha256(os.fsencode(folder.expanduser().resolve())).hexdigest()
    return _runtime_folder() / f"{digest[:12]}.sock"


def _runtime_folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(base) / _NAME
    # a login without its own runtime folder (su, cron) may still name one that is gone or another user's
    if (
        not base
        or not _is_ours(Path(base))
        or len(os.fsencode(folder)) > _SOCKET_PATH_LIMIT - len("/123456789012.sock")
    ):
        folder = Path("/tmp") / f"{_NAME}-{os.getuid()}"  # noqa: S108 checked below: ours alone, or refused
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DaemonError(f"the runtime folder {folder} cannot be made: {error.strerror}.") from error
    if not _is_ours(folder) or stat.S_IMODE(folder.lstat().st_mode) & 0o077:
        raise DaemonError(
            f"the runtime folder {folder} is not this user's alone; remove it, or run: chmod 700 {folder}"
        )
    return folder


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
