"""Evaluations that are kept, to hold the next release or model against them: counts and paths, never words."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import msgspec

from omi_edge.errors import BadInput, NotFound
from omi_edge.evaluation.trial import Trial
from omi_edge.models.machine import this_machine

FOLDER = "evaluations"
"""In the data folder; one JSON file an evaluation, for its owner alone (mode 0600)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class KeptFile(msgspec.Struct, frozen=True):
    """A recording with its reference: absolute paths, and the SHA-256 of what was in them."""

    audio: str
    reference: str
    audio_sha256: str
    reference_sha256: str


class Kept(msgspec.Struct, frozen=True):
    """One evaluation."""

    name: str
    date: str
    """Day of the measurement in the wearer's time zone, ISO 8601."""
    version: str
    """Of omi-edge."""
    machine: str
    files: tuple[KeptFile, ...]
    trials: tuple[Trial, ...]


def checked_name(name: str) -> str:
    """Return ``name`` if it can be a kept evaluation's. Raises BadInput."""
    if not _NAME.fullmatch(name):
        raise BadInput("the name of an evaluation has small letters, digits, dots and dashes, at most 64.", "save")
    return name


def machine() -> str:
    """Return what this machine is, in words."""
    here = this_machine()
    return f"{here.kind}, {here.cores} cores, {here.memory / 1e9:.0f} GB, {sys.platform}"


def fingerprint(audio: Path, reference: Path) -> KeptFile:
    """Say which files these are. Raises BadInput when they cannot be read."""
    return KeptFile(str(audio.absolute()), str(reference.absolute()), _sha256(audio), _sha256(reference))


def save(folder: Path, kept: Kept) -> Path:
    """Write an evaluation, in the place of one with the same name. Raises BadInput when it cannot be written."""
    path = _path(folder, kept.name)
    fresh = path.with_suffix(".new")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise BadInput(f"the evaluation cannot be kept in {path.parent}: {error.strerror}.", "save") from error
    return path


def load(folder: Path, name: str) -> Kept:
    """Return a kept evaluation. Raises NotFound with those that there are, BadInput for a damaged file."""
    path = _path(folder, checked_name(name))
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        known = ", ".join(names(folder))
        there = f"there is: {known}" if known else "none is kept here yet"
        raise NotFound(f"no evaluation is kept as {name}; {there}. `omi-edge evaluate --save` keeps one.") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput(f"the kept evaluation {path} cannot be read; remove it and measure anew.", "again") from error


def names(folder: Path) -> list[str]:
    """Return the names of what is kept, in order."""
    return sorted(path.stem for path in (folder / FOLDER).glob("*.json") if _NAME.fullmatch(path.stem))


def _path(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.json"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}. Check the path.") from error
