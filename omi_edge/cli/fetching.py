"""What the verbs that fetch models share: the shelf, the hub, the question about a licence, progress."""

from __future__ import annotations

import contextlib
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from omi_edge.cli.present import size, wants_progress
from omi_edge.cli.settings import Settings
from omi_edge.clock import SystemClock
from omi_edge.errors import ConfigError
from omi_edge.models.hub import Advance, Hub
from omi_edge.models.manifest import Model
from omi_edge.models.pull import Accept
from omi_edge.models.pull import Progress as Fetching
from omi_edge.models.shelf import Shelf
from omi_edge.paths import models_folder


def shelf_of(settings: Settings) -> Shelf:
    """Return the models of this data folder."""
    return Shelf(models_folder(settings.folder, settings.config.models.folder))


def hub(settings: Settings, models: Sequence[Model]) -> Hub:
    """Return the configured hub, saying so; with the owner's token where one of ``models`` demands it."""
    config = settings.config.models
    settings.say(f"This connects to {config.endpoint} and to where it redirects; nothing else of omi-edge does.")
    token = _token(config.token_file) if any(model.token for model in models) else ""
    return Hub(config.endpoint, SystemClock(), proxy=config.proxy, ca_file=config.ca_file, token=token)


def accept(settings: Settings, there: Hub, accepted: frozenset[str], shown: Progress | None) -> Accept:
    """Return what shows a licence, and asks where nobody has ``accepted`` it yet."""

    def ask(model: Model) -> bool:
        about = "" if model.size is None else f", {size(model.size)}"
        settings.warn(
            f"{model.name}: licence {model.licence or 'not stated'}, {there.endpoint / model.repository}{about}"
        )
        if model.name in accepted or (model.licence and model.licence in accepted):
            return True
        if settings.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        if shown is not None:
            shown.stop()
        answer = click.confirm(f"Accept the licence {model.licence or 'that is not stated'}?", err=True)
        if shown is not None:
            shown.start()
        return answer

    return ask


def begin(shown: Progress | None) -> Fetching:
    """Return what begins a bar for each file."""

    def file(model: str, name: str, count: int) -> Advance:
        if shown is None:
            return lambda _: None
        task = shown.add_task(f"{model} {name}", total=count)
        return lambda there: shown.update(task, completed=there)

    return file


@contextlib.contextmanager
def bars(settings: Settings) -> Iterator[Progress | None]:
    """Have bars on the terminal, where somebody watches."""
    if not wants_progress(settings):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        yield shown


def _token(file: str) -> str:
    """Return the hub's token; "" when none is set. Raises ConfigError for a file that others may read, or empty."""
    if not file:
        return ""
    place = Path(file).expanduser()
    try:
        mode = place.stat().st_mode
        first = place.read_text(encoding="ascii").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"models.token_file {file} cannot be read; it must be a text file of your own.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"models.token_file {file} may be read by others; run: chmod 600 {file}")
    if not first or not first.isprintable() or " " in first:
        raise ConfigError(f"models.token_file {file} must hold the token in its first line.")
    return first
