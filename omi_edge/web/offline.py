"""/v1/devices/{id}/offline: what a pendant stored while it was away, as far as it is here; needs no radio."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from omi_edge.domain import FetchProgress
from omi_edge.errors import NotFound
from omi_edge.store import devices, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.offline import LossRow, RunRow, RunState
from omi_edge.web import offlinewire, wire
from omi_edge.web.listing import MAX_PAGE
from omi_edge.web.route import Answer, Call, NoQuery, Route
from omi_edge.web.times import iso, iso_or_none, seconds


class OfflineQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many recordings and losses."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 20


async def one(call: Call[OfflineQuery, None]) -> Answer:
    """Say how it stands with a pendant's stored audio."""
    address = await call.read(lambda conn: _address(conn, call.id))
    return await _whole(call, address, call.query.limit)


async def fetch(call: Call[NoQuery, None]) -> Answer:
    """Look again for stored audio."""
    address = (await call.read(lambda conn: devices.get(conn, call.id))).address
    await call.audit(Answer(ids=(address,)))
    told = await _whole(call, address, 1)  # as it was: what follows ``event`` is then of this fetching
    await call.controls.fetch_offline(address)
    whole = told.body
    fields = {name: getattr(whole, name) for name in offlinewire.OfflineState.__struct_fields__}
    return Answer(offlinewire.OfflineState(**fields), (address,))


async def held(call: Call[NoQuery, None]) -> Answer:
    """List the recordings that wait for the owner's word."""

    def read(conn: Connection) -> Answer:
        source = sources.for_device(conn, _address(conn, call.id))
        items = [] if source is None else [run_item(conn, run) for run in offline.held(conn, source.id)]
        return Answer(wire.Page(items, None), tuple(item.id for item in items))

    return await call.read(read)


async def decide(call: Call[NoQuery, offlinewire.HeldDecision]) -> Answer:
    """Do the owner's word about a held recording."""
    run_id = call.request.match_info["run"]

    def find(conn: Connection) -> None:
        source = sources.for_device(conn, _address(conn, call.id))
        if source is None or not offline.belongs(conn, source.id, run_id):
            raise NotFound("there is no such recording of this pendant; `omi-edge devices held` lists those that wait.")

    await call.read(find)
    await call.audit(Answer(ids=(run_id,)))
    row = await call.controls.decide_offline(run_id, call.body.wanted)
    return Answer(await call.read(lambda conn: run_item(conn, row)), (run_id,))


def state_of(conn: Connection, address: str, progress: FetchProgress, event: int) -> offlinewire.OfflineState:
    """Return how it stands with a pendant's stored audio."""
    source = sources.for_device(conn, address)
    open_runs = [] if source is None else offline.open_runs(conn, source.id)
    waiting_us = sum(
        (run.frames - run.heard) * offline.get_reading(conn, run.reading_n).codec.frame_us
        for run in open_runs
        if run.state is RunState.PLACED
    )
    return offlinewire.OfflineState(
        id=address,
        state=progress.state.value,
        since=iso(progress.since_us),
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        done_seconds=seconds(progress.done_us),
        total_seconds=seconds(progress.total_us),
        left_seconds=None if progress.left_us is None else seconds(progress.left_us),
        message=progress.message,
        waiting_bytes=0 if source is None else offline.waiting_bytes(conn, source.id),
        waiting_seconds=seconds(waiting_us),
        held=sum(run.state is RunState.HELD for run in open_runs),
        event=event,
    )


def run_item(conn: Connection, run: RunRow) -> offlinewire.OfflineRun:
    """Return a recording that a pendant stored."""
    frame_us = offline.get_reading(conn, run.reading_n).codec.frame_us
    return offlinewire.OfflineRun(
        id=run.id,
        state=run.state.value,
        start=iso_or_none(run.start_us),
        seconds=seconds(run.frames * frame_us),
        heard_seconds=seconds(run.heard * frame_us),
        left_out_seconds=seconds(run.left_out_us),
        uncertainty_seconds=seconds(run.uncertainty_us),
        guessed=run.guessed,
        earliest=iso_or_none(run.earliest_us),
        latest=iso_or_none(run.latest_us),
    )


def _loss(row: LossRow) -> offlinewire.OfflineLoss:
    return offlinewire.OfflineLoss(row.why, row.records, iso_or_none(row.start_us), iso_or_none(row.end_us))


async def _whole(call: Call[Any, Any], address: str, limit: int) -> Answer:
    progress, event = call.controls.offline_progress(address), call.controls.bus.last_number

    def read(conn: Connection) -> Answer:
        state = state_of(conn, address, progress, event)
        source = sources.for_device(conn, address)
        runs = [] if source is None else [run_item(conn, run) for run in offline.latest(conn, source.id, limit)]
        losses = [] if source is None else [_loss(row) for row in offline.losses(conn, source.id, limit)]
        fields = {name: getattr(state, name) for name in state.__struct_fields__}
        return Answer(
            offlinewire.Offline(**fields, runs=runs, losses=losses), (address, *(run.id for run in runs)), len(runs)
        )

    return await call.read(read)


def _address(conn: Connection, text: str) -> str:
    """Return the address of a pendant that is remembered, or was: what it stored stays. NotFound."""
    try:
        return devices.get(conn, text).address
    except NotFound:
        source = sources.for_device(conn, text.upper())
        if source is None:
            raise
        return source.device_id or text


ROUTES = (
    Route(
        method="GET",
        path="/v1/devices/{id}/offline",
        summary="Read how it stands with what a pendant stored while it was away; the pendant may be anywhere",
        act="device.offline",
        handler=one,
        query=OfflineQuery,
        returns=offlinewire.Offline,
    ),
    Route(
        method="POST",
        path="/v1/devices/{id}/offline/fetch",
        summary="Look again for audio that a connected pendant stored",
        act="device.fetch",
        handler=fetch,
        returns=offlinewire.OfflineState,
    ),
    Route(
        method="GET",
        path="/v1/devices/{id}/offline/held",
        summary="List the recordings that may be of a time when recording was withheld, and wait for a word",
        act="device.held",
        handler=held,
        returns=wire.Page[offlinewire.OfflineRun],
    ),
    Route(
        method="POST",
        path="/v1/devices/{id}/offline/held/{run}",
        summary="Have a held recording heard, or let go of it undecoded",
        act="device.decide",
        handler=decide,
        body=offlinewire.HeldDecision,
        returns=offlinewire.OfflineRun,
    ),
)
