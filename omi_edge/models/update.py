"""Newer revisions of installed models: seen, fetched beside the one in use, taken, and given back.

Nothing of this happens by itself. In the models folder, ``.newer`` holds what was fetched and not taken, ``.older``
what was in use before; both are shelves of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from omi_edge.errors import ModelError, ModelMissing
from omi_edge.models import lock
from omi_edge.models.hub import Hub
from omi_edge.models.lock import Locked, LockedFile
from omi_edge.models.manifest import OWN_NAME, Manifest, Model
from omi_edge.models.pull import Accept, Free, Progress, free_bytes, pull
from omi_edge.models.shelf import INCOMING, NEWER, OLDER, Shelf


class Standing(StrEnum):
    """How an installed model stands to what the hub has now."""

    NEWEST = "newest"
    SAME_FILES = "same files"
    """There is a newer revision, in which the model's files are the same."""
    OUTDATED = "outdated"


class Seen(NamedTuple):
    """One installed model beside the hub's. ``installed`` is "" for one that came from a folder."""

    name: str
    installed: str
    newest: str
    standing: Standing


async def look(shelf: Shelf, name: str, hub: Hub) -> Seen:
    """Ask the hub for the newest revision of an installed model. Raises as ``Shelf.locate`` and ``Hub`` do."""
    await asyncio.to_thread(shelf.locate, name)
    model = shelf.manifest.find(name)
    locked = shelf.wanted(model)
    newest = await hub.revision(model.repository, token=model.token)
    if newest == locked.revision:
        return Seen(name, locked.revision, newest, Standing.NEWEST)
    for file in locked.files:
        about = await hub.about(model.repository, newest, file.name, token=model.token)
        blob = "" if about.sha256 else await asyncio.to_thread(_git_id, shelf.place(name) / file.name)
        if about.size != file.size or (about.sha256, about.blob) not in ((file.sha256, about.blob), ("", blob)):
            return Seen(name, locked.revision, newest, Standing.OUTDATED)
    return Seen(name, locked.revision, newest, Standing.SAME_FILES)


async def fetch(
    shelf: Shelf, seen: Seen, hub: Hub, *, accept: Accept, progress: Progress, free: Free = free_bytes
) -> Shelf:
    """Fetch the newest revision beside the one in use; return the shelf that it is on.

    What was there of another revision goes. A licence that is the same was accepted. Raises as ``pull`` does.
    """
    model = shelf.manifest.find(seen.name).at(seen.newest)
    known = shelf.wanted(shelf.manifest.find(seen.name))
    newer = Shelf(shelf.folder / NEWER, Manifest((model,)))
    held = lock.read(newer.folder).get(model.name)
    if held is not None and held.revision != seen.newest:
        newer.remove(model.name, unlock=True)
    await pull(
        [model.name], newer, hub, progress=progress, free=free,
        accept=lambda wanted: (bool(known.licence) and known.licence == wanted.licence) or accept(wanted),
    )  # fmt: skip
    own = shelf.folder / OWN_NAME
    if own.is_file():  # an engine that is given this folder must know the owner's models too
        lock.replace(newer.folder / OWN_NAME, own.read_bytes())
    return newer


def take(shelf: Shelf, name: str) -> Locked:
    """Put the fetched revision in the place of the one in use, which is kept until the next; return what it is.

    Raises ModelMissing when none was fetched, ModelError when it is not whole.
    """
    model = shelf.manifest.find(name)
    newer = _beside(shelf, NEWER, model)
    if not newer.installed(name):
        raise ModelMissing(f"no newer revision of {name} was fetched; do it with: omi-edge models update {name}")
    fresh = newer.verify(name)
    chosen = msgspec.structs.replace(fresh, chosen=True)
    with lock.alone(shelf.folder), lock.alone(newer.folder):
        if lock.read(shelf.folder).get(name) != chosen:  # else it was taken, and only not tidied up
            _keep(shelf, model)
        shelf.install(name, _copy(newer.place(name), shelf.folder / INCOMING / name, chosen.files), chosen)
    newer.remove(name, unlock=True)
    return chosen


def roll_back(shelf: Shelf, name: str) -> Locked:
    """Put the revision that was replaced in its place again; return what it is. Raises ModelMissing, ModelError."""
    model = shelf.manifest.find(name)
    older = _beside(shelf, OLDER, model)
    if not older.installed(name):
        raise ModelMissing(f"no older revision of {name} is kept; only one that was replaced by an update is.")
    known = older.verify(name)
    with lock.alone(shelf.folder), lock.alone(older.folder):
        shelf.install(name, _copy(older.place(name), shelf.folder / INCOMING / name, known.files), known)
    older.remove(name, unlock=True)
    return known


def _keep(shelf: Shelf, model: Model) -> None:
    """Keep what is in use now as the older one; a model that is not whole is not worth it."""
    try:
        shelf.locate(model.name)
    except ModelError:
        return
    known = shelf.wanted(model)
    older = _beside(shelf, OLDER, model)
    with lock.alone(older.folder):
        copied = _copy(shelf.place(model.name), older.folder / INCOMING / model.name, known.files)
        older.install(model.name, copied, known)


def _beside(shelf: Shelf, folder: str, model: Model) -> Shelf:
    """A shelf for another revision: what the manifest pins does not bind it, what is locked there does."""
    return Shelf(shelf.folder / folder, Manifest((model.at(""),)))


def _copy(place: Path, to: Path, files: tuple[LockedFile, ...]) -> Path:
    """Have the files of a model once more, without their bytes where the disk can."""
    try:
        shutil.rmtree(to, ignore_errors=True)
        for file in files:
            (to / file.name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(place / file.name, to / file.name)
            except OSError:  # a file system without hard links
                shutil.copy2(place / file.name, to / file.name)
    except OSError as error:
        raise lock.unwritable(to, error) from error
    return to


def _git_id(path: Path) -> str:
    """SHA-1 of a file as Git names it (Pro Git, §10.2)."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
