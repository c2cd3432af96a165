"""The recordings that ship are what their script makes, and the scan for secrets finds some."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.virtual.script import load_script, recording_path

ROOT = Path(__file__).parents[1]
SHIPPED = (recording_path(), *sorted((ROOT / "tests" / "recordings").glob("*.ogg")))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.full
def test_the_script_makes_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("flite"), "flite is missing: apt install flite"
    made = script("make_recordings")
    monkeypatch.setattr(made, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(made, "TESTS", tmp_path / "tests")
    assert made.main() == 0
    for path in (*SHIPPED, *sorted((ROOT / "tests" / "recordings").glob("*.flac"))):
        again = next(tmp_path.rglob(path.name))
        if path.with_suffix(".toml").exists():
            assert [line.text for line in load_script(again).lines] == [line.text for line in load_script(path).lines]
        before, after = (np.concatenate(list(Recording(one).read())).astype(np.float64) for one in (path, again))
        assert len(before) == len(after), path.name
        assert np.corrcoef(before, after)[0, 1] > 0.99, path.name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_each_recording_is_as_long_as_its_script_says(path: Path) -> None:
    seconds = sum(map(len, Recording(path).read())) / 16_000
    assert seconds == pytest.approx(load_script(path).seconds, abs=0.05)
    assert load_script(path).lines[-1].end < seconds


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("-----BEGIN " + "PRIVATE KEY-----", "private key"),
        ("token = 'gh" + "p_" + "a1B2" * 9 + "'", "GitHub token"),
        ("pass" + "word = 'hunter2hunter2'", "password in code"),
        ("https://me:" + "s3cret@example.org/x", "password in a URL"),
        ("KEY = 'q7Jx2LmZp0VtRk8sWnYb4" + "HcEa9UdGfTi+/3oX5vLmZp0'", "random text"),
    ],
)
def test_the_scan_finds_secrets(line: str, kind: str) -> None:
    scan = script("secret_scan")
    assert kind in set(scan.kinds("omi_edge/x.py", line))
    assert not set(scan.kinds("omi_edge/x.py", line + "  # not a secret: made up"))


def test_the_scan_leaves_alphabets_and_names_alone() -> None:
    scan = script("secret_scan")
    for line in (
        '_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"',
        "def test_a_very_long_name_of_a_test_that_is_no_secret",
    ):
        assert not set(scan.kinds("omi_edge/x.py", line))
