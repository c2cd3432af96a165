"""/v1/conversations/{id}/versions: the versions of a transcript, what differs between them, and which is shown."""

from __future__ import annotations

import msgspec

from omi_edge import wording
from omi_edge.domain import ConversationState, Stage, Utterance
from omi_edge.errors import BadInput
from omi_edge.store import conversations, jobs, rules, transcripts
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, wire
from omi_edge.web.route import Answer, Call, NoQuery, Route
from omi_edge.web.times import iso


class DiffQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which two versions."""

    before: str | None = None
    """When absent, the one whose words the other shows, else the one that was active before, else the live one."""
    after: str | None = None
    """When absent, the active one."""


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List the versions of a conversation's text."""
    return await call.read(lambda conn: _listed(conn, call.id))


async def one(call: Call[NoQuery, None]) -> Answer:
    """Read one version of a conversation's text."""
    version_id = call.request.match_info["version"]

    def read(conn: Connection) -> Answer:
        row = conversations.get(conn, call.id)
        version = transcripts.version(conn, row.id, version_id)
        said = transcripts.utterances(conn, row.id, version_id)
        text = [shapes.utterance(utterance, row.started_us) for utterance in said]
        versions = [shapes.version(found) for found in transcripts.versions(conn, row.id)]
        heard = shapes.heard(rules.heard(conn, row.id, version_id))
        told = wire.Transcript(row.id, shapes.version(version), versions, text, heard)
        return Answer(told, (row.id, version_id), len(text))

    return await call.read(read)


async def diff(call: Call[DiffQuery, None]) -> Answer:
    """Compare two versions word by word."""

    def read(conn: Connection) -> tuple[list[transcripts.VersionRow], list[list[Utterance]]]:
        row = conversations.get(conn, call.id)
        after = transcripts.version(conn, row.id, call.query.after or row.version_id or "")
        wanted = call.query.before or after.base_id or transcripts.previous(conn, row.id)
        before = transcripts.version(conn, row.id, wanted or transcripts.live_version(conn, row.id))
        return [before, after], [transcripts.utterances(conn, row.id, one.id) for one in (before, after)]

    (before, after), said = await call.read(read)
    parts = [
        wire.DiffPart(mark.kind, " ".join(mark.words), len(mark.words), iso(mark.at_us))
        for mark in wording.compare(*said)
    ]
    counts = {kind: sum(part.words for part in parts if part.kind == kind) for kind in ("equal", "removed", "added")}
    told = wire.Diff(call.id, shapes.version(before), shapes.version(after), parts, **counts)
    return Answer(told, (call.id, before.id, after.id), len(parts))


async def activate(call: Call[NoQuery, None]) -> Answer:
    """Show another version; what is built on the text is built anew."""
    return await _show(call, call.request.match_info["version"])


async def roll_back(call: Call[NoQuery, None]) -> Answer:
    """Show the version again that was shown before."""
    return await _show(call, None)


async def _show(call: Call[NoQuery, None], version_id: str | None) -> Answer:
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        row = conversations.get(conn, call.id)
        if row.state is not ConversationState.COMPLETED:
            raise BadInput(f"the conversation is {row.state.value}; wait until it is completed, then choose a version.")
        wanted = version_id or transcripts.previous(conn, row.id)
        if wanted is None:
            raise BadInput("no other version was shown before this one; name the one that you want.", "version")
        if wanted != row.version_id:
            transcripts.activate(conn, row.id, wanted)
            jobs.enqueue(conn, Stage.EXTRACT, row.id, now_us=now_us)
        return Answer(_listed(conn, row.id).body, (row.id, wanted))

    answer = await call.change(act)
    call.controls.poke_jobs()
    row = await call.read(lambda conn: conversations.get(conn, call.id))
    call.controls.bus.publish(
        "conversation", now_us, id=row.id, source_id=row.source_id, state=row.state.value, title=row.title
    )
    return answer


def _listed(conn: Connection, conversation_id: str) -> Answer:
    found = [shapes.version(row) for row in transcripts.versions(conn, conversation_id)]
    told = wire.Versions(conversation_id, found, transcripts.previous(conn, conversation_id))
    return Answer(told, (conversation_id,), len(found))


ROUTES = (
    Route(
        method="GET",
        path="/v1/conversations/{id}/versions",
        summary="List the versions of a conversation's text",
        act="transcript.versions",
        handler=listed,
        returns=wire.Versions,
    ),
    Route(
        method="GET",
        path="/v1/conversations/{id}/versions/{version}",
        summary="Read one version of a conversation's text",
        act="transcript.read",
        handler=one,
        returns=wire.Transcript,
    ),
    Route(
        method="GET",
        path="/v1/conversations/{id}/diff",
        summary="Compare two versions of a conversation's text word by word",
        act="transcript.diff",
        handler=diff,
        query=DiffQuery,
        returns=wire.Diff,
    ),
    Route(
        method="POST",
        path="/v1/conversations/{id}/versions/{version}/activate",
        summary="Show another version of a conversation's text",
        act="transcript.activate",
        handler=activate,
        returns=wire.Versions,
    ),
    Route(
        method="POST",
        path="/v1/conversations/{id}/rollback",
        summary="Show the version of a conversation's text that was shown before",
        act="transcript.rollback",
        handler=roll_back,
        returns=wire.Versions,
    ),
)
