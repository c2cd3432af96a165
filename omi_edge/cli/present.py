"""How results are shown: JSON as the API gives it, tables on a terminal, aligned text in a pipe."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from unicodedata import bidirectional, category
from zoneinfo import ZoneInfo

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from omi_edge.cli.settings import Settings

PROSE = ("title", "text", "task", "memory", "message", "found")
"""Columns of free text, which may be wrapped."""
INDENT = "    "
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Marks that turn the text after them around (Unicode bidirectional classes)."""


def print_json(answer: object) -> None:
    """Print ``answer`` as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    """Print rows below headers; ``nothing`` when there are none. Nothing is cut off: ids are there to be copied."""
    if not rows:
        print(nothing)
    elif sys.stdout.isatty():
        console = Console(markup=False, highlight=False, emoji=False)
        first, *rest = laid_out(headers, rows, console.width)
        console.print(Text(first, style="bold"), soft_wrap=True)
        print("\n".join(rest))
    else:
        print("\n".join(aligned([headers, *rows])))


def laid_out(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return lines for a terminal of ``width`` cells: where a row is wider, its prose goes below it, indented."""
    lines = aligned([headers, *rows])
    below = next((column for column, name in enumerate(headers) if name in PROSE), None)
    if below is None or max(map(cell_len, lines)) <= width:
        return lines
    kept = aligned([[cell for column, cell in enumerate(row) if column != below] for row in (headers, *rows)])
    found = [kept[0]]
    for line, row in zip(kept[1:], rows, strict=True):
        found += [
            line,
            *textwrap.wrap(plain(row[below]), max(width, 20), initial_indent=INDENT, subsequent_indent=INDENT),
        ]
    return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line a row, columns two spaces apart, without spaces at the ends."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def plain(text: str) -> str:
    """Return ``text`` on one line, without characters that a terminal would obey: a file's name may hold any."""
    return "".join(
        "\ufffd" if category(sign) == "Cc" or bidirectional(sign) in _TURNING else sign
        for sign in " ".join(text.split())
    )


def moment(stamp: str | None, zone: ZoneInfo, *, seconds: bool = False) -> str:
    """Return an RFC 3339 time as the wearer's clock shows it; a dash for none."""
    if not stamp:
        return "–"
    return datetime.fromisoformat(stamp).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def due(stamp: str | None, has_time: bool, certain: bool, zone: ZoneInfo) -> str:
    """Return when a task is due: with its time only when one was said, with a question mark when uncertain."""
    if not stamp:
        return "–"
    when = datetime.fromisoformat(stamp)
    with contextlib.suppress(OverflowError):  # the last day of the calendar has no local time in the far east
        when = when.astimezone(zone)
    text = when.strftime("%a %Y-%m-%d %H:%M" if has_time else "%a %Y-%m-%d")
    return text if certain else text + " ?"


def length(seconds: float) -> str:
    """Return a duration as people say it: ``3:07``, ``1:02:03``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def size(count: float) -> str:
    """Return a number of bytes as people say it, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def wants_progress(settings: Settings) -> bool:
    """Say whether somebody watches who would like a progress bar."""
    return sys.stderr.isatty() and not settings.quiet and not settings.json
