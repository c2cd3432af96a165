"""The recording that ships with the project, and what is said in it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True):
    """One line of a script; times in seconds from the start of the recording."""

    conversation: int
    speaker: str
    start: float
    end: float
    text: str


class Script(msgspec.Struct, frozen=True):
    """What is said in a recording."""

    seconds: float
    lines: tuple[Line, ...]

    @property
    def conversations(self) -> int:
        """How many conversations its pauses make."""
        return len({line.conversation for line in self.lines})

    def text(self, conversation: int | None = None) -> str:
        """Return the words of the whole recording, or of one conversation."""
        return " ".join(line.text for line in self.lines if conversation in (None, line.conversation))


def recording_path() -> Path:
    """Return the recording that the demo plays."""
    return Path(str(files("omi_edge.virtual") / "recordings" / "conversation.ogg"))


def load_script(path: Path | None = None) -> Script:
    """Return the script beside a recording; the shipped one's by default."""
    chosen = (path or recording_path()).with_suffix(".toml")
    return msgspec.toml.decode(chosen.read_bytes(), type=Script)
