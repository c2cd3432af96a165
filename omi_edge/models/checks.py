"""SHA-256 of big files without taking it at each load.

A hash is kept with what the file looked like when it was taken: inode, size, time of change of content and of the inode
(the last cannot be set by hand). A file that looks the same is taken for the same; any other is hashed anew. So what a
program or a person changes is found at the next load; what a failing disk changes silently is found by
`omi-edge models verify`, which hashes everything. It guards against accidents and swapped files, not against somebody
who may write the models folder: that person may write these notes too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

import msgspec

from omi_edge.errors import ModelError

NAME = ".checked.json"
_CHUNK = 1 << 20

Sign = tuple[int, int, int, int]
"""Inode, bytes, and the two times of change in nanoseconds."""


class Checks:
    """The notes of one models folder. ``hashed`` counts the files that were really read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._folder = folder
        self.hashed = 0

    def known(self, path: Path) -> str | None:
        """Return the SHA-256 of ``path`` when it was taken before and the file looks the same."""
        sign, digest = self._notes().get(self._key(path), (None, ""))
        return digest if sign is not None and sign == self.sign(path) else None

    def sha256(self, path: Path, *, anew: bool = False) -> str:
        """Return the SHA-256 of ``path`` in hex, from the notes unless ``anew``. Raises ModelError."""
        known = None if anew else self.known(path)
        if known is not None:
            return known
        before = self.sign(path)
        digest = sha256(path)
        self.hashed += 1
        if before is not None and before == self.sign(path):
            self._note(path, before, digest)
        return digest

    def forget(self, folder: Path) -> None:
        """Drop the notes on everything below ``folder``."""
        start = self._key(folder) + "/"
        self._write({key: note for key, note in self._notes().items() if not key.startswith(start)})

    def sign(self, path: Path) -> Sign | None:
        """Return what ``path`` looks like; None when it is not there or no regular file."""
        try:
            about = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _notes(self) -> dict[str, tuple[Sign, str]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[Sign, str]])
        except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
            return {}  # notes only save work

    def _note(self, path: Path, sign: Sign, digest: str) -> None:
        self._write({**self._notes(), self._key(path): (sign, digest)})

    def _write(self, notes: dict[str, tuple[Sign, str]]) -> None:
        part = self._path.with_name(f"{NAME}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a folder that may only be read: hashed at each load then
            part.write_bytes(msgspec.json.encode(notes))
            part.replace(self._path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises ModelError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}.") from error
    return digest.hexdigest()
