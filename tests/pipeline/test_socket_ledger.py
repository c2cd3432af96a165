"""What became of every second of a client that sends over a socket: heard, silent, muted, away, sent too fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.daemon import Daemon
from omi_edge.domain import Codec, LedgerState, Withholding
from omi_edge.opus import Encoder
from omi_edge.pipeline.sockets import SocketSound
from omi_edge.store import audio, ledger, senders, sources
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment, Span
from tests.helpers import drive
from tests.scripted import register
from tests.test_devices import World

S = 1_000_000
EVER_US = 1 << 62
SPEECH, SILENCE, SILENT = LedgerState.SPEECH, LedgerState.SILENCE, LedgerState.DEVICE_SILENT
AWAY, DOWN, MUTED = LedgerState.DISCONNECTED, LedgerState.DAEMON_DOWN, LedgerState.MUTED


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    """One second of noise."""
    encoder = Encoder(Codec.OPUS_20MS)
    noise = np.random.default_rng(3).normal(0, 3000, 16_000).astype(np.int16)
    return [encoder.encode(frame) for frame in noise.reshape(-1, 320)]


class Phone:
    """A client of a running daemon."""

    def __init__(self, daemon: Daemon, clock: DrivenClock, packets: list[bytes]) -> None:
        self.daemon = daemon
        self.clock = clock
        self.packets = packets
        self.source_id = ""
        self.sound: SocketSound | None = None

    async def connect(self) -> None:
        """As the door does it."""

        def admit(conn: Connection) -> str:
            found = senders.admit(conn, client_id="", device="phone", name="phone", now_us=self.clock.utc_us())
            self.daemon.spine.ledger.seen(conn, found.source.id)
            return found.source.id

        self.source_id = await self.daemon.db.write(admit)
        self.sound = self.daemon.open_socket(self.source_id, "opus", 16_000, self.clock.boot_us())

    async def say(self, seconds: int, *, speed: float = 1.0) -> None:
        assert self.sound is not None
        for _ in range(seconds):
            for packet in self.packets:
                await drive(self.clock, self.sound.take(packet), step=0.001) if speed > 1 else await self.sound.take(
                    packet
                )
            if speed == 1.0:
                await self.clock.advance(1.0)

    async def leave(self) -> None:
        assert self.sound is not None
        await drive(self.clock, self.sound.close(self.clock.boot_us()), step=0.01)

    async def account(self) -> list[Span]:
        now = Moment(self.clock.boot_id(), self.clock.boot_us(), self.clock.utc_us())
        return await self.daemon.db.read(lambda conn: ledger.account(conn, self.source_id, 0, EVER_US, now))

    async def sums(self) -> dict[LedgerState, float]:
        """Seconds of each state; they are all that went by."""
        spans = await self.account()
        now_us = await self.daemon.db.read(
            lambda conn: ledger.now_us(conn, Moment(self.clock.boot_id(), self.clock.boot_us(), self.clock.utc_us()))
        )
        assert spans[-1].end_us == now_us
        assert sum(span.length_us for span in spans) == now_us - spans[0].start_us
        return {row.state: row.total_us / S for row in ledger.sums(spans)}


def heard(sums: dict[LedgerState, float]) -> float:
    return sums.get(SPEECH, 0.0) + sums.get(SILENCE, 0.0)


async def test_each_second_is_heard_silent_or_away(folder: Path, clock: DrivenClock, packets: list[bytes]) -> None:
    async with World(folder, clock).daemon() as daemon:
        phone = Phone(daemon, clock, packets)
        await phone.connect()
        await clock.advance(7)  # connected, and nothing to say
        await phone.say(10)
        await clock.advance(20)
        await phone.say(5)
        await phone.leave()
        await clock.advance(30)
        assert (await phone.sums())[AWAY] == pytest.approx(30, abs=0.5)  # before it is back
        await phone.connect()
        await phone.say(10)
        await clock.advance(5)
        await phone.leave()
        found = await phone.sums()
    assert heard(found) == pytest.approx(25, abs=0.5)
    assert found[SILENT] == pytest.approx(7 + 20 + 5, abs=0.5)
    assert found[AWAY] == pytest.approx(30, abs=0.5)
    assert set(found) <= {SPEECH, SILENCE, SILENT, AWAY}


async def test_who_sends_too_fast_claims_no_more_than_went_by(
    folder: Path, clock: DrivenClock, packets: list[bytes]
) -> None:
    async with World(folder, clock).daemon() as daemon:
        phone = Phone(daemon, clock, packets)
        await phone.connect()
        began_us = clock.boot_us()
        await phone.say(40, speed=10)
        elapsed = (clock.boot_us() - began_us) / S
        await phone.leave()
        await clock.advance(120)
        found = await phone.sums()
        kept = await daemon.db.read(lambda conn: audio.between(conn, phone.source_id, 0, EVER_US))
        row = await daemon.db.read(lambda conn: sources.get(conn, phone.source_id))
        await phone.connect()  # what was ahead when it left does not come back with it
        await phone.say(1)
        await phone.leave()
        again = await phone.sums()
    assert elapsed < 10
    assert heard(found) == pytest.approx(elapsed, abs=0.5)
    assert found[AWAY] == pytest.approx(120, abs=0.5)
    assert heard(again) == pytest.approx(heard(found) + 1, abs=0.1)
    assert sum(chunk.duration_us for chunk in kept) + row.dropped_us == 40 * S  # no audio is lost for it


async def test_what_is_ahead_is_entered_when_its_time_comes(
    folder: Path, clock: DrivenClock, packets: list[bytes]
) -> None:
    async with World(folder, clock).daemon() as daemon:
        phone = Phone(daemon, clock, packets)
        await phone.connect()
        await phone.say(40, speed=10)
        await clock.advance(10)
        before = heard(await phone.sums())
        await clock.advance(50)
        await phone.leave()
        found = await phone.sums()
    assert before < 15
    assert heard(found) == pytest.approx(40, abs=0.5)
    assert found[SILENT] > 15


async def test_a_restart_and_a_mute_have_their_place(folder: Path, clock: DrivenClock, packets: list[bytes]) -> None:
    world = World(folder, clock)
    async with world.daemon() as daemon:
        phone = Phone(daemon, clock, packets)
        await phone.connect()
        await phone.say(5)
        await daemon.withhold(Withholding.MUTED, None, "test")
        await phone.say(10)
        await daemon.resume("test")
        await phone.say(5)
        await phone.leave()
        await clock.advance(8)
    await clock.advance(60)
    async with world.daemon() as daemon:
        await clock.advance(9)
        phone = Phone(daemon, clock, packets)
        await phone.connect()
        await phone.say(5)
        await clock.advance(4)
        await phone.leave()
        found = await phone.sums()
    assert heard(found) == pytest.approx(15, abs=1)
    assert found[MUTED] == pytest.approx(10, abs=0.5)
    assert found[DOWN] == pytest.approx(60, abs=0.5)
    assert found[AWAY] == pytest.approx(8 + 9, abs=0.5)
    assert found[SILENT] == pytest.approx(4, abs=0.5)


async def test_the_account_of_who_is_refused_ends(folder: Path, clock: DrivenClock, packets: list[bytes]) -> None:
    async with World(folder, clock).daemon() as daemon:
        phone = Phone(daemon, clock, packets)
        await phone.connect()
        await phone.say(5)
        await daemon.db.write(lambda conn: senders.refuse(conn, phone.source_id, clock.utc_us()))
        await phone.leave()
        before = await phone.account()
        await clock.advance(100)
        assert await phone.account() == before
        await daemon.db.write(lambda conn: senders.allow(conn, phone.source_id))
        await phone.connect()
        await phone.say(5)
        await phone.leave()
        assert heard(await phone.sums()) == pytest.approx(10, abs=0.5)
