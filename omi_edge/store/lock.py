"""One process at a time on a data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from omi_edge.errors import AlreadyRunning, VaultError, VaultMissing

NAME = "lock"


class FolderLock:
    """An advisory lock on ``folder/lock``; the system lets go of it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunning when another holds it, VaultMissing, or VaultError; harmless twice."""
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise VaultMissing(f"there is no folder {self._path.parent}. `omi-edge init` makes it.") from error
        except OSError as error:
            raise VaultError(
                f"{self._path} cannot be used: {error.strerror}. Check the owner and the mode of the data folder, and "
                "whether its disk is mounted read-only."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AlreadyRunning(
                f"another omi-edge works on {self._path.parent}. Stop it, or use another folder with --data."
            ) from error
        except OSError as error:  # some network file systems have no locks
            os.close(descriptor)
            raise VaultError(f"{self._path} cannot be locked: {error.strerror}.") from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; harmless twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
