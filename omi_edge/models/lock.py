"""What was installed, file by file: models.lock.json beside the models. What is in it never changes unasked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from omi_edge.errors import ModelAltered, ModelError, ModelSpace
from omi_edge.models.manifest import FileName, Model, ModelName, Repository, Revision

NAME = "models.lock.json"
_GUARD = ".guard"


class LockedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was when it was installed: bytes and SHA-256."""

    name: FileName
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Locked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model as it was installed. ``revision`` "" came from a folder; ``source`` is where it came from.

    ``chosen``: the owner took this revision in the place of the manifest's, which then does not bind it.
    """

    repository: Repository
    revision: Revision
    licence: str
    source: str
    files: Annotated[tuple[LockedFile, ...], Meta(min_length=1, max_length=1000)]
    chosen: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, Meta(ge=1, le=1)] = 1
    models: dict[ModelName, Locked] = {}


def read(folder: Path) -> dict[str, Locked]:
    """Return what is locked. Raises ModelAltered for a lock file that cannot be read."""
    path = folder / NAME
    try:
        return dict(msgspec.json.decode(path.read_bytes(), type=_Document).models)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}.") from error
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ModelAltered(
            f"{path} is damaged; move it away, then fetch the models again with: omi-edge models pull NAME"
        ) from error


def write(folder: Path, models: dict[str, Locked]) -> None:
    """Put ``models`` in the place of what is locked: whole or not at all."""
    document = _Document(models=dict(sorted(models.items())))
    replace(folder / NAME, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def contradiction(model: Model, locked: Locked) -> str:
    """Say in what the manifest's pins and the lock differ; "" when they agree."""
    if locked.chosen:
        model = model.at(locked.revision)
    if model.repository != locked.repository:
        return f"the repository is {model.repository}, {locked.repository} was locked"
    if model.revision and locked.revision and model.revision != locked.revision:
        return f"the revision is {model.revision[:12]}, {locked.revision[:12]} was locked"
    held = {file.name: file for file in locked.files}
    if set(held) != {file.name for file in model.files}:
        return "the files are other ones"
    for file in model.files:
        if file.size and file.size != held[file.name].size:
            return f"the size of {file.name} is another one"
        if file.sha256 and file.sha256 != held[file.name].sha256:
            return f"the SHA-256 of {file.name} is another one"
    return ""


def same_revision(model: Model, locked: Locked) -> bool:
    """Whether the lock is of what the manifest names, as far as it names anything."""
    return model.repository == locked.repository and model.revision in ("", locked.revision)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the models folder against other commands that change it; makes it. Raises ModelError when it is held."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        guard = os.open(folder / _GUARD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ModelError(f"the models folder {folder} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ModelError(f"another command changes the models in {folder}; wait until it is done.") from error
        yield
    finally:
        os.close(guard)


def replace(path: Path, content: bytes) -> None:
    """Write a file by rename, durable. Raises ModelSpace or ModelError."""
    part = path.with_name(path.name + ".new")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        durable(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def durable(folder: Path) -> None:
    """Make renames in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> ModelError:
    """Return the error for a write that failed, by its cause."""
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return ModelSpace(f"no room left on the disk of {path.parent}; make room, then do the same again.")
    return ModelError(f"cannot write {path}: {error.strerror}.")
