"""`correct`, `corrections`, `versions`: what was understood wrongly, put right, and the versions of a transcript."""

from __future__ import annotations

import re
import sys

import click
from rich.console import Console
from rich.text import Text

from omi_edge.cli.present import moment, plain, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb, verb_group
from omi_edge.cli.timetext import utc_text
from omi_edge.clock import SystemClock
from omi_edge.errors import BadInput
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

LOOK_SECONDS = 0.2
"""Between two looks at what is still being built anew."""
CONTEXT_WORDS = 6
"""Equal words that are shown at each side of a difference."""
_REBUILT = ("extract", "embed")
_WORDS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


@verb(
    "correct",
    examples=(
        "omi-edge show con_01k9z… --ids",
        "omi-edge correct utt_01k9z… 'the meeting is on Tuesday'",
        "omi-edge correct utt_01k9z… --word 5 Tuesday",
        "omi-edge correct utt_01k9z… --to utt_01ka0… 'what the two of them really said'",
        "omi-edge correct con_01k9z… --from '2026-03-02 10:00:05' --until '2026-03-02 10:00:07' 'good morning'",
    ),
)
@click.argument("what", metavar="UTTERANCE|CONVERSATION")
@click.argument("text", metavar="TEXT")
@click.option("--word", metavar="N[-M]", help="Only this word of the utterance, or these; the first is 1.")
@click.option("--to", metavar="UTTERANCE", help="Up to this one: consecutive utterances, put right together.")
@click.option("--from", "from_", metavar="TIME", help="In a conversation: the words spoken from TIME on …")
@click.option("--until", metavar="TIME", help="… and before TIME.")
@pass_settings
def correct(
    settings: Settings, what: str, text: str, word: str | None, to: str | None, from_: str | None, until: str | None
) -> None:
    """Put TEXT in the place of what was understood.

    What stood there is kept: `omi-edge corrections` shows it and takes it back. Words that stay keep their times. An
    empty TEXT removes. Summary, tasks, memories and search follow.
    """
    first, last = _words(word)
    in_conversation = what.startswith("con_")
    if in_conversation and not (from_ and until):
        raise BadInput("in a conversation, say which words: --from TIME and --until TIME, or name an utterance.")
    new = wire.CorrectionNew(
        text=text,
        utterance_id=None if in_conversation else what,
        to_utterance_id=to,
        word=first,
        to_word=last,
        conversation_id=what if in_conversation else None,
        start=utc_text(from_, settings.zone) if from_ else None,
        end=utc_text(until, settings.zone) if until else None,
    )
    run_verb(_change(settings, "/v1/corrections", new))


def _words(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    found = _WORDS.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise BadInput("--word is a number like 5, or two like 5-7; the first word is 1.")
    return int(found[1]), int(found[2]) if found[2] else None


@verb_group("corrections", examples=("omi-edge corrections list con_01k9z…", "omi-edge corrections undo cor_01k9z…"))
def corrections() -> None:
    """Show what was put right in a conversation, and take it back."""


@corrections.command("list", cls=Verb, examples=("omi-edge corrections list con_01k9z…",))
@click.argument("conversation_id", metavar="CONVERSATION")
@pass_settings
def list_(settings: Settings, conversation_id: str) -> None:
    """List what was put right in a conversation, by whom and when, the oldest first."""
    run_verb(_list(settings, conversation_id))


async def _list(settings: Settings, conversation_id: str) -> None:
    query = {"conversation": conversation_id}
    async with api(settings) as client:
        page = await client.request("GET", "/v1/corrections", query=query, returns=wire.Page[wire.Correction])
    if settings.json:
        return print_json(page)
    rows = [
        [one.id, moment(one.created, settings.zone), one.by, _state(one), f"{_said(one.before)} → {_said(one.after)}"]
        for one in page.items
    ]
    return print_table(["id", "made", "by", "state", "text"], rows, nothing="Nothing was put right there.")


@corrections.command("undo", cls=Verb, examples=("omi-edge corrections undo cor_01k9z…",))
@click.argument("correction_id", metavar="ID")
@pass_settings
def undo(settings: Settings, correction_id: str) -> None:
    """Take a correction back: what stood there before stands there again."""
    run_verb(_change(settings, f"/v1/corrections/{correction_id}/undo", None))


@verb_group(
    "versions",
    examples=(
        "omi-edge versions list con_01k9z…",
        "omi-edge versions diff con_01k9z…",
        "omi-edge versions activate con_01k9z… ver_01k9z…",
        "omi-edge versions rollback con_01k9z…",
    ),
)
def versions() -> None:
    """List, show, compare and choose the versions of a conversation's transcript."""


_CONVERSATION = click.argument("conversation_id", metavar="CONVERSATION")


@versions.command("list", cls=Verb, examples=("omi-edge versions list con_01k9z…",))
@_CONVERSATION
@pass_settings
def versions_list(settings: Settings, conversation_id: str) -> None:
    """List the versions of a transcript, the oldest first."""
    run_verb(_versions(settings, "GET", f"/v1/conversations/{conversation_id}/versions"))


@versions.command("show", cls=Verb, examples=("omi-edge versions show con_01k9z… ver_01k9z…",))
@_CONVERSATION
@click.argument("version_id", metavar="VERSION")
@pass_settings
def versions_show(settings: Settings, conversation_id: str, version_id: str) -> None:
    """Show what one version says."""
    run_verb(_show(settings, f"/v1/conversations/{conversation_id}/versions/{version_id}"))


@versions.command(
    "diff",
    cls=Verb,
    examples=("omi-edge versions diff con_01k9z…", "omi-edge versions diff con_01k9z… ver_01k9z… ver_01ka0…"),
)
@_CONVERSATION
@click.argument("before", required=False)
@click.argument("after", required=False)
@pass_settings
def versions_diff(settings: Settings, conversation_id: str, before: str | None, after: str | None) -> None:
    """Compare two versions word by word.

    AFTER is the active version when it is left out, BEFORE the one whose words it shows, or the one that was active
    before. Removed words stand in [-…-], added ones in {+…+}; on a terminal they are red and green.
    """
    query = {name: value for name, value in (("before", before), ("after", after)) if value}
    run_verb(_diff(settings, f"/v1/conversations/{conversation_id}/diff", query))


@versions.command("activate", cls=Verb, examples=("omi-edge versions activate con_01k9z… ver_01k9z…",))
@_CONVERSATION
@click.argument("version_id", metavar="VERSION")
@pass_settings
def versions_activate(settings: Settings, conversation_id: str, version_id: str) -> None:
    """Show another version from now on; summary, tasks, memories and search follow."""
    run_verb(_versions(settings, "POST", f"/v1/conversations/{conversation_id}/versions/{version_id}/activate"))


@versions.command("rollback", cls=Verb, examples=("omi-edge versions rollback con_01k9z…",))
@_CONVERSATION
@pass_settings
def versions_rollback(settings: Settings, conversation_id: str) -> None:
    """Show the version again that was shown before this one."""
    run_verb(_versions(settings, "POST", f"/v1/conversations/{conversation_id}/rollback"))


async def settle(settings: Settings, client: ApiClient) -> None:
    """Wait until what is built on transcripts is built anew, where only this verb's own daemon would do it."""
    clock, told = SystemClock(), False
    while True:
        status = await client.request("GET", "/v1/status", returns=wire.Status)
        left = sum(status.jobs.get(stage, {}).get(state, 0) for stage in _REBUILT for state in ("queued", "running"))
        if status.web or not left:
            return
        if not told:
            settings.say("Summary, tasks and memories are being brought up to date.")
            told = True
        await clock.sleep(LOOK_SECONDS)


async def _change(settings: Settings, path: str, body: wire.CorrectionNew | None) -> None:
    async with api(settings) as client:
        done = await client.request("POST", path, body=body, returns=wire.Corrected)
        await settle(settings, client)
    if settings.json:
        return print_json(done)
    one = done.correction
    print(f"{one.id}  {_state(one)}")
    if one.state == "undone":
        lines = [("-", one.after), ("+", one.before)] if done.utterances else []
    else:
        lines = [("-", one.before), ("+", one.after)]
    for sign, text in lines:
        print(f"{sign} {plain(_said(text))}")
    if one.state == "undone" and not done.utterances:
        settings.say("The version that is shown did not have it; it will not be put into another one.")
    return None


def _state(one: wire.Correction) -> str:
    words = {"unplaced": "words not found", "hidden": "not in this version"}
    return words.get(one.state, one.state)


def _said(text: str) -> str:
    return text or "(nothing)"


async def _versions(settings: Settings, method: str, path: str) -> None:
    async with api(settings) as client:
        found = await client.request(method, path, returns=wire.Versions)
        await settle(settings, client)
    if settings.json:
        return print_json(found)
    rows = [
        [
            one.id,
            "shown" if one.active else "unfinished" if one.unfinished else "before" if one.id == found.previous else "",
            one.kind,
            one.engine or "–",
            moment(one.created, settings.zone, seconds=True),
            one.base_id or "–",
        ]
        for one in found.versions
    ]
    return print_table(["id", "state", "kind", "engine", "made", "made of"], rows, nothing="No version yet.")


async def _show(settings: Settings, path: str) -> None:
    async with api(settings) as client:
        found = await client.request("GET", path, returns=wire.Transcript)
    if settings.json:
        return print_json(found)
    for one in found.utterances:
        print(said_line(settings, one))
    return None


def said_line(settings: Settings, one: wire.Utterance, *, ids: bool = False) -> str:
    """Return what somebody said, as a line with its time; with its id before it where that is wanted."""
    at = moment(one.start, settings.zone, seconds=True)[11:]
    text = plain(one.text) or ("[removed]" if one.outcome == "text" else f"[{one.outcome}]")
    return f"{one.id}  " * ids + f"{at}  {one.speaker or '?':<10}  {text}"


async def _diff(settings: Settings, path: str, query: dict[str, str]) -> None:
    async with api(settings) as client:
        found = await client.request("GET", path, query=query, returns=wire.Diff)
    if settings.json:
        return print_json(found)
    print(plain(f"{_named(found.before)} → {_named(found.after)}"))
    print(f"{found.equal} words the same, {found.removed} removed, {found.added} added.")
    if found.removed or found.added:
        print()
        console = Console(markup=False, highlight=False, emoji=False)
        for line in _blocks(found, settings, colour=sys.stdout.isatty()):
            console.print(line, soft_wrap=True)
    return None


def _named(version: wire.TranscriptVersion) -> str:
    engine = f" by {version.engine}" if version.engine else ""
    return f"{version.id} ({version.kind}{engine})"


def _blocks(found: wire.Diff, settings: Settings, *, colour: bool) -> list[Text]:
    """Return one line for each place where the two differ, with its time and some words around it."""
    lines: list[Text] = []
    line: Text | None = None
    for n, part in enumerate(found.parts):
        if part.kind != "equal":
            if line is None:
                line = Text(moment(part.at, settings.zone, seconds=True)[11:] + " ")
                if n and found.parts[n - 1].kind == "equal":
                    line.append(" " + _end(found.parts[n - 1].text))
                lines.append(line)
            left, right, style = ("[-", "-]", "red") if part.kind == "removed" else ("{+", "+}", "green")
            line.append(" ")
            line.append(plain(part.text) if colour else f"{left}{plain(part.text)}{right}", style if colour else None)
        elif line is not None:
            if part.words <= 2 * CONTEXT_WORDS and n + 1 < len(found.parts):
                line.append(" " + plain(part.text))
            else:
                line.append(" " + _beginning(part.text))
                line = None
    return lines


def _end(text: str) -> str:
    words = plain(text).split()
    return ("… " if len(words) > CONTEXT_WORDS else "") + " ".join(words[-CONTEXT_WORDS:])


def _beginning(text: str) -> str:
    words = plain(text).split()
    return " ".join(words[:CONTEXT_WORDS]) + (" …" if len(words) > CONTEXT_WORDS else "")
