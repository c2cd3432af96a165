"""`list`, `show`, `search`, `memories`, `close`, `export`: what is in the encrypted file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from zoneinfo import ZoneInfo

import click
import msgspec

from omi_edge.cli.offline import came_later
from omi_edge.cli.present import due, length, moment, plain, print_json, print_table, size
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.cli.timetext import utc_text
from omi_edge.cli.transcripts import said_line
from omi_edge.errors import DiskFull, OmiEdgeError
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

PAGE = 100
"""Items asked for at once."""

NOTHING_MATCHES = "Nothing matches."

T = TypeVar("T")
Query = dict[str, str]
Function = TypeVar("Function", bound=Callable[..., Any])

_WHERE = {
    "source": ("ID", "Only from this source."),
    "device": ("ID", "Only from this pendant."),
    "client": ("ID", "Only from this client of the API."),
    "since": ("TIME", "Only what began at TIME or later, as the wearer's clock shows it."),
    "until": ("TIME", "Only what began before TIME."),
    "speaker": ("NAME", "Only where this voice speaks."),
}


def narrowed(*names: str) -> Callable[[Function], Function]:
    """Give a verb the options that narrow a list, as keywords for `filters`."""

    def add(function: Function) -> Function:
        for name in reversed(names):
            metavar, text = _WHERE[name]
            function = click.option(f"--{name}", metavar=metavar, help=text)(function)
        return function

    return add


by_source_option = click.option("--by-source", is_flag=True, help="Count what each source holds instead.")


def limited(most: int, *, default: int) -> Callable[[Function], Function]:
    """Give a verb the option --limit."""
    kind = click.IntRange(1, most)
    return click.option("--limit", type=kind, metavar="N", default=default, show_default=True, help="At most so many.")


async def pages(client: ApiClient, path: str, query: Query, limit: int, kind: type[T]) -> tuple[list[T], str | None]:
    """Return up to ``limit`` items of a list, and the cursor of what is left."""
    items: list[T] = []
    cursor: str | None = None
    while True:
        asked = query | {"limit": str(min(PAGE, limit - len(items)))} | ({"cursor": cursor} if cursor else {})
        page = await client.request("GET", path, query=asked, returns=wire.Page[kind])  # type: ignore[valid-type]
        items += page.items
        cursor = page.next
        if cursor is None or len(items) >= limit:
            return items, cursor


def filters(settings: Settings, **given: str | None) -> Query:
    """Return the query of a list: what was given, times as the API wants them."""
    query = {name: value for name, value in given.items() if value}
    return query | {name: utc_text(query[name], settings.zone) for name in ("since", "until") if name in query}


@verb(
    "list",
    examples=(
        "omi-edge list --since 2026-03-02",
        "omi-edge list --speaker SPEAKER_00 --json",
        "omi-edge list --by-source",
    ),
)
@narrowed("source", "device", "client", "since", "until", "speaker")
@by_source_option
@limited(10_000, default=50)
@pass_settings
def list_(settings: Settings, /, by_source: bool, limit: int, **where: str | None) -> None:
    """List conversations, newest first."""
    query = filters(settings, **where)
    run_verb(groups(settings, "/v1/conversations", query) if by_source else _list(settings, query, limit))


async def _list(settings: Settings, query: Query, limit: int) -> None:
    async with api(settings) as client:
        items, cursor = await pages(client, "/v1/conversations", query, limit, wire.ConversationItem)
    if settings.json:
        return print_json(wire.Page(items, cursor))
    rows = [
        [
            item.id,
            moment(item.start, settings.zone),
            length(item.seconds),
            item.source.name,
            ", ".join(speaker.label or "?" for speaker in item.speakers),
            f"{item.emoji} {item.title}".strip() if item.title else f"({item.state})",
        ]
        for item in items
    ]
    nothing = NOTHING_MATCHES if query else "No conversation yet; `omi-edge import FILE` takes in a recording."
    print_table(["id", "began", "length", "source", "speakers", "title"], rows, nothing=nothing)
    if cursor:
        settings.say(f"There are more; give --limit above {limit}.")
    return None


async def groups(settings: Settings, path: str, query: Query) -> None:
    """Show how much each source holds."""
    async with api(settings) as client:
        page = await client.request("GET", path, query=query | {"group_by": "source"}, returns=wire.Page[wire.Group])
    if settings.json:
        return print_json(page)
    nothing = NOTHING_MATCHES if query else "No source yet."
    rows = [
        [
            *(group.source.id, group.source.kind, group.source.name, group.source.device_id or "–"),
            *map(str, (group.conversations, group.tasks, group.memories)),
        ]
        for group in page.items
    ]
    return print_table(
        ["source", "kind", "name", "device", "conversations", "tasks", "memories"], rows, nothing=nothing
    )


@verb(
    "show", examples=("omi-edge show con_01k9z…", "omi-edge show con_01k9z… --ids", "omi-edge show con_01k9z… --json")
)
@click.argument("conversation_id", metavar="ID")
@click.option("--ids", is_flag=True, help="Put the id of each utterance before it, for `omi-edge correct`.")
@pass_settings
def show(settings: Settings, conversation_id: str, ids: bool) -> None:
    """Show one conversation with everything derived from it: who said what and when, summary, tasks, memories."""
    run_verb(_show(settings, conversation_id, ids))


class Shown(msgspec.Struct, frozen=True):
    """What `show --json` prints."""

    conversation: wire.Conversation
    transcript: wire.Transcript


async def _show(settings: Settings, conversation_id: str, ids: bool) -> None:
    path = f"/v1/conversations/{conversation_id}"
    async with api(settings) as client:
        conversation = await client.request("GET", path, returns=wire.Conversation)
        transcript = await client.request("GET", path + "/transcript", returns=wire.Transcript)
    if settings.json:
        return print_json(Shown(conversation, transcript))
    zone = settings.zone
    print(plain(f"{conversation.emoji} {conversation.title or '(no title yet)'}"))
    began, heard = moment(conversation.start, zone), length(conversation.seconds)
    about = (began, heard, conversation.source.name, conversation.category or "no category yet", conversation.state)
    print(plain(", ".join(about)))
    if conversation.offline:
        print(came_later(conversation))
    if conversation.final is not None:
        print(plain(final_pass(conversation.final)))
    if conversation.overview:
        print(f"\n{plain(conversation.overview)}")
    print()
    for utterance in transcript.utterances:
        print(said_line(settings, utterance, ids=ids))
    _print_section("Tasks", [_task_line(task, zone) for task in conversation.tasks])
    _print_section("Memories", [memory.content for memory in conversation.memories])
    return None


def final_pass(found: wire.FinalState) -> str:
    """Return how far the final pass of a conversation is, as a person reads it."""
    state = {"queued": "waits", "running": f"{found.done} of {found.total} segments done"}.get(found.state, found.state)
    return f"final pass with {found.engine}: {state}" + (f" ({found.cause})" if found.cause else "")


def _task_line(task: wire.TaskItem, zone: ZoneInfo) -> str:
    until = f" (due {due(task.due, task.due_has_time, task.due_certain, zone)})" if task.due else ""
    return f"[{'x' if task.state == 'completed' else ' '}] {task.description}{until}"


def _print_section(title: str, lines: list[str]) -> None:
    if lines:
        print(f"\n{title}")
        for line in lines:
            print(f"  {plain(line)}")


@verb("search", examples=("omi-edge search 'dentist appointment'", "omi-edge search train --since 2026-03-01"))
@click.argument("query", nargs=-1, required=True)
@narrowed("source", "device", "client", "since", "until", "speaker")
@limited(100, default=20)
@pass_settings
def search(settings: Settings, /, query: tuple[str, ...], limit: int, **where: str | None) -> None:
    """Find what was said, with the second of audio that proves it, best first."""
    run_verb(_search(settings, filters(settings, **where) | {"q": " ".join(query), "limit": str(limit)}))


async def _search(settings: Settings, query: Query) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/search", query=query, returns=wire.SearchResult)
    if settings.json:
        return print_json(found)
    rows = [
        [
            hit.kind,
            hit.speaker or "–",
            hit.text,
            f"{moment(hit.span.start, settings.zone, seconds=True)} (second {hit.span.offset:.1f})"
            if hit.span
            else "–",
            hit.conversation_id or "–",
        ]
        for hit in found.hits
    ]
    return print_table(["kind", "speaker", "text", "heard at", "conversation"], rows, nothing="Nothing found.")


@verb("memories", examples=("omi-edge memories", "omi-edge memories --since 2026-03-01 --json"))
@narrowed("source", "device", "client", "since", "until")
@by_source_option
@limited(10_000, default=50)
@pass_settings
def memories(settings: Settings, /, by_source: bool, limit: int, **where: str | None) -> None:
    """List what is remembered, newest first."""
    query = filters(settings, **where)
    run_verb(groups(settings, "/v1/memories", query) if by_source else _memories(settings, query, limit))


async def _memories(settings: Settings, query: Query, limit: int) -> None:
    async with api(settings) as client:
        items, cursor = await pages(client, "/v1/memories", query, limit, wire.MemoryItem)
    if settings.json:
        return print_json(wire.Page(items, cursor))
    nothing = NOTHING_MATCHES if query else "No memory yet."
    rows = [[m.id, moment(m.at, settings.zone), m.category, m.content, m.conversation_id or "–"] for m in items]
    print_table(["id", "said", "category", "memory", "conversation"], rows, nothing=nothing)
    if cursor:
        settings.say(f"There are more; give --limit above {limit}.")
    return None


@verb("close", examples=("omi-edge close con_01k9z…",))
@click.argument("conversation_id", metavar="ID")
@pass_settings
def close(settings: Settings, conversation_id: str) -> None:
    """End a conversation by hand; what follows becomes a new one."""
    run_verb(_close(settings, conversation_id))


async def _close(settings: Settings, conversation_id: str) -> None:
    path = f"/v1/conversations/{conversation_id}"
    async with api(settings) as client:
        conversation = await client.request("POST", path + "/close", returns=wire.Conversation)
    if settings.json:
        return print_json(conversation)
    return settings.say(f"Conversation {conversation_id} is {conversation.state}.")


@verb(
    "export",
    examples=(
        "omi-edge export --output everything.json",
        "omi-edge export --with-audio | age -p > everything.json.age",
    ),
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write FILE (mode 0600) when all is there."
)
@click.option("--with-audio", is_flag=True, help="Put the Opus packets in as well.")
@pass_settings
def export(settings: Settings, output: Path | None, with_audio: bool) -> None:
    """Write everything as one JSON document with a schema version, to standard output unless told otherwise.

    The document is not encrypted: whoever can read it knows everything.
    """
    run_verb(_export(settings, output, with_audio))


async def _export(settings: Settings, output: Path | None, with_audio: bool) -> None:
    query = {"audio": with_audio}
    async with api(settings) as client, contextlib.aclosing(client.stream("/v1/export", query=query)) as document:
        if output is None:
            await _pour(document, sys.stdout.buffer)
            return
        with _written_whole(output) as target:
            written = await _pour(document, target)
    if settings.json:
        print_json({"file": str(output), "bytes": written})
    else:
        settings.say(f"{output}: {size(written)}, readable by you alone, not encrypted.")


async def _pour(document: AsyncIterator[bytes], target: BinaryIO) -> int:
    written = 0
    async for piece in document:
        written += target.write(piece)
    target.flush()
    return written


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """Write beside ``path`` and put it in place at the end, so that no half document is ever taken for a whole one."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)  # mode 0600
    except OSError as error:
        raise OmiEdgeError(
            f"{path} cannot be written: {error.strerror}. Name a file in a folder that is there."
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise DiskFull(f"{path} could not be written whole and was left as it was: {error.strerror}.") from error
    finally:
        Path(name).unlink(missing_ok=True)
