"""docs/commands.md, made from the verbs themselves: ``python -m omi_edge.cli.reference > docs/commands.md``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from omi_edge.cli.main import cli
from omi_edge.cli.settings import Verb

TOP = """# Commands

Made from the commands' own help; a test keeps it equal to them. Options before the verb hold for every verb:
`omi-edge --data D --passphrase-file F list`. Exit codes are in the [README](../README.md#exit-codes), settings in
[config.toml](../config.toml).
"""


def render() -> str:
    """Return the whole page."""
    context = click.Context(cli, info_name="omi-edge", **cli.context_settings)
    lines = [TOP, "## omi-edge", "", *_options(cli, context)]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        lines += _section(command, click.Context(command, info_name=name, parent=context), 2)
    return "\n".join(lines).rstrip() + "\n"


def _section(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    yield from ("", f"{'#' * depth} {context.command_path}", "")
    yield from ("```", " ".join([context.command_path, *command.collect_usage_pieces(context)]), "```", "")
    yield from (" ".join(paragraph.split()) + "\n" for paragraph in (command.help or "").split("\n\n"))
    yield from _options(command, context)
    if isinstance(command, Verb) and command.examples:
        yield from ("", "```sh", *command.examples, "```")
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _section(child, click.Context(child, info_name=name, parent=context), depth + 1)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from ("| option | |", "| --- | --- |")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # an argument has no text of its own; it is in the usage
            name, text = (part.replace("|", "\\|") for part in record)
            yield f"| `{name}` | {text} |"


if __name__ == "__main__":
    print(render(), end="")
