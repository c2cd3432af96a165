"""The models folder: where a model lies, and whether it is what it should be."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from omi_edge.errors import ModelAltered, ModelError, ModelMissing, ModelTruncated
from omi_edge.models import lock, manifest
from omi_edge.models.checks import Checks
from omi_edge.models.lock import Locked, LockedFile
from omi_edge.models.manifest import Model

INCOMING = ".incoming"
"""Where a model is put together before it appears whole."""
NEWER, OLDER = ".newer", ".older"
"""Folders beside the models, shelves too: revisions that were fetched and not taken, and those that were replaced."""
_OUTGOING = ".outgoing"


class State(StrEnum):
    """What is known of a model here without reading it."""

    ABSENT = "absent"
    VERIFIED = "verified"
    """Every file looks as it did when its hash was taken and right."""
    UNCHECKED = "unchecked"
    """Complete by name and size; hashed at the next load."""
    DAMAGED = "damaged"


class Shelf:
    """The models in one folder, known by the manifest; its own by default. Makes no connection."""

    def __init__(self, folder: Path, known: manifest.Manifest | None = None) -> None:
        self.folder = folder
        self.manifest = manifest.load(folder) if known is None else known
        self.checks = Checks(folder)

    def locate(self, name: str) -> Path:
        """Return the folder of a model's files, all of them checked: what every loader asks before it loads.

        Checked at each call: every file is there, regular, of its size, and none is there that does not belong; its
        SHA-256 too, unless the file looks exactly as when it was last taken (``checks``). Raises NotFound for a name
        that the manifest does not know; ModelMissing, ModelTruncated, ModelAltered with the command that mends it.
        """
        model = self.manifest.find(name)
        self._check(model, anew=False)
        return self.place(name)

    def verify(self, name: str) -> Locked:
        """Hash every file anew; return what it is locked to. Raises as ``locate`` does."""
        model = self.manifest.find(name)
        self._check(model, anew=True)
        return self.wanted(model)

    def place(self, name: str) -> Path:
        """Return where the model lies or would lie."""
        return self.folder / name

    def stamp(self, name: str) -> Path:
        """Return the file that names the revision of what is being fetched."""
        return self.folder / INCOMING / f"{name}.revision"

    def installed(self, name: str) -> bool:
        """Whether there is anything of the model."""
        return self.place(name).is_dir()

    def wanted(self, model: Model) -> Locked:
        """Return what the files must be: the lock, else the manifest when it pins everything.

        Raises ModelMissing when neither is known, ModelAltered when both are and differ.
        """
        locked = lock.read(self.folder).get(model.name)
        if locked is None:
            if not model.pinned:
                raise ModelMissing(f"nothing is locked for the model {model.name}; {_mend(model)}")
            files = tuple(LockedFile(file.name, file.size, file.sha256) for file in model.files)
            return Locked(model.repository, model.revision, model.licence, "manifest", files)
        if lock.same_revision(model, locked) and (differs := lock.contradiction(model, locked)):
            raise ModelAltered(
                f"{lock.NAME} does not agree with the manifest on {model.name}: {differs}; {_mend(model)}"
            )
        return locked

    def state(self, model: Model) -> State:
        """Return what is known without reading a file."""
        if not self.installed(model.name):
            return State.ABSENT
        try:
            wanted = self.wanted(model)
            self._complete(model, wanted)
        except ModelError:
            return State.DAMAGED
        found = [(self.checks.known(self.place(model.name) / file.name), file.sha256) for file in wanted.files]
        if any(known is not None and known != right for known, right in found):
            return State.DAMAGED
        return State.VERIFIED if all(known == right for known, right in found) else State.UNCHECKED

    def install(self, name: str, incoming: Path, locked: Locked) -> None:
        """Let a model that was put together in ``incoming`` and checked appear, in the place of what was there."""
        place, old = self.place(name), self.folder / f"{_OUTGOING}-{name}"
        try:
            for path in (incoming, *(path for path in incoming.rglob("*") if path.is_dir())):
                path.chmod(0o755)
                lock.durable(path)
            lock.write(self.folder, {**lock.read(self.folder), name: locked})
            shutil.rmtree(old, ignore_errors=True)
            if place.exists():
                place.rename(old)
            incoming.rename(place)
            lock.durable(self.folder)
        except OSError as error:
            raise lock.unwritable(place, error) from error
        shutil.rmtree(old, ignore_errors=True)

    def remove(self, name: str, *, unlock: bool) -> None:
        """Remove a model's files; with ``unlock`` what was locked too, so that a pull may bring another revision."""
        self.manifest.find(name)
        with lock.alone(self.folder):
            old = self.folder / f"{_OUTGOING}-{name}"
            shutil.rmtree(old, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                self.place(name).rename(old)
            shutil.rmtree(old, ignore_errors=True)
            for beside in (INCOMING, NEWER, OLDER):
                shutil.rmtree(self.folder / beside / name, ignore_errors=True)
            self.stamp(name).unlink(missing_ok=True)
            self.checks.forget(self.place(name))
            if unlock:
                locked = lock.read(self.folder)
                locked.pop(name, None)
                lock.write(self.folder, locked)

    def _check(self, model: Model, *, anew: bool) -> None:
        if not self.installed(model.name):
            raise ModelMissing(
                f"the model {model.name} is not installed; fetch it with: omi-edge models pull {model.name} "
                "(or carry it in with: omi-edge models import FILE)"
            )
        wanted = self.wanted(model)
        self._complete(model, wanted)
        for file in wanted.files:
            if self.checks.sha256(self.place(model.name) / file.name, anew=anew) != file.sha256:
                raise ModelAltered(
                    f"the file {file.name} of the model {model.name} was altered; {_mend(model, wanted)}"
                )

    def _complete(self, model: Model, wanted: Locked) -> None:
        place = self.place(model.name)
        for file in wanted.files:
            sign = self.checks.sign(place / file.name)
            if sign is None:
                raise ModelMissing(f"the file {file.name} of the model {model.name} is missing; {_mend(model, wanted)}")
            if sign[1] < file.size:
                raise ModelTruncated(
                    f"the file {file.name} of the model {model.name} is truncated, {sign[1]} of {file.size} bytes; "
                    + _mend(model, wanted)
                )
            if sign[1] != file.size:
                raise ModelAltered(
                    f"the file {file.name} of the model {model.name} was altered; {_mend(model, wanted)}"
                )
        names = {file.name for file in wanted.files}
        for path in _present(place):
            if path not in names:
                raise ModelAltered(
                    f"the folder of the model {model.name} holds more than its files; {_mend(model, wanted)}"
                )


def _present(place: Path) -> Iterator[str]:
    """Yield all that is no folder, hidden files of the system aside: a loader reads none of these."""
    for folder, folders, files in os.walk(place):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            if not name.startswith("."):
                yield Path(folder, name).relative_to(place).as_posix()


def _mend(model: Model, wanted: Locked | None = None) -> str:
    if wanted is not None and not wanted.revision:  # its repository need not have it, nor exist
        return f"it came from a folder; mend it with: omi-edge models import FOLDER --as {model.name}"
    return f"mend it with: omi-edge models pull {model.name}"
