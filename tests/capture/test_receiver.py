"""What happens on each connection and between two, against a scripted transport and a driven clock."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from omi_edge.capture import link as link_module
from omi_edge.capture.link import HELD_LIMIT, LAST_WAIT_SECONDS, STABLE_SECONDS, Link, Receiver, Take
from omi_edge.clock import DrivenClock
from omi_edge.domain import Codec, DeviceInfo, Notification
from omi_edge.errors import DiskFull, LinkError, LinkLost, LinkUnavailable
from tests.helpers import START_US


class ScriptedLink:
    """Does as told; notes the order of calls."""

    transport = "scripted"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: LinkError | None = None
        self.codec = 21
        self.codec_known = asyncio.Event()
        self.codec_known.set()
        self.on_value: Callable[[bytes], None] | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def connect(self) -> DeviceInfo:
        self.calls.append("connect")
        self.ended = asyncio.get_running_loop().create_future()
        if self.error is not None:
            raise self.error
        return DeviceInfo("AA:BB", "Omi", firmware="3.0.21")

    async def subscribe_audio(self, on_value: Callable[[bytes], None]) -> None:
        self.calls.append("subscribe")
        self.on_value = on_value

    async def read_codec(self) -> int:
        self.calls.append("codec")
        await self.codec_known.wait()
        return self.codec

    async def battery(self) -> int | None:
        return None

    async def wait_disconnected(self) -> str:
        return await self.ended

    async def close(self) -> None:
        self.calls.append("close")


class Owner:
    """Whom the receiver tells."""

    def __init__(self) -> None:
        self.codecs: list[Codec] = []
        self.reasons: list[str] = []
        self.taken: list[Notification] = []
        self.at_us: list[int] = []
        self.error: Exception | None = None

    async def connected(self, codec: Codec) -> Take:
        self.codecs.append(codec)
        if self.error is not None:
            raise self.error
        return self.taken.append

    async def disconnected(self, reason: str) -> None:
        self.reasons.append(reason)


@contextlib.asynccontextmanager
async def running(link: Link, clock: DrivenClock, owner: Owner) -> AsyncIterator[Receiver]:
    receiver = Receiver(link, clock, seed=1)
    task = asyncio.create_task(receiver.run(owner.connected, owner.disconnected))
    await clock.settle()
    try:
        yield receiver
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


async def test_audio_is_subscribed_before_anything_is_read(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner) as receiver:
        assert link.calls == ["connect", "subscribe", "codec"]
        assert owner.codecs == [Codec.OPUS_20MS]
        assert receiver.info.firmware == "3.0.21"
    assert link.calls[-1] == "close"


async def test_what_comes_before_the_codec_is_known_is_held_and_keeps_its_time(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.codec_known.clear()
    async with running(link, clock, owner):
        assert link.on_value is not None
        first_us = clock.boot_us()
        link.on_value(b"one")
        await clock.advance(0.3)
        link.on_value(b"two")
        assert owner.taken == []
        link.codec_known.set()
        await clock.settle()
        link.on_value(b"three")
        assert owner.taken == [
            Notification(b"one", first_us),
            Notification(b"two", first_us + 300_000),
            Notification(b"three", first_us + 300_000),
        ]


async def test_what_is_held_is_bounded_and_counted(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.codec_known.clear()
    async with running(link, clock, owner) as receiver:
        assert link.on_value is not None
        for number in range(HELD_LIMIT + 7):
            link.on_value(number.to_bytes(4, "little"))
        link.codec_known.set()
        await clock.settle()
        assert [int.from_bytes(n.data, "little") for n in owner.taken] == list(range(HELD_LIMIT))
        link.ended.set_result("gone")
        await clock.settle()
        assert receiver.overflowed == 7


async def test_the_first_retry_comes_at_once_and_nothing_of_the_old_connection_gets_through(
    clock: DrivenClock,
) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        old = link.on_value
        assert old is not None
        await clock.advance(STABLE_SECONDS)
        link.ended.set_result("supervision timeout")
        await clock.settle()
        assert owner.reasons == ["supervision timeout"]
        assert link.calls.count("connect") == 2
        old(b"late")
        assert owner.taken == []


async def test_waits_grow_to_a_minute_while_nobody_answers(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.error = LinkUnavailable("Bluetooth is off.")
    async with running(link, clock, owner):
        times_us: list[int] = []
        for _ in range(4000):
            before = link.calls.count("connect")
            await clock.advance(0.1)
            times_us += [clock.boot_us()] * (link.calls.count("connect") - before)
        waits = [(b - a) / 1e6 for a, b in itertools.pairwise(times_us)]
        assert link.calls.count("connect") >= 10
        assert link.calls.count("close") == link.calls.count("connect")
        for wait, expected in zip(waits, [2, 4, 8, 16, 32, 60, 60], strict=False):
            assert 0.8 * expected - 0.2 <= wait <= 1.2 * expected + 0.2
        assert set(owner.reasons) == {"link-unavailable"}
        link.error = None
        await clock.advance(1.2 * LAST_WAIT_SECONDS)
        assert owner.codecs == [Codec.OPUS_20MS]


async def test_a_connection_that_never_lasts_is_not_retried_in_a_loop(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        for _ in range(600):
            if not link.ended.done():
                link.ended.set_result("closed by the pendant")
            await clock.advance(0.1)
        assert 4 <= link.calls.count("connect") <= 10


async def test_a_lasting_connection_makes_up_for_failures(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.error = LinkLost("out of reach.")
    async with running(link, clock, owner):
        await clock.advance(40)
        link.error = None
        await clock.advance(LAST_WAIT_SECONDS + STABLE_SECONDS + 20)
        tries = link.calls.count("connect")
        link.ended.set_result("supervision timeout")
        await clock.settle()
        assert link.calls.count("connect") == tries + 1


async def test_an_unknown_codec_ends_the_connection(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.codec = 99
    async with running(link, clock, owner):
        assert owner.codecs == []
        assert owner.reasons[0] == "link-lost"
        assert link.calls[:4] == ["connect", "subscribe", "codec", "close"]


async def test_a_store_that_cannot_take_it_now_is_asked_again(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    owner.error = DiskFull("no space is left.")
    async with running(link, clock, owner):
        assert owner.reasons[0] == "disk-full"
        owner.error = None
        await clock.advance(3)
        assert link.on_value is not None
        link.on_value(b"audio")
        assert [n.data for n in owner.taken] == [b"audio"]


async def test_the_first_failure_is_a_warning_the_next_are_quiet(
    clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    link, owner = ScriptedLink(), Owner()
    link.error = LinkLost("out of reach.")
    with caplog.at_level(logging.DEBUG, link_module.__name__):
        async with running(link, clock, owner):
            await clock.advance(60)
    levels = [record.levelno for record in caplog.records]
    assert levels[0] == logging.WARNING
    assert len(levels) > 3
    assert set(levels[1:]) == {logging.DEBUG}
