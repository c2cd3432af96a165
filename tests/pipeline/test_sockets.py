"""Messages of a client to frames on a timeline."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.absence import Hole
from omi_edge.capture.frames import HEADER_BYTES
from omi_edge.clock import DrivenClock
from omi_edge.domain import Cause, Codec, Notification
from omi_edge.errors import BadInput
from omi_edge.opus import Decoder, Encoder, silence_packet
from omi_edge.pipeline.sockets import (
    AHEAD_SECONDS,
    BAD_LIMIT,
    FRAME_BYTES,
    Sockets,
    SocketSound,
    SocketWitness,
    check_sound,
    codec_of,
    wide,
)
from omi_edge.pipeline.spine import Spine
from tests.helpers import drive


class Taken:
    """Stands in for the spine and for the way into the file: keeps what it is told."""

    def __init__(self) -> None:
        self.withheld = False
        self.source_id = ""
        self.codec = Codec.PCM16
        self.notifications: list[Notification] = []
        self.opened = self.connections = self.finished = 0
        self.ledger = self
        self.visits: list[tuple[str, int, int]] = []

    async def visited(self, source_id: str, start_boot_us: int, end_boot_us: int) -> None:
        self.visits.append((source_id, start_boot_us, end_boot_us))

    async def open_socket(self, source_id: str, codec: Codec, witness: object) -> Taken:
        self.source_id, self.codec = source_id, codec
        self.opened += 1
        return self

    def reconnected(self) -> None:
        self.connections += 1

    def notify(self, notification: Notification) -> None:
        self.notifications.append(notification)

    async def finish(self) -> None:
        self.finished += 1

    @property
    def at_us(self) -> list[int]:
        return [notification.boot_us for notification in self.notifications]

    @property
    def packets(self) -> list[bytes]:
        return [notification.data[HEADER_BYTES:] for notification in self.notifications]


@pytest.fixture
def taken() -> Taken:
    return Taken()


def opened(taken: Taken, clock: DrivenClock, encoding: str = "opus", rate: int = 16_000) -> SocketSound:
    return Sockets(cast(Spine, taken), clock).open("src_1", encoding, rate, clock.boot_us())


PACKET = silence_packet(Codec.OPUS_20MS)
SHORT = silence_packet(Codec.OPUS_10MS)


async def test_opus_goes_on_as_it_is(clock: DrivenClock, taken: Taken) -> None:
    sound = opened(taken, clock)
    await sound.take(SHORT)
    assert (taken.source_id, taken.codec, taken.packets) == ("src_1", Codec.OPUS_10MS, [SHORT])
    assert (sound.codec, sound.frames, sound.heard_us, sound.bad) == ("opus", 1, 10_000, 0)
    await sound.take(PACKET)  # another length than it began with
    assert (taken.packets, sound.bad) == ([SHORT], 1)


async def test_samples_of_any_cut_become_the_same_frames(clock: DrivenClock) -> None:
    samples = (8000 * np.sin(np.arange(6400) / 7)).astype("<i2").tobytes()
    whole, cut = Taken(), Taken()
    await opened(whole, clock, "pcm16").take(samples)
    sound = opened(cut, clock, "pcm16")
    for offset in range(0, len(samples), 333):
        await sound.take(samples[offset : offset + 333])
    assert whole.packets == cut.packets
    assert len(whole.packets) == 20
    assert {len(Decoder(Codec.OPUS_20MS).decode(packet)) for packet in cut.packets} == {320}


@pytest.mark.parametrize(
    ("encoding", "rate", "size"), [("pcm16", 8000, 320), ("pcm8", 8000, 160), ("pcm8", 16_000, 320)]
)
async def test_other_samples_are_widened(clock: DrivenClock, taken: Taken, encoding: str, rate: int, size: int) -> None:
    await opened(taken, clock, encoding, rate).take(bytes(size * 3))
    assert (taken.codec, len(taken.packets)) == (Codec.OPUS_20MS, 3)


def test_widening_keeps_level_and_length() -> None:
    assert list(wide(bytes([128, 255, 0]), "pcm8", 16_000)) == [0, 127 * 256, -128 * 256]
    assert list(wide(np.array([0, 100], "<i2").tobytes(), "pcm16", 8000)) == [0, 50, 100, 100]


@pytest.mark.parametrize(("first", "codec"), [(PACKET, "opus_fs320"), (bytes(160), "pcm8"), (b"\xb8" * 320, "pcm8")])
async def test_an_unnamed_codec_is_told_by_the_first_message(
    clock: DrivenClock, taken: Taken, first: bytes, codec: str
) -> None:
    sound = opened(taken, clock, "auto", 8000)
    await sound.take(first)
    assert sound.codec == codec


async def test_frames_lie_one_after_the_other_up_to_now(clock: DrivenClock, taken: Taken) -> None:
    sound = opened(taken, clock, "pcm16")
    now_us = clock.boot_us()
    await sound.take(bytes(640 * 5))  # five frames at once were spoken before they came
    assert taken.at_us == [now_us - (4 - k) * 20_000 for k in range(5)]
    await clock.advance(2.0)  # a stall that catches up
    for _ in range(100):
        await sound.take(bytes(640))
    steps = np.diff(taken.at_us)
    assert set(steps.tolist()) == {20_000}


async def test_a_pause_is_a_hole_in_the_timeline(clock: DrivenClock, taken: Taken) -> None:
    sound = opened(taken, clock)
    await sound.take(PACKET)
    await clock.advance(5.0)
    await sound.take(PACKET)
    assert np.diff(taken.at_us).tolist() == [5_000_000]


async def test_who_sends_too_fast_waits(clock: DrivenClock, taken: Taken) -> None:
    sound = opened(taken, clock)
    began_us = clock.boot_us()

    async def send() -> None:
        for _ in range(round((AHEAD_SECONDS + 10) * 50)):
            await sound.take(PACKET)

    await drive(clock, send())
    assert clock.boot_us() - began_us == pytest.approx(10e6, abs=0.3e6)
    assert set(np.diff(taken.at_us).tolist()) == {20_000}


async def test_a_new_connection_counts_on_and_is_never_before_the_last(clock: DrivenClock, taken: Taken) -> None:
    sockets = Sockets(cast(Spine, taken), clock)
    for connection in range(2):
        sound = sockets.open("src_1", "opus", 16_000, clock.boot_us())
        for _ in range(100):
            await sound.take(PACKET)
        await sound.close(clock.boot_us())
        assert (taken.connections, taken.finished) == (connection + 1, connection + 1)
    assert [int.from_bytes(n.data[:2], "little") for n in taken.notifications] == list(range(200))
    assert set(np.diff(taken.at_us).tolist()) == {20_000}
    await clock.advance(1.0)  # a second that nobody sent
    await clock.advance(60.0)
    sound = sockets.open("src_1", "opus", 16_000, clock.boot_us())
    await sound.take(PACKET)
    assert taken.at_us[-1] == clock.boot_us()


async def test_nothing_is_looked_into_while_the_owner_withholds(clock: DrivenClock, taken: Taken) -> None:
    sound = opened(taken, clock, "pcm16")
    await sound.take(bytes(700))
    taken.withheld = True
    await sound.take(bytes(6400))
    taken.withheld = False
    await sound.take(bytes(600))  # with the 60 bytes from before it would be a frame
    assert (len(taken.packets), sound.frames) == (1, 1)


async def test_what_is_no_audio_is_borne_for_a_while(clock: DrivenClock, taken: Taken) -> None:
    sound = opened(taken, clock)
    for _ in range(BAD_LIMIT - 1):
        await sound.take(b"\xff\xff")
    await sound.take(PACKET)
    for _ in range(BAD_LIMIT - 1):
        await sound.take(PACKET[:1] + bytes(FRAME_BYTES))
    with pytest.raises(BadInput):
        await sound.take(b"\0")
    assert (sound.bad, sound.frames) == (2 * BAD_LIMIT - 1, 1)


@pytest.mark.parametrize(("encoding", "rate", "field"), [("aac", 16_000, "codec"), ("pcm16", 44_100, "sample_rate")])
def test_what_cannot_be_taken_is_named(encoding: str, rate: int, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_sound(encoding, rate)
    assert caught.value.field == field


def test_a_hole_is_never_called_lost() -> None:
    witness = SocketWitness()
    assert witness.causes(Hole(0, 9_000_000)) == (Cause.DEVICE_SILENT,)
    assert witness.causes(Hole(0, 9_000_000, reconnected=True)) == (Cause.DISCONNECTED,)


@given(packet=st.binary(min_size=1, max_size=200))
def test_what_passes_for_a_frame_has_the_length_of_one(packet: bytes) -> None:
    codec = codec_of(packet)
    if codec is not None:
        assert len(Decoder(codec).decode(packet)) == codec.frame_us * 16 // 1000


@pytest.mark.parametrize("codec", [Codec.OPUS_10MS, Codec.OPUS_20MS])
def test_our_own_packets_are_known(codec: Codec) -> None:
    samples = np.zeros(codec.frame_us * 16 // 1000, np.int16)
    assert codec_of(Encoder(codec).encode(samples)) is codec
    assert codec_of(b"") is None


async def test_any_bytes_are_borne(clock: DrivenClock) -> None:
    random = np.random.default_rng(5)
    for encoding in ("opus", "pcm16", "pcm8", "auto"):
        taken = Taken()
        sound = opened(taken, clock, encoding, 8000)
        for _ in range(BAD_LIMIT - 1):
            await sound.take(random.bytes(int(random.integers(0, 600))))
        assert sound.bad <= BAD_LIMIT - 1
        assert len(taken.notifications) >= sound.frames  # what was counted was handed on
