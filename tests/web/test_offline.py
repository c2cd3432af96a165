"""What a pendant stored while it was away, over real HTTP: its state, held recordings, and what conversations tell."""

from __future__ import annotations

import pytest

from omi_edge.domain import Codec, DeviceState, FetchProgress, FetchState, LinkState
from omi_edge.errors import AuditUnavailable, BadInput, LinkLost, NotFound
from omi_edge.store import audit, devices, offline
from omi_edge.store.connection import Connection
from omi_edge.store.offline import CursorRow, NewRun, RecordRow, RunRow, RunState
from omi_edge.web import offlinewire, wire
from tests.helpers import START_US
from tests.web.conftest import ADDRESS, BEGAN_US, CONVERSATION, SOURCE, Site

DEVICE = f"/v1/devices/{ADDRESS}"
SECOND = 1_000_000
MINUTE = 60 * SECOND
NEW = "C0:FF:EE:00:00:02"


async def stored(site: Site, start_us: int | None, *, first: int = 0, frames: int = 100) -> RunRow:
    """A run of one record of the site's pendant, fetched and placed."""

    def work(conn: Connection) -> RunRow:
        reading_n = offline.begin_reading(
            conn, SOURCE, away_us=START_US, connected_us=START_US + MINUTE, read_us=START_US + MINUTE, offset_us=0,
            ledger_us=0, codec=Codec.OPUS_20MS, step=1,
        )  # fmt: skip
        at = first + 1
        offline.keep(
            conn, SOURCE, [RecordRow(0, first, reading_n, None, bytes(444))], CursorRow(0, at), (0, at)
        )  # fmt: skip
        run = NewRun(False, 0, first, 0, first, frames, start_us, 2 * SECOND)
        offline.place(conn, SOURCE, reading_n, [run], placed=(0, at), after=None, empty=(), now_us=START_US)
        return offline.latest(conn, SOURCE, 1)[0]

    return await site.controls.opened.write(work)


async def hear(site: Site, run: RunRow, left_out_us: int = 0) -> None:
    await site.controls.opened.write(
        lambda conn: offline.heard(
            conn, run, frames=run.frames, at_seq=run.last_seq, at_frame=run.frames, left_out_us=left_out_us
        )
    )


async def hold(site: Site, run: RunRow, earliest_us: int | None = START_US) -> None:
    await site.controls.opened.write(
        lambda conn: offline.settle_run(
            conn, run.n, state=RunState.HELD, start_us=START_US + MINUTE, uncertainty_us=MINUTE, guessed=True,
            earliest_us=earliest_us, latest_us=START_US + 2 * MINUTE,
        )
    )  # fmt: skip


async def state_of(site: Site) -> offlinewire.Offline:
    return await site.unix.request("GET", DEVICE + "/offline", returns=offlinewire.Offline)


async def acts(site: Site) -> list[tuple[str, str]]:
    return [row[1:] for row in await site.rows()]


async def test_a_pendant_that_stored_nothing_is_told_as_that(site: Site) -> None:
    found = await state_of(site)
    assert (found.id, found.state, found.since) == (ADDRESS, "away", "2026-03-02T09:00:00.000Z")
    assert (found.waiting_bytes, found.waiting_seconds, found.held, found.runs, found.losses) == (0, 0.0, 0, [], [])
    assert await acts(site) == [("device.offline", "ok")]
    with pytest.raises(NotFound):
        await site.unix.request("GET", f"/v1/devices/{NEW}/offline", returns=offlinewire.Offline)


async def test_progress_and_what_waits_are_told_without_a_radio(site: Site) -> None:
    site.controls.fetching[ADDRESS] = FetchProgress(
        FetchState.FETCHING, START_US, 300, 1200, 90 * SECOND, 360 * SECOND, 45 * SECOND
    )
    site.controls.bus.publish("device", START_US, id=ADDRESS)
    heard, placed, held = [await stored(site, START_US + n * MINUTE, first=n) for n in range(3)]
    await hear(site, heard, left_out_us=500_000)
    await hold(site, held)
    await site.controls.opened.write(
        lambda conn: offline.lose(conn, SOURCE, placed.reading_n, store=0, first=7, last=8, records=2, why="freed")
    )
    found = await state_of(site)
    assert (found.state, found.done_bytes, found.total_bytes) == ("fetching", 300, 1200)
    assert (found.done_seconds, found.total_seconds, found.left_seconds) == (90.0, 360.0, 45.0)
    assert (found.waiting_bytes, found.waiting_seconds, found.held, found.event) == (888, 2.0, 1, 1)
    assert [run.state for run in found.runs] == ["held", "placed", "heard"]
    first, second, third = found.runs
    assert (first.guessed, first.earliest, first.latest) == (
        True, "2026-03-02T09:00:00.000Z", "2026-03-02T09:02:00.000Z"
    )  # fmt: skip
    assert (second.start, second.seconds, second.uncertainty_seconds) == ("2026-03-02T09:01:00.000Z", 2.0, 2.0)
    assert (third.heard_seconds, third.left_out_seconds, third.guessed) == (2.0, 0.5, False)
    assert [(loss.why, loss.records, loss.start) for loss in found.losses] == [("freed", 2, None)]
    one = await site.unix.request("GET", DEVICE + "/offline", query={"limit": 1}, returns=offlinewire.Offline)
    assert len(one.runs) == 1


async def test_it_is_looked_for_again_on_request(site: Site) -> None:
    site.controls.states[ADDRESS] = DeviceState(LinkState.SEARCHING, START_US)
    with pytest.raises(LinkLost, match="Bring it near"):
        await site.unix.request("POST", DEVICE + "/offline/fetch", returns=offlinewire.OfflineState)
    site.controls.states[ADDRESS] = DeviceState(LinkState.CONNECTED, START_US)
    site.controls.bus.publish("device", START_US, id=ADDRESS)
    begun = await site.unix.request("POST", DEVICE.lower() + "/offline/fetch", returns=offlinewire.OfflineState)
    assert (begun.id, begun.event) == (ADDRESS, 1)
    assert site.controls.asked == [("fetch", ADDRESS)]
    assert ("device.fetch", "ok") in await acts(site)


async def test_held_recordings_wait_for_a_word_and_take_it(site: Site) -> None:
    keep, drop = [await stored(site, None, first=n) for n in range(2)]
    await hold(site, keep)
    await hold(site, drop)
    page = await site.unix.request("GET", DEVICE + "/offline/held", returns=wire.Page[offlinewire.OfflineRun])
    assert [item.id for item in page.items] == [keep.id, drop.id]
    path = DEVICE + "/offline/held/"
    kept = await site.unix.request(
        "POST", path + keep.id, body=offlinewire.HeldDecision(True), returns=offlinewire.OfflineRun
    )
    dropped = await site.unix.request(
        "POST", path + drop.id, body=offlinewire.HeldDecision(False), returns=offlinewire.OfflineRun
    )
    assert (kept.state, dropped.state) == ("placed", "discarded")
    page = await site.unix.request("GET", DEVICE + "/offline/held", returns=wire.Page[offlinewire.OfflineRun])
    assert page.items == []
    with pytest.raises(BadInput, match="does not wait"):
        await site.unix.request(
            "POST", path + keep.id, body=offlinewire.HeldDecision(False), returns=offlinewire.OfflineRun
        )
    assert (await state_of(site)).waiting_bytes == 444  # what was let go of is gone
    assert ("device.decide", "ok") in await acts(site)


async def test_nothing_is_decided_without_a_row_that_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await stored(site, None)
    await hold(site, run)

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(audit, "append", fail)
    with pytest.raises(AuditUnavailable):
        await site.unix.request(
            "POST", f"{DEVICE}/offline/held/{run.id}", body=offlinewire.HeldDecision(False),
            returns=offlinewire.OfflineRun,
        )  # fmt: skip
    assert site.controls.asked == []
    (still,) = await site.controls.opened.read(lambda conn: offline.held(conn, SOURCE))
    assert still.id == run.id


async def test_a_decision_names_a_recording_of_that_pendant(site: Site) -> None:
    run = await stored(site, None)
    await hold(site, run)
    await site.controls.opened.write(
        lambda conn: devices.remember(conn, address=NEW, name="green", own_name="Omi", now_us=START_US)
    )
    for path in (f"{DEVICE}/offline/held/run_0", f"/v1/devices/{NEW}/offline/held/{run.id}"):
        with pytest.raises(NotFound, match="of this pendant"):
            await site.unix.request(
                "POST", path, body=offlinewire.HeldDecision(True), returns=offlinewire.OfflineRun
            )  # fmt: skip
    with pytest.raises(BadInput):
        await site.unix.request(
            "POST", f"{DEVICE}/offline/held/{run.id}", body={"keep": True}, returns=offlinewire.OfflineRun
        )
    assert site.controls.asked == []


async def test_what_a_forgotten_pendant_stored_can_still_be_decided(site: Site) -> None:
    run = await stored(site, None)
    await hold(site, run)
    await site.controls.opened.write(lambda conn: devices.forget(conn, ADDRESS))
    page = await site.unix.request("GET", DEVICE + "/offline/held", returns=wire.Page[offlinewire.OfflineRun])
    assert [item.id for item in page.items] == [run.id]
    done = await site.unix.request(
        "POST", f"{DEVICE}/offline/held/{run.id}", body=offlinewire.HeldDecision(False), returns=offlinewire.OfflineRun
    )
    assert done.state == "discarded"
    with pytest.raises(NotFound):
        await site.unix.request("POST", DEVICE + "/offline/fetch", returns=offlinewire.OfflineState)


async def conversation(site: Site) -> tuple[bool, float | None, bool]:
    """What its list and the conversation itself tell; the same."""
    (listed,) = (await site.unix.request("GET", "/v1/conversations", returns=wire.Page[wire.ConversationItem])).items
    one = await site.unix.request("GET", f"/v1/conversations/{CONVERSATION}", returns=wire.Conversation)
    told = [(item.offline, item.time_uncertainty_seconds, item.time_guessed) for item in (listed, one)]
    assert told[0] == told[1]
    return told[0]


async def test_a_conversation_tells_that_it_was_stored_and_how_sure_its_time_is(site: Site) -> None:
    assert await conversation(site) == (False, 0.0, False)
    await hear(site, await stored(site, BEGAN_US - 2 * SECOND - 1))  # ends right before it
    assert await conversation(site) == (False, 0.0, False)
    beside = await stored(site, BEGAN_US + SECOND, first=1)
    assert await conversation(site) == (False, 0.0, False)  # nothing of it was heard yet
    await hear(site, beside, left_out_us=2 * SECOND)
    assert await conversation(site) == (False, 0.0, False)  # all of it was there, or withheld
    await hear(site, await stored(site, BEGAN_US - SECOND, first=2))
    assert await conversation(site) == (True, 2.0, False)


@pytest.mark.parametrize(("earliest_us", "uncertainty"), [(START_US, 60.0), (None, None)])
async def test_a_guessed_time_is_told_as_that(site: Site, earliest_us: int | None, uncertainty: float | None) -> None:
    run = await stored(site, None)

    def keep(conn: Connection) -> None:
        offline.settle_run(
            conn, run.n, state=RunState.PLACED, start_us=BEGAN_US, uncertainty_us=MINUTE if earliest_us else 0,
            guessed=True, earliest_us=earliest_us, latest_us=BEGAN_US + 2 * SECOND,
        )  # fmt: skip

    await site.controls.opened.write(keep)
    await hear(site, run)
    assert await conversation(site) == (True, uncertainty, True)
