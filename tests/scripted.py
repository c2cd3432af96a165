"""Engines that answer at once, in the real engine process: for tests of what lies around an engine."""

from __future__ import annotations

from omi_edge.domain import Turn, Understanding
from omi_edge.engine import NO_HINTS, Dialogue, EngineSpec, HeardWord, Hints, Recognition
from omi_edge.pipeline import engines

WORD_MS = 400


class ScriptedRecognizer:
    """Hears one word in each 400 ms of audio."""

    def __init__(self) -> None:
        self._milliseconds = 0

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""
        self._milliseconds = 0

    def accept(self, pcm: bytes) -> str:
        """See Recognizer."""
        self._milliseconds += len(pcm) // 32
        return " ".join(["word"] * (self._milliseconds // WORD_MS))

    def finish(self) -> Recognition:
        """See Recognizer."""
        count = self._milliseconds // WORD_MS
        words = [HeardWord("word", n * WORD_MS, (n + 1) * WORD_MS, 0.9) for n in range(count)]
        return Recognition(tuple(words), "scripted")


class ScriptedDiarizer:
    """Hears one voice."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    def start(self) -> None:
        """See Diarizer."""
        self._turns = []

    def add(self, start_us: int, pcm: bytes) -> None:
        """See Diarizer."""
        self._turns.append(Turn(start_us, start_us + len(pcm) * 1000 // 32, "SPEAKER_00", 1.0))

    def finish(self) -> list[Turn]:
        """See Diarizer."""
        return self._turns


class ScriptedExtractor:
    """Understands nothing but a title."""

    def extract(self, dialogue: Dialogue) -> Understanding:
        """See Extractor."""
        return Understanding("Scripted", f"{len(dialogue.utterances)} utterances.", "other", "💬", (), (), "scripted")


def register() -> None:
    """Make the engines known under the name ``scripted``."""
    engines.RECOGNIZERS["scripted"] = EngineSpec("tests.scripted:ScriptedRecognizer")
    engines.DIARIZERS["scripted"] = EngineSpec("tests.scripted:ScriptedDiarizer")
    engines.EXTRACTORS["scripted"] = EngineSpec("tests.scripted:ScriptedExtractor")
