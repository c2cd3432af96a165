from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omi_edge.config import Config
from omi_edge.evaluation import bench
from omi_edge.evaluation.bench import Advice, Settings
from omi_edge.evaluation.trial import Trial
from tests.listen.tiny_whisper import NAME, shelved


def trial(label: str, rtf: float, memory: int = 1) -> Trial:
    return Trial(label, label, (), 100.0, 100.0 * rtf, 1.0, memory, 0)


def settings(name: str, rtf: float, memory: int = 1) -> Settings:
    return Settings(name, 1, "int8", 5, trial(name, rtf, memory))


@pytest.mark.parametrize(
    ("speed", "cores", "best"),
    [
        (lambda threads, kind, beam: 0.3 / threads * (1.0 + beam / 50), 8, (8, "int8", 5)),
        (lambda threads, kind, beam: 0.3 / min(threads, 2), 8, (2, "int8", 5)),
        (lambda threads, kind, beam: 0.3 / min(threads, 6), 6, (6, "int8", 5)),
        (lambda threads, kind, beam: 0.3 / threads * (0.5 if kind == "float32" else 1), 1, (1, "float32", 5)),
        (lambda threads, kind, beam: 0.3 * (2 if beam == 5 else 1), 2, (1, "int8", 1)),
        (lambda threads, kind, beam: 0.8 * (2 if beam == 5 else 1), 2, (1, "int8", 5)),
    ],
)
async def test_the_fastest_settings_are_found(
    speed: Callable[[int, str, int], float], cores: int, best: tuple[int, str, int]
) -> None:
    async def attempt(label: str) -> Trial:
        values = dict(part.split("=") for part in label.split(",")[1:])
        return trial(label, speed(int(values["threads"]), values["compute_type"], int(values["beam"])))

    found, tried = await bench.tune("model", cores, attempt)
    assert (found.threads, found.compute_type, found.beam) == best
    assert found.found in tried
    assert len({one.label for one in tried}) == len(tried)


async def test_the_built_in_one_has_nothing_to_choose() -> None:
    async def attempt(label: str) -> Trial:
        return trial(label, 0.2)

    assert (await bench.tune("pocketsphinx", 4, attempt))[1] == [trial("pocketsphinx", 0.2)]


def test_what_the_machine_carries() -> None:
    small, middle, large = settings("small", 0.1, 10), settings("middle", 0.3, 20), settings("large", 0.9, 40)
    assert bench.advise([small, middle, large], 200) == Advice(middle, large)
    assert bench.advise([small, middle, large], 100) == Advice(middle, None)  # both would not fit into half of it
    assert bench.advise([small, middle, large], 30) == Advice(small, None)
    assert bench.advise([small], 200) == Advice(small, None)
    assert bench.advise([large], 200) == Advice(None, large)
    assert bench.advise([settings("huge", 3.0)], 200) == Advice(None, None)


def test_the_speech_that_is_shipped() -> None:
    found = bench.sample(Config(), 10.0)
    assert found.segments[-1][0] < 10.0 <= found.seconds + 3
    assert 0 < len(found.reference.cues) <= 4


def test_what_is_installed_from_small_to_large(tmp_path: Path) -> None:
    shelf = shelved(tmp_path / "models")
    assert bench.installed(shelf) == ["pocketsphinx", NAME]
    assert bench.weight(shelf.place(NAME)) > 100_000
