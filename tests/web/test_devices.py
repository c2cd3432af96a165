"""Pendants, recording, gaps and bookmarks over real HTTP: answers, audit rows, refusals."""

from __future__ import annotations

import msgspec
import pytest

from omi_edge.domain import Cause, DeviceState, Gap, LinkState, Security, Severity, Sighting
from omi_edge.errors import (
    AttRefused,
    AuditUnavailable,
    BadInput,
    BondLost,
    LinkError,
    LinkLost,
    NotFound,
    PendantAbsent,
    Unauthorized,
)
from omi_edge.store import devices, gaps, notices, withheld
from omi_edge.store.connection import Connection
from omi_edge.web import problems, wire
from omi_edge.web.client import ApiClient, error_of
from tests.helpers import START_US
from tests.web.conftest import ADDRESS, CONVERSATION, SOURCE, Site

DEVICE = f"/v1/devices/{ADDRESS}"
SECOND = 1_000_000
HOUR = 3600 * SECOND
NOW_US = START_US + HOUR
"""The site's clock stands there: 10:00 UTC."""
NEW = "C0:FF:EE:00:00:02"


def connected(**known: object) -> DeviceState:
    return msgspec.structs.replace(DeviceState(LinkState.CONNECTED, NOW_US), **known)


async def acts(site: Site) -> list[tuple[str, str]]:
    return [row[1:] for row in await site.rows()]


# --- reading pendants -----------------------------------------------------------------------------------------------


async def test_a_pendant_is_listed_as_it_is_now_or_was_last(site: Site) -> None:
    def know(conn: Connection) -> None:
        devices.note(
            conn, ADDRESS, battery=40, rssi=-80, codec=21, security="bonded", firmware="3.0.21", charging=False,
            clock_offset_us=-1_500_000, clock_us=START_US, seen_us=START_US,
        )  # fmt: skip

    await site.controls.opened.write(know)
    (off,) = (await site.unix.request("GET", "/v1/devices", returns=wire.Page[wire.DeviceItem])).items
    assert (off.id, off.name, off.own_name, off.state, off.since) == (ADDRESS, "grey", "Omi", "off", None)
    assert (off.battery, off.rssi, off.codec, off.link, off.charging) == (40, -80, "opus-20ms", "bonded", False)
    assert (off.clock_offset, off.seen, off.led) == (-1.5, "2026-03-02T09:00:00.000Z", None)
    site.controls.states[ADDRESS] = connected(
        battery=39, charging=True, rssi=-50, codec=99, security=Security.OPEN, features=("button", "haptic"),
        led=30, mic_gain=6, hours_left=7.5, storage="ring",
    )  # fmt: skip
    (on,) = (await site.unix.request("GET", "/v1/devices", returns=wire.Page[wire.DeviceItem])).items
    assert (on.state, on.since, on.battery, on.charging) == ("connected", "2026-03-02T10:00:00.000Z", 39, True)
    assert (on.rssi, on.codec, on.link, on.features) == (-50, "unknown (99)", "open", ["button", "haptic"])
    assert (on.led, on.mic_gain, on.hours_left, on.storage) == (30, 6, 7.5, "ring")
    site.controls.states[ADDRESS] = DeviceState(LinkState.REFUSED, NOW_US, "not-encrypted", "Pair it.")
    (refused,) = (await site.unix.request("GET", "/v1/devices", returns=wire.Page[wire.DeviceItem])).items
    assert (refused.state, refused.cause, refused.message) == ("refused", "not-encrypted", "Pair it.")


async def test_one_pendant_comes_with_sources_notices_and_what_is_missing_today(site: Site) -> None:
    def happen(conn: Connection) -> None:
        for code, subject in (("battery-low", ADDRESS.lower()), ("elsewhere", "src_other")):
            notices.raise_notice(
                conn, code=code, severity=Severity.WARNING, subject_ids=(subject,), message="m", now_us=START_US
            )
        midnight_us = START_US - 9 * HOUR
        gaps.put(conn, Gap(SOURCE, midnight_us - HOUR, midnight_us + HOUR, (Cause.PENDANT_OFF,)))
        gaps.put(conn, Gap(SOURCE, NOW_US - 2 * SECOND, NOW_US + HOUR, (Cause.OUT_OF_RANGE, Cause.PENDANT_OFF), 3))
        gaps.put(conn, Gap(SOURCE, midnight_us - 9 * HOUR, midnight_us - 8 * HOUR, (Cause.MUTED,)))

    await site.controls.opened.write(happen)
    found = await site.unix.request("GET", DEVICE.lower().replace(":", "%3A"), returns=wire.Device)
    assert (found.id, [source.id for source in found.sources]) == (ADDRESS, [SOURCE])
    assert {notice.code for notice in found.notices} == {"battery-low", "disk_full"}  # of it, and of its source
    assert [(gap.causes, gap.count, gap.seconds, gap.frames) for gap in found.gaps_today] == [
        (["pendant_off"], 1, 3600.0, 0),
        (["out_of_range", "pendant_off"], 1, 2.0, 3),
    ]
    assert await acts(site) == [("device.read", "ok")]


async def test_today_begins_where_the_wearer_lives(site: Site) -> None:
    zone = msgspec.structs.replace(site.controls.config.wearer, time_zone="Asia/Tokyo")  # midnight there: 15:00 UTC
    site.controls.config = msgspec.structs.replace(site.controls.config, wearer=zone)
    gap = Gap(SOURCE, NOW_US - 20 * HOUR, NOW_US, (Cause.DAEMON_DOWN,))
    await site.controls.opened.write(lambda conn: gaps.put(conn, gap))
    found = await site.unix.request("GET", DEVICE, returns=wire.Device)
    assert [gap.seconds for gap in found.gaps_today] == [19 * 3600.0]


async def test_battery_and_connections_are_told(site: Site) -> None:
    def happen(conn: Connection) -> None:
        for n in range(3):
            devices.add_battery(conn, ADDRESS, at_us=START_US + n * SECOND, percent=50 - n, charging=None)
        first = devices.began(conn, ADDRESS, at_us=START_US, security="open")
        devices.ended(conn, first, at_us=START_US + SECOND, ending="remote")
        devices.began(conn, ADDRESS, at_us=START_US + 2 * SECOND, security=None)

    await site.controls.opened.write(happen)
    levels = await site.unix.request("GET", DEVICE + "/battery", returns=wire.Page[wire.BatteryItem])
    assert [item.percent for item in levels.items] == [50, 49, 48]
    since = {"since": "2026-03-02T09:00:02Z"}
    (last,) = (
        await site.unix.request("GET", DEVICE + "/battery", query=since, returns=wire.Page[wire.BatteryItem])
    ).items
    assert (last.at, last.percent, last.charging) == ("2026-03-02T09:00:02.000Z", 48, None)
    made = await site.unix.request("GET", DEVICE + "/connections", returns=wire.Page[wire.ConnectionItem])
    up, over = made.items
    assert (up.ended, up.seconds, up.link, up.ending) == (None, None, "unknown", None)
    assert (over.seconds, over.link, over.ending) == (1.0, "open", "remote")
    one = await site.unix.request(
        "GET", DEVICE + "/connections", query={"limit": 1}, returns=wire.Page[wire.ConnectionItem]
    )
    assert one.items == [up]


async def test_stored_audio_is_asked_for(site: Site) -> None:
    found = await site.unix.request("GET", DEVICE + "/storage", returns=wire.DeviceStorage)
    assert found == wire.DeviceStorage("ring", 1000, 2000, 3, True)
    assert await acts(site) == [("device.storage", "ok")]


# --- changing pendants ----------------------------------------------------------------------------------------------


async def test_a_scan_tells_who_is_remembered(site: Site) -> None:
    site.controls.in_sight = [Sighting(ADDRESS.lower(), "Omi", -50, 0), Sighting(NEW, "Omi CV", None, 0)]
    page = await site.unix.request(
        "POST", "/v1/devices/scan", body=wire.ScanNew(3), returns=wire.Page[wire.SightingItem]
    )
    assert [(item.address, item.rssi, item.remembered_as) for item in page.items] == [
        (ADDRESS.lower(), -50, "grey"),
        (NEW, None, None),
    ]
    await site.unix.request("POST", "/v1/devices/scan", body={}, returns=msgspec.Raw)
    assert site.controls.asked == [("scan", 3.0), ("scan", 10.0)]
    assert await acts(site) == [("device.scan", "ok")] * 2


async def test_a_pendant_is_paired_by_address_or_alone(site: Site) -> None:
    site.controls.in_sight = [Sighting(NEW, "Omi", -50, 0)]
    item = await site.unix.request("POST", "/v1/devices", body={}, returns=wire.DeviceItem)
    assert (item.id, item.name, item.state) == (NEW, "Omi", "off")
    site.controls.in_sight.append(Sighting("C0:FF:EE:00:00:0A", "Omi", -60, 0))
    with pytest.raises(BadInput, match="2 pendants"):
        await site.unix.request("POST", "/v1/devices", body={}, returns=wire.DeviceItem)
    new = wire.DeviceNew("c0:ff:ee:00:00:0a", "kitchen")
    async with site.tcp.post("/v1/devices", json=msgspec.to_builtins(new), headers=site.bearer) as response:
        assert response.status == 201
        assert response.headers["Location"] == "/v1/devices/C0:FF:EE:00:00:0A"
        assert (await response.json())["name"] == "kitchen"
    assert site.controls.asked[-1] == ("pair", "C0:FF:EE:00:00:0A", "kitchen")
    site.controls.in_sight = []
    with pytest.raises(PendantAbsent):
        await site.unix.request("POST", "/v1/devices", body={}, returns=wire.DeviceItem)


async def test_a_pendant_is_renamed_and_forgotten(site: Site) -> None:
    item = await site.unix.request("PATCH", DEVICE, body=wire.DeviceChange("kitchen"), returns=wire.DeviceItem)
    assert item.name == "kitchen"
    await site.unix.request("DELETE", DEVICE, returns=type(None))
    page = await site.unix.request("GET", "/v1/devices", returns=wire.Page[wire.DeviceItem])
    assert page.items == []
    sources = await site.unix.request("GET", "/v1/sources", returns=wire.Page[wire.SourceItem])
    assert [source.id for source in sources.items] == [SOURCE]  # what was heard stays
    assert (await acts(site))[:2] == [("device.rename", "ok"), ("device.forget", "ok")]


async def test_settings_are_written_when_it_is_connected(site: Site) -> None:
    with pytest.raises(LinkLost):
        await site.unix.request("PATCH", DEVICE + "/settings", body={"led": 5}, returns=wire.DeviceItem)
    site.controls.states[ADDRESS] = connected(mic_gain=6)
    item = await site.unix.request(
        "PATCH", DEVICE + "/settings", body={"led": 5, "own_name": "Ömi"}, returns=wire.DeviceItem
    )
    assert (item.led, site.controls.asked) == (5, [("set", ADDRESS, 5, None, "Ömi")])
    with pytest.raises(BadInput, match="at least one"):
        await site.unix.request("PATCH", DEVICE + "/settings", body={}, returns=wire.DeviceItem)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/v1/devices/scan", {"seconds": 0.5}, "seconds"),
        ("POST", "/v1/devices/scan", {"seconds": 61}, "seconds"),
        ("POST", "/v1/devices", {"address": "the grey one"}, "address"),
        ("POST", "/v1/devices", {"address": "C0:FF:EE:00:00:0G"}, "address"),
        ("POST", "/v1/devices", {"adress": NEW}, "adress"),
        ("PATCH", DEVICE, {"name": ""}, "name"),
        ("PATCH", DEVICE, {"name": "\x1b[2J"}, "name"),
        ("PATCH", DEVICE + "/settings", {"led": 101}, "led"),
        ("PATCH", DEVICE + "/settings", {"mic_gain": 9}, "mic_gain"),
        ("PATCH", DEVICE + "/settings", {"own_name": "x" * 21}, "own_name"),
        ("GET", DEVICE + "/battery?since=yesterday", None, "since"),
        ("GET", DEVICE + "/connections?limit=0", None, "limit"),
        ("POST", "/v1/recording/pause", {"seconds": 0}, "seconds"),
        ("POST", "/v1/recording/off-record", {"seconds": 1e9}, "seconds"),
        ("GET", "/v1/recording/withheld?since=2026", None, "since"),
        ("GET", "/v1/gaps?cursor=x", None, "cursor"),
        ("GET", "/v1/gaps?device=x", None, "device"),
        ("GET", "/v1/bookmarks?limit=201", None, "limit"),
        ("POST", "/v1/bookmarks", {"source_id": ""}, "source_id"),
    ],
)
async def test_bad_input_names_its_field_and_does_nothing(
    site: Site, method: str, path: str, body: object, field: str
) -> None:
    before = await site.controls.opened.read(lambda conn: (devices.list_all(conn), conn.total_changes))
    with pytest.raises(BadInput) as refused:
        await site.unix.request(method, path, body=body, returns=msgspec.Raw)
    assert refused.value.field == field
    assert site.controls.asked == []
    assert (await site.controls.opened.read(devices.list_all)) == before[0]
    assert [outcome for _, outcome in await acts(site)][-1] == "failed"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/devices/{x}", None),
        ("PATCH", "/v1/devices/{x}", {"name": "a"}),
        ("DELETE", "/v1/devices/{x}", None),
        ("PATCH", "/v1/devices/{x}/settings", {"led": 1}),
        ("GET", "/v1/devices/{x}/battery", None),
        ("GET", "/v1/devices/{x}/connections", None),
        ("GET", "/v1/devices/{x}/storage", None),
        ("POST", "/v1/bookmarks", {"source_id": "src_nope"}),
    ],
)
async def test_what_is_not_there_is_404_with_one_row(site: Site, method: str, path: str, body: object) -> None:
    with pytest.raises(NotFound):
        await site.unix.request(method, path.replace("{x}", NEW), body=body, returns=msgspec.Raw)
    assert [outcome for _, outcome in await acts(site)] == ["not-found"]
    assert site.controls.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/devices", None),
        ("POST", "/v1/devices/scan", {}),
        ("POST", "/v1/devices", {}),
        ("DELETE", DEVICE, None),
        ("POST", "/v1/recording/pause", {}),
        ("POST", "/v1/recording/resume", None),
        ("GET", "/v1/gaps", None),
        ("POST", "/v1/bookmarks", {}),
    ],
)
async def test_a_stranger_is_told_and_may_nothing(site: Site, method: str, path: str, body: object) -> None:
    async with ApiClient(url=site.base, token="oe_wrong") as client:
        with pytest.raises(Unauthorized):
            await client.request(method, path, body=body, returns=msgspec.Raw)
    assert [(row[0], row[2]) for row in await site.rows()] == [("anonymous", "denied")]
    assert site.controls.asked == []


# --- recording, gaps, bookmarks -------------------------------------------------------------------------------------


async def test_recording_is_paused_and_goes_on(site: Site) -> None:
    on = await site.unix.request("GET", "/v1/recording", returns=wire.Recording)
    assert on == wire.Recording("recording", None, None, None)
    paused = await site.unix.request("POST", "/v1/recording/pause", body={"seconds": 90}, returns=wire.Recording)
    assert (paused.state, paused.since, paused.until) == (
        "muted",
        "2026-03-02T10:00:00.000Z",
        "2026-03-02T10:01:30.000Z",
    )
    assert (paused.by or "").startswith("uid:")
    endless = await site.unix.request("POST", "/v1/recording/pause", body={}, returns=wire.Recording)
    assert (endless.since, endless.until) == (paused.since, None)
    assert await site.unix.request("GET", "/v1/recording", returns=wire.Recording) == endless
    off = await site.unix.request("POST", "/v1/recording/off-record", body={}, returns=wire.Recording)
    assert (off.state, off.until) == ("off_record", "2026-03-02T10:30:00.000Z")  # device.off_record
    assert await site.unix.request("POST", "/v1/recording/resume", returns=wire.Recording) == on
    assert await site.unix.request("POST", "/v1/recording/resume", returns=wire.Recording) == on
    rows = await acts(site)
    assert [act for act, _ in rows] == [
        "recording.read", "recording.pause", "recording.pause", "recording.read", "recording.off-record",
        "recording.resume", "recording.resume",
    ]  # fmt: skip
    assert {outcome for _, outcome in rows} == {"ok"}
    page = await site.unix.request("GET", "/v1/recording/withheld", returns=wire.Page[wire.WithheldItem])
    assert [(item.kind, item.end) for item in page.items] == [
        ("off_record", "2026-03-02T10:00:00.000Z"),
        ("muted", "2026-03-02T10:00:00.000Z"),
    ]
    later = {"since": "2026-03-02T10:00:01Z"}
    none = await site.unix.request("GET", "/v1/recording/withheld", query=later, returns=wire.Page[wire.WithheldItem])
    assert none.items == []


async def test_a_mute_holds_even_where_it_cannot_be_audited(site: Site) -> None:
    """Recording somebody who asked for silence would be worse than a missing row; the caller is told of that."""
    await site.controls.opened.write(lambda conn: conn.execute("ALTER TABLE audit RENAME TO audit_away"))
    with pytest.raises(AuditUnavailable):
        await site.unix.request("POST", "/v1/recording/pause", body={}, returns=msgspec.Raw)
    assert await site.controls.opened.read(withheld.current) is not None


async def test_nothing_else_is_done_unaudited(site: Site) -> None:
    """What cannot be audited is not done: the row comes first."""
    await site.controls.opened.write(lambda conn: conn.execute("ALTER TABLE audit RENAME TO audit_away"))
    for path in ("recording/resume", "bookmarks", "devices/scan", "devices"):
        with pytest.raises(AuditUnavailable):
            await site.unix.request("POST", f"/v1/{path}", body={}, returns=msgspec.Raw)
    counts = await site.controls.opened.read(
        lambda conn: [
            conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("withheld", "bookmarks")
        ]
    )
    assert (counts, site.controls.asked) == ([0, 0], [])


async def test_gaps_are_listed_in_pages(site: Site) -> None:
    def happen(conn: Connection) -> None:
        for n in range(3):
            at_us = START_US + n * SECOND
            gaps.put(conn, Gap(SOURCE, at_us, at_us + SECOND // 2, (Cause.DISCONNECTED, Cause.OUT_OF_RANGE), n))

    await site.controls.opened.write(happen)
    first = await site.unix.request("GET", "/v1/gaps", query={"limit": 2}, returns=wire.Page[wire.GapItem])
    newest = first.items[0]
    assert (newest.source_id, newest.start, newest.seconds, newest.frames) == (
        SOURCE,
        "2026-03-02T09:00:02.000Z",
        0.5,
        2,
    )
    assert newest.causes == ["disconnected", "out_of_range"]
    rest = await site.unix.request("GET", "/v1/gaps", query={"cursor": first.next}, returns=wire.Page[wire.GapItem])
    assert ([item.frames for item in rest.items], rest.next) == ([0], None)
    within = {"since": "2026-03-02T09:00:01.2Z", "until": "2026-03-02T09:00:02Z", "source": SOURCE}
    found = await site.unix.request("GET", "/v1/gaps", query=within, returns=wire.Page[wire.GapItem])
    assert [item.frames for item in found.items] == [1]


async def test_bookmarks_are_set_and_listed(site: Site) -> None:
    async with site.tcp.post("/v1/bookmarks", json={}, headers=site.bearer) as response:
        assert response.status == 201
        made = msgspec.json.decode(await response.read(), type=wire.BookmarkItem)
    assert (made.source_id, made.at, made.by, made.conversation_id) == (
        SOURCE,
        "2026-03-02T10:00:00.000Z",
        "client:laptop",
        None,
    )
    moved = "UPDATE bookmarks SET at_us = ?"
    await site.controls.opened.write(lambda conn: conn.execute(moved, (START_US + 5 * SECOND,)))
    page = await site.unix.request("GET", "/v1/bookmarks", returns=wire.Page[wire.BookmarkItem])
    assert [(item.id, item.conversation_id) for item in page.items] == [(made.id, CONVERSATION)]
    until = {"until": "2026-03-02T09:00:00Z"}
    assert (
        await site.unix.request("GET", "/v1/bookmarks", query=until, returns=wire.Page[wire.BookmarkItem])
    ).items == []
    assert (await acts(site))[0] == ("bookmark.create", "ok")


# --- what the client makes of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [BondLost("Pair it again."), LinkLost("It is away."), AttRefused("It said no.", 0x0E)]
)
def test_an_error_of_the_link_is_the_same_on_the_other_side(error: LinkError) -> None:
    problem, _ = problems.problem_of(error)
    again = error_of(problem.status, msgspec.json.encode(problem))
    assert (type(again), str(again), again.exit_code) == (type(error), str(error), 8)


async def test_an_event_may_have_an_empty_time(site: Site) -> None:
    site.controls.bus.publish("recording", NOW_US, state="muted", until_us=None)
    site.controls.bus.publish("gap", NOW_US, source_id=SOURCE, start_us=NOW_US)
    events = site.unix.events(after=0, kinds=("recording", "gap"))
    assert (await anext(events)).data == {"state": "muted", "until": None}
    assert (await anext(events)).data["start"] == "2026-03-02T10:00:00.000Z"
    await events.aclose()
