"""Fetch models: know what to take, accept the licence, have room, fetch, check, and only then let them appear."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from omi_edge.errors import HubTokenNeeded, LicenceNotAccepted, ModelError, ModelRefused, ModelSpace
from omi_edge.models import lock
from omi_edge.models.checks import sha256
from omi_edge.models.hub import Advance, Hub
from omi_edge.models.lock import Locked, LockedFile
from omi_edge.models.manifest import Model, ModelFile
from omi_edge.models.shelf import INCOMING, Shelf

KEEP_FREE = 1_000_000_000
"""Bytes that stay free beside the models: a full disk would stop the recording. A choice, not a measurement."""

Accept = Callable[[Model], bool]
Progress = Callable[[str, str, int], Advance]
"""Told model, file and bytes when a file begins; what it returns is told how many are there."""
Free = Callable[[Path], int]


class Pulled(NamedTuple):
    """What became of one model: whether it was fetched now, or was whole already."""

    name: str
    fetched: bool


class _Plan(NamedTuple):
    model: Model
    revision: str
    files: tuple[ModelFile, ...]
    """With sizes, and the SHA-256 that each must have as far as it is known."""
    chosen: bool = False


def free_bytes(folder: Path) -> int:
    """Return what the disk of ``folder`` has left."""
    return shutil.disk_usage(folder).free


async def pull(
    names: Sequence[str], shelf: Shelf, hub: Hub, *, accept: Accept, progress: Progress, free: Free = free_bytes
) -> list[Pulled]:
    """Make the models called ``names`` whole, each as its lock or the manifest says.

    Licences, tokens and room for all of them are settled before the first is fetched; each appears when it is complete
    and checked, so an interruption leaves whole models and what the next pull goes on from. Raises NotFound,
    LicenceNotAccepted, HubTokenNeeded, ModelSpace, ModelRefused and HubError.
    """
    models = [shelf.manifest.find(name) for name in dict.fromkeys(names)]
    with lock.alone(shelf.folder):
        wanting = [model for model in models if not await asyncio.to_thread(_whole, shelf, model)]
        locked = lock.read(shelf.folder)
        for model in wanting:
            _may(model, locked.get(model.name), hub, accept)
        plans = [await _plan(model, locked.get(model.name), hub) for model in wanting]
        _room(shelf, plans, free)
        for plan in plans:
            await _fetch(plan, shelf, hub, progress)
    return [Pulled(model.name, model in wanting) for model in models]


def _whole(shelf: Shelf, model: Model) -> bool:
    try:
        shelf.locate(model.name)
    except ModelError:
        return False
    return True


def _may(model: Model, locked: Locked | None, hub: Hub, accept: Accept) -> None:
    """Raise when the owner has not accepted the licence, or has no token where one is needed."""
    if (locked is None or locked.licence != model.licence) and not accept(model):
        raise LicenceNotAccepted(
            f"the licence of {model.name} ({model.licence or 'not stated'}, {hub.endpoint / model.repository}) was not "
            f"accepted, nothing was fetched; accept it with: --accept-licence {model.licence or model.name}"
        )
    if model.token and not hub.token:
        raise HubTokenNeeded(
            f"{model.name} is given to known accounts only: accept its conditions at "
            f"{hub.endpoint / model.repository}, make a token that may read, write it into a file "
            "(chmod 600) and name that in models.token_file; or fetch it elsewhere and use: omi-edge models import"
        )


async def _plan(model: Model, locked: Locked | None, hub: Hub) -> _Plan:
    if locked is not None and locked.revision:
        if differs := lock.contradiction(model, locked):
            raise ModelRefused(
                f"{model.name} is not what was locked here: {differs}; to take the new one: omi-edge models rm "
                f"{model.name} --unlock --yes, then pull again."
            )
        files = tuple(ModelFile(file.name, file.size, file.sha256) for file in locked.files)
        return _Plan(model, locked.revision, files, locked.chosen)
    revision = model.revision or await hub.revision(model.repository, token=model.token)
    known = {} if locked is None else {file.name: file for file in locked.files}
    found = []
    for file in model.files:
        size, digest = file.size, file.sha256
        if file.name in known:  # it came from a folder, without a revision
            size, digest = known[file.name].size, known[file.name].sha256
        if not size:
            about = await hub.about(model.repository, revision, file.name, token=model.token)
            size, digest = about.size, digest or about.sha256
        found.append(ModelFile(file.name, size, digest))
    return _Plan(model, revision, tuple(found))


def _room(shelf: Shelf, plans: Sequence[_Plan], free: Free) -> None:
    wanted = sum(file.size for plan in plans for file in plan.files)
    places = [shelf.folder / INCOMING / plan.model.name for plan in plans]
    have = sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())
    needed, left = wanted - have + KEEP_FREE, free(shelf.folder)
    if plans and needed > left:
        raise ModelSpace(
            f"the models need {_gb(wanted - have)} and {_gb(KEEP_FREE)} must stay free, {shelf.folder} has {_gb(left)} "
            "left; make room, or set models.folder to another disk."
        )


async def _fetch(plan: _Plan, shelf: Shelf, hub: Hub, progress: Progress) -> None:
    model, incoming = plan.model, shelf.folder / INCOMING / plan.model.name
    stamp = shelf.stamp(model.name)
    try:
        if not stamp.is_file() or stamp.read_text(encoding="ascii") != plan.revision:
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir(parents=True)
            stamp.write_text(plan.revision, encoding="ascii")
        files = [await _file(plan, file, shelf, hub, progress) for file in plan.files]
    except OSError as error:
        raise lock.unwritable(incoming, error) from error
    locked = Locked(model.repository, plan.revision, model.licence, str(hub.endpoint), tuple(files), plan.chosen)
    if differs := lock.contradiction(model, locked):
        raise ModelRefused(
            f"what came of {model.name} is not what the manifest names: {differs}; nothing was installed."
        )
    shelf.install(model.name, incoming, locked)
    stamp.unlink(missing_ok=True)
    await asyncio.to_thread(shelf.verify, model.name)


async def _file(plan: _Plan, file: ModelFile, shelf: Shelf, hub: Hub, progress: Progress) -> LockedFile:
    """Return one file of the plan, in the incoming folder and checked."""
    model, to = plan.model, shelf.folder / INCOMING / plan.model.name / file.name
    to.parent.mkdir(parents=True, exist_ok=True)
    advance = progress(model.name, file.name, file.size)
    there = shelf.place(model.name) / file.name
    if file.sha256 and not to.exists() and await asyncio.to_thread(_right, there, file):
        os.link(there, to)  # of a damaged model, what is whole is kept
    if not to.exists():
        await hub.fetch(model.repository, plan.revision, file.name, to, file.size, advance, token=model.token)
    digest = await asyncio.to_thread(sha256, to)
    if file.sha256 and digest != file.sha256:
        to.unlink()
        raise ModelRefused(
            f"{file.name} of {model.name} came with another SHA-256 than it must have ({digest[:12]}… instead of "
            f"{file.sha256[:12]}…); it was thrown away, nothing was installed. Try again, or another models.endpoint."
        )
    advance(file.size)
    return LockedFile(file.name, to.stat().st_size, digest)


def _right(path: Path, file: ModelFile) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == file.size and sha256(path) == file.sha256
    except (OSError, ModelError):
        return False


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
