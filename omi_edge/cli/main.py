"""`omi-edge`: the table of verbs, the options before them, and how errors end."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from omi_edge import __version__
from omi_edge.cli.settings import Settings
from omi_edge.config import PREFIX
from omi_edge.errors import BadInput, OmiEdgeError, UsageError
from omi_edge.web.wire import Problem

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""

VERBS = {
    # verb: where it is, and the first line of its help; it is imported when it is called
    "init": ("omi_edge.cli.setup:init", "Make the encrypted file."),
    "run": ("omi_edge.cli.run:run", "Run the daemon until it is told to stop."),
    "demo": (
        "omi_edge.cli.demo:demo",
        "Watch a spoken conversation arrive over a pendant's wire format and come out as text, tasks and memories.",
    ),
    "import": ("omi_edge.cli.imports:import_", "Take recordings in, as if they had been heard."),
    "stream": (
        "omi_edge.cli.stream:stream",
        "Send a recording, a tone or a microphone to a daemon's socket as if it were spoken now.",
    ),
    "list": ("omi_edge.cli.data:list_", "List conversations, newest first."),
    "show": ("omi_edge.cli.data:show", "Show one conversation with everything derived from it."),
    "search": ("omi_edge.cli.data:search", "Find what was said, with the second of audio that proves it."),
    "memories": ("omi_edge.cli.data:memories", "List what is remembered."),
    "tasks": ("omi_edge.cli.tasks:tasks", "List, add, finish and delete tasks."),
    "correct": ("omi_edge.cli.transcripts:correct", "Put TEXT in the place of what was understood."),
    "corrections": (
        "omi_edge.cli.transcripts:corrections",
        "Show what was put right in a conversation, and take it back.",
    ),
    "versions": (
        "omi_edge.cli.transcripts:versions",
        "List, show, compare and choose the versions of a conversation's transcript.",
    ),
    "reprocess": (
        "omi_edge.cli.reprocess:reprocess",
        "Transcribe a conversation, those of a time, or all of them anew.",
    ),
    "vocabulary": (
        "omi_edge.cli.vocabulary:vocabulary",
        "List words and names that recognisers should expect; add and remove them.",
    ),
    "rules": (
        "omi_edge.cli.rules:rules",
        "List correction rules; add, try and remove them, and apply them to what is there.",
    ),
    "people": (
        "omi_edge.cli.people:people",
        "List people whose names recognisers should expect; add, change and forget them.",
    ),
    "close": ("omi_edge.cli.data:close", "End a conversation by hand."),
    "export": ("omi_edge.cli.data:export", "Write everything as one JSON document."),
    "devices": ("omi_edge.cli.devices:devices", "Find, pair, show and set pendants."),
    "sources": ("omi_edge.cli.sources:sources", "List what audio came from; rename, refuse and merge."),
    "pause": ("omi_edge.cli.recording:pause", "Record nothing for a while."),
    "resume": ("omi_edge.cli.recording:resume", "Record again."),
    "off-record": ("omi_edge.cli.recording:off_record", "Be off the record for a while."),
    "bookmarks": ("omi_edge.cli.recording:bookmarks", "List the moments that the wearer marked, and mark one."),
    "ledger": ("omi_edge.cli.ledger:ledger", "Show what became of every second of a day."),
    "status": ("omi_edge.cli.service:status", "Show what works, what waits and what needs attention."),
    "notices": ("omi_edge.cli.service:notices", "Show what the owner should know, and acknowledge it."),
    "models": ("omi_edge.cli.models:models", "List, fetch, check and carry model files."),
    "evaluate": (
        "omi_edge.cli.evaluate:evaluate",
        "Count the errors of recognisers on recordings with a known text, and say how fast they are.",
    ),
    "bench": ("omi_edge.cli.bench:bench", "Measure this machine, and say which settings suit it."),
    "doctor": ("omi_edge.cli.doctor:doctor", "Check this machine; each finding with its cure."),
    "virtual-pendant": (
        "omi_edge.cli.virtual_pendant:virtual_pendant",
        "Be a pendant that unmodified bleak sees, on a D-Bus of its own, until Ctrl-C.",
    ),
    "config": ("omi_edge.cli.setup:config", "Check and show the settings."),
    "token": ("omi_edge.cli.setup:token", "Make, list and revoke tokens for the API."),
}


class VerbTable(click.Group):
    """A group that knows its verbs by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group; in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group; a verb that is not known is told with the nearest that is."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, 1)
            raise click.UsageError(
                f"there is no verb {args[0]!r}" + (f", did you mean {near[0]}?" if near else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Group; without importing the verbs."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, summary) for name, (_, summary) in VERBS.items()])


@click.group(cls=VerbTable, subcommand_metavar="VERB …", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Read settings from FILE.")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Use the data folder DIR.")
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), metavar="F", help="Read the passphrase from F (mode 0600)."
)
@click.option("--passphrase-fd", type=int, metavar="N", help="Read the passphrase from file descriptor N.")
@click.option("--passphrase-command", metavar="CMD", help="Take what CMD prints as the passphrase.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON; errors too.")
@click.option("--quiet", is_flag=True, help="Print results and errors only.")
@click.version_option(__version__, prog_name="omi-edge")
@click.pass_context
def cli(
    ctx: click.Context,
    config: Path | None,
    data: Path | None,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    passphrase_command: str | None,
    json_wanted: bool,
    quiet: bool,
) -> None:
    """A fully local memory for the wearer of an Omi pendant.

    While a daemon runs on the data folder, verbs ask it and need no passphrase; otherwise they open the encrypted
    file themselves. `omi-edge VERB --help` shows examples.
    """
    ctx.obj = Settings(config, data, passphrase_file, passphrase_fd, passphrase_command, json_wanted, quiet)


def main() -> None:
    """Run the verb of the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one verb; return the exit code. Errors are told in one sentence, as a problem document with --json."""
    as_json = "--json" in arguments
    try:
        code = cli.main(list(arguments), prog_name="omi-edge", standalone_mode=False)
        sys.stdout.flush()
    except OmiEdgeError as error:
        _tell(error, as_json)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.UsageError as error:
        _tell(UsageError(_usage_sentence(error)), as_json)
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; the interpreter would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 told in one line
        if os.environ.get(PREFIX + "LOG_LEVEL") == "debug":
            traceback.print_tb(error.__traceback__)  # without the error's own text, which may hold content
        _tell(OmiEdgeError(_fault_sentence(error)), as_json)
        return OmiEdgeError.exit_code
    return code if isinstance(code, int) else 0


def _usage_sentence(error: click.UsageError) -> str:
    message = error.format_message()
    path = error.ctx.command_path if error.ctx is not None else "omi-edge"
    joined = f"{message} See" if message.endswith(("?", "?)")) else f"{message.rstrip('.')}; see"
    return f"{joined[:1].lower()}{joined[1:]}: {path} --help"


def _fault_sentence(error: Exception) -> str:
    """Say where a fault of the program is, without its text, which may hold content."""
    ours = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}omi_edge{os.sep}" in frame.filename
    ]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"
    return (
        f"an unexpected {type(error).__name__} at {where}, a fault of the program: please report this line. "
        f"{PREFIX}LOG_LEVEL=debug shows the way there."
    )


def _tell(error: OmiEdgeError, as_json: bool) -> None:
    if as_json:
        _print_problem(error.slug, error.status, str(error), error.field if isinstance(error, BadInput) else None)
    else:
        print(f"omi-edge: {error}", file=sys.stderr)


def _print_problem(slug: str, status: int, detail: str, field: str | None = None) -> None:
    """Print the same document that the API answers."""
    problem = Problem(f"urn:omi-edge:problem:{slug}", slug.replace("-", " ").capitalize(), status, detail, field)
    print(msgspec.json.encode(problem).decode(), file=sys.stderr)
