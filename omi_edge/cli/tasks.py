"""`tasks`: list, add, finish, open again and delete."""

from __future__ import annotations

import click

from omi_edge.cli.data import NOTHING_MATCHES, Query, by_source_option, filters, groups, limited, narrowed, pages
from omi_edge.cli.present import due, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.cli.timetext import due_text
from omi_edge.errors import UsageError
from omi_edge.web import wire


@verb_group(
    "tasks",
    lists=True,
    examples=(
        "omi-edge tasks",
        "omi-edge tasks --all --json",
        "omi-edge tasks add 'call the dentist' --due 2026-03-06",
    ),
)
@click.option("--open/--all", "only_open", default=True, help="Leave finished ones out, as usual, or show them too.")
@narrowed("source", "device", "client")
@by_source_option
@limited(10_000, default=50)
@click.pass_context
def tasks(ctx: click.Context, /, only_open: bool, by_source: bool, limit: int, **where: str | None) -> None:
    """List, add, finish and delete tasks.

    Without a further verb: list them.
    """
    if ctx.invoked_subcommand is None:
        settings = ctx.ensure_object(Settings)
        query = filters(settings, **where)
        if by_source:
            run_verb(groups(settings, "/v1/tasks", query))
        else:
            run_verb(_list(settings, query | ({"state": "open"} if only_open else {}), limit))


@tasks.command("add", cls=Verb, examples=("omi-edge tasks add 'call the dentist' --due '2026-03-06 10:00'",))
@click.argument("text", nargs=-1, required=True)
@click.option("--due", "until", metavar="TIME", help="When it is due, as the wearer's clock shows it.")
@click.option(
    "--priority", type=click.Choice(["low", "medium", "high"]), default="medium", show_default=True, help="How urgent."
)
@pass_settings
def add(settings: Settings, text: tuple[str, ...], until: str | None, priority: str) -> None:
    """Add a task by hand."""
    when = due_text(until, settings.zone) if until else None
    run_verb(_send(settings, "POST", "", wire.TaskNew(" ".join(text), when, priority=priority)))


@tasks.command("done", cls=Verb, examples=("omi-edge tasks done tsk_01k9z…",))
@click.argument("task_id", metavar="ID")
@pass_settings
def done(settings: Settings, task_id: str) -> None:
    """Mark a task as finished."""
    run_verb(_send(settings, "PATCH", f"/{task_id}", wire.TaskChange(state="completed")))


@tasks.command("reopen", cls=Verb, examples=("omi-edge tasks reopen tsk_01k9z…",))
@click.argument("task_id", metavar="ID")
@pass_settings
def reopen(settings: Settings, task_id: str) -> None:
    """Take a finished task up again."""
    run_verb(_send(settings, "PATCH", f"/{task_id}", wire.TaskChange(state="open")))


@tasks.command("delete", cls=Verb, examples=("omi-edge tasks delete tsk_01k9z… --yes",))
@click.argument("task_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Delete it; without this it is only shown.")
@pass_settings
def delete(settings: Settings, task_id: str, yes: bool) -> None:
    """Delete a task for good."""
    run_verb(_delete(settings, task_id, yes))


async def _list(settings: Settings, query: Query, limit: int) -> None:
    async with api(settings) as client:
        items, cursor = await pages(client, "/v1/tasks", query, limit, wire.TaskItem)
    if settings.json:
        return print_json(wire.Page(items, cursor))
    nothing = NOTHING_MATCHES if query.keys() - {"state"} else "No open task." if query else "No task yet."
    print_table(_HEADERS, [_row(item, settings) for item in items], nothing=nothing)
    if cursor:
        settings.say(f"There are more; give --limit above {limit}.")
    return None


async def _send(settings: Settings, method: str, path: str, body: wire.TaskNew | wire.TaskChange) -> None:
    async with api(settings) as client:
        item = await client.request(method, "/v1/tasks" + path, body=body, returns=wire.TaskItem)
    _print(settings, item)


async def _delete(settings: Settings, task_id: str, yes: bool) -> None:
    async with api(settings) as client:
        item = await client.request("GET", f"/v1/tasks/{task_id}", returns=wire.TaskItem)
        if yes:
            await client.request("DELETE", f"/v1/tasks/{task_id}", returns=type(None))
    _print(settings, item)
    if yes:
        settings.say("Deleted for good.")
    else:
        raise UsageError("nothing was deleted: give --yes to delete this task for good.")


def _print(settings: Settings, item: wire.TaskItem) -> None:
    if settings.json:
        print_json(item)
    else:
        print_table(_HEADERS, [_row(item, settings)], nothing="")


_HEADERS = ["id", "state", "due", "owner", "priority", "task"]


def _row(item: wire.TaskItem, settings: Settings) -> list[str]:
    when = due(item.due, item.due_has_time, item.due_certain, settings.zone)
    return [item.id, item.state, when, item.owner_name or item.owner, item.priority, item.description]
