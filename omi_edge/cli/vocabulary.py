"""`vocabulary`: the owner's words and names, and what was put right often enough to become one."""

from __future__ import annotations

import click

from omi_edge.cli.present import moment, plain, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.web import wire


@verb_group(
    "vocabulary",
    lists=True,
    examples=("omi-edge vocabulary", "omi-edge vocabulary add Marguerite", "omi-edge vocabulary remove Marguerite"),
)
@click.pass_context
def vocabulary(ctx: click.Context) -> None:
    """List words and names that recognisers should expect; add and remove them.

    Without a further verb: list them, and what was corrected by hand at least twice, which is offered, never taken.
    """
    if ctx.invoked_subcommand is None:
        run_verb(_list(ctx.ensure_object(Settings)))


@vocabulary.command("add", cls=Verb, examples=("omi-edge vocabulary add Marguerite", "omi-edge vocabulary add 'Dr Wu'"))
@click.argument("text", metavar="WORD")
@pass_settings
def add(settings: Settings, text: str) -> None:
    """Add a word, or a name of several."""
    run_verb(_add(settings, text))


@vocabulary.command("remove", cls=Verb, examples=("omi-edge vocabulary remove Marguerite",))
@click.argument("text", metavar="WORD")
@pass_settings
def remove(settings: Settings, text: str) -> None:
    """Remove a word."""
    run_verb(_remove(settings, text))


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/vocabulary", returns=wire.Vocabulary)
    if settings.json:
        return print_json(found)
    rows = [[one.text, moment(one.created, settings.zone), one.by] for one in found.words]
    print_table(["word", "added", "by"], rows, nothing="No word yet; `omi-edge vocabulary add WORD` adds one.")
    if found.suggestions:
        print("\nCorrected more than once; `omi-edge vocabulary add WORD` takes one")
        for one in found.suggestions:
            print(f"  {plain(one.before)} → {plain(one.after)}  ({one.count} times)")
    return None


async def _add(settings: Settings, text: str) -> None:
    async with api(settings) as client:
        made = await client.request(
            "POST", "/v1/vocabulary", body=wire.VocabularyNew(text), returns=wire.VocabularyWord
        )
    if settings.json:
        return print_json(made)
    return settings.say(f"{plain(made.text)} is in the vocabulary.")


async def _remove(settings: Settings, text: str) -> None:
    async with api(settings) as client:
        await client.request("DELETE", "/v1/vocabulary", query={"text": text}, returns=type(None))
    settings.say(f"{plain(text)} is no longer in the vocabulary.")
