"""The machine's own microphone as a source: heard, lost, unplugged, withheld; and its account of every second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from omi_edge.capture.microphone import Heard, Microphone, Opened, Sound, Waiting
from omi_edge.clock import DrivenClock, SystemClock
from omi_edge.config import Config, MicrophoneConfig, WebConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Cause, LedgerState, Withholding
from omi_edge.errors import MicrophoneError
from omi_edge.pipeline.microphone import TELL_SECONDS, MicrophoneSource
from omi_edge.store import audio, gaps, ledger, notices, sources
from omi_edge.store.ledger import Moment
from tests.helpers import PASSPHRASE, drive
from tests.microphones import NAME, Desk, needs_portaudio, tone
from tests.scripted import register
from tests.test_devices import World

S = 1_000_000
EVER_US = 1 << 62
OPENED = Opened("USB Audio", 3, 48_000)
GONE = Waiting("the microphone is gone; listening goes on when it is back.")


@pytest.fixture(autouse=True)
def engines() -> None:
    register()


class Scripted:
    """Stands in for a Microphone: tells what the test puts in."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Heard | Exception] = asyncio.Queue()

    async def listen(self) -> AsyncGenerator[Heard, None]:
        while True:
            item = await self.queue.get()
            if isinstance(item, Exception):
                raise item
            yield item


class Room:
    """A running daemon with a scripted microphone."""

    def __init__(self, daemon: Daemon, clock: DrivenClock) -> None:
        self.daemon = daemon
        self.clock = clock
        self.microphone = Scripted()
        self.source = MicrophoneSource(
            cast(Microphone, self.microphone), db=daemon.db, clock=clock, bus=daemon.bus, spine=daemon.spine
        )
        self._noise = np.random.default_rng(5)

    async def tell(self, *items: Heard | Exception) -> None:
        for item in items:
            self.microphone.queue.put_nowait(item)
        while not self.microphone.queue.empty():
            await self.clock.settle()
        await self.clock.settle()

    async def hear(self, seconds: float, lost: int = 0) -> None:
        for _ in range(round(seconds * 10)):
            await self.clock.advance(0.1)
            pcm = self._noise.normal(0, 3000, 1600).astype("<i2").tobytes()
            await self.tell(Sound(pcm, lost))
            lost = 0

    async def stop(self) -> None:
        await drive(self.clock, self.source.stop(), step=0.01)

    async def row(self) -> sources.SourceRow:
        (row,) = await self.daemon.db.read(sources.list_all)
        return row

    async def gaps(self) -> list[tuple[float, tuple[Cause, ...]]]:
        row = await self.row()
        found = await self.daemon.db.read(lambda conn: gaps.listed(conn, source_id=row.id))
        return [(round((gap.end_us - gap.start_us) / S, 1), gap.causes) for gap in found.items]

    async def sums(self) -> dict[LedgerState, float]:
        row = await self.row()
        now = Moment(self.clock.boot_id(), self.clock.boot_us(), self.clock.utc_us())
        spans = await self.daemon.db.read(lambda conn: ledger.account(conn, row.id, 0, EVER_US, now))
        assert sum(span.length_us for span in spans) == spans[-1].end_us - spans[0].start_us
        return {one.state: one.total_us / S for one in ledger.sums(spans)}

    async def notices(self) -> list[str]:
        return [one.code for one in await self.daemon.db.read(notices.active)]

    async def kept_seconds(self) -> float:
        """Of audio that is stored, or was heard and dropped as silence."""
        row = await self.row()
        chunks = await self.daemon.db.read(lambda conn: audio.between(conn, row.id, 0, EVER_US))
        return (sum(chunk.duration_us for chunk in chunks) + row.dropped_us) / S


async def test_what_it_hears_is_a_source_of_its_own(folder: Path, clock: DrivenClock) -> None:
    async with World(folder, clock).daemon() as daemon:
        room = Room(daemon, clock)
        room.source.start()
        await room.tell(OPENED)
        await room.hear(12)
        state = room.source.state
        assert (state.state, state.name, state.message, state.lost_us) == ("listening", "USB Audio", "", 0)
        assert state.level_db == pytest.approx(20 * np.log10(3000 / 32_768), abs=1)
        await room.stop()
        row = await room.row()
        assert (row.kind, row.name, row.lost_frames) == ("microphone", "Microphone", 0)
        assert await room.kept_seconds() == 12.0
        assert await room.gaps() == []
        found = await room.sums()
        assert found.get(LedgerState.SPEECH, 0) + found.get(LedgerState.SILENCE, 0) == pytest.approx(12, abs=0.1)


async def test_unplugged_is_a_gap_with_its_cause_a_notice_and_a_state(folder: Path, clock: DrivenClock) -> None:
    async with World(folder, clock).daemon() as daemon:
        room = Room(daemon, clock)
        with daemon.bus.subscribe() as told:
            room.source.start()
            await room.tell(OPENED)
            await room.hear(5)
            await room.tell(GONE, Waiting("the microphone is not there: unplugged."))
            assert (room.source.state.state, room.source.state.level_db) == ("waiting", None)
            assert await room.notices() == ["microphone-gone"]
            await clock.advance(60)
            await room.tell(OPENED)
            await room.hear(5)
            assert await room.notices() == []
            events = []
            while told.waiting:
                event = await told.get()
                if event.kind == "microphone":
                    events.append(event.data["state"])
        await room.stop()
        assert await room.gaps() == [(60.0, (Cause.DISCONNECTED,))]
        found = await room.sums()
        assert found[LedgerState.DISCONNECTED] == pytest.approx(60, abs=0.3)
        assert await room.kept_seconds() == 10.0
        # told when it changes, and its level from time to time
        assert events[0] == "listening" and events.count("waiting") == 2 and events[-1] == "listening"


async def test_one_that_stays_away_is_accounted_for_at_the_end(folder: Path, clock: DrivenClock) -> None:
    async with World(folder, clock).daemon() as daemon:
        room = Room(daemon, clock)
        room.source.start()
        await room.tell(OPENED)
        await room.hear(5)
        await room.tell(GONE)
        await clock.advance(40)
        await room.stop()
        assert (await room.sums())[LedgerState.DISCONNECTED] == pytest.approx(40, abs=0.3)


@pytest.mark.parametrize(("lost", "gap"), [(160, []), (16_000, [(1.0, (Cause.LOST,))])])
async def test_lost_samples_are_counted_and_never_joined_over(
    folder: Path, clock: DrivenClock, lost: int, gap: list[tuple[float, tuple[Cause, ...]]]
) -> None:
    async with World(folder, clock).daemon() as daemon:
        room = Room(daemon, clock)
        room.source.start()
        await room.tell(OPENED)
        await room.hear(5)
        await clock.advance(lost / 16_000)
        await room.hear(5, lost)
        await room.stop()
        assert room.source.state.lost_us == lost * S // 16_000
        assert (await room.row()).lost_frames == -(-lost // 320)
        assert await room.gaps() == gap


@pytest.mark.parametrize("kind", list(Withholding))
async def test_what_the_owner_withholds_is_not_even_measured(
    folder: Path, clock: DrivenClock, kind: Withholding
) -> None:
    async with World(folder, clock).daemon() as daemon:
        room = Room(daemon, clock)
        room.source.start()
        await room.tell(OPENED)
        await room.hear(5)
        await drive(clock, daemon.withhold(kind, None, "test"), step=0.001)
        await room.hear(30)
        assert room.source.state.level_db is None
        await drive(clock, daemon.resume("test"), step=0.001)
        await room.hear(5)
        await room.stop()
        assert await room.kept_seconds() == pytest.approx(10, abs=0.2)
        found = await room.sums()
        assert found[LedgerState(kind.value)] == pytest.approx(30, abs=0.3)
        assert LedgerState.LOST not in found


async def test_without_a_library_nothing_is_heard_and_the_cure_is_told(folder: Path, clock: DrivenClock) -> None:
    async with World(folder, clock).daemon() as daemon:
        room = Room(daemon, clock)
        room.source.start()
        await room.tell(MicrophoneError("PortAudio is missing. Install it: sudo apt install libportaudio2."))
        assert (room.source.state.state, await room.notices()) == ("failed", ["microphone-gone"])
        assert "apt install" in room.source.state.message
        await clock.advance(TELL_SECONDS)
        await room.stop()


@needs_portaudio
async def test_the_daemon_listens_to_the_one_that_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real time, the real PortAudio, an ALSA device."""
    desk = Desk(tmp_path)
    monkeypatch.setenv("ALSA_CONFIG_PATH", desk.environment["ALSA_CONFIG_PATH"])
    config = Config(web=WebConfig(port=0), microphone=MicrophoneConfig(device=NAME))
    async with Daemon(config, folder, PASSPHRASE, SystemClock()) as daemon:
        with daemon.bus.subscribe() as told:
            desk.say(tone(5.0))
            level = None
            while level is None:
                event = await told.get()
                level = event.data["level_db"] if event.kind == "microphone" else None
            assert level == pytest.approx(-15.3, abs=0.5)
            shown = (await daemon.status()).microphone
            assert shown is not None and (shown.state, shown.name) == ("listening", NAME)
            assert {"microphone": "ok"}.items() <= {
                part.name: part.state for part in (await daemon.health()).parts
            }.items()
        assert [row.kind for row in await daemon.db.read(sources.list_all)] == ["microphone"]
    desk.close()


async def test_no_microphone_is_opened_unless_one_is_named(folder: Path, clock: DrivenClock) -> None:
    async with World(folder, clock).daemon() as daemon:
        assert daemon.microphone is None
        assert (await daemon.status()).microphone is None
