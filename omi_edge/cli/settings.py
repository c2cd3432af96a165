"""What the options before the verb say: configuration, data folder, passphrase, form of the output."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from omi_edge.config import Config, load, zone
from omi_edge.paths import default_config_file, default_data_folder


@dataclass
class Settings:
    """The options before the verb; files are read at first use."""

    config_option: Path | None = None
    data_option: Path | None = None
    passphrase_file: Path | None = None
    passphrase_fd: int | None = None
    passphrase_command: str | None = None
    json: bool = False
    quiet: bool = False

    @cached_property
    def config(self) -> Config:
        """Settings in force; ConfigError."""
        return load(self.config_file, os.environ)

    @property
    def config_file(self) -> Path | None:
        """The file that is read: ``--config``, else this user's when there is one."""
        if self.config_option is not None:
            return self.config_option
        usual = default_config_file()
        return usual if usual.is_file() else None

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return (self.data_option or default_data_folder()).expanduser().absolute()

    @property
    def zone(self) -> ZoneInfo:
        """The wearer's time zone."""
        return zone(self.config)

    def say(self, text: str) -> None:
        """Tell a person something beside the result: on standard error, not with --quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Tell a person what went wrong in a part of the work: on standard error, with --quiet too."""
        print(text, file=sys.stderr)


pass_settings = click.make_pass_decorator(Settings)


class Verb(click.Command):
    """A command with ``--json`` and examples at the end of its help."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples
        self.params.append(_json_option())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Command."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write_text(example)


class VerbGroup(Verb, click.Group):
    """A verb that has verbs of its own."""


def verb(name: str, *, examples: tuple[str, ...]) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function a verb of ``omi-edge``; its docstring is the help."""
    return click.command(name, cls=Verb, examples=examples)


def verb_group(
    name: str, *, examples: tuple[str, ...], lists: bool = False
) -> Callable[[Callable[..., Any]], VerbGroup]:
    """Make a function a group of verbs; with ``lists`` it does something itself when none follows."""
    return click.group(name, cls=VerbGroup, examples=examples, invoke_without_command=lists)


class Number(click.ParamType[float]):
    """A finite number that is at least ``least``: float() alone takes "nan" and "inf"."""

    name = "number"

    def __init__(self, least: float) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= self._least):
            self.fail(f"{value!r} is not a number of at least {self._least:g}", param, ctx)
        return number


def _json_option() -> click.Option:
    def want_json(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.ensure_object(Settings).json = True

    return click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=want_json, help="Print JSON instead of text; errors too."
    )
