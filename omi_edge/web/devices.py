"""/v1/devices: pendants found, paired, read, set, forgotten. The id of one is its address."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from omi_edge.config import zone
from omi_edge.errors import BadInput
from omi_edge.store import devices, gaps, notices, sources
from omi_edge.store.connection import Connection
from omi_edge.store.devices import DeviceRow
from omi_edge.store.filters import Filters
from omi_edge.web import shapes, times, wire
from omi_edge.web.listing import MAX_PAGE, Moment
from omi_edge.web.route import Answer, Call, NoQuery, Route

_ADDRESS = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
"""A Bluetooth address, or the UUID that CoreBluetooth gives in its place; in upper case."""


class BatteryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of a battery's history."""

    since: Moment | None = None


class ConnectionsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many connections."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 20


async def listed(call: Call[NoQuery, None]) -> Answer:
    """List the remembered pendants."""
    rows = await call.read(devices.list_all)
    items = [shapes.device_item(row, call.controls.device_state(row.address)) for row in rows]
    return Answer(wire.Page(items, None), tuple(item.id for item in items))


async def one(call: Call[NoQuery, None]) -> Answer:
    """Read one pendant."""
    now_us = call.controls.clock.utc_us()
    midnight_us = _midnight_us(now_us, zone(call.controls.config))

    def read(conn: Connection) -> tuple[DeviceRow, Any]:
        row = devices.get(conn, call.id)
        heard = [held[0] for held in sources.holdings(conn, Filters(device=row.address))]
        about = {row.address.lower(), *(source.id for source in heard)}
        standing = [n for n in notices.active(conn) if any(subject.lower() in about for subject in n.subject_ids)]
        missing = [
            total
            for source in heard
            for total in gaps.totals(conn, source_id=source.id, since_us=midnight_us, until_us=now_us)
        ]
        return row, ([shapes.source_item(conn, source) for source in heard], standing, missing)

    row, found = await call.read(read)
    return Answer(shapes.device(row, call.controls.device_state(row.address), *found), (row.address,))


async def scan(call: Call[NoQuery, wire.ScanNew]) -> Answer:
    """Look for pendants; nothing is connected."""
    await call.audit(Answer())  # the radio is used before anything is known to be told
    seen = await call.controls.scan_devices(call.body.seconds)
    known = {row.address.lower(): row.name for row in await call.read(devices.list_all)}
    items = [wire.SightingItem(s.address, s.name, s.rssi, known.get(s.address.lower())) for s in seen]
    return Answer(wire.Page(items, None))


async def pair(call: Call[NoQuery, wire.DeviceNew]) -> Answer:
    """Pair a pendant and remember it."""
    address = None if call.body.address is None else call.body.address.strip().upper()
    if address is not None and not _ADDRESS.fullmatch(address):
        raise BadInput("address must be one that a scan shows, like C0:FF:EE:12:34:56.", "address")
    await call.audit(Answer(ids=() if address is None else (address,)))  # connecting and bonding come before storing
    row = await call.controls.pair_device(address, call.body.name)
    return _item(call, row, headers={"Location": f"/v1/devices/{row.address}"})


async def rename(call: Call[NoQuery, wire.DeviceChange]) -> Answer:
    """Call a pendant otherwise."""
    address = await _begin(call)
    return _item(call, await call.controls.rename_device(address, call.body.name))


async def forget(call: Call[NoQuery, None]) -> Answer:
    """Forget a pendant; its source and audio stay."""
    address = await _begin(call)
    await call.controls.forget_device(address)
    return Answer(ids=(address,))


async def change_settings(call: Call[NoQuery, wire.DeviceSettings]) -> Answer:
    """Write settings into a pendant."""
    wanted = call.body
    if wanted == wire.DeviceSettings():
        raise BadInput("give at least one of led, mic_gain and own_name.")
    address = await _begin(call)
    await call.controls.set_device(address, led=wanted.led, mic_gain=wanted.mic_gain, own_name=wanted.own_name)
    return _item(call, await call.read(lambda conn: devices.get(conn, address)))


async def battery(call: Call[BatteryQuery, None]) -> Answer:
    """Read a battery's history, in order of time."""
    since_us = times.moment_or_none(call.query.since, "since") or 0

    def read(conn: Connection) -> Answer:
        row = devices.get(conn, call.id)
        items = [shapes.battery(found) for found in devices.battery(conn, row.address, since_us=since_us)]
        return Answer(wire.Page(items, None), (row.address,), len(items))

    return await call.read(read)


async def connections(call: Call[ConnectionsQuery, None]) -> Answer:
    """Read the last connections, newest first."""

    def read(conn: Connection) -> Answer:
        row = devices.get(conn, call.id)
        items = [shapes.connection(found) for found in devices.connections(conn, row.address, call.query.limit)]
        return Answer(wire.Page(items, None), (row.address,), len(items))

    return await call.read(read)


async def storage(call: Call[NoQuery, None]) -> Answer:
    """Ask a pendant what audio it stores."""
    address = await _begin(call)
    return Answer(await call.controls.device_storage(address), (address,))


async def _begin(call: Call[Any, Any]) -> str:
    """Return the address of a remembered device, and write the row of an act that takes several steps.

    Raises NotFound, after which nothing was begun.
    """
    row = await call.read(lambda conn: devices.get(conn, call.id))
    await call.audit(Answer(ids=(row.address,)))
    return row.address


def _item(call: Call[Any, Any], row: DeviceRow, headers: dict[str, str] | None = None) -> Answer:
    item = shapes.device_item(row, call.controls.device_state(row.address))
    return Answer(item, (row.address,), headers=headers or {})


def _midnight_us(now_us: int, where: ZoneInfo) -> int:
    """Return when the day began in which it is now."""
    today = datetime.fromtimestamp(now_us / 1e6, where).date()
    return round(datetime.combine(today, time(), where).astimezone(UTC).timestamp()) * 1_000_000


ROUTES = (
    Route(
        method="GET",
        path="/v1/devices",
        summary="List the remembered pendants and how their links stand",
        act="device.list",
        handler=listed,
        returns=wire.Page[wire.DeviceItem],
    ),
    Route(
        method="POST",
        path="/v1/devices/scan",
        summary="Look for pendants; answered when the time is over",
        act="device.scan",
        handler=scan,
        body=wire.ScanNew,
        returns=wire.Page[wire.SightingItem],
    ),
    Route(
        method="POST",
        path="/v1/devices",
        summary="Pair a pendant and remember it",
        act="device.pair",
        handler=pair,
        body=wire.DeviceNew,
        returns=wire.DeviceItem,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/devices/{id}",
        summary="Read one pendant with its sources, notices and today's gaps",
        act="device.read",
        handler=one,
        returns=wire.Device,
    ),
    Route(
        method="PATCH",
        path="/v1/devices/{id}",
        summary="Call a pendant otherwise",
        act="device.rename",
        handler=rename,
        body=wire.DeviceChange,
        returns=wire.DeviceItem,
    ),
    Route(
        method="DELETE",
        path="/v1/devices/{id}",
        summary="Forget a pendant; its source and audio stay",
        act="device.forget",
        handler=forget,
        status=204,
    ),
    Route(
        method="PATCH",
        path="/v1/devices/{id}/settings",
        summary="Set brightness, microphone gain or the advertised name of a connected pendant",
        act="device.set",
        handler=change_settings,
        body=wire.DeviceSettings,
        returns=wire.DeviceItem,
    ),
    Route(
        method="GET",
        path="/v1/devices/{id}/battery",
        summary="Read a battery's history: the newest thousand readings, in order of time",
        act="device.battery",
        handler=battery,
        query=BatteryQuery,
        returns=wire.Page[wire.BatteryItem],
    ),
    Route(
        method="GET",
        path="/v1/devices/{id}/connections",
        summary="Read the last connections, newest first",
        act="device.connections",
        handler=connections,
        query=ConnectionsQuery,
        returns=wire.Page[wire.ConnectionItem],
    ),
    Route(
        method="GET",
        path="/v1/devices/{id}/storage",
        summary="Ask a connected pendant what audio it stores",
        act="device.storage",
        handler=storage,
        returns=wire.DeviceStorage,
    ),
)
