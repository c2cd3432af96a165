"""A day of a pendant, and its ledger: both tell the same story, whatever happens to pendant, link and clocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.daemon import Daemon
from omi_edge.domain import Cause, LedgerState, Withholding
from omi_edge.store import ledger, sources
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment, Span
from omi_edge.virtual.faults import Fate, Faults, Truth
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.pendant import Pendant
from tests.scripted import register
from tests.test_devices import World

EVER_US = 1 << 62
HEARD = (LedgerState.SPEECH, LedgerState.SILENCE)
WITHHELD = (LedgerState.MUTED, LedgerState.OFF_RECORD)


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


@pytest.fixture
def world(folder: Path, clock: DrivenClock) -> World:
    return World(folder, clock)


class Book:
    """What the ledger says, in boot time."""

    def __init__(self, spans: list[Span], offset_us: int) -> None:
        self.spans = [Span(s.start_us - offset_us, s.end_us - offset_us, s.state, s.causes, s.lost_us, s.losses)
                      for s in spans]  # fmt: skip
        self.sums = {row.state: row.total_us / 1e6 for row in ledger.sums(spans) if not row.causes}

    def seconds(self, *states: LedgerState) -> float:
        return sum(self.sums.get(state, 0.0) for state in states)

    def inside(self, start_us: int, end_us: int, *states: LedgerState) -> float:
        """Seconds of [start, end) in these states."""
        cut = (span.part(start_us, end_us) for span in self.spans if span.state in states)
        return sum(span.length_us - span.lost_us for span in cut) / 1e6


async def book(daemon: Daemon, pendant: Pendant) -> Book:
    clock = daemon.clock
    now = Moment(clock.boot_id(), clock.boot_us(), clock.utc_us())

    def work(conn: Connection) -> Book:
        source = sources.for_device(conn, pendant.address)
        assert source is not None
        spans = ledger.account(conn, source.id, 0, EVER_US, now)
        return Book(spans, ledger.now_us(conn, now) - now.boot_us)

    return await daemon.db.read(work)


def true_seconds(found: list[Truth], *fates: Fate) -> float:
    return sum(truth.end_us - truth.start_us for truth in found if truth.fate in fates) / 1e6


async def test_the_ledger_agrees_with_the_pendants_own_record(world: World) -> None:
    """Absences, sleep, mutes, losses, restarts clean and not, and a wall clock that is stepped both ways."""
    pendant = world.pendant(faults=Faults(lose=0.01))
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        began_us = world.clock.boot_us()
        await world.hear(pendant, 40)
        await world.hear(pendant, 60, level=5)  # falls asleep after ten seconds
        await world.hear(pendant, 30)
        pendant.go_away(45)
        await world.hear(pendant, 80)
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        world.clock.step_utc(3600)
        await world.hear(pendant, 20)
        await daemon.withhold(Withholding.OFF_RECORD, None, "test")
        await world.hear(pendant, 15)
        await daemon.resume("test")
        await world.hear(pendant, 30)
        world.clock.step_utc(-7200)
        await world.hear(pendant, 30)
        pendant.reboot()
        await world.hear(pendant, 60)
        pendant.hold(20, consuming=True)
        await world.hear(pendant, 50)
    down_us = world.clock.boot_us()
    await world.hear(pendant, 90)
    up_us = world.clock.boot_us()
    async with world.daemon() as daemon:
        await world.hear(pendant, 30)
        await world.clock.advance(5)
        now_us = world.clock.boot_us()
        found = await book(daemon, pendant)
    # it accounts for every second
    assert found.spans[-1].end_us == now_us
    assert sum(span.length_us for span in found.spans) == now_us - found.spans[0].start_us
    assert len(found.spans) < 40
    truth = [t for t in pendant.record if t.start_us >= began_us]
    withheld = [span for span in found.spans if span.state in WITHHELD]
    assert [span.state for span in withheld] == [LedgerState.MUTED, LedgerState.OFF_RECORD]
    assert [round(span.length_us / 1e6) for span in withheld] == [40, 15]
    unheard = sum(true_seconds([_cut(t, span) for t in truth], Fate.DELIVERED, Fate.LOST) for span in withheld)
    delivered = true_seconds(truth, Fate.DELIVERED)
    muted_loss = sum(true_seconds([_cut(t, span) for t in truth], Fate.LOST) for span in withheld)
    assert found.seconds(*HEARD) == pytest.approx(delivered - unheard + muted_loss, abs=1.0)
    assert found.seconds(LedgerState.LOST) == pytest.approx(
        true_seconds(truth, Fate.LOST, Fate.DROPPED) - muted_loss, abs=1.0
    )
    assert found.seconds(LedgerState.DEVICE_SILENT) == pytest.approx(true_seconds(truth, Fate.ASLEEP), abs=1.0)
    # a run is laid where its first burst arrived, so that it may seem to end a moment after it did
    down = found.inside(down_us, up_us, LedgerState.DAEMON_DOWN)
    assert down == found.seconds(LedgerState.DAEMON_DOWN)
    # what the pendant stored meanwhile came later; stamps of whole seconds say when it was
    assert down + found.inside(down_us, up_us, LedgerState.RECOVERED) == pytest.approx((up_us - down_us) / 1e6, abs=0.3)
    stored = sum(t.end_us - t.start_us for t in pendant.storage.record if t.fate is StoredFate.SELF_FREED) / 1e6
    assert found.seconds(LedgerState.RECOVERED) == pytest.approx(stored, abs=0.5)
    for true in truth:  # in their right places, and nothing was heard that did not come
        if true.fate in (Fate.AWAY, Fate.OFF, Fate.HELD, Fate.ASLEEP):
            assert found.inside(true.start_us, true.end_us, *HEARD) < 0.5, true
    away = [span for span in found.spans if span.state is LedgerState.UNKNOWN and span.causes]
    assert {frozenset(span.causes) for span in away} == {frozenset((Cause.OUT_OF_RANGE, Cause.DISCONNECTED))}
    missed = [t for t in truth if t.fate is Fate.AWAY]
    came = sum(found.inside(t.start_us, t.end_us, LedgerState.RECOVERED) for t in missed)
    assert sum(span.length_us for span in away) / 1e6 + came == pytest.approx(true_seconds(truth, Fate.AWAY), abs=5.0)
    assert {LedgerState.PENDANT_OFF, LedgerState.DISCONNECTED} <= found.sums.keys()


@pytest.mark.parametrize(("shown", "later"), [(1800, 0), (20, 1780), (-3600, 5400)])
async def test_a_machine_that_restarts_knows_for_how_long_it_was_off(
    folder: Path, clock: DrivenClock, shown: int, later: int
) -> None:
    """Half an hour off: with a clock that goes on, with one that stood still, with one that fell back."""
    world = World(folder, clock)
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 20)
        await world.clock.advance(5)
    world = World(folder, DrivenClock(clock.utc_us() + shown * 1_000_000, boot_us=30_000_000, boot_id="next"))
    pendant = world.pendant(address=pendant.address)
    async with world.daemon() as daemon:
        await world.hear(pendant, 20)
        await world.clock.advance(5)
        world.clock.step_utc(later)
        await world.hear(pendant, 20)
        await world.clock.advance(5)
        found = await book(daemon, pendant)
    assert found.seconds(LedgerState.DAEMON_DOWN) == pytest.approx(1800, abs=0.3)
    assert found.seconds(*HEARD) == pytest.approx(60, abs=6)  # less while the link comes up
    total = (found.spans[-1].end_us - found.spans[0].start_us) / 1e6
    assert sum(span.length_us for span in found.spans) / 1e6 == total == pytest.approx(25 + 1800 + 50, abs=6)


def _cut(truth: Truth, span: Span) -> Truth:
    low = min(max(truth.start_us, span.start_us), span.end_us)
    return Truth(low, max(low, min(truth.end_us, span.end_us)), truth.fate)
