"""What every loader asks: found, checked, and what is wrong said with the command that mends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omi_edge.errors import ConfigError, ModelAltered, ModelMissing, ModelTruncated, NotFound
from omi_edge.models import lock, machine, manifest
from omi_edge.models.archive import take_folder
from omi_edge.models.machine import Machine
from omi_edge.models.shelf import Shelf, State
from tests.models.hub import FILES, digest

WEIGHTS = "weights/model.bin"


def placed(shelf: Shelf, tmp_path: Path, name: str = "pinned") -> Path:
    """Install a model as `import --as` does."""
    source = tmp_path / f"source-{name}"
    for file, content in FILES[f"Test/{name}"].items():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(content)
    take_folder(shelf, name, source)
    return shelf.place(name)


def test_what_is_not_there(shelf: Shelf) -> None:
    with pytest.raises(ModelMissing, match="omi-edge models pull pinned"):
        shelf.locate("pinned")
    with pytest.raises(NotFound, match=r"did you mean pinned\?"):
        shelf.locate("pinnde")
    with pytest.raises(NotFound, match="omi-edge models list"):
        shelf.locate("../../etc/passwd")


def test_a_loader_needs_nothing_that_could_fetch() -> None:
    code = (
        "import sys\nimport omi_edge.models.shelf\n"
        "print(*({'aiohttp', 'cryptography', 'ssl', 'omi_edge.models.hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


def test_a_load_hashes_once_and_again_when_something_changed(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path)
    shelf.locate("pinned")
    first = shelf.checks.hashed
    again = Shelf(shelf.folder)  # as another process would
    assert again.locate("pinned") == place
    assert (first, again.checks.hashed) == (2, 0)
    os.utime(place / WEIGHTS)
    assert again.locate("pinned") == place
    assert again.checks.hashed == 1


def test_an_alteration_that_hides_its_time_is_found(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path)
    shelf.locate("pinned")
    path, about = place / WEIGHTS, (place / WEIGHTS).stat()
    with path.open("r+b") as stream:
        stream.write(b"x")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(ModelAltered, match=r"weights/model\.bin .* mend it with: omi-edge models pull pinned"):
        shelf.locate("pinned")
    assert shelf.state(shelf.manifest.find("pinned")) is State.DAMAGED


def test_a_truncated_file(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path)
    os.truncate(place / WEIGHTS, 5)
    with pytest.raises(ModelTruncated, match=r"5 of 1024000 bytes; mend it with: omi-edge models pull pinned"):
        shelf.locate("pinned")


def test_a_missing_file(shelf: Shelf, tmp_path: Path) -> None:
    (placed(shelf, tmp_path) / "config.json").unlink()
    with pytest.raises(ModelMissing, match=r"config\.json .* mend it with: omi-edge models pull pinned"):
        shelf.locate("pinned")


def test_a_file_that_grew_a_file_too_many_and_a_link(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path)
    (place / ".DS_Store").write_bytes(b"the system's")
    shelf.locate("pinned")
    (place / "preprocessor_config.json").write_bytes(b"{}")
    with pytest.raises(ModelAltered, match="more than its files"):
        shelf.locate("pinned")
    (place / "preprocessor_config.json").unlink()
    content = (place / "config.json").read_bytes()
    (place / "config.json").write_bytes(content + b" ")
    with pytest.raises(ModelAltered):
        shelf.locate("pinned")
    (place / "config.json").unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    (place / "config.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelMissing):
        shelf.locate("pinned")


def test_verify_reads_everything(shelf: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path)
    shelf.locate("pinned")
    before = shelf.checks.hashed
    shelf.verify("pinned")
    assert shelf.checks.hashed == before + 2


def test_a_lock_that_contradicts_the_manifest(shelf: Shelf, tmp_path: Path) -> None:
    place = placed(shelf, tmp_path)
    wrong = b"y" * 1_024_000
    (place / WEIGHTS).write_bytes(wrong)
    path = shelf.folder / lock.NAME
    path.write_text(
        path.read_text(encoding="utf-8").replace(digest(FILES["Test/pinned"][WEIGHTS]), digest(wrong)), encoding="utf-8"
    )
    with pytest.raises(ModelAltered, match="does not agree with the manifest"):
        shelf.locate("pinned")


def test_a_damaged_lock_and_damaged_notes(shelf: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path)
    (shelf.folder / ".checked.json").write_bytes(b"\xff")
    shelf.locate("pinned")
    (shelf.folder / lock.NAME).write_bytes(b"{")
    with pytest.raises(ModelAltered, match=r"models\.lock\.json is damaged"):
        shelf.locate("pinned")


def test_removed_but_still_locked(shelf: Shelf, tmp_path: Path) -> None:
    placed(shelf, tmp_path, "open")
    shelf.remove("open", unlock=False)
    assert shelf.state(shelf.manifest.find("open")) is State.ABSENT
    assert "open" in lock.read(shelf.folder)
    shelf.remove("open", unlock=True)
    assert "open" not in lock.read(shelf.folder)


def test_a_folder_that_may_only_be_read_is_hashed_at_each_load(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed(shelf, tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError()))
    shelf.locate("pinned")
    shelf.locate("pinned")
    assert shelf.checks.hashed == 4


def test_the_manifest_that_ships(tmp_path: Path) -> None:
    shipped = manifest.load(tmp_path)
    names = [model.name for model in shipped.model]
    assert len(names) == len(set(names))
    assert {model.kind for model in shipped.model} == {"asr", "diarization", "llm", "embedding"}
    for profile in shipped.profile:
        kinds = [shipped.find(name).kind for name in profile.models]
        assert sorted(kinds) == ["asr", "asr", "diarization", "embedding", "llm"], profile.name
    for model in shipped.model:
        assert model.licence, model.name
        assert model.size == sum(file.size for file in model.files)
    assert [model.name for model in shipped.model if model.token] == ["diarization-community-1"]


@pytest.mark.parametrize(("text", "told"), [
    ("[[model]]\nname = 'x'\n", "docs/models.md"),
    ("[[model]]\nname = '../x'\n", "docs/models.md"),
    ("[[model\n", "not valid TOML"),
])  # fmt: skip
def test_an_addition_that_cannot_be_read(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "models.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        manifest.load(tmp_path)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/../b", ".hidden", "a//b", "a/", "", "a\nb"])
def test_no_file_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    text = (
        '[[model]]\nname = "x"\nkind = "asr"\nformat = "t"\nrepository = "A/b"\ngood_for = ""\n'
        f"[[model.files]]\nname = {name!r}\n"
    )
    (tmp_path / "models.toml").write_text(text.replace("\\n", "\\n").replace("'", '"'), encoding="utf-8")
    with pytest.raises(ConfigError):
        manifest.load(tmp_path)


def test_an_addition_does_not_take_a_name_that_is_there(tmp_path: Path) -> None:
    text = manifest.load(tmp_path).model[0]
    (tmp_path / "models.toml").write_text(
        f'[[model]]\nname = "{text.name}"\nkind = "asr"\nformat = "t"\nrepository = "A/b"\ngood_for = ""\n'
        '[[model.files]]\nname = "a"\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="give your model another one"):
        manifest.load(tmp_path)


@pytest.mark.parametrize(("system", "processor", "board", "kind"), [
    ("Linux", "aarch64", "Raspberry Pi 5 Model B Rev 1.0\x00", "pi5"),
    ("Linux", "aarch64", "", "pi5"),
    ("Linux", "x86_64", "", "x86"),
    ("Darwin", "arm64", "", "m1"),
    ("Darwin", "x86_64", "", "x86"),
])  # fmt: skip
def test_the_kind_of_a_machine(system: str, processor: str, board: str, kind: str) -> None:
    assert machine.kind(system, processor, board) == kind


def test_advice_says_what_does_not_fit_and_why(tmp_path: Path) -> None:
    shipped = manifest.load(tmp_path)
    small = {one.model.name: one for one in machine.advise(shipped, Machine("pi5", 4, 4_000_000_000))}
    assert small["whisper-small"].fits
    assert not small["qwen3-1.7b"].fits
    assert "1.8 GB, more than 1.0 GB, a quarter of the memory (4.0 GB)" in small["qwen3-1.7b"].why
    assert all(one.fits for one in machine.advise(shipped, Machine("pi5", 4, 8_000_000_000)))
    assert machine.this_machine().cores >= 1
