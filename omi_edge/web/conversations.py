"""/v1/conversations: listed, read, ended."""

from __future__ import annotations

from omi_edge.domain import ConversationState
from omi_edge.errors import BadInput
from omi_edge.store import conversations, memories, rules, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Filters
from omi_edge.web import shapes, wire
from omi_edge.web.listing import MAX_PAGE, Paged
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def listed(call: Call[Paged, None]) -> Answer:
    """List conversations, newest first."""
    query, filters = call.query, call.query.filters()
    if query.group_by is not None:
        return await call.read(lambda conn: shapes.by_source(conn, filters))

    def read(conn: Connection) -> Answer:
        page = conversations.listing(conn, filters=filters, limit=query.limit, cursor=query.cursor)
        items = [shapes.conversation_item(conn, row) for row in page.items]
        return Answer(wire.Page(items, page.next), tuple(item.id for item in items))

    return await call.read(read)


async def one(call: Call[NoQuery, None]) -> Answer:
    """Read one conversation with everything derived from it."""
    return await call.read(lambda conn: Answer(whole(conn, call.id), (call.id,)))


async def transcript(call: Call[NoQuery, None]) -> Answer:
    """Read the active version of a conversation's text."""

    def read(conn: Connection) -> Answer:
        row = conversations.get(conn, call.id)
        versions = [shapes.version(found) for found in transcripts.versions(conn, row.id)]
        said = transcripts.utterances(conn, row.id)
        active = next(version for version in versions if version.active)
        text = [shapes.utterance(utterance, row.started_us) for utterance in said]
        heard = shapes.heard(rules.heard(conn, row.id))
        return Answer(wire.Transcript(row.id, active, versions, text, heard), (row.id,), len(text))

    return await call.read(read)


async def close(call: Call[NoQuery, None]) -> Answer:
    """End an open conversation by hand."""
    row = await call.read(lambda conn: conversations.get(conn, call.id))
    if row.state is not ConversationState.OPEN:
        raise BadInput("only an open conversation can be ended; this one has ended already.")
    await call.audit(Answer(ids=(call.id,)))  # the daemon ends it in several steps, so the row comes first
    await call.controls.close_conversation(call.id)
    return await call.read(lambda conn: Answer(whole(conn, call.id), (call.id,)))


def whole(conn: Connection, conversation_id: str) -> wire.Conversation:
    """Return a conversation with everything derived from it. Raises NotFound."""
    row = conversations.get(conn, conversation_id)
    own = Filters(conversation=conversation_id)
    tasks = memories.list_tasks(conn, filters=own, limit=MAX_PAGE, cursor=None).items
    facts = memories.list_memories(conn, filters=own, limit=MAX_PAGE, cursor=None).items
    return shapes.conversation(conn, row, tasks, facts)


ROUTES = (
    Route(
        method="GET",
        path="/v1/conversations",
        summary="List conversations, newest first; or count them by source",
        act="conversation.list",
        handler=listed,
        query=Paged,
        returns=(wire.Page[wire.ConversationItem], wire.Page[wire.Group]),
    ),
    Route(
        method="GET",
        path="/v1/conversations/{id}",
        summary="Read one conversation with its tasks and memories",
        act="conversation.read",
        handler=one,
        returns=wire.Conversation,
    ),
    Route(
        method="GET",
        path="/v1/conversations/{id}/transcript",
        summary="Read what was said, word by word",
        act="transcript.read",
        handler=transcript,
        returns=wire.Transcript,
    ),
    Route(
        method="POST",
        path="/v1/conversations/{id}/close",
        summary="End an open conversation now",
        act="conversation.close",
        handler=close,
        returns=wire.Conversation,
    ),
)
