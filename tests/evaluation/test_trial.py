"""Configurations are tried in real engine processes; stand-ins for recognisers steer what is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omi_edge.clock import SystemClock
from omi_edge.config import Config
from omi_edge.engine import NO_HINTS, EngineSpec, HeardWord, Hints, Recognition, Rejected
from omi_edge.errors import BadInput, ConfigError, ModelMissing, UsageError
from omi_edge.evaluation import trial
from omi_edge.evaluation.references import Cue, Reference
from omi_edge.evaluation.scoring import Piece
from omi_edge.evaluation.trial import Configuration, Sample
from omi_edge.worker import Usage
from tests.listen.sound import SHORT, script

HEARS = EngineSpec("tests.evaluation.test_trial:Hears")
SECOND = b"\0" * 32_000


class Hears:
    """Hears "word" once a second, and holds as much memory as it is told to."""

    def __init__(self, ballast: int = 0, **options: Any) -> None:
        self._ballast = b"x" * ballast
        self._seconds = 0

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""
        self._seconds = 0

    def accept(self, pcm: bytes) -> str:
        """See Recognizer."""
        self._seconds += len(pcm) // 32_000
        return ""

    def finish(self) -> Recognition:
        """See Recognizer."""
        words = tuple(HeardWord("word", 1000 * n, 1000 * n + 500, 1.0) for n in range(self._seconds))
        return Recognition(words, "hears 1", rejected=(Rejected(0, 9, "loop", 3),))


def sample(reference: Reference, *segments: tuple[float, int], seconds: float = 20.0) -> Sample:
    return Sample(Path("x.wav"), reference, seconds, tuple((start, SECOND * length) for start, length in segments))


async def test_what_is_heard_is_counted_and_measured() -> None:
    told: list[float] = []
    samples = [
        sample(Reference((Cue("word word"), Cue("other"))), (1.0, 2), (8.0, 1)),
        sample(Reference((Cue("word"),), ((2.0, 20.0),)), (1.0, 3)),
    ]
    found = await trial.run(Configuration("a", HEARS, Config()), samples, SystemClock(), told.append)
    assert found.pieces == ((Piece(2, 0), Piece(1, 1)), (Piece(1, 0),))
    assert (found.label, found.engine, found.audio_seconds, found.rejected_words) == ("a", "hears 1", 40.0, 9)
    assert found.work_seconds > 0
    assert found.load_seconds > 0
    assert found.real_time_factor == found.work_seconds / 40
    assert sum(told) == pytest.approx(40)
    assert min(told) >= 0
    heavy = Configuration("b", EngineSpec(HEARS.factory, {"ballast": 200_000_000}), Config())
    assert (await trial.run(heavy, samples, SystemClock(), told.append)).memory_bytes > found.memory_bytes + 150e6


def test_memory_is_of_this_process() -> None:
    assert 10e6 < Usage().peak_memory() < 50e9


def test_a_recording_is_cut_into_speech() -> None:
    found = trial.cut(SHORT, Reference((Cue(script(SHORT).text()),)), Config())
    assert found.seconds > 3
    assert found.segments
    assert all(0 <= start < found.seconds and len(pcm) >= 16_000 for start, pcm in found.segments)


def test_settings_of_a_configuration_lie_over_those_in_force(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[listen]\nbeam = 2\nvad_open = 0.6\n", encoding="utf-8")

    def read(text: str) -> Configuration:
        return trial.configuration(text, file, tmp_path, SystemClock(), {"OMI_EDGE_LISTEN_LANGUAGE": "de"})

    plain, other = read("pocketsphinx"), read("pocketsphinx, beam=3,threads=1,language=en")
    assert (plain.config.listen.beam, plain.config.listen.language) == (2, "de")
    assert (other.config.listen.beam, other.config.listen.language, other.config.engine.threads) == (3, "en", 1)
    assert other.config.listen.vad_open == 0.6
    assert other.label == "pocketsphinx, beam=3,threads=1,language=en"
    with pytest.raises(UsageError, match="did you mean beam"):
        read("pocketsphinx,beams=1")
    with pytest.raises(UsageError, match="there are beam, compute_type"):
        read("pocketsphinx,zzz")
    with pytest.raises(UsageError, match="computes elsewhere"):
        read("wyoming")
    with pytest.raises(ConfigError, match=r"listen\.beam"):
        read("pocketsphinx,beam=0")
    with pytest.raises(BadInput, match="did you mean whisper-small"):
        read("whisper-smal")
    with pytest.raises(ModelMissing, match="omi-edge models pull whisper-small"):
        read("whisper-small")
