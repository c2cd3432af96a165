"""`models outdated`, `update` and `rollback`, with a recogniser that hears what its files say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omi_edge.cli.main import run
from omi_edge.engine import NO_HINTS, EngineSpec, HeardWord, Hints, Recognition
from omi_edge.models.shelf import Shelf
from omi_edge.pipeline import engines
from tests.listen.sound import WORDS, script
from tests.models.hub import COMMIT, FILES, NEWER, Certificates, FakeHub, manifest

Call = Callable[..., tuple[int, str, str]]
SAID = script(WORDS[0]).text()


class Reader:
    """Hears, in the first segment, what stands in its model's files."""

    def __init__(self, *, folder: str, model: str, **options: Any) -> None:
        place = Shelf(Path(folder)).locate(model)
        self._text = (place / "weights/model.bin").read_bytes().decode("utf-8", "replace")
        self._first = True

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""

    def accept(self, pcm: bytes) -> str:
        """See Recognizer."""
        return ""

    def finish(self) -> Recognition:
        """See Recognizer."""
        words = self._text.split() if self._first else ()
        self._first = False
        return Recognition(tuple(HeardWord(word, 0, 1, 1.0) for word in words), "reader 1")


@pytest.fixture
def call(
    hub: FakeHub, signed: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:  # fmt: skip
    """Call `omi-edge --data D …` where the model `pinned` is installed and hears half of what is said."""
    half = " ".join(SAID.split()[::2]).encode()
    hub.files["Test/pinned"] = {**FILES["Test/pinned"], "weights/model.bin": half}
    models = tmp_path / "D" / "models"
    models.mkdir(parents=True)
    text = manifest().replace('format = "test"', 'format = "ctranslate2"', 1)
    lines = [line for line in text.splitlines() if not line.startswith(("size", "sha256", "revision"))]
    (models / "models.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("OMI_EDGE_MODELS_ENDPOINT", hub.url)
    monkeypatch.setenv("OMI_EDGE_MODELS_CA_FILE", str(signed.authority))
    monkeypatch.setitem(engines.RECOGNIZERS, "whisper", EngineSpec("tests.cli.test_updates:Reader"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(WORDS[0], "words.flac")
    Path("words.txt").write_text(SAID.replace(" ", "\n"), encoding="utf-8")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["--data", "D", *arguments])
        return code, *capsys.readouterr()

    assert call("models", "pull", "pinned", "--accept-licence", "MIT")[0] == 0
    return call


def publish(hub: FakeHub, text: str) -> None:
    hub.commit = NEWER
    hub.files["Test/pinned"] = {**FILES["Test/pinned"], "weights/model.bin": text.encode()}


def test_a_better_one_is_tried_taken_and_given_back(call: Call, hub: FakeHub) -> None:
    code, _, err = call("models", "update", "pinned")
    assert (code, "keep one with `omi-edge evaluate" in err) == (2, True)
    assert call("evaluate", "words.flac", "--reference", "words.txt", "--engine", "pinned", "--save", "spring")[0] == 0
    assert "nothing to do, it is the newest revision" in call("models", "update", "pinned")[1]
    publish(hub, SAID)
    code, out, err = call("models", "outdated", "--json")
    assert msgspec.json.decode(out) == [
        {"name": "pinned", "installed": COMMIT, "newest": NEWER, "standing": "outdated"}
    ]
    assert "This connects to" in err
    code, out, err = call("models", "update", "pinned")
    assert code == 0, err
    assert "pinned 2222222 on spring makes fewer errors than pinned 1111111 on spring: -" in out
    assert "take it with: omi-edge models update pinned --take" in out
    assert "1111111" in call("models", "list")[1]
    code, out, err = call("models", "update", "pinned", "--on", "spring", "--take", "--json")
    assert (code, msgspec.json.decode(out)["taken"]) == (0, True)
    assert "2222222" in call("models", "list")[1]
    code, out, err = call("models", "rollback", "pinned")
    assert (code, "pinned is 1111111 again" in out) == (0, True)
    assert call("models", "rollback", "pinned")[0] == 7


def test_a_worse_one_is_not_taken_unless_asked_for(call: Call, hub: FakeHub) -> None:
    assert call("evaluate", "words.flac", "--reference", "words.txt", "--engine", "pinned", "--save", "spring")[0] == 0
    publish(hub, "nothing")
    code, out, _ = call("models", "update", "pinned", "--take")
    assert (code, "makes more errors and was not taken" in out) == (1, True)
    assert "1111111" in call("models", "list")[1]
    code, out, _ = call("models", "update", "pinned", "--untested", "--take")
    assert (code, "pinned is 2222222 now" in out) == (0, True)


def test_the_same_files_and_unknown_names(call: Call, hub: FakeHub) -> None:
    hub.commit = NEWER
    assert "same files" in call("models", "outdated", "pinned")[1]
    assert "has the same files" in call("models", "update", "pinned", "--untested", "--take")[1]
    assert "did you mean pinned" in call("models", "outdated", "pined")[2]
    assert "no evaluation is kept as none" in call("models", "update", "pinned", "--on", "none")[2]
    assert "update it --untested" in call("models", "update", "diarization-community-1")[2]
