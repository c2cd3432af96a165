"""What happens on each connection and between two, against a scripted transport and a driven clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator

import pytest

from omi_edge import gatt
from omi_edge.capture import receiver as receiver_module
from omi_edge.capture.absence import Witness
from omi_edge.capture.device import Button, Features
from omi_edge.capture.greeting import Greeting
from omi_edge.capture.link import Link, OnValue
from omi_edge.capture.receiver import (
    FLOOD_BURST,
    HELD_LIMIT,
    LAST_WAIT_SECONDS,
    LIVENESS_SECONDS,
    REFUSED_WAIT_SECONDS,
    STABLE_SECONDS,
    Receiver,
    Take,
)
from omi_edge.clock import DrivenClock
from omi_edge.domain import Codec, Ending, Notification, Security, Sighting
from omi_edge.errors import (
    AttRefused,
    BadPeripheral,
    BluetoothOff,
    BondLost,
    DiskFull,
    LinkError,
    LinkLost,
    NotEncrypted,
    OmiEdgeError,
    PairingFailed,
    PendantAbsent,
)
from tests.helpers import START_US

TAP = b"\x01\0\0\0\0\0\0\0"


class ScriptedLink:
    """A pendant that answers as told; notes the order of calls."""

    def __init__(self) -> None:
        self.address = "AA:BB"
        self.security = Security.OPEN
        self.calls: list[str] = []
        self.values: dict[str, bytes] = {
            gatt.AUDIO_CODEC: b"\x15",
            gatt.MODEL_NUMBER: b"Omi CV 1",
            gatt.FIRMWARE_REVISION: b"3.0.21",
            gatt.TIME_GET: (START_US // 1_000_000 - 100).to_bytes(4, "little"),
            gatt.FEATURES: bytes.fromhex("EC010000"),
            gatt.BATTERY_LEVEL: b"\x52",
            gatt.CHARGING: b"\0",
            gatt.LED_DIM_RATIO: b"\x32",
            gatt.MIC_GAIN: b"\x06",
        }
        self.notifying = {gatt.AUDIO_DATA, gatt.BATTERY_LEVEL, gatt.BUTTON, gatt.CHARGING}
        self.written: list[tuple[str, bytes]] = []
        self.followers: dict[str, OnValue] = {}
        self.errors: dict[str, LinkError] = {}
        """Raised by the call of this name, or on this characteristic, until taken out."""
        self.codec_known = asyncio.Event()
        self.codec_known.set()
        self.hangs = False
        self.bonds_on_pair = True
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    async def connect(self) -> Sighting:
        self._call("connect")
        self.ended = asyncio.get_running_loop().create_future()
        return Sighting("AA:BB", "Omi", -60, 0)

    def offers(self, uuid: str) -> bool:
        return uuid in self.values or uuid in self.notifying or uuid == gatt.TIME_SET

    async def read(self, uuid: str) -> bytes:
        if uuid == gatt.AUDIO_CODEC:
            await self.codec_known.wait()
        self._call("read", uuid)
        if self.hangs:
            raise LinkLost("it took longer than 5 s.")
        return self.values[uuid]

    async def write(self, uuid: str, value: bytes) -> None:
        self._call("write", uuid)
        self.written.append((uuid, value))

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        self._call("subscribe", uuid)
        self.followers[uuid] = on_value

    async def pair(self) -> None:
        self._call("pair")
        if self.bonds_on_pair:
            self.security = Security.BONDED

    async def unpair(self) -> None:
        self._call("unpair")
        self.security = Security.OPEN

    async def wait_disconnected(self) -> Ending:
        return await asyncio.shield(self.ended)

    async def close(self) -> None:
        self.calls.append("close")

    def sends(self, data: bytes, uuid: str = gatt.AUDIO_DATA) -> None:
        self.followers[uuid](data)

    def _call(self, name: str, uuid: str = "") -> None:
        self.calls.append(f"{name} {_NAMES[uuid]}".strip())
        for key in (name, uuid):
            if key in self.errors:
                raise self.errors[key]


_NAMES = {"": ""} | {value: name.lower() for name, value in vars(gatt).items() if isinstance(value, str)}


class Owner:
    """Whom the receiver tells; conforms to Host."""

    def __init__(self) -> None:
        self.require_encryption = False
        self.wants_bond = False
        self.codecs: list[Codec] = []
        self.greetings: list[Greeting] = []
        self.endings: list[Ending] = []
        self.failures: list[str] = []
        self.taken: list[Notification] = []
        self.levels: list[tuple[int | None, bool | None]] = []
        self.buttons: list[Button] = []
        self.renewed: list[OmiEdgeError | None] = []
        self.error: OmiEdgeError | None = None
        self.deafness: list[bool] = []

    async def connected(self, codec: Codec, security: Security) -> Take:
        self.codecs.append(codec)
        if self.error is not None:
            raise self.error
        return self.taken.append

    async def greeted(self, told: Greeting) -> None:
        self.greetings.append(told)

    def battery(self, percent: int | None, charging: bool | None) -> None:
        self.levels.append((percent, charging))

    def pressed(self, button: Button) -> None:
        self.buttons.append(button)

    def deaf(self, now: bool) -> None:
        self.deafness.append(now)

    async def ended(self, ending: Ending) -> None:
        self.endings.append(ending)

    async def failed(self, error: OmiEdgeError) -> None:
        self.failures.append(error.slug)

    async def bond_renewed(self, error: OmiEdgeError | None) -> None:
        self.renewed.append(error)


@contextlib.asynccontextmanager
async def running(link: Link, clock: DrivenClock, owner: Owner) -> AsyncIterator[Receiver]:
    receiver = Receiver(link, clock, owner, Witness(), seed=1)
    task = asyncio.create_task(receiver.run())
    await clock.settle()
    try:
        yield receiver
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_on_each_connection_everything_happens_in_the_order_that_loses_nothing(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        await clock.settle()
        wanted = [
            "connect", "subscribe audio_data", "read audio_codec", "read model_number", "read firmware_revision",
            "read time_get", "write time_set", "read features", "read battery_level",
        ]  # fmt: skip
        assert [call for call in link.calls if call in wanted] == wanted
        assert link.calls[:3] == wanted[:3]
        assert owner.codecs == [Codec.OPUS_20MS]
    assert link.calls[-1] == "close"


async def test_the_pendant_says_who_it_is_and_its_clock_is_read_before_it_is_set(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        (greeting,) = owner.greetings
        assert (greeting.info.model, greeting.info.firmware) == ("Omi CV 1", "3.0.21")
        assert greeting.clock_offset_us is not None
        assert abs(greeting.clock_offset_us + 100_000_000) <= 500_000
        assert greeting.features == Features.BUTTON | Features.BATTERY | Features.HAPTIC | (
            Features.OFFLINE_STORAGE | Features.LED_DIMMING | Features.MIC_GAIN
        )
        assert (greeting.battery, greeting.charging, greeting.led, greeting.mic_gain) == (82, False, 50, 6)
        assert link.written == [(gatt.TIME_SET, (clock.utc_us() // 1_000_000).to_bytes(4, "little"))]


async def test_a_clock_that_was_never_set_has_no_offset(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.values[gatt.TIME_GET] = b"\0\0\0\0"
    async with running(link, clock, owner):
        assert (owner.greetings[0].clock_offset_us, owner.greetings[0].clock_set) == (None, True)


async def test_nothing_is_written_to_a_glass_whose_settings_service_updates_its_firmware(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.values[gatt.MODEL_NUMBER] = b""
    link.values[gatt.HARDWARE_REVISION] = b"ESP32-S3-v1.0"
    async with running(link, clock, owner) as receiver:
        await clock.advance(60)
        assert owner.greetings[0].led is None
        assert link.written == []
        with pytest.raises(BadPeripheral, match="never"):
            await receiver.write(gatt.LEGACY_DFU_CONTROL, b"\x06")
        assert link.written == []


async def test_what_a_pendant_refuses_or_lacks_is_left_out(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors = {gatt.FEATURES: AttRefused("no.", 0x0E), gatt.TIME_SET: AttRefused("no.", 0x0E)}
    del link.values[gatt.LED_DIM_RATIO]
    link.values[gatt.MIC_GAIN] = b"\xff"
    async with running(link, clock, owner):
        greeting = owner.greetings[0]
        assert (greeting.features, greeting.clock_set, greeting.led, greeting.mic_gain) == (None, False, None, None)
        assert greeting.battery == 82
        link.sends(b"\0\0\0audio")
        assert len(owner.taken) == 1


async def test_what_comes_before_the_codec_is_known_is_held_and_keeps_its_time(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.codec_known.clear()
    async with running(link, clock, owner):
        first_us = clock.boot_us()
        link.sends(b"one")
        await clock.advance(0.3)
        link.sends(b"two")
        assert owner.taken == []
        link.codec_known.set()
        await clock.settle()
        link.sends(b"three")
        assert owner.taken == [
            Notification(b"one", first_us),
            Notification(b"two", first_us + 300_000),
            Notification(b"three", first_us + 300_000),
        ]


async def test_what_is_held_is_bounded_and_counted(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.codec_known.clear()
    async with running(link, clock, owner) as receiver:
        for number in range(HELD_LIMIT + 7):
            link.sends(number.to_bytes(4, "little"))
        link.codec_known.set()
        await clock.settle()
        assert [int.from_bytes(n.data, "little") for n in owner.taken] == list(range(HELD_LIMIT))
        link.ended.set_result(Ending.TIMEOUT)
        await clock.settle()
        assert receiver.flooded == 7


async def test_a_flood_costs_no_more_than_a_pendant_and_is_counted(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner) as receiver:
        for _ in range(10_000):
            link.sends(b"\0\0\0flood")
        assert len(owner.taken) == FLOOD_BURST
        await clock.advance(1)
        for _ in range(200):  # what the fastest pendant sends in a second
            link.sends(b"\0\0\0audio")
        assert len(owner.taken) == FLOOD_BURST + 200
        link.ended.set_result(Ending.TIMEOUT)
        await clock.settle()
        assert receiver.flooded == 10_000 - FLOOD_BURST


async def test_the_first_retry_comes_at_once_and_nothing_of_the_old_connection_gets_through(
    clock: DrivenClock,
) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        old = dict(link.followers)
        await clock.advance(STABLE_SECONDS)
        link.ended.set_result(Ending.TIMEOUT)
        await clock.settle()
        assert owner.endings == [Ending.TIMEOUT]
        assert link.calls.count("connect") == 2
        old[gatt.AUDIO_DATA](b"late")
        old[gatt.BUTTON](TAP)
        assert (owner.taken, owner.buttons) == ([], [])


async def _connects(link: ScriptedLink, clock: DrivenClock, seconds: float) -> list[float]:
    """Return the waits between the connection attempts of so many seconds."""
    times_us: list[int] = []
    for _ in range(round(seconds * 10)):
        before = link.calls.count("connect")
        await clock.advance(0.1)
        times_us += [clock.boot_us()] * (link.calls.count("connect") - before)
    return [(b - a) / 1e6 for a, b in itertools.pairwise(times_us)]


async def test_waits_grow_to_their_limit_while_nobody_answers(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors["connect"] = BluetoothOff("Bluetooth is off.")
    async with running(link, clock, owner):
        waits = await _connects(link, clock, 100)
        for wait, expected in zip(waits, [2, 4, 8, *[LAST_WAIT_SECONDS] * 6], strict=False):
            assert 0.8 * expected - 0.2 <= wait <= 1.2 * expected + 0.2
        assert set(owner.failures) == {"bluetooth-off"}
        assert link.calls.count("close") == link.calls.count("connect")
        link.errors.clear()
        await clock.advance(1.2 * LAST_WAIT_SECONDS)
        assert owner.codecs == [Codec.OPUS_20MS]


async def test_one_that_cannot_be_used_is_left_in_peace_for_longer(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.values[gatt.AUDIO_CODEC] = b"\x63"
    async with running(link, clock, owner):
        waits = await _connects(link, clock, 400)
        assert owner.codecs == []
        assert set(owner.failures) == {"bad-peripheral"}
        assert max(waits) > 0.8 * REFUSED_WAIT_SECONDS
        assert len(waits) < 15


async def test_a_hurry_does_not_wait(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors["connect"] = PendantAbsent("no pendant is in sight.")
    async with running(link, clock, owner) as receiver:
        await clock.advance(60)
        tries = link.calls.count("connect")
        await clock.advance(0.1)
        assert link.calls.count("connect") == tries
        receiver.hurry()
        await clock.settle()
        assert link.calls.count("connect") == tries + 1


async def test_a_connection_that_never_lasts_is_not_retried_in_a_loop(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        for _ in range(600):
            if not link.ended.done():
                link.ended.set_result(Ending.REMOTE)
            await clock.advance(0.1)
        assert 4 <= link.calls.count("connect") <= 12


async def test_silence_is_no_dead_link_while_the_battery_answers(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        await clock.advance(3600)
        assert link.calls.count("connect") == 1
        assert link.calls.count("read battery_level") > 100
        link.hangs = True
        await clock.advance(2 * LIVENESS_SECONDS)
        assert owner.endings[0] is Ending.STALE
        assert link.calls.count("connect") >= 2


async def test_a_battery_that_notifies_is_not_asked(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        for _ in range(20):
            await clock.advance(5)
            link.sends(b"\x50", gatt.BATTERY_LEVEL)
        assert link.calls.count("read battery_level") == 1
        assert owner.levels == [(80, None)] * 20


async def test_a_pendant_that_refuses_to_tell_its_battery_lives(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors[gatt.BATTERY_LEVEL] = AttRefused("no.", 0x02)
    async with running(link, clock, owner):
        await clock.advance(600)
        assert (link.calls.count("connect"), owner.endings) == (1, [])


async def test_one_that_never_sends_audio_is_told_later_where_its_microphone_may_sleep(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        await clock.advance(600)
        assert owner.deafness == []
        await clock.advance(600)
        assert owner.deafness == [True]
    link, owner = ScriptedLink(), Owner()
    link.values[gatt.FIRMWARE_REVISION] = b"3.0.15"
    async with running(link, clock, owner):
        await clock.advance(300)
        assert owner.deafness == [True]
        link.sends(b"\0\0\0audio")
        await clock.advance(30)
        assert owner.deafness == [True, False]


async def test_an_unbonded_link_carries_nothing_where_encryption_is_required(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    owner.require_encryption = True
    link.errors["pair"] = PairingFailed("the pendant refused.")
    async with running(link, clock, owner):
        await clock.advance(30)
        assert set(owner.failures) == {"pairing-failed"}
        assert "subscribe audio_data" not in link.calls
        link.errors.clear()
        await clock.advance(1.2 * REFUSED_WAIT_SECONDS)
        assert owner.codecs == [Codec.OPUS_20MS]
        pairing, subscribing = link.calls.index("subscribe audio_data"), len(link.calls) - 1
        assert link.calls.index("pair") < pairing <= subscribing


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_link_that_was_encrypted_before_is_paired_again_or_taken_open(
    clock: DrivenClock, refuses: bool
) -> None:
    link, owner = ScriptedLink(), Owner()
    owner.wants_bond = True
    if refuses:
        link.errors["pair"] = PairingFailed("the pendant refused.")
    async with running(link, clock, owner):
        assert link.calls[:3] == ["connect", "pair", "subscribe audio_data"]
        assert owner.codecs == [Codec.OPUS_20MS]
        assert link.security is (Security.OPEN if refuses else Security.BONDED)


async def test_a_pairing_that_does_not_encrypt_is_not_enough(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    owner.require_encryption, link.bonds_on_pair = True, False
    async with running(link, clock, owner):
        assert owner.failures == ["not-encrypted"]
        assert "subscribe audio_data" not in link.calls


async def test_a_pendant_that_wants_encryption_is_paired_and_asked_again(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors[gatt.AUDIO_DATA] = NotEncrypted("insufficient encryption.")

    async def pair() -> None:
        link.calls.append("pair")
        del link.errors[gatt.AUDIO_DATA]
        link.security = Security.BONDED

    link.pair = pair  # type: ignore[method-assign]
    async with running(link, clock, owner):
        assert link.calls[:4] == ["connect", "subscribe audio_data", "pair", "subscribe audio_data"]
        assert owner.codecs == [Codec.OPUS_20MS]


async def test_a_bond_that_the_pendant_forgot_is_renewed_once_with_a_notice(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors["connect"] = BondLost("keys differ.")

    async def unpair() -> None:
        link.calls.append("unpair")
        del link.errors["connect"]

    link.unpair = unpair  # type: ignore[method-assign]
    async with running(link, clock, owner):
        await clock.advance(3)
        assert owner.renewed == [None]
        assert link.calls[:5] == ["connect", "close", "unpair", "connect", "pair"]
        assert owner.codecs == [Codec.OPUS_20MS]


async def test_a_link_that_ends_for_its_keys_has_them_renewed(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        await clock.advance(STABLE_SECONDS)
        link.ended.set_result(Ending.AUTHENTICATION)
        await clock.advance(3)
        assert (owner.endings, owner.renewed) == ([Ending.AUTHENTICATION], [None])
        assert owner.codecs == [Codec.OPUS_20MS] * 2


async def test_a_bond_is_not_renewed_again_and_again(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors["connect"] = BondLost("keys differ.")
    async with running(link, clock, owner):
        await clock.advance(120)
        assert link.calls.count("unpair") == 1
        assert [error.slug for error in owner.renewed if error is not None] == ["bond-lost"]


async def test_a_button_is_followed_but_never_read_and_cannot_storm(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    link.values[gatt.BUTTON] = TAP  # the last event, for ever
    async with running(link, clock, owner):
        assert "read button" not in link.calls
        assert owner.buttons == []
        for _ in range(1000):
            link.sends(TAP, gatt.BUTTON)
        assert owner.buttons == [Button.SINGLE_TAP]
        await clock.advance(1)
        for value in (b"", b"\x07\0\0\0", b"\0\0\0\0\0\0\0\0", b"\x03\0\0\0\0\0\0\0"):
            link.sends(value, gatt.BUTTON)
        assert owner.buttons == [Button.SINGLE_TAP, Button.LONG_PRESS]


@pytest.mark.parametrize("value", [b"", b"\xff", b"\x65"])
async def test_absurd_battery_levels_are_not_told(clock: DrivenClock, value: bytes) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        link.sends(value, gatt.BATTERY_LEVEL)
        link.sends(b"\x07", gatt.CHARGING)
        assert owner.levels == []


@pytest.mark.parametrize("codec", [b"", b"\x63"])
async def test_a_codec_that_is_not_known_captures_nothing(clock: DrivenClock, codec: bytes) -> None:
    link, owner = ScriptedLink(), Owner()
    link.values[gatt.AUDIO_CODEC] = codec
    async with running(link, clock, owner):
        assert (owner.codecs, owner.failures) == ([], ["bad-peripheral"])
        assert link.calls[:4] == ["connect", "subscribe audio_data", "read audio_codec", "close"]


async def test_a_store_that_cannot_take_it_now_is_asked_again(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    owner.error = DiskFull("no space is left.")
    async with running(link, clock, owner):
        assert owner.failures[0] == "disk-full"
        owner.error = None
        await clock.advance(3)
        link.sends(b"audio")
        assert [n.data for n in owner.taken] == [b"audio"]


async def test_the_first_failure_is_a_warning_the_next_are_quiet(
    clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    link, owner = ScriptedLink(), Owner()
    link.errors["connect"] = PendantAbsent("no pendant is in sight.")
    with caplog.at_level(logging.DEBUG, receiver_module.__name__):
        async with running(link, clock, owner):
            await clock.advance(60)
    levels = [record.levelno for record in caplog.records]
    assert levels[0] == logging.WARNING
    assert len(levels) > 3
    assert set(levels[1:]) == {logging.DEBUG}


async def test_nothing_is_left_of_a_thousand_connections(clock: DrivenClock) -> None:
    link, owner = ScriptedLink(), Owner()
    async with running(link, clock, owner):
        tasks = len(asyncio.all_tasks())
        for _ in range(1000):
            await clock.advance(STABLE_SECONDS)
            link.ended.set_result(Ending.TIMEOUT)
            await clock.settle()
        assert len(owner.endings) == 1000
        assert len(asyncio.all_tasks()) == tasks
