"""`rules`: what is put in the place of words that recognisers get wrong again and again."""

from __future__ import annotations

import click

from omi_edge.cli.present import moment, plain, print_json, print_table
from omi_edge.cli.reprocess import watched
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.errors import BadInput
from omi_edge.web import wire, wordwire


@verb_group(
    "rules",
    lists=True,
    examples=(
        "omi-edge rules add 'see phi ra' Zephira",
        r"omi-edge rules add --regex '\b(\d+) euro\b' '€\1'",
        "omi-edge rules try 'call see phi ra'",
        "omi-edge rules apply --all",
    ),
)
@click.pass_context
def rules(ctx: click.Context) -> None:
    """List correction rules; add, try and remove them, and apply them to what is there."""
    if ctx.invoked_subcommand is None:
        run_verb(_list(ctx.ensure_object(Settings)))


@rules.command("list", cls=Verb, examples=("omi-edge rules list",))
@pass_settings
def list_(settings: Settings) -> None:
    """List the rules in the order in which they are applied."""
    run_verb(_list(settings))


@rules.command(
    "add",
    cls=Verb,
    examples=(
        "omi-edge rules add 'see phi ra' Zephira",
        "omi-edge rules add um ''",
        r"omi-edge rules add --regex '\b(\d+) euro\b' '€\1'",
    ),
)
@click.argument("pattern", metavar="HEARD")
@click.argument("replacement", metavar="MEANT")
@click.option(
    "--regex", is_flag=True, help="HEARD is a regular expression (RE2); groups in MEANT are \\1 or \\g<name>."
)
@pass_settings
def add(settings: Settings, pattern: str, replacement: str, regex: bool) -> None:
    """Put MEANT wherever HEARD is recognised from now on.

    HEARD is any number of whole words, in whatever case; an empty MEANT takes them out. What was recognised is kept.
    """
    run_verb(_add(settings, _new(pattern, replacement, regex)))


@rules.command("remove", cls=Verb, examples=("omi-edge rules remove rul_01k9z…",))
@click.argument("rule_id", metavar="ID")
@pass_settings
def remove(settings: Settings, rule_id: str) -> None:
    """Remove a rule. What it changed stays, until `omi-edge rules apply` goes over it."""
    run_verb(_remove(settings, rule_id))


@rules.command(
    "try",
    cls=Verb,
    examples=("omi-edge rules try 'call see phi ra'", "omi-edge rules try 'five euro' --with five 5"),
)
@click.argument("text", metavar="TEXT")
@click.option("--with", "with_", nargs=2, metavar="HEARD MEANT", help="This rule alone, without adding it.")
@click.option("--regex", is_flag=True, help="The rule of --with is a regular expression.")
@pass_settings
def try_(settings: Settings, text: str, with_: tuple[str, str] | None, regex: bool) -> None:
    """Show what the rules make of TEXT; nothing is changed."""
    if regex and not with_:
        raise BadInput("--regex says what the rule of --with is; add that.")
    run_verb(_try(settings, text, _new(*with_, regex) if with_ else None))


@rules.command(
    "apply",
    cls=Verb,
    examples=("omi-edge rules apply --conversation con_01k9z…", "omi-edge rules apply --all --background"),
)
@click.option("--conversation", "conversation_id", metavar="ID", help="One conversation.")
@click.option("--all", "everything", is_flag=True, help="Every conversation.")
@click.option("--background", is_flag=True, help="Do not wait; a running daemon works on.")
@pass_settings
def apply(settings: Settings, conversation_id: str | None, everything: bool, background: bool) -> None:
    """Apply the rules of now to what was heard before.

    Each conversation in which that changes something gets a new version of its transcript; the one before stays, and
    `omi-edge versions rollback` shows it again. What was put right by hand stays as it is.
    """
    if bool(conversation_id) + everything != 1:
        raise BadInput("name one of these: --conversation ID, or --all.")
    run_verb(_apply(settings, wordwire.RulesApply(conversation_id=conversation_id, all=everything), background))


@rules.command("changes", cls=Verb, examples=("omi-edge rules changes con_01k9z…",))
@click.argument("conversation_id", metavar="CONVERSATION")
@pass_settings
def changes(settings: Settings, conversation_id: str) -> None:
    """Show what was heard in a conversation where rules changed it, and which did."""
    run_verb(_changes(settings, conversation_id))


def _new(pattern: str, replacement: str, regex: bool) -> wordwire.RuleNew:
    return wordwire.RuleNew(pattern=pattern, replacement=replacement, kind="regex" if regex else "plain")


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        page = await client.request("GET", "/v1/rules", returns=wire.Page[wordwire.Rule])
    if settings.json:
        return print_json(page)
    rows = [
        [one.id, one.kind, plain(one.pattern), plain(one.replacement), moment(one.created, settings.zone), one.by]
        for one in page.items
    ]
    return print_table(
        ["id", "kind", "heard", "meant", "added", "by"], rows,
        nothing="No rule yet; `omi-edge rules add HEARD MEANT` adds one.",
    )  # fmt: skip


async def _add(settings: Settings, new: wordwire.RuleNew) -> None:
    async with api(settings) as client:
        made = await client.request("POST", "/v1/rules", body=new, returns=wordwire.Rule)
    if settings.json:
        return print_json(made)
    settings.say(f"{made.id}: {plain(made.pattern)} → {plain(made.replacement) or 'nothing'}, from now on.")
    return settings.say("`omi-edge rules apply --all` applies it to what is there.")


async def _remove(settings: Settings, rule_id: str) -> None:
    async with api(settings) as client:
        await client.request("DELETE", f"/v1/rules/{rule_id}", returns=type(None))
    settings.say(f"{rule_id} is removed.")


async def _try(settings: Settings, text: str, rule: wordwire.RuleNew | None) -> None:
    body = wordwire.RuleTry(text=text, rule=rule)
    async with api(settings) as client:
        tried = await client.request("POST", "/v1/rules/try", body=body, returns=wordwire.RuleTried)
    if settings.json:
        return print_json(tried)
    if not tried.changes:
        return settings.say("No rule changes that.")
    print(plain(tried.after))
    return _tell(tried.changes)


async def _apply(settings: Settings, which: wordwire.RulesApply, background: bool) -> None:
    async with api(settings) as client:
        asked = await client.request("POST", "/v1/rules/apply", body=which, returns=wire.Reprocessing)
        now = await watched(settings, client, asked, background)
    if settings.json:
        return print_json(now)
    if background:
        settings.say(f"{now.id}: {len(now.conversations)} to do. `omi-edge reprocess --list` says how far it is.")
        return None
    made = [one for one in now.conversations if one.version_id is not None]
    for one in made:
        settings.say(f"{one.conversation_id}: {one.version_id}, shown from now on.")
    settings.say(f"The rules changed {len(made)} of {len(now.conversations)} conversations.")
    return None


async def _changes(settings: Settings, conversation_id: str) -> None:
    path = f"/v1/conversations/{conversation_id}/transcript"
    async with api(settings) as client:
        found = await client.request("GET", path, returns=wire.Transcript)
    if settings.json:
        return print_json(found.heard)
    for one in found.heard:
        print(f"{moment(one.at, settings.zone)}  {plain(one.heard)}")
        _tell(one.changes)
    if not found.heard:
        settings.say("No rule changed anything in this conversation.")
    return None


def _tell(done: list[wordwire.RuleEffect]) -> None:
    for one in done:
        name = f"  ({one.rule_id}: {plain(one.rule)})" if one.rule_id else ""
        print(f"  {plain(one.before)} → {plain(one.after) or 'nothing'}{name}")
