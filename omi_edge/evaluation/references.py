"""What was really said in a recording: plain text, STM or WebVTT."""

from __future__ import annotations

import html
import re
from pathlib import Path

import msgspec

from omi_edge.errors import BadInput
from omi_edge.listen.wer import normalise

MOST_BYTES = 16_000_000
"""Of a reference: days of speech. A choice."""
_IGNORED = "ignore_time_segment_in_scoring"
"""The transcript of what is not judged (NIST, sclite, description of STM)."""
_STM_FIELDS = 5
"""File, channel, speaker, begin and end; then labels in <>, where there are any, and the words (same source)."""
_ARROW = re.compile(r"^(?:(\d+):)?(\d\d):(\d\d)\.(\d{3})\s+-->\s+(?:(\d+):)?(\d\d):(\d\d)\.(\d{3})")
"""A cue's times (W3C, WebVTT, §4.1)."""
_TAG = re.compile(r"<[^>]*>")


class Cue(msgspec.Struct, frozen=True):
    """A piece of what was said. Times in seconds from the beginning of the recording, None where nobody noted them."""

    text: str
    start: float | None = None
    end: float | None = None


class Reference(msgspec.Struct, frozen=True):
    """What was said in a recording."""

    cues: tuple[Cue, ...]
    left_out: tuple[tuple[float, float], ...] = ()
    """Stretches, in seconds, that are not judged: what is heard there counts neither way."""


def read(path: Path, recording: str = "") -> Reference:
    """Read a reference; of an STM with several recordings that of ``recording``, a file's name without its ending.

    The ending of the name says what it is. Raises BadInput, naming the line, for what cannot be read.
    """
    kinds = {".txt": _text, ".stm": _stm, ".vtt": _vtt}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"a reference ends in .txt, .stm or .vtt; {path.name} does not.", "reference")
    found = kind(_lines(path), path.name, recording)
    if not any(normalise(cue.text) for cue in found.cues):
        raise BadInput(f"{path.name} holds no words{f' for {recording}' if recording else ''}.", "reference")
    return found


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path.name} is larger than {MOST_BYTES} bytes; divide it.", "reference")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise BadInput(f"the reference {path.name} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the reference {path.name} is not UTF-8 text; save it as such.", "reference") from error


def _text(lines: list[str], name: str, recording: str) -> Reference:
    """Each line is a piece."""
    return Reference(tuple(Cue(line.strip()) for line in lines if line.strip()))


def _stm(lines: list[str], name: str, recording: str) -> Reference:
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split(None, _STM_FIELDS)
        try:
            start, end = float(fields[3]), float(fields[4])
        except (IndexError, ValueError):
            start, end = 1.0, 0.0
        if not 0 <= start <= end < float("inf"):
            raise BadInput(
                f"{name}, line {number}: an STM line is FILE CHANNEL SPEAKER BEGIN END WORDS, times in seconds.",
                "reference",
            )
        words = fields[_STM_FIELDS] if len(fields) > _STM_FIELDS else ""
        rows.append((fields[0], start, end, re.sub(r"^<[^>]*>\s*", "", words).strip()))
    recordings = {row[0] for row in rows}
    if len(recordings) > 1 and recording not in recordings:
        raise BadInput(
            f"{name} is of {len(recordings)} recordings and none of them is called {recording}; it names "
            f"{', '.join(sorted(recordings)[:5])}.",
            "reference",
        )
    ours = sorted((row for row in rows if len(recordings) == 1 or row[0] == recording), key=lambda row: row[1])
    ignored = tuple((row[1], row[2]) for row in ours if row[3].lower() == _IGNORED)
    return Reference(tuple(Cue(row[3], row[1], row[2]) for row in ours if row[3].lower() != _IGNORED), ignored)


def _vtt(lines: list[str], name: str, recording: str) -> Reference:
    if not lines or not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise BadInput(f"{name} does not begin with WEBVTT; it is no WebVTT file.", "reference")
    cues: list[Cue] = []
    open_cue: tuple[float, float] | None = None
    words: list[str] = []
    for number, line in enumerate([*lines[1:], ""], 2):
        if "-->" in line:
            times = _ARROW.match(line.strip())
            if times is None:
                raise BadInput(f"{name}, line {number}: a cue's times look like 00:01.500 --> 00:04.000.", "reference")
            open_cue, words = (_seconds(times.groups()[:4]), _seconds(times.groups()[4:])), []
        elif not line.strip():
            if open_cue is not None and words:
                cues.append(Cue(" ".join(words), *open_cue))
            open_cue = None
        elif open_cue is not None:  # else a header, NOTE, STYLE, REGION or a cue's name
            words.append(html.unescape(_TAG.sub("", line)).strip())
    return Reference(tuple(sorted(cues, key=lambda cue: cue.start or 0.0)))


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, thousandths = (int(part or 0) for part in parts)
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
