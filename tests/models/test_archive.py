"""Carrying models: what goes out comes in elsewhere; what a stranger made comes in not at all."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.errors import BadInput, ModelAltered, ModelMissing, ModelRefused, ModelSpace, NotFound, OmiEdgeError
from omi_edge.models import archive, lock
from omi_edge.models.pull import KEEP_FREE
from omi_edge.models.shelf import Shelf
from tests.models.conftest import new_shelf
from tests.models.hub import COMMIT, FILES, digest
from tests.models.test_shelf import placed

CONTENT = FILES["Test/open"]["model.gguf"]


def nothing(_: str) -> None:
    pass


def plenty(_: Path) -> int:
    return 10 * KEEP_FREE


@pytest.fixture
def other(tmp_path: Path) -> Shelf:
    return new_shelf(tmp_path / "other")


def index(**changes: object) -> bytes:
    """The list of contents of a bundle of the model ``open``."""
    locked = {
        "repository": "Test/open", "revision": COMMIT, "licence": "", "source": "hub",
        "files": [{"name": "model.gguf", "size": len(CONTENT), "sha256": digest(CONTENT)}],
    }  # fmt: skip
    return msgspec.json.encode({"format": 1, "models": {"open": {**locked, **changes}}})


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return path


def refused(shelf: Shelf, source: Path, kind: type[Exception] = ModelRefused) -> str:
    with pytest.raises(kind) as told:
        archive.take(shelf, source, nothing, free=plenty)
    left = {path.name for path in shelf.folder.rglob("*") if path.is_file()}
    assert left <= {"models.toml", ".guard"}, "nothing may be left of what was refused"
    assert not shelf.installed("open")
    return str(told.value)


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_what_goes_out_comes_in_elsewhere(shelf: Shelf, other: Shelf, tmp_path: Path, suffix: str) -> None:
    placed(shelf, tmp_path)
    placed(shelf, tmp_path, "open")
    file = tmp_path / f"models{suffix}"
    assert archive.bundle(shelf, ["open", "pinned"], file, nothing) == file.stat().st_size
    assert archive.take(other, file, nothing, free=plenty) == ["open", "pinned"]
    for name in ("open", "pinned"):
        place = other.locate(name)
        assert {file: (place / file).read_bytes() for file in FILES[f"Test/{name}"]} == FILES[f"Test/{name}"]
    assert lock.read(other.folder) == lock.read(shelf.folder)
    again = tmp_path / f"again{suffix}"
    archive.bundle(other, ["pinned", "open"], again, nothing)
    assert again.read_bytes() == file.read_bytes()


def test_an_unpacked_bundle(shelf: Shelf, other: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path)
    archive.bundle(shelf, ["pinned"], tmp_path / "m.tar", nothing)
    with tarfile.open(tmp_path / "m.tar") as file:
        file.extractall(tmp_path / "unpacked")
    (tmp_path / "unpacked" / ".DS_Store").write_bytes(b"")
    assert archive.is_bundle(tmp_path / "unpacked")
    assert archive.take(other, tmp_path / "unpacked", nothing, free=plenty) == ["pinned"]
    assert other.locate("pinned")


def test_links_in_an_unpacked_bundle(other: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked" / "open"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(CONTENT)
    (folder / "model.gguf").symlink_to(tmp_path / "secret")
    (folder.parent / archive.INDEX).write_bytes(index())
    assert "link" in refused(other, folder.parent)


def test_a_damaged_model_is_not_bundled(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path)
    (place / "config.json").write_bytes(b'{"b": 1}')
    with pytest.raises(ModelAltered):
        archive.bundle(shelf, ["pinned"], tmp_path / "m.tar", nothing)
    with pytest.raises(ModelMissing):
        archive.bundle(shelf, ["open"], tmp_path / "m.tar", nothing)
    with pytest.raises(BadInput, match=r"\.tar or \.zip"):
        archive.bundle(shelf, ["pinned"], tmp_path / "m.tar.gz", nothing)
    assert not list(tmp_path.glob("m.tar*"))


@pytest.mark.parametrize("extra", [
    member("../evil", b"x"),
    member("/tmp/evil", b"x"),
    member("open/../../evil", b"x"),
    member("open/other.bin", b"x"),
    member("open/model.gguf", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("open/model.gguf", type=tarfile.LNKTYPE, linkname=archive.INDEX),
    member("open/model.gguf", type=tarfile.FIFOTYPE),
    member("open", type=tarfile.DIRTYPE),
    member("open/model.gguf", CONTENT[:-1]),
    member("open/model.gguf", CONTENT + b"x"),
    member("open/model.gguf", b"x" * len(CONTENT)),
], ids=lambda extra: f"{extra[0].name}-{extra[0].type.decode()}-{extra[0].size}")  # fmt: skip
def test_hostile_members(other: Shelf, tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes]) -> None:
    refused(other, tar(tmp_path / "m.tar", member(archive.INDEX, index()), extra))
    assert not (tmp_path / "evil").exists()


def test_a_member_twice_and_one_too_few(other: Shelf, tmp_path: Path) -> None:
    whole = member("open/model.gguf", CONTENT)
    refused(other, tar(tmp_path / "m.tar", member(archive.INDEX, index()), whole, whole))
    assert "lacks open/model.gguf" in refused(other, tar(tmp_path / "n.tar", member(archive.INDEX, index())))


@pytest.mark.parametrize("raw", [
    b"{", b"\xff\xfe", b'{"models": {}}', index(files=[]), index(revision="main"), index(more=1),
    index(files=[{"name": "../evil", "size": 1, "sha256": digest(b"x")}]),
    b" " * (archive.INDEX_LIMIT + 1),
], ids=range(8))  # fmt: skip
def test_lists_of_contents_that_are_none(other: Shelf, tmp_path: Path, raw: bytes) -> None:
    refused(other, tar(tmp_path / "m.tar", member(archive.INDEX, raw)), BadInput)


def test_what_contradicts_the_manifest(other: Shelf, tmp_path: Path) -> None:
    raw = index(repository="Evil/open")
    assert "repository" in refused(other, tar(tmp_path / "m.tar", member(archive.INDEX, raw)))
    unknown = index().replace(b'"open"', b'"opne"')
    assert "did you mean open" in refused(other, tar(tmp_path / "n.tar", member(archive.INDEX, unknown)), NotFound)


def test_what_contradicts_the_lock(shelf: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path, "open")
    new = b"another version"
    raw = index(files=[{"name": "model.gguf", "size": len(new), "sha256": digest(new)}])
    file = tar(tmp_path / "m.tar", member(archive.INDEX, raw), member("open/model.gguf", new))
    with pytest.raises(ModelRefused, match="models rm open --unlock --yes"):
        archive.take(shelf, file, nothing, free=plenty)
    assert (shelf.locate("open") / "model.gguf").read_bytes() == CONTENT


def zipped(path: Path, *members: tuple[str, bytes], packed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def test_hostile_zips(other: Shelf, tmp_path: Path) -> None:
    start = (archive.INDEX, index())
    refused(other, zipped(tmp_path / "a.zip", start, ("../evil", b"x")))
    refused(other, zipped(tmp_path / "b.zip", start, ("open/model.gguf", CONTENT + b"x")))
    assert "compressed" in refused(other, zipped(tmp_path / "c.zip", start, ("open/model.gguf", CONTENT), packed=True))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, noise, emptied])
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_damaged_archives(
    shelf: Shelf, other: Shelf, tmp_path: Path, suffix: str, damage: Callable[[Path], None]
) -> None:
    placed(shelf, tmp_path, "open")
    file = tmp_path / f"m{suffix}"
    archive.bundle(shelf, ["open"], file, nothing)
    damage(file)
    with pytest.raises((BadInput, ModelRefused)):
        archive.take(other, file, nothing, free=plenty)
    assert not other.installed("open")


def test_compressed_tars_are_not_opened(other: Shelf, tmp_path: Path) -> None:
    file = tar(tmp_path / "m.tar", member(archive.INDEX, index()), member("open/model.gguf", CONTENT), mode="w:gz")
    refused(other, file, BadInput)
    refused(other, tmp_path / "none.tar", BadInput)


def test_no_room(shelf: Shelf, other: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path, "open")
    archive.bundle(shelf, ["open"], tmp_path / "m.tar", nothing)
    with pytest.raises(ModelSpace, match="make room"):
        archive.take(other, tmp_path / "m.tar", nothing, free=lambda _: KEEP_FREE)
    assert not other.installed("open")


def test_all_or_none_of_a_bundle(shelf: Shelf, other: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path)
    placed(shelf, tmp_path, "open")
    file = tmp_path / "m.tar"
    archive.bundle(shelf, ["open", "pinned"], file, nothing)
    raw = bytearray(file.read_bytes())
    raw[-30_000] ^= 1  # in the last member, the weights of the second model
    file.write_bytes(raw)
    refused(other, file)
    assert not other.installed("pinned")


def test_a_folder_of_another_program(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path, "open")
    assert place == shelf.locate("open")
    assert lock.read(shelf.folder)["open"].revision == ""
    source = tmp_path / "source-pinned"
    shutil.copytree(tmp_path / "source-open", source)
    with pytest.raises(ModelRefused, match=r"has no config\.json"):
        archive.take_folder(shelf, "pinned", source)
    (source / "config.json").write_bytes(b"{}")
    (source / "weights").mkdir()
    (source / "weights" / "model.bin").write_bytes(b"not these")
    with pytest.raises(ModelRefused, match="size of"):
        archive.take_folder(shelf, "pinned", source)
    assert not shelf.installed("pinned")


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_gets_in_or_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    here = tmp_path_factory.mktemp("fuzz")
    (here / "open").mkdir()
    small = b"few weights"
    (here / "open" / "model.gguf").write_bytes(small)
    one = new_shelf(here / "one")
    archive.take_folder(one, "open", here / "open")
    file = here / f"m{suffix}"
    archive.bundle(one, ["open"], file, nothing)
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(raw)), st.integers(0, len(raw)))))
    if data.draw(st.booleans()):
        del raw[start:end]
    file.write_bytes(raw)
    two = new_shelf(here / "two")
    try:
        archive.take(two, file, nothing, free=plenty)
    except OmiEdgeError:
        assert not two.installed("open")
    else:
        assert (two.locate("open") / "model.gguf").read_bytes() == small
    assert {path.name for path in here.iterdir()} == {"open", "one", "two", file.name}
