"""Newer revisions: seen, fetched beside the one in use, taken and given back."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.errors import LicenceNotAccepted, ModelAltered, ModelMissing
from omi_edge.models import lock, update
from omi_edge.models.hub import Hub
from omi_edge.models.manifest import Model
from omi_edge.models.shelf import NEWER, Shelf, State
from omi_edge.models.update import Standing
from tests.helpers import START_US
from tests.models.hub import COMMIT, FILES, Certificates, FakeHub, manifest
from tests.models.hub import NEWER as COMMIT_2
from tests.models.test_pull import fetch, plenty, quiet, yes

OLD = FILES["Test/pinned"]["weights/model.bin"]
NEW = b"better weights" * 1000


@pytest.fixture
async def shelf(tmp_path: Path, hub: FakeHub, signed: Certificates) -> Shelf:
    """The pinned model is installed."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.toml").write_text(manifest(), encoding="utf-8")
    found = Shelf(tmp_path / "models")
    await fetch(found, hub, signed, "pinned")
    return found


@contextlib.asynccontextmanager
async def client(hub: FakeHub, signed: Certificates) -> AsyncIterator[Hub]:
    async with Hub(hub.url, DrivenClock(START_US), ca_file=str(signed.authority), waits=(0.0,)) as found:
        yield found


def publish(hub: FakeHub) -> None:
    """Let there be a newer revision."""
    hub.commit = COMMIT_2
    hub.files["Test/pinned"] = {**hub.files["Test/pinned"], "weights/model.bin": NEW}


def weights(shelf: Shelf) -> bytes:
    """What a loader would load."""
    return (shelf.locate("pinned") / "weights/model.bin").read_bytes()


def no(_: Model) -> bool:
    return False


async def test_how_an_installed_model_stands(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    async with client(hub, signed) as there:
        assert (await update.look(shelf, "pinned", there)).standing is Standing.NEWEST
        hub.commit = COMMIT_2
        assert await update.look(shelf, "pinned", there) == ("pinned", COMMIT, COMMIT_2, Standing.SAME_FILES)
        publish(hub)
        assert (await update.look(shelf, "pinned", there)).standing is Standing.OUTDATED
        with pytest.raises(ModelMissing):
            await update.look(shelf, "open", there)


def test_gits_id_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello\n")
    assert update._git_id(tmp_path / "a") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


async def test_taken_and_given_back(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    publish(hub)
    async with client(hub, signed) as there:
        seen = await update.look(shelf, "pinned", there)
        # the licence is the one that was accepted, so nobody is asked
        newer = await update.fetch(shelf, seen, there, accept=no, progress=quiet, free=plenty)
        assert weights(newer) == NEW
        assert Shelf(newer.folder).locate("pinned") == newer.place("pinned")  # as an engine's process opens it
        assert weights(shelf) == OLD
        asked = len(hub.asked)
        await update.fetch(shelf, seen, there, accept=no, progress=quiet, free=plenty)
        assert len(hub.asked) == asked
    assert update.take(shelf, "pinned").revision == COMMIT_2
    assert weights(shelf) == NEW
    assert shelf.state(shelf.manifest.find("pinned")) is State.VERIFIED
    assert weights(Shelf(shelf.folder)) == NEW
    with pytest.raises(ModelMissing, match="omi-edge models update pinned"):
        update.take(shelf, "pinned")
    async with client(hub, signed) as there:
        assert (await update.look(shelf, "pinned", there)).standing is Standing.NEWEST
    assert update.roll_back(shelf, "pinned").revision == COMMIT
    assert weights(shelf) == OLD
    assert lock.read(shelf.folder)["pinned"].chosen is False
    with pytest.raises(ModelMissing, match="no older revision of pinned"):
        update.roll_back(shelf, "pinned")


async def test_a_damaged_one_is_mended_as_it_was_taken(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    publish(hub)
    async with client(hub, signed) as there:
        await update.fetch(
            shelf, await update.look(shelf, "pinned", there), there, accept=no, progress=quiet, free=plenty
        )
    update.take(shelf, "pinned")
    path = shelf.place("pinned") / "weights/model.bin"
    path.unlink()
    path.write_bytes(NEW[:-1] + b"x")
    with pytest.raises(ModelAltered):
        shelf.locate("pinned")
    await fetch(shelf, hub, signed, "pinned")  # the manifest pins the one before, which the owner left
    assert weights(shelf) == NEW
    assert update.roll_back(shelf, "pinned").revision == COMMIT
    assert hashlib.sha256(weights(shelf)).digest() == hashlib.sha256(OLD).digest()


async def test_what_is_not_whole_is_not_taken(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    publish(hub)
    async with client(hub, signed) as there:
        seen = await update.look(shelf, "pinned", there)
        await update.fetch(shelf, seen, there, accept=no, progress=quiet, free=plenty)
        path = shelf.folder / NEWER / "pinned" / "weights/model.bin"
        path.unlink()
        path.write_bytes(NEW[:-1] + b"x")
        with pytest.raises(ModelAltered):
            update.take(shelf, "pinned")
        assert weights(shelf) == OLD
        hub.commit = "3" * 40
        hub.files["Test/pinned"]["weights/model.bin"] = NEW * 2
        seen = await update.look(shelf, "pinned", there)
        assert weights(await update.fetch(shelf, seen, there, accept=no, progress=quiet, free=plenty)) == NEW * 2


async def test_a_licence_that_nobody_stated_is_asked_for_again(
    shelf: Shelf, hub: FakeHub, signed: Certificates
) -> None:
    await fetch(shelf, hub, signed, "open", accept=yes)
    hub.commit = COMMIT_2
    hub.files["Test/open"]["model.gguf"] = NEW
    async with client(hub, signed) as there:
        seen = await update.look(shelf, "open", there)
        with pytest.raises(LicenceNotAccepted):
            await update.fetch(shelf, seen, there, accept=no, progress=quiet, free=plenty)


async def test_a_crash_before_tidying_up_loses_no_revision(
    shelf: Shelf, hub: FakeHub, signed: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub)
    async with client(hub, signed) as there:
        await update.fetch(
            shelf, await update.look(shelf, "pinned", there), there, accept=no, progress=quiet, free=plenty
        )
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "remove", crash)
        with pytest.raises(RuntimeError):
            update.take(shelf, "pinned")
    update.take(shelf, "pinned")
    assert weights(shelf) == NEW
    update.roll_back(shelf, "pinned")
    assert weights(shelf) == OLD


def crash(*_: object, **__: object) -> None:
    raise RuntimeError


async def test_removing_a_model_removes_what_lies_beside_it(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    publish(hub)
    async with client(hub, signed) as there:
        await update.fetch(
            shelf, await update.look(shelf, "pinned", there), there, accept=no, progress=quiet, free=plenty
        )
    shelf.remove("pinned", unlock=True)
    assert not (shelf.folder / NEWER / "pinned").exists()
