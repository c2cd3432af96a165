"""`people`: whose names are known, and what language they speak."""

from __future__ import annotations

import click

from omi_edge.cli.named import named
from omi_edge.cli.present import moment, plain, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.errors import BadInput
from omi_edge.web import wire, wordwire
from omi_edge.web.client import ApiClient


@verb_group(
    "people",
    lists=True,
    examples=(
        "omi-edge people",
        "omi-edge people add Marguerite --language fr",
        "omi-edge people set Marguerite --language de",
        "omi-edge people forget Marguerite",
    ),
)
@click.pass_context
def people(ctx: click.Context) -> None:
    """List people whose names recognisers should expect; add, change and forget them."""
    if ctx.invoked_subcommand is None:
        run_verb(_list(ctx.ensure_object(Settings)))


@people.command("add", cls=Verb, examples=("omi-edge people add Marguerite --language fr",))
@click.argument("name", metavar="NAME")
@click.option("--language", default="", metavar="CODE", help="What they speak, like de; else as the settings say.")
@pass_settings
def add(settings: Settings, name: str, language: str) -> None:
    """Add somebody."""
    run_verb(_add(settings, wordwire.PersonNew(name=name, language=language)))


@people.command("set", cls=Verb, examples=("omi-edge people set Marguerite --language ''",))
@click.argument("who", metavar="NAME|ID")
@click.option("--name", metavar="NAME", help="Another name.")
@click.option("--language", metavar="CODE", help="What they speak, like de; '' for the language of the settings.")
@pass_settings
def set_(settings: Settings, who: str, name: str | None, language: str | None) -> None:
    """Change the name or the language of somebody."""
    if name is None and language is None:
        raise BadInput("say what is to be different: --name or --language.")
    run_verb(_set(settings, who, wordwire.PersonChange(name=name, language=language)))


@people.command("forget", cls=Verb, examples=("omi-edge people forget Marguerite",))
@click.argument("who", metavar="NAME|ID")
@pass_settings
def forget(settings: Settings, who: str) -> None:
    """Forget who somebody is. What they said stays, without the name."""
    run_verb(_forget(settings, who))


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        page = await client.request("GET", "/v1/people", returns=wire.Page[wordwire.Person])
    if settings.json:
        return print_json(page)
    rows = [
        [one.id, plain(one.name), one.language or "-", "wearer" if one.is_user else "",
         moment(one.created, settings.zone)]
        for one in page.items
    ]  # fmt: skip
    return print_table(
        ["id", "name", "language", "", "added"], rows, nothing="Nobody yet; `omi-edge people add NAME` adds somebody."
    )


async def _add(settings: Settings, new: wordwire.PersonNew) -> None:
    async with api(settings) as client:
        made = await client.request("POST", "/v1/people", body=new, returns=wordwire.Person)
    _tell(settings, made)


async def _set(settings: Settings, who: str, change: wordwire.PersonChange) -> None:
    async with api(settings) as client:
        one = await _meant(client, who)
        made = await client.request("PATCH", f"/v1/people/{one.id}", body=change, returns=wordwire.Person)
    _tell(settings, made)


async def _forget(settings: Settings, who: str) -> None:
    async with api(settings) as client:
        one = await _meant(client, who)
        await client.request("DELETE", f"/v1/people/{one.id}", returns=type(None))
    settings.say(f"{plain(one.name)} is forgotten.")


async def _meant(client: ApiClient, who: str) -> wordwire.Person:
    page = await client.request("GET", "/v1/people", returns=wire.Page[wordwire.Person])
    return named(who, page.items, "person")


def _tell(settings: Settings, one: wordwire.Person) -> None:
    if settings.json:
        return print_json(one)
    spoken = f"speaks {one.language}" if one.language else "speaks what the settings say"
    return settings.say(f"{one.id}: {plain(one.name)}, {spoken}.")
