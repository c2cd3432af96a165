"""`reprocess`: transcripts made anew, watched until they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from omi_edge.capture.replay import opened_file
from omi_edge.cli.present import moment, plain, print_json, print_table, wants_progress
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.cli.timetext import utc_text
from omi_edge.cli.transcripts import LOOK_SECONDS, settle
from omi_edge.clock import SystemClock
from omi_edge.errors import AudioError, BadInput, EngineError
from omi_edge.web import wire
from omi_edge.web.client import ApiClient, Query

PIECE_BYTES = 256 * 1024
"""So much is sent at once."""


@verb(
    "reprocess",
    examples=(
        "omi-edge reprocess con_01k9z…",
        "omi-edge reprocess --from 2026-03-01 --to 2026-03-08 --keep",
        "omi-edge reprocess --all --model pocketsphinx --background",
        "omi-edge reprocess con_01k9z… --audio talk.m4a",
        "omi-edge reprocess --list",
        "omi-edge reprocess --cancel rep_01k9z…",
    ),
)
@click.argument("conversation_id", metavar="[CONVERSATION]", required=False)
@click.option("--from", "from_", metavar="TIME", help="Conversations that began at TIME or later.")
@click.option("--to", metavar="TIME", help="Conversations that began before TIME.")
@click.option("--all", "everything", is_flag=True, help="Every conversation.")
@click.option(
    "--model", metavar="NAME", help="With this recogniser or model; else that of the second pass, or the live one."
)
@click.option(
    "--audio", type=click.Path(path_type=Path), metavar="FILE", help="Of the conversation, this recording of it."
)
@click.option("--start", metavar="TIME", help="When FILE began; without it, with the conversation.")
@click.option("--upload", is_flag=True, help="Of the conversation, the recording that was last sent in for it.")
@click.option("--keep", is_flag=True, help="Keep the new versions beside the others; show none of them.")
@click.option("--background", is_flag=True, help="Do not wait; a running daemon works on.")
@click.option("--list", "list_", is_flag=True, help="List the newest ones and how far they are.")
@click.option("--cancel", metavar="ID", help="Call off what of one has not ended.")
@pass_settings
def reprocess(
    settings: Settings,
    conversation_id: str | None,
    from_: str | None,
    to: str | None,
    everything: bool,
    model: str | None,
    audio: Path | None,
    start: str | None,
    upload: bool,
    keep: bool,
    background: bool,
    list_: bool,
    cancel: str | None,
) -> None:
    """Transcribe a conversation, those of a time, or all of them anew.

    Each gets a new version of its transcript, which is shown when it is whole; the one before stays, and `omi-edge
    versions rollback` shows it again. Corrections are taken over. Ctrl-C stops waiting, not the work: that goes on
    whenever the daemon runs.

    With --audio another recording of the same conversation (WAV, FLAC, MP3, M4A, Ogg; at most 1 GiB) is sent in, kept
    beside the audio that is there, and transcribed in its place.
    """
    if list_ + bool(cancel) + bool(conversation_id) + bool(from_ or to) + everything != 1:
        raise BadInput("name one of these: a conversation, a time (--from, --to), --all, --list or --cancel.")
    if list_:
        return run_verb(_list(settings))
    if cancel:
        return run_verb(_cancel(settings, cancel))
    if (audio or upload) and not conversation_id:
        raise BadInput("a recording is of one conversation; name it.")
    if audio and (upload or keep):
        raise BadInput("--audio goes with neither --upload nor --keep.")
    if start and not audio:
        raise BadInput("--start says when the FILE of --audio began; name that too.")
    if audio and conversation_id:
        began = utc_text(start, settings.zone) if start else None
        return run_verb(_send(settings, conversation_id, audio, {"engine": model, "start": began}, background))
    new = wire.ReprocessNew(
        conversation_id=conversation_id,
        since=utc_text(from_, settings.zone) if from_ else None,
        until=utc_text(to, settings.zone) if to else None,
        all=everything,
        engine=model,
        keep=keep,
        upload=upload,
    )
    return run_verb(_reprocess(settings, new, background))


async def _reprocess(settings: Settings, new: wire.ReprocessNew, background: bool) -> None:
    async with api(settings) as client:
        asked = await client.request("POST", "/v1/reprocess", body=new, returns=wire.Reprocessing)
        await _see_through(settings, client, asked, background)


async def _send(settings: Settings, conversation_id: str, audio: Path, query: Query, background: bool) -> None:
    """Send a recording of a conversation in, and have it transcribed."""
    with opened_file(audio) as file:
        size = os.fstat(file.fileno()).st_size
        path = f"/v1/conversations/{quote(conversation_id, safe='')}/post-processing"
        async with api(settings) as client:
            with _bar(settings, "sending") as show:
                sent = await client.upload(path, _pieces(file, size, show), query=query, returns=wire.Conversation)
            batch_id = sent.postprocessing.id
            asked = await client.request("GET", f"/v1/reprocess/{batch_id}", returns=wire.Reprocessing)
            await _see_through(settings, client, asked, background)


async def _pieces(file: BinaryIO, size: int, show: Callable[[str, int, int], None]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        yield piece
        show("sending", file.tell(), size)


async def _see_through(settings: Settings, client: ApiClient, asked: wire.Reprocessing, background: bool) -> None:
    """Wait until it has ended, unless that is not wanted, and tell what came of it."""
    now = await watched(settings, client, asked, background)
    previous = await _previous(client, now)
    if settings.json:
        print_json(now)
    elif background:
        settings.say(f"{now.id}: {len(now.conversations)} to do. `omi-edge reprocess --list` says how far it is.")
    else:
        _tell(settings, now, previous)
    failed = [one for one in now.conversations if one.state == "failed"]
    if len(failed) == 1 and (failed[0].cause or "").endswith("."):  # of a recording that was sent in
        raise AudioError(f"{failed[0].cause} The transcript is as it was.")
    if failed:
        causes = ", ".join(sorted({one.cause or "unknown cause" for one in failed}))
        raise EngineError(
            f"{len(failed)} of {len(now.conversations)} could not be transcribed anew ({causes}); their transcripts "
            f"are as they were. `omi-edge reprocess {failed[0].conversation_id}` tries the first again."
        )


async def watched(
    settings: Settings, client: ApiClient, asked: wire.Reprocessing, background: bool
) -> wire.Reprocessing:
    """Say what is left out, and wait for the rest unless it is to go on in the background; return how it stands."""
    for one in asked.refused:
        settings.warn(f"{one.conversation_id} is left out: {one.message}")
    if background:
        return asked
    with _bar(settings, "transcribing anew") as show:
        now = await _wait(client, asked, show)
    await settle(settings, client)
    return now


async def _wait(client: ApiClient, now: wire.Reprocessing, show: Callable[[str, int, int], None]) -> wire.Reprocessing:
    clock = SystemClock()
    while now.state in ("queued", "running"):
        ended = sum(one.state not in ("queued", "running") for one in now.conversations)
        show(f"transcribing anew, {ended} of {len(now.conversations)} conversations", now.done, now.total)
        await clock.sleep(LOOK_SECONDS)
        now = await client.request("GET", f"/v1/reprocess/{now.id}", returns=wire.Reprocessing)
    return now


@contextlib.contextmanager
def _bar(settings: Settings, what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal; nothing elsewhere. It is given a text, how much is done, and of how much."""
    if not wants_progress(settings):
        yield lambda *_: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda text, done, total: progress.update(task, description=text, completed=done, total=total or None)


async def _previous(client: ApiClient, now: wire.Reprocessing) -> str | None:
    """Return the version that the new one is to be compared with, where there is one new one."""
    if len(now.conversations) != 1 or now.state != "done":
        return None
    path = f"/v1/conversations/{now.conversations[0].conversation_id}/versions"
    found = await client.request("GET", path, returns=wire.Versions)
    return next((one.id for one in found.versions if one.active), None) if now.keep else found.previous


def _tell(settings: Settings, now: wire.Reprocessing, previous: str | None) -> None:
    for one in now.conversations:
        if one.state == "done":
            shown = "kept beside the one that is shown" if now.keep else "shown from now on"
            settings.say(f"{one.conversation_id}: {one.version_id}, {shown}.")
        else:
            settings.say(f"{one.conversation_id}: {one.state}.")
    if previous is not None:
        one = now.conversations[0]
        settings.say(
            f"`omi-edge versions diff {one.conversation_id} {previous} {one.version_id}` shows what is different."
        )


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        page = await client.request("GET", "/v1/reprocess", returns=wire.Page[wire.Reprocessing])
    if settings.json:
        return print_json(page)
    rows = [
        [
            one.id,
            moment(one.created, settings.zone),
            one.engine,
            plain(one.state),
            f"{sum(item.state == 'done' for item in one.conversations)} of {len(one.conversations)}",
            f"{one.done} of {one.total}",
        ]
        for one in page.items
    ]
    return print_table(
        ["id", "asked for", "recogniser", "state", "conversations", "segments"], rows,
        nothing="Nothing was transcribed anew yet.",
    )  # fmt: skip


async def _cancel(settings: Settings, batch_id: str) -> None:
    async with api(settings) as client:
        now = await client.request("DELETE", f"/v1/reprocess/{batch_id}", returns=wire.Reprocessing)
    if settings.json:
        return print_json(now)
    count = sum(one.state == "cancelled" for one in now.conversations)
    return settings.say(f"{batch_id}: {count} of {len(now.conversations)} called off; what was finished stays.")
