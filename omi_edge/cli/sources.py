"""`sources`: what audio came from: rename one, take nothing more from its clients, make two of them one."""

from __future__ import annotations

import click

from omi_edge.cli.named import named
from omi_edge.cli.present import moment, print_json, print_table, size
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.errors import UsageError
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

HEADERS = ["name", "id", "kind", "heard until", "audio", "state"]
_source = click.argument("source", metavar="SOURCE")


@verb_group(
    "sources",
    lists=True,
    examples=("omi-edge sources", "omi-edge sources rename src_01k9z… 'kitchen tablet'"),
)
@click.pass_context
def sources(ctx: click.Context) -> None:
    """List what audio came from; rename, refuse and merge.

    Without a further verb: list them. SOURCE is an id, what you call it, or the beginning of either.
    """
    if ctx.invoked_subcommand is None:
        run_verb(_list(ctx.ensure_object(Settings)))


@sources.command("rename", cls=Verb, examples=("omi-edge sources rename tablet 'kitchen tablet'",))
@_source
@click.argument("name", metavar="NAME")
@pass_settings
def rename(settings: Settings, source: str, name: str) -> None:
    """Call a source otherwise."""
    run_verb(_send(settings, source, "PATCH", "", wire.SourceChange(name)))


@sources.command("refuse", cls=Verb, examples=("omi-edge sources refuse tablet",))
@_source
@pass_settings
def refuse(settings: Settings, source: str) -> None:
    """Take nothing more from the clients of a source; what was heard through it stays."""
    run_verb(_send(settings, source, "POST", "/refuse"))


@sources.command("allow", cls=Verb, examples=("omi-edge sources allow tablet",))
@_source
@pass_settings
def allow(settings: Settings, source: str) -> None:
    """Take audio again from the clients of a source that was refused."""
    run_verb(_send(settings, source, "POST", "/allow"))


@sources.command("merge", cls=Verb, examples=("omi-edge sources merge 'old tablet' 'new tablet' --yes",))
@_source
@click.argument("into", metavar="INTO")
@click.option("--yes", is_flag=True, help="Merge them; without this nothing is changed. It cannot be undone.")
@pass_settings
def merge(settings: Settings, source: str, into: str, yes: bool) -> None:
    """Make two sources one: what the first holds and gets from now on goes into the second."""
    run_verb(_merge(settings, source, into, yes))


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        page = await client.request("GET", "/v1/sources", returns=wire.Page[wire.SourceItem])
    if settings.json:
        return print_json(page)
    return print_table(HEADERS, [_row(item, settings) for item in page.items], nothing="Nothing was heard yet.")


async def _send(settings: Settings, text: str, method: str, path: str, body: wire.SourceChange | None = None) -> None:
    async with api(settings) as client:
        source = await _meant(client, text)
        item = await client.request(method, f"/v1/sources/{source.id}{path}", body=body, returns=wire.SourceItem)
    _print(settings, item)


async def _merge(settings: Settings, text: str, into: str, yes: bool) -> None:
    async with api(settings) as client:
        source, other = await _meant(client, text), await _meant(client, into)
        if not yes:
            raise UsageError(
                f"nothing was changed: give --yes to move what {source.name} holds into {other.name}, and what its "
                "clients send from now on. It cannot be undone."
            )
        item = await client.request(
            "POST", f"/v1/sources/{source.id}/merge", body=wire.SourceMerge(other.id), returns=wire.SourceMerged
        )
    _print(settings, item)
    if not item.moved:
        settings.say(f"What {source.name} holds stays where it is: {item.stays}")


async def _meant(client: ApiClient, text: str) -> wire.SourceItem:
    page = await client.request("GET", "/v1/sources", returns=wire.Page[wire.SourceItem])
    return named(text, page.items, "source")


def _print(settings: Settings, item: wire.SourceItem) -> None:
    if settings.json:
        print_json(item)
    else:
        print_table(HEADERS, [_row(item, settings)], nothing="")


def _row(item: wire.SourceItem, settings: Settings) -> list[str]:
    state = "refused" if item.refused else "ended" if item.ended else ""
    return [item.name, item.id, item.kind, moment(item.heard_until, settings.zone), size(item.audio_bytes), state]
