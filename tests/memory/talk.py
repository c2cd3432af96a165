"""Dialogues for tests, from plain lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from omi_edge.domain import Understanding, Utterance, Word
from omi_edge.engine import Dialogue
from omi_edge.memory.extract import RulesExtractor

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY_US = round(datetime(2026, 3, 2, 10, tzinfo=BERLIN).timestamp() * 1_000_000)
"""Monday 2 March 2026, ten in the morning, when all dialogues are spoken."""
TRIGGERS = ("remind me to", "note to self", "add a task")
LABELS = {"A": "SPEAKER_00", "B": "SPEAKER_01", "?": None}
WORD_US = 300_000


def utterances(lines: Sequence[str], *, words: bool = False, start_us: int = MONDAY_US) -> tuple[Utterance, ...]:
    """Return one utterance for each "A: text", one after the other, each word 0.3 s long."""
    made = []
    for number, line in enumerate(lines):
        speaker, _, text = line.partition(": ")
        pieces = text.split()
        timed = tuple(
            Word(piece, start_us + at * WORD_US, start_us + (at + 1) * WORD_US, 1.0) for at, piece in enumerate(pieces)
        )
        end_us = start_us + len(pieces) * WORD_US
        made.append(
            Utterance(
                f"utt_{number}",
                "con",
                "seg",
                "src",
                LABELS[speaker],
                start_us,
                end_us,
                text,
                timed if words else (),
                1.0,
            )
        )
        start_us = end_us + 1_000_000
    return tuple(made)


def understand(
    lines: Sequence[str],
    *,
    people: dict[str, str] | None = None,
    wearer: str = "",
    words: bool = False,
    start_us: int = MONDAY_US,
    triggers: tuple[str, ...] = TRIGGERS,
) -> Understanding:
    """Run the rules over lines."""
    said = utterances(lines, words=words, start_us=start_us)
    return RulesExtractor().extract(Dialogue(said, "Europe/Berlin", wearer, people or {}, triggers))


def rough(line: str) -> str:
    """Return a line as the built-in recogniser would write it: no capitals, no punctuation."""
    speaker, _, text = line.partition(": ")
    return f"{speaker}: " + " ".join(re.sub(r"[^\w' ]", " ", text.casefold()).split())


def local(due_us: int | None, has_time: bool, certain: bool) -> str:
    """Write a due time as the labels do."""
    if due_us is None:
        return ""
    at = datetime.fromtimestamp(due_us / 1_000_000, BERLIN)
    return ("" if certain else "~") + at.strftime("%Y-%m-%d %H:%M" if has_time else "%Y-%m-%d")
