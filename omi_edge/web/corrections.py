"""/v1/corrections: words put right by a person, what stood there before, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from omi_edge.domain import ConversationState, Stage
from omi_edge.errors import BadInput
from omi_edge.store import conversations, corrections, jobs, search, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Change, CorrectionRow, Target
from omi_edge.web import shapes, times, wire
from omi_edge.web.route import Answer, Call, NoQuery, Route

EMBEDDED = 32
"""Texts that get their vectors at once; those of a longer stretch get them with the conversation's other texts."""


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of which conversation."""

    conversation: Annotated[str, Meta(min_length=1, max_length=200)]


async def create(call: Call[NoQuery, wire.CorrectionNew]) -> Answer:
    """Put something right."""
    new, now_us = call.body, call.controls.clock.utc_us()
    target = _target(new)

    def of(conn: Connection) -> str:
        if new.utterance_id is None:
            return conversations.get(conn, new.conversation_id or "").id
        found = transcripts.utterance(conn, new.utterance_id).conversation_id
        if new.conversation_id not in (None, found):
            raise BadInput("the utterance belongs to another conversation; name one of the two alone.", "utterance_id")
        return found

    planned = await call.read(lambda conn: corrections.planned(conn, of(conn), target, new.text))
    vectors = await _vectors(call, [after.text for _, after in planned])

    def work(conn: Connection) -> Change:
        return corrections.add(conn, of(conn), target, new.text, actor=call.caller.actor, now_us=now_us)

    return await _change(call, work, vectors)


async def undo(call: Call[NoQuery, None]) -> Answer:
    """Take a correction back."""
    now_us = call.controls.clock.utc_us()
    return await _change(call, lambda conn: corrections.undo(conn, call.id, actor=call.caller.actor, now_us=now_us), {})


async def listed(call: Call[Listed, None]) -> Answer:
    """List the corrections of a conversation."""

    def read(conn: Connection) -> Answer:
        items = [_item(row) for row in corrections.listed(conn, call.query.conversation)]
        return Answer(wire.Page(items, None), (call.query.conversation,), len(items))

    return await call.read(read)


async def _change(call: Call[NoQuery, Any], work: Callable[[Connection], Change], vectors: dict[str, Any]) -> Answer:
    """Do it, with what is found of the new text, and have the conversation understood anew."""
    now_us, model = call.controls.clock.utc_us(), call.controls.index.model

    def act(conn: Connection) -> Answer:
        change = work(conn)
        _put_vectors(conn, model, change, vectors)
        row = conversations.get(conn, change.conversation_id)
        if row.state is not ConversationState.OPEN:  # an open one is understood when it ends
            jobs.enqueue(conn, Stage.EXTRACT, row.id, now_us=now_us)
        said = [shapes.utterance(one, row.started_us) for one in change.utterances]
        told = wire.Corrected(_item(corrections.get(conn, change.correction_id)), said)
        return Answer(told, (change.correction_id, row.id), len(said))

    answer = await call.change(act)
    call.controls.poke_jobs()
    row = await call.read(lambda conn: conversations.get(conn, answer.ids[1]))
    call.controls.bus.publish(
        "conversation", now_us, id=row.id, source_id=row.source_id, state=row.state.value, title=row.title
    )
    return answer


def _put_vectors(conn: Connection, model: str, change: Change, vectors: dict[str, Any]) -> None:
    numbers = search.numbers_of(conn, [one.id for one in change.utterances if one.text in vectors])
    texts = {one.id: one.text for one in change.utterances}
    search.put_vectors(conn, model, [(number, vectors[texts[ref_id]]) for ref_id, number in numbers.items()])


async def _vectors(call: Call[Any, Any], texts: list[str]) -> dict[str, Any]:
    found = {text: await call.controls.embed_query(text) for text in texts[:EMBEDDED] if text}
    return {text: vector for text, vector in found.items() if vector is not None}


def _target(new: wire.CorrectionNew) -> Target:
    in_time = (new.conversation_id, new.start, new.end)
    if new.utterance_id is None and None in in_time:
        raise BadInput(
            "say what is to be put right: an utterance_id, or a conversation_id with start and end.", "utterance_id"
        )
    if new.utterance_id is not None and (new.start or new.end):
        raise BadInput("name an utterance or a time, not both.", "start")
    if new.to_word is not None and new.word is None:
        raise BadInput("to_word needs word, the first of them.", "word")
    return Target(
        new.utterance_id, new.to_utterance_id, new.word, new.to_word,
        times.moment_or_none(new.start, "start"), times.moment_or_none(new.end, "end"),
    )  # fmt: skip


def _item(row: CorrectionRow) -> wire.Correction:
    return wire.Correction(
        id=row.id,
        conversation_id=row.conversation_id,
        at=times.iso(row.at_us),
        before=row.before,
        after=row.after,
        by=row.actor,
        created=times.iso(row.created_us),
        state=row.state,
        undone=times.iso_or_none(row.undone_us),
        undone_by=row.undone_by,
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/corrections",
        summary="List what was put right in a conversation, undone corrections too",
        act="correction.list",
        handler=listed,
        query=Listed,
        returns=wire.Page[wire.Correction],
    ),
    Route(
        method="POST",
        path="/v1/corrections",
        summary="Put right a word, an utterance or a stretch of what was understood",
        act="correction.create",
        handler=create,
        body=wire.CorrectionNew,
        returns=wire.Corrected,
        status=201,
    ),
    Route(
        method="POST",
        path="/v1/corrections/{id}/undo",
        summary="Take a correction back",
        act="correction.undo",
        handler=undo,
        returns=wire.Corrected,
    ),
)
