"""The in-process link behaves as one over the air: one central, errors once the connection is over."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest

from omi_edge.capture.frames import Reassembler
from omi_edge.capture.link import Link, Receiver, Take
from omi_edge.clock import DrivenClock
from omi_edge.domain import SAMPLE_RATE, Codec, Frame, Notification
from omi_edge.errors import LinkLost
from omi_edge.opus import Decoder
from omi_edge.virtual.loopback import LoopbackLink
from omi_edge.virtual.pendant import LATE_START_SECONDS, Faults, Pendant
from tests.helpers import START_US


@pytest.fixture
def pendant() -> Pendant:
    return Pendant(DrivenClock(START_US))


def nothing(value: bytes) -> None:
    pass


async def test_it_tells_what_the_pendant_tells(pendant: Pendant) -> None:
    link = LoopbackLink(pendant)
    info = await link.connect()
    assert (info.name, info.model, info.firmware, info.hardware) == ("Omi", "Omi CV 1", "3.0.21", "5.0")
    assert bytes([await link.read_codec()]).hex() == "15"  # protocol dossier §10.1
    assert await link.battery() == pendant.battery
    assert link.transport == "in-process link"


async def test_one_central_at_a_time(pendant: Pendant) -> None:
    first, second = LoopbackLink(pendant), LoopbackLink(pendant)
    await first.connect()
    with pytest.raises(LinkLost, match="another central"):
        await second.connect()
    await second.close()
    assert pendant.connected  # it was not the second one's to close
    await first.close()
    await second.connect()
    await first.close()
    assert pendant.connected


@pytest.mark.parametrize(
    "call",
    [
        lambda link: link.subscribe_audio(nothing),
        lambda link: link.read_codec(),
        lambda link: link.battery(),
    ],
)
async def test_nothing_works_without_a_connection(pendant: Pendant, call: Callable[[LoopbackLink], object]) -> None:
    link = LoopbackLink(pendant)
    for _ in range(2):  # before the connection, then after it
        with pytest.raises(LinkLost):
            await call(link)  # type: ignore[misc]
        await link.connect()
        pendant.disconnect()


async def test_the_reason_is_told_to_who_waits_and_to_who_asks_later(pendant: Pendant) -> None:
    link = LoopbackLink(pendant)
    with pytest.raises(LinkLost):
        await link.wait_disconnected()
    await link.connect()
    waiting = asyncio.create_task(link.wait_disconnected())
    await asyncio.sleep(0)
    pendant.disconnect("supervision timeout")
    assert await waiting == "supervision timeout"
    assert await link.wait_disconnected() == "supervision timeout"


async def test_giving_up_waiting_does_not_end_the_connection(pendant: Pendant) -> None:
    link = LoopbackLink(pendant)
    await link.connect()
    waiting = asyncio.create_task(link.wait_disconnected())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert pendant.connected


async def test_what_the_microphone_hears_comes_out_of_the_front_end() -> None:
    """Pendant, link, receiver, reassembly and decoder, with lost notifications and one broken link."""
    clock = DrivenClock(START_US)
    faults = Faults(seed=2, duplicate=0.1, lose_every=43, cut_after=(4.0,))
    pendant = Pendant(clock, faults=faults, first_id=65_400)
    link: Link = LoopbackLink(pendant)
    frames: list[Frame] = []
    reasons: list[str] = []
    reassembler = Reassembler(Codec.OPUS_20MS)

    async def connected(codec: Codec) -> Take:
        assert codec is Codec.OPUS_20MS
        return take

    def take(notification: Notification) -> None:
        frames.extend(reassembler.feed(notification))

    async def disconnected(reason: str) -> None:
        reasons.append(reason)

    said = (8000 * np.sin(2 * np.pi * 250 * np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.int16)
    receiving = asyncio.create_task(Receiver(link, clock).run(connected, disconnected))
    await clock.advance(LATE_START_SECONDS)
    playing = asyncio.create_task(pendant.play([said]))
    await clock.advance(10.1)
    assert playing.done()
    receiving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiving

    assert reasons == ["supervision timeout"]
    # connected again at once, but audio comes 1.3 s later; the block that ends then is the first
    gaps = [b.boot_us - a.boot_us for a, b in itertools.pairwise(frames)]
    assert max(gaps) == LATE_START_SECONDS * 1e6
    assert reassembler.counters.lost == sum(frame.lost for frame in frames) > 5
    assert reassembler.counters.duplicates > 10
    assert reassembler.counters.restarts == reassembler.counters.unusual == 0
    assert len(frames) + reassembler.counters.lost == 500 - pendant.unheard
    decoder = Decoder(Codec.OPUS_20MS)
    heard = np.concatenate([decoder.decode(data) for f in frames[:150] for data in [*[b""] * f.lost, f.data]])
    assert decoder.bad == 0
    spectrum = np.abs(np.fft.rfft(heard.astype(float)))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(heard) == pytest.approx(250, abs=1)
