"""Recordings in folders: which files are meant, and which of them are finished being written. Only ever looks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

PARTIAL = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", "~")
"""Ends of names that browsers, rsync and editors give to files that are not finished."""

Sign = tuple[int, int, int]
"""Inode, size and time of change: a file of the same sign is the same."""


def found(paths: Sequence[Path], data: Path | None = None) -> Iterator[Path]:
    """Yield the files that ``paths`` mean: each file itself, and of a folder what is in it and below, in order.

    Left out in folders: what is hidden or not finished by its name, what is no file, and the data folder ``data``.
    """
    for path in paths:
        if path.is_dir():
            yield from _below(path, data)
        else:
            yield path


def sign(path: Path) -> Sign | None:
    """Return how a file is told from another of its name; None when it is not there, not a file, or empty."""
    try:
        about = path.stat()
    except OSError:
        return None
    return (about.st_ino, about.st_size, about.st_mtime_ns) if about.st_size and path.is_file() else None


class Watched:
    """What is in folders, look by look. A file is ready when two looks find it the same."""

    def __init__(self, paths: Sequence[Path], data: Path | None = None) -> None:
        self._paths = paths
        self._data = data
        self._seen: dict[Path, Sign] = {}
        self._done: dict[Path, Sign] = {}

    def look(self) -> list[tuple[Path, Sign]]:
        """Return the files that are ready and were not done yet."""
        now = {path: mark for path in found(self._paths, self._data) if (mark := sign(path)) is not None}
        ready = [(path, mark) for path, mark in now.items() if self._seen.get(path) == mark != self._done.get(path)]
        self._seen = now
        self._done = {path: mark for path, mark in self._done.items() if path in now}
        return ready

    def done(self, path: Path, mark: Sign) -> None:
        """Say that a file needs no more work while it stays as it is."""
        self._done[path] = mark


def _below(folder: Path, data: Path | None) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):  # what may not be read is passed over
        folders[:] = sorted(name for name in folders if not _passed_over(name) and Path(place, name) != data)
        for name in sorted(files):
            path = Path(place, name)
            if not _passed_over(name) and path.is_file():
                yield path


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower().endswith(PARTIAL)
