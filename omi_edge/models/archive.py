"""Models in one file, to carry to a box without a network: made by ``bundle``, taken by ``take``.

A plain tar or zip, not compressed (weights do not shrink): first ``omi-edge-models.json``, which says what is in it as
models.lock.json does, then ``MODEL/FILE`` for each. What comes in is a stranger's: nothing but exactly these members,
of exactly their sizes and hashes, is written, and nowhere but below the incoming folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated

import msgspec
from msgspec import Meta

from omi_edge.errors import BadInput, ModelRefused, ModelSpace
from omi_edge.models import lock
from omi_edge.models.checks import sha256
from omi_edge.models.lock import Locked, LockedFile
from omi_edge.models.manifest import Model, ModelName
from omi_edge.models.pull import KEEP_FREE, Free, free_bytes
from omi_edge.models.shelf import INCOMING, Shelf

INDEX = "omi-edge-models.json"
INDEX_LIMIT = 1 << 20
_MEMBERS_LIMIT = 10_000
_CHUNK = 1 << 20
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold: a bundle of the same models is the same file."""

Tell = Callable[[str], None]
"""Told which model is worked on."""
Members = Iterator[tuple[str, int, Callable[[], IO[bytes]]]]
"""Name, bytes as declared, and how to open."""


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: Annotated[dict[ModelName, Locked], Meta(min_length=1, max_length=1000)]
    format: Annotated[int, Meta(ge=1, le=1)] = 1


def bundle(shelf: Shelf, names: Sequence[str], to: Path, tell: Tell) -> int:
    """Write the models called ``names`` into the file ``to`` (.tar or .zip), each verified before; return its bytes.

    Raises NotFound, BadInput, and what ``Shelf.verify`` raises.
    """
    if to.suffix not in (".tar", ".zip"):
        raise BadInput(f"{to.name} must end in .tar or .zip.")
    locked = {}
    for name in sorted(set(names)):
        tell(name)
        locked[name] = shelf.verify(name)
    index = msgspec.json.encode(_Index(locked))
    part = to.with_name(to.name + ".part")
    try:
        (_write_tar if to.suffix == ".tar" else _write_zip)(shelf, locked, index, part)
        part.replace(to)
        return to.stat().st_size
    except OSError as error:
        raise lock.unwritable(to, error) from error
    finally:
        part.unlink(missing_ok=True)


def take(shelf: Shelf, source: Path, tell: Tell, *, free: Free = free_bytes) -> list[str]:
    """Install the models of a bundle: a file, or a folder that one was unpacked to. Return their names.

    Every model is complete and checked before the first appears. Raises NotFound for a model that the manifest does not
    know, BadInput for what is no bundle, ModelRefused for what is not as it should be, and ModelSpace.
    """
    with lock.alone(shelf.folder), _opened(source) as members:
        index = _index(source, members)
        wanted = _agreed(shelf, index)
        if sum(locked.size for locked in index.models.values()) + KEEP_FREE > free(shelf.folder):
            raise ModelSpace(
                f"the models of {source.name} and {KEEP_FREE / 1e9:.0f} GB beside them do not fit on the disk of "
                f"{shelf.folder}; make room, or set models.folder to another disk."
            )
        incoming = shelf.folder / INCOMING / "import"
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            _unpack(source, members, wanted, incoming, tell)
            for name, locked in index.models.items():
                shelf.install(name, incoming / name, locked)
        except OSError as error:
            raise lock.unwritable(incoming, error) from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return list(index.models)


def take_folder(shelf: Shelf, name: str, source: Path) -> None:
    """Install the model called ``name`` from a folder with its files, fetched by another program.

    Pinned hashes must fit; what the manifest does not pin is locked as it is, without a revision. Raises NotFound,
    ModelRefused and ModelError.
    """
    model = shelf.manifest.find(name)
    incoming = shelf.folder / INCOMING / "import"
    with lock.alone(shelf.folder):
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            files = [_copied(model, file.name, source, incoming) for file in model.files]
            locked = Locked(
                model.repository, model.revision if model.pinned else "", model.licence, "folder", tuple(files)
            )
            _agreed(shelf, _Index({name: locked}))
            shelf.install(name, incoming, locked)
        except OSError as error:
            raise lock.unwritable(incoming, error) from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


def is_bundle(source: Path) -> bool:
    """Whether a folder is an unpacked bundle."""
    return (source / INDEX).is_file()


def _copied(model: Model, file: str, source: Path, incoming: Path) -> LockedFile:
    here, there = source / file, incoming / file
    if not here.is_file():
        raise ModelRefused(f"{source} has no {file}, which {model.name} needs; nothing was installed.")
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(here, there)
    return LockedFile(file, there.stat().st_size, sha256(there))


def _agreed(shelf: Shelf, index: _Index) -> dict[str, LockedFile]:
    """Return the members that must come, by name. Raises ModelRefused for what contradicts manifest or lock."""
    held = lock.read(shelf.folder)
    wanted: dict[str, LockedFile] = {}
    for name, locked in index.models.items():
        model = shelf.manifest.find(name)
        differs = lock.contradiction(model, locked)
        if not differs and name in held and {f.name: f for f in held[name].files} != {f.name: f for f in locked.files}:
            differs = "it is another version than the one that is locked here"
        if differs:
            raise ModelRefused(
                f"{name} was not taken: {differs}; to take it, forget the one that is locked here: omi-edge models rm "
                f"{name} --unlock --yes"
            )
        wanted |= {f"{name}/{file.name}": file for file in locked.files}
    return wanted


def _index(source: Path, members: Members) -> _Index:
    name, size, opened = next(members, ("", 0, io.BytesIO))
    if name != INDEX or size > INDEX_LIMIT:
        raise BadInput(f"{source.name} is no bundle of models; `omi-edge models bundle` makes one.")
    with opened() as stream:
        raw = stream.read(INDEX_LIMIT + 1)
    try:
        return msgspec.json.decode(raw, type=_Index)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadInput(f"the list of contents in {source.name} cannot be read; make the bundle anew.") from error


def _unpack(source: Path, members: Members, wanted: dict[str, LockedFile], incoming: Path, tell: Tell) -> None:
    left = dict(wanted)
    for name, size, opened in members:
        file = left.pop(name, None)
        if file is None or size != file.size:
            raise ModelRefused(f"{source.name} holds what its list of contents does not name; nothing was installed.")
        tell(name.split("/")[0])
        to = incoming / name
        to.parent.mkdir(parents=True, exist_ok=True)
        with opened() as stream:
            _copy_checked(stream, to, file, source)
    if left:
        raise ModelRefused(f"{source.name} lacks {min(left)}; nothing was installed. Make the bundle anew.")


def _copy_checked(stream: IO[bytes], to: Path, file: LockedFile, source: Path) -> None:
    digest, count = hashlib.sha256(), 0
    with to.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            count += len(chunk)
            if count > file.size:
                break
            digest.update(chunk)
            out.write(chunk)
    if count != file.size or digest.hexdigest() != file.sha256:
        raise ModelRefused(f"{file.name} in {source.name} is not what it should be; nothing was installed.")


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[Members]:
    """Have the members of a bundle in order, the index first. Nothing is trusted but name, size and content."""
    if not source.exists():
        raise BadInput(f"there is no {source}.")
    with contextlib.ExitStack() as stack:
        try:
            if source.is_dir():
                yield _of_folder(source)
            elif zipfile.is_zipfile(source):
                yield _of_zip(stack.enter_context(zipfile.ZipFile(source)))
            else:
                yield _of_tar(stack.enter_context(tarfile.open(source, "r:")))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
            raise BadInput(f"{source.name} is no bundle of models, or is damaged; make it anew.") from error
        except RuntimeError as error:  # zipfile: a member is encrypted
            raise BadInput(f"{source.name} is encrypted; `omi-edge models bundle` makes a plain one.") from error
        except OSError as error:
            raise BadInput(f"cannot read {source}: {error.strerror}.") from error


def _of_folder(source: Path) -> Members:
    paths = sorted(path for path in source.rglob("*") if path.is_symlink() or not path.is_dir())
    paths.sort(key=lambda path: path != source / INDEX)
    for path in paths:
        if any(part.startswith(".") for part in path.relative_to(source).parts):
            continue  # what a system leaves behind; no file of a model is hidden
        if path.is_symlink() or not path.is_file():
            raise ModelRefused(f"{source} holds a link or a device; nothing was installed.")
        yield path.relative_to(source).as_posix(), path.stat().st_size, lambda path=path: path.open("rb")  # type: ignore[misc]


def _of_zip(file: zipfile.ZipFile) -> Members:
    for info in _few(file.infolist()):
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelRefused("the bundle is compressed, which those of omi-edge are not; nothing was installed.")
        yield info.filename, info.file_size, lambda info=info: file.open(info)  # type: ignore[misc]


def _of_tar(file: tarfile.TarFile) -> Members:
    for count, info in enumerate(file):
        if count > _MEMBERS_LIMIT or not info.isreg() or info.issparse():
            raise ModelRefused("the bundle holds a link, a device or too many files; nothing was installed.")
        yield info.name, info.size, lambda info=info: _regular(file, info)  # type: ignore[misc]


def _regular(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = file.extractfile(info)
    assert stream is not None  # a regular member
    return stream


def _few(infos: Sequence[zipfile.ZipInfo]) -> Sequence[zipfile.ZipInfo]:
    if len(infos) > _MEMBERS_LIMIT:
        raise ModelRefused("the bundle holds too many files; nothing was installed.")
    return infos


def _write_tar(shelf: Shelf, locked: dict[str, Locked], index: bytes, to: Path) -> None:
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(_tar_info(INDEX, len(index)), io.BytesIO(index))
        for name, held in _contents(locked):
            with (shelf.place(name) / held.name).open("rb") as stream:
                file.addfile(_tar_info(f"{name}/{held.name}", held.size), stream)


def _tar_info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def _write_zip(shelf: Shelf, locked: dict[str, Locked], index: bytes, to: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as file:
        file.writestr(zipfile.ZipInfo(INDEX, _ZIP_TIME), index)
        for name, held in _contents(locked):
            info = zipfile.ZipInfo(f"{name}/{held.name}", _ZIP_TIME)
            info.file_size = held.size  # so that it is written for files beyond 4 GB where needed
            with (shelf.place(name) / held.name).open("rb") as stream, file.open(info, "w") as out:
                shutil.copyfileobj(stream, out, _CHUNK)


def _contents(locked: dict[str, Locked]) -> Iterator[tuple[str, LockedFile]]:
    for name, one in locked.items():
        for file in one.files:
            yield name, file
