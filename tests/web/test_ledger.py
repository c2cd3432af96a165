"""/v1/ledger over real HTTP: a day in the wearer's zone, its sums, its spans, refusals, the audit row."""

from __future__ import annotations

import msgspec
import pytest

from omi_edge.domain import Cause, LedgerState, Withholding
from omi_edge.errors import BadInput, NotFound, Unauthorized
from omi_edge.store import ledger, withheld
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment, Span
from omi_edge.web import wire
from omi_edge.web.client import ApiClient
from tests.helpers import START_US
from tests.web.conftest import SOURCE, Site

S = 1_000_000
HOUR = 3600 * S
NOW_US = START_US + HOUR
AWAY = (Cause.OUT_OF_RANGE, Cause.DISCONNECTED)


async def happen(site: Site, *spans: Span, step_us: int = 0) -> None:
    """Write spans, and step the wall clock when they are written."""
    clock = site.controls.clock
    now = Moment(clock.boot_id(), clock.boot_us(), clock.utc_us())

    def work(conn: Connection) -> None:
        ledger.tick(conn, Moment(now.boot_id, now.boot_us - HOUR, now.utc_us - HOUR - step_us))
        for span in spans:
            ledger.write(conn, SOURCE, span)
        ledger.live(conn, now.boot_us + ledger.tick(conn, now), listening=True)

    await site.controls.opened.write(work)


async def day(site: Site, **query: str) -> wire.LedgerDay:
    return await site.unix.request("GET", "/v1/ledger", query=query, returns=wire.LedgerDay)


async def test_a_day_is_told_with_its_sums_and_spans(site: Site) -> None:
    await happen(
        site,
        Span(START_US, START_US + 600 * S, LedgerState.SPEECH, (), 2 * S, 3),
        Span(START_US + 600 * S, START_US + 1200 * S, LedgerState.UNKNOWN, AWAY),
        Span(START_US + 1200 * S, START_US + 1201 * S, LedgerState.LOST),
        Span(START_US + 1201 * S, START_US + 3000 * S, LedgerState.SILENCE),
    )
    await site.controls.opened.write(
        lambda conn: withheld.begin(
            conn, Withholding.MUTED, now_us=START_US + 3300 * S, until_us=None, by="t",
        )
    )  # fmt: skip
    found = await day(site)
    assert (found.day, found.zone) == ("2026-03-02", site.controls.config.wearer.time_zone or found.zone)
    (item,) = found.items
    assert (item.source_id, item.name, item.seconds) == (SOURCE, "Omi", 3600)
    assert [(row.state, row.causes, row.seconds, row.places) for row in item.sums] == [
        ("muted", [], 300, 1), ("speech", [], 598, 1), ("silence", [], 1799, 1), ("lost", [], 3, 4),
        ("unknown", ["out_of_range", "disconnected"], 600, 1), ("unknown", [], 300, 1),
    ]  # fmt: skip
    assert [(span.state, span.start[11:19], span.seconds) for span in item.spans] == [
        ("speech", "09:00:00", 600), ("unknown", "09:10:00", 600), ("lost", "09:20:00", 1),
        ("silence", "09:20:01", 1799), ("unknown", "09:50:00", 300), ("muted", "09:55:00", 300),
    ]  # fmt: skip
    assert item.spans[0].lost_seconds == 2
    assert [(row[0].startswith("uid:"), row[2]) for row in await site.rows()] == [(True, "ok")]


async def test_a_clock_put_forward_leaves_lengths_alone(site: Site) -> None:
    at_us = START_US - 7200 * S  # what the clock showed an hour ago, two hours behind
    await happen(site, Span(at_us, at_us + HOUR, LedgerState.SPEECH), step_us=7200 * S)
    (item,) = (await day(site)).items
    assert (item.seconds, item.spans[0].start[11:19], item.spans[0].seconds) == (3600, "07:00:00", 3600)


async def test_days_before_and_after_have_their_own_part(site: Site) -> None:
    await happen(site, Span(START_US - 20 * HOUR, START_US, LedgerState.SPEECH))
    days = [await day(site, day=text) for text in ("2026-03-01", "2026-03-02", "2026-03-03", "2026-02-28")]
    seconds = [sum(item.seconds for item in found.items) for found in days]
    assert sum(seconds) == 21 * 3600
    assert all(seconds[:2])
    assert seconds[2:] == [0, 0]
    assert (await day(site, day="2026-03-01", source=SOURCE)).items == days[0].items


@pytest.mark.parametrize(("query", "field"), [
    ({"day": "yesterday"}, "day"), ({"day": "2026-02-30"}, "day"), ({"day": "9999-01-01"}, "day"),
    ({"device": "x"}, "device"),
])  # fmt: skip
async def test_what_cannot_be_is_refused(site: Site, query: dict[str, str], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        await day(site, **query)
    assert refused.value.field == field


async def test_a_source_that_is_not_there_is_not_found_and_a_stranger_is_told_nothing(site: Site) -> None:
    with pytest.raises(NotFound):
        await day(site, source="src_none")
    async with ApiClient(url=site.base, token="oe_wrong") as client:
        with pytest.raises(Unauthorized):
            await client.request("GET", "/v1/ledger", returns=msgspec.Raw)
    assert (await day(site)).items == []
