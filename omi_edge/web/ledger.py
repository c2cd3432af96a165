"""/v1/ledger: what became of every second of a day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from omi_edge.clock import Clock
from omi_edge.config import zone
from omi_edge.domain import LedgerState
from omi_edge.errors import BadInput
from omi_edge.store import ledger, sources
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment, Span
from omi_edge.web import shapes, times, wire
from omi_edge.web.listing import Id
from omi_edge.web.route import Answer, Call, Route

UNDECIDED_US = 10_000_000
"""What was just heard is entered once it is decided, some seconds later: until then nobody knows."""
LAST_DAY = date(times.LATEST.year - 1, 12, 31)


class LedgerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which day, today when none is named, and of which source."""

    day: Annotated[str, Meta(max_length=10, extra_json_schema={"format": "date"})] | None = None
    source: Id | None = None


async def read(call: Call[LedgerQuery, None]) -> Answer:
    """Read the ledger of a day."""
    clock, where = call.controls.clock, zone(call.controls.config)
    now = moment(clock)
    lines = {visit.source_id: visit.sound.since_us for visit in call.controls.doors.visits}
    day = _day(call.query.day, now.utc_us, where)
    start_us, end_us = _midnight_us(day, where), _midnight_us(day + timedelta(days=1), where)

    def account(conn: Connection) -> list[wire.LedgerAccount]:
        known = ledger.anchors(conn)
        span = (ledger.at(known, start_us), ledger.at(known, end_us))
        chosen = ledger.known_sources(conn) if call.query.source is None else [call.query.source]
        present_us = ledger.now_us(conn, now)
        told = []
        for source_id in chosen:
            spans = ledger.account(conn, source_id, *span, now)
            if spans and source_id in lines:
                spans = _connected(spans, present_us - now.boot_us + lines[source_id], present_us)
            if spans:
                told.append(shapes.ledger_account(sources.get(conn, source_id), spans, known))
        return told

    items = await call.read(account)
    told = wire.LedgerDay(day.isoformat(), where.key, times.iso(start_us), times.iso(end_us), items)
    return Answer(told, tuple(item.source_id for item in items), len(items))


def moment(clock: Clock) -> Moment:
    """Read the clock for the ledger."""
    return Moment(clock.boot_id(), clock.boot_us(), clock.utc_us())


def _connected(spans: list[Span], since_us: int, now_us: int) -> list[Span]:
    """Tell of a client that is connected where it was silent; that is written down when it leaves."""
    line = Span(since_us, now_us, LedgerState.DEVICE_SILENT).part(spans[0].start_us, spans[-1].end_us)
    if not line.length_us:
        return spans
    found = ledger.laid(spans, line)
    last = found[-1]
    if last.state is LedgerState.DEVICE_SILENT and last.end_us == now_us and last.length_us < UNDECIDED_US:
        found[-1] = Span(last.start_us, last.end_us, LedgerState.UNKNOWN)
    return found


def _day(text: str | None, now_us: int, where: ZoneInfo) -> date:
    if text is None:
        return datetime.fromtimestamp(now_us / 1e6, where).date()
    try:
        found = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise BadInput("day must be a day of the calendar, like 2026-03-05.", "day") from error
    if not date(1970, 1, 2) <= found <= LAST_DAY:
        raise BadInput(f"day must lie between 1970 and {LAST_DAY.year}; is the year right?", "day")
    return found


def _midnight_us(day: date, where: ZoneInfo) -> int:
    return round(datetime.combine(day, time(), where).astimezone(UTC).timestamp()) * 1_000_000


ROUTES = (
    Route(
        method="GET",
        path="/v1/ledger",
        summary="Read what became of every second of a day",
        act="ledger.read",
        handler=read,
        query=LedgerQuery,
        returns=wire.LedgerDay,
    ),
)
