"""/v1/reprocess: transcripts made anew in the background."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from omi_edge.errors import BadInput, Conflict
from omi_edge.store import conversations, reprocessing, uploads
from omi_edge.store.connection import Connection
from omi_edge.store.reprocessing import ReprocessingRow
from omi_edge.web import times, wire
from omi_edge.web.route import Answer, Call, NoQuery, Route


async def create(call: Call[NoQuery, wire.ReprocessNew]) -> Answer:
    """Have transcripts made anew."""
    new, now_us = call.body, call.controls.clock.utc_us()
    engine = new.engine or call.controls.config.listen.best
    call.controls.check_recognizer(engine)
    since_us, until_us = _range(new)

    def act(conn: Connection) -> Answer:
        if new.conversation_id is not None:
            wanted = [conversations.get(conn, new.conversation_id).id]
        else:
            wanted = conversations.ids_between(conn, since_us, until_us)
        upload_id = _sent_in(conn, wanted[0]) if new.upload else None
        return asked(
            conn, wanted, engine=engine, keep=new.keep, actor=call.caller.actor, now_us=now_us, upload_id=upload_id
        )

    answer = await call.change(act)
    call.controls.poke_jobs()
    return answer


def asked(
    conn: Connection, wanted: Sequence[str], *, engine: str, keep: bool, actor: str, now_us: int,
    upload_id: str | None = None,
) -> Answer:  # fmt: skip
    """Have transcripts of conversations made anew, and say which."""
    batch_id, refused = reprocessing.ask(
        conn, wanted, engine=engine, keep=keep, actor=actor, now_us=now_us, upload_id=upload_id
    )
    told = _told(reprocessing.batch(conn, batch_id))
    told = msgspec.structs.replace(told, refused=[wire.Refusal(*one) for one in refused])
    return Answer(told, (batch_id, *(one.conversation_id for one in told.conversations)), len(told.conversations))


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List the newest ones."""

    def read(conn: Connection) -> Answer:
        items = [_told(reprocessing.batch(conn, batch_id)) for batch_id in reprocessing.batches(conn)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items), len(items))

    return await call.read(read)


async def one(call: Call[NoQuery, None]) -> Answer:
    """Say how far one is."""
    return await call.read(lambda conn: Answer(_told(reprocessing.batch(conn, call.id)), (call.id,)))


async def cancel(call: Call[NoQuery, None]) -> Answer:
    """Call off what of one has not ended."""
    now_us = call.controls.clock.utc_us()

    def act(conn: Connection) -> Answer:
        if not reprocessing.cancel(conn, call.id, now_us):
            raise BadInput("this reprocessing has ended; there is nothing to cancel.")
        return Answer(_told(reprocessing.batch(conn, call.id)), (call.id,))

    answer = await call.change(act)
    for item in answer.body.conversations:
        if item.state == "cancelled":
            call.controls.bus.publish(
                "reprocess", now_us, id=call.id, conversation_id=item.conversation_id, state=item.state,
                done=item.done, total=item.total, cause=None,
            )  # fmt: skip
    return answer


def _sent_in(conn: Connection, conversation_id: str) -> str:
    upload = uploads.latest(conn, conversation_id)
    if upload is None:
        raise Conflict(
            "no recording of this conversation is here; `omi-edge reprocess CONVERSATION --audio FILE` sends one in.",
            "upload",
        )
    return upload.id


def _range(new: wire.ReprocessNew) -> tuple[int, int]:
    in_time = new.since is not None or new.until is not None
    if (new.conversation_id is not None) + in_time + new.all != 1:
        raise BadInput("name one of these: a conversation, a time (since, until), or all.", "conversation_id")
    if new.upload and new.conversation_id is None:
        raise BadInput("what was sent in is of one conversation; name it.", "upload")
    since_us, until_us = times.moment_or_none(new.since, "since"), times.moment_or_none(new.until, "until")
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise BadInput("until must be later than since.", "until")
    return since_us or 0, times.LATEST_US if until_us is None else until_us


def _told(rows: Sequence[ReprocessingRow]) -> wire.Reprocessing:
    states = {row.state for row in rows}
    open_ones = states & set(reprocessing.OPEN)
    if open_ones:
        state = "queued" if states == {"queued"} else "running"
    else:
        state = next(name for name in ("failed", "cancelled", "done") if name in states)
    first = rows[0]
    return wire.Reprocessing(
        first.batch_id,
        state,
        first.engine,
        first.keep,
        first.actor,
        times.iso(first.created_us),
        sum(row.done for row in rows),
        sum(row.total for row in rows),
        [
            wire.ReprocessItem(row.conversation_id, row.state, row.done, row.total, row.cause, row.version_id)
            for row in rows
        ],
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/reprocess",
        summary="List the newest reprocessings",
        act="reprocess.list",
        handler=listed,
        returns=wire.Page[wire.Reprocessing],
    ),
    Route(
        method="POST",
        path="/v1/reprocess",
        summary="Transcribe a conversation, a time or everything anew",
        act="reprocess.create",
        handler=create,
        body=wire.ReprocessNew,
        returns=wire.Reprocessing,
        status=202,
    ),
    Route(
        method="GET",
        path="/v1/reprocess/{id}",
        summary="Say how far a reprocessing is",
        act="reprocess.read",
        handler=one,
        returns=wire.Reprocessing,
    ),
    Route(
        method="DELETE",
        path="/v1/reprocess/{id}",
        summary="Cancel a reprocessing; what is finished of it stays",
        act="reprocess.cancel",
        handler=cancel,
        returns=wire.Reprocessing,
    ),
)
