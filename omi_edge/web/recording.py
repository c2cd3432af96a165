"""/v1/recording: whether what is heard is recorded, and the owner's word on it."""

from __future__ import annotations

from typing import Any

import msgspec

from omi_edge.domain import Withholding
from omi_edge.store import withheld
from omi_edge.store.connection import Connection
from omi_edge.web import shapes, times, wire
from omi_edge.web.listing import Moment
from omi_edge.web.route import Answer, Call, NoQuery, Route


class WithheldQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which time."""

    since: Moment | None = None
    until: Moment | None = None


async def state(call: Call[NoQuery, None]) -> Answer:
    """Say whether it records."""
    return Answer(shapes.recording(await call.read(withheld.current)))


async def pause(call: Call[NoQuery, wire.RecordingPause]) -> Answer:
    """Record nothing, for a while or until it is told to go on."""
    return await _withhold(call, Withholding.MUTED, call.body.seconds)


async def off_record(call: Call[NoQuery, wire.RecordingOff]) -> Answer:
    """Be off the record for a while."""
    wanted = call.body.seconds
    return await _withhold(
        call, Withholding.OFF_RECORD, call.controls.config.device.off_record if wanted is None else wanted
    )


async def resume(call: Call[NoQuery, None]) -> Answer:
    """Record again; harmless while it records."""
    await call.audit(Answer())  # the daemon stops the capture beside storing it, so the row comes first
    await call.controls.resume(call.caller.actor)
    return Answer(shapes.recording(await call.read(withheld.current)))


async def listed(call: Call[WithheldQuery, None]) -> Answer:
    """List the stretches that were not recorded because the owner said so."""
    since_us = times.moment_or_none(call.query.since, "since")
    until_us = times.moment_or_none(call.query.until, "until")

    def read(conn: Connection) -> Answer:
        items = [shapes.withheld(row) for row in withheld.listed(conn, since_us, until_us)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


async def _withhold(call: Call[Any, Any], kind: Withholding, seconds: float | None) -> Answer:
    # first of all it holds; that somebody asked for it is written down before the answer is sent
    row = await call.controls.withhold(kind, seconds, call.caller.actor)
    return Answer(shapes.recording(row), (row.id,))


ROUTES = (
    Route(
        method="GET",
        path="/v1/recording",
        summary="Ask whether what is heard is recorded",
        act="recording.read",
        handler=state,
        returns=wire.Recording,
    ),
    Route(
        method="POST",
        path="/v1/recording/pause",
        summary="Record nothing, for a while or until it is told to go on",
        act="recording.pause",
        handler=pause,
        body=wire.RecordingPause,
        returns=wire.Recording,
    ),
    Route(
        method="POST",
        path="/v1/recording/off-record",
        summary="Be off the record for a while",
        act="recording.off-record",
        handler=off_record,
        body=wire.RecordingOff,
        returns=wire.Recording,
    ),
    Route(
        method="POST",
        path="/v1/recording/resume",
        summary="Record again",
        act="recording.resume",
        handler=resume,
        returns=wire.Recording,
    ),
    Route(
        method="GET",
        path="/v1/recording/withheld",
        summary="List when nothing was recorded because the owner said so, newest first",
        act="recording.withheld",
        handler=listed,
        query=WithheldQuery,
        returns=wire.Page[wire.WithheldItem],
    ),
)
