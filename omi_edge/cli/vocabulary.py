"""`vocabulary`: the owner's words and names, and what was put right often enough to become one."""

from __future__ import annotations

import click

from omi_edge.cli.present import moment, plain, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.errors import BadInput, NotFound
from omi_edge.web import wire, wordwire
from omi_edge.wording import plain_word


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


@vocabulary.command("suggestions", cls=Verb, examples=("omi-edge vocabulary suggestions",))
@pass_settings
def suggestions(settings: Settings) -> None:
    """List what was put right by hand in the same way at least twice."""
    run_verb(_suggest(settings))


@vocabulary.command(
    "take",
    cls=Verb,
    examples=("omi-edge vocabulary take margaret Marguerite --word", "omi-edge vocabulary take mar Marguerite --rule"),
)
@click.argument("before", metavar="HEARD")
@click.argument("after", metavar="MEANT")
@click.option("--word", is_flag=True, help="MEANT becomes a word that recognisers expect.")
@click.option("--rule", is_flag=True, help="MEANT is put wherever HEARD is recognised from now on.")
@pass_settings
def take(settings: Settings, before: str, after: str, word: bool, rule: bool) -> None:
    """Take what is offered, as a word, as a rule, or both."""
    if not (word or rule):
        raise BadInput("say as what: --word, --rule or both.")
    run_verb(_take(settings, before, after, word=word, rule=rule))


@vocabulary.command("dismiss", cls=Verb, examples=("omi-edge vocabulary dismiss margaret Marguerite",))
@click.argument("before", metavar="HEARD")
@click.argument("after", metavar="MEANT")
@pass_settings
def dismiss(settings: Settings, before: str, after: str) -> None:
    """Never offer this again."""
    run_verb(_dismiss(settings, before, after))


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/vocabulary", returns=wire.Vocabulary)
    if settings.json:
        return print_json(found)
    rows = [[one.text, moment(one.created, settings.zone), one.by] for one in found.words]
    print_table(["word", "added", "by"], rows, nothing="No word yet; `omi-edge vocabulary add WORD` adds one.")
    if found.suggestions:
        print("")
        _offer(found.suggestions)
    return None


async def _suggest(settings: Settings) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/vocabulary", returns=wire.Vocabulary)
    if settings.json:
        return print_json(found.suggestions)
    if not found.suggestions:
        return settings.say("Nothing was corrected in the same way more than once.")
    return _offer(found.suggestions)


def _offer(offered: list[wire.Suggestion]) -> None:
    print("Corrected more than once. Take one with `omi-edge vocabulary take HEARD MEANT --word` or `--rule`,")
    print("or be done with it: `omi-edge vocabulary dismiss HEARD MEANT`")
    for one in offered:
        there = "" if one.as_word else ", although the word is in the vocabulary: a rule would help"
        print(f"  {plain(one.before)} → {plain(one.after)}  ({one.count} times{there})")


async def _take(settings: Settings, before: str, after: str, *, word: bool, rule: bool) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/vocabulary", returns=wire.Vocabulary)
        offered = {(plain_word(one.before), plain_word(one.after)) for one in found.suggestions}
        if (plain_word(before), plain_word(after)) not in offered:
            raise NotFound("this is not offered; `omi-edge vocabulary suggestions` lists what is.")
        if word:
            await client.request("POST", "/v1/vocabulary", body=wire.VocabularyNew(after), returns=wire.VocabularyWord)
            settings.say(f"{plain(after)} is in the vocabulary.")
        if rule:
            new = wordwire.RuleNew(pattern=before, replacement=after)
            made = await client.request("POST", "/v1/rules", body=new, returns=wordwire.Rule)
            settings.say(f"{made.id}: {plain(before)} → {plain(after)}, from now on.")


async def _dismiss(settings: Settings, before: str, after: str) -> None:
    async with api(settings) as client:
        body = wordwire.Dismissal(before, after)
        await client.request("POST", "/v1/vocabulary/dismiss", body=body, returns=type(None))
    settings.say(f"{plain(before)} → {plain(after)} is not offered again.")


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
