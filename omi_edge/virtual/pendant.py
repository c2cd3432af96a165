"""A pendant without hardware: GATT values, timing and faults, driven by the clock. Knows no transport.

Built on the protocol dossier §10. Microphone blocks of 100 ms are encoded and sent as a burst; ids go on across
connections; audio that nobody subscribed to is thrown away, or stored while nobody is connected (``storage``). A
transport asks ``advertising`` and calls ``connect``; whoever runs the simulation calls ``play`` and lets things go
wrong; ``record`` tells what became of the audio.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

import msgspec

from omi_edge import gatt
from omi_edge.clock import Clock
from omi_edge.domain import SAMPLE_RATE, Codec, Ending
from omi_edge.opus import Samples
from omi_edge.virtual.attributes import Characteristic
from omi_edge.virtual.board import Board
from omi_edge.virtual.connection import Connection
from omi_edge.virtual.device_clock import DeviceClock
from omi_edge.virtual.encode import encoder
from omi_edge.virtual.faults import Act, Fate, Faults, Timed, Truth
from omi_edge.virtual.microphone import BLOCK_SAMPLES, BLOCK_US, blocks
from omi_edge.virtual.profiles import CV1_3_0_21, PROFILES, Profile
from omi_edge.virtual.storage import Storage
from omi_edge.virtual.timers import Timers
from omi_edge.virtual.voice import ATT_HEADER_BYTES, Voice

__all__ = ["BLOCK_SAMPLES", "CV1_3_0_21", "PROFILES", "Faults", "Pendant", "Profile"]

LATE_START_SECONDS = 1.3
"""No audio earlier than this after a connection (dossier §10, item 3)."""
DEFAULT_MTU = 498
"""Largest that a pendant agrees to (dossier §2.3)."""
DEFAULT_DATA_LENGTH = 251
"""Longest link layer packet; 27 with a central that has no Data Length Extension (dossier §2.3)."""
MINIMUM_LIMIT = 100
"""With a smaller MTU (CV1) or data length (DevKit) there is no audio (dossier §2.3)."""
SUPERVISION_SECONDS = 4.0
"""So long a silence ends a connection (dossier §2.2)."""
RESTART_SECONDS = 2.0
"""From a crash to advertising, when nobody was connected; assumed, no source gives it."""
TAP = 1
"""Code of a single tap (dossier §4.4)."""
FOREVER = None


class Pendant:
    """The device. ``mtu``, ``data_length`` and ``codec`` take the place of what the profile would have."""

    def __init__(
        self,
        clock: Clock,
        profile: Profile = CV1_3_0_21,
        *,
        mtu: int = DEFAULT_MTU,
        data_length: int = DEFAULT_DATA_LENGTH,
        faults: Faults | None = None,
        first_id: int = 0,
        mic_sleep: bool | None = None,
        codec: Codec | None = None,
        address: str | None = None,
    ) -> None:
        device = profile.device
        self.profile = msgspec.structs.replace(
            profile,
            codec=profile.codec if codec is None else codec,
            mic_sleep=profile.mic_sleep if mic_sleep is None else mic_sleep,
            device=msgspec.structs.replace(device, address=address or device.address),
        )
        self.mtu = mtu
        self.data_length = data_length
        self.rssi = -60
        """As a central would see it, dBm."""
        self.sent = 0
        """Notifications that left the pendant."""
        self.heard_seconds = 0.0
        """Audio that the microphone has heard since the pendant was made."""
        self.on_sent: Callable[[], None] = lambda: None
        """Told right before each notification leaves."""
        self.on_ended: Callable[[Ending], None] = lambda _: None
        """Told right after a connection of the transport's ended."""
        self.on_event: Callable[[str], None] = lambda _: None
        """Told what happens, in a few words for a person."""
        self.bonds: dict[str, int] = {}
        """Its key for each central that it is bonded to: at most one (dossier §2.1)."""
        self.faults = faults or Faults()
        self._clock = clock
        self._cuts = list(self.faults.cut_after)
        self._keys = random.Random(self.faults.seed)  # noqa: S311 a simulation, not a secret
        self._audio_from_us = 0
        self._late: list[tuple[str, bytes]] = []
        self._connection: Connection | None = None
        self._apart: Fate | None = None
        self._off = self._away = self._held = self._consumed = self._stalled = False
        self._crashed = False
        self._forgetful = self.faults.stale_bond
        self._timers = Timers(clock)
        self._waiting: list[asyncio.Future[None]] = []
        epoch = None if self.faults.unset_clock else clock.utc_us() / 1e6
        self.clock = DeviceClock(clock, epoch, self.faults.drift_ppm)
        self.storage = Storage(clock, self.clock, self, self.profile, self.faults)
        """What it keeps while nobody is connected; ``storage.record`` tells what became of that."""
        self._voice = Voice(clock, self, self.storage, self.profile, self.faults, first_id)
        self.board = Board(self.profile, self.clock, self._notify, self._to_bootloader, self.storage)
        for index, timed in enumerate(self.faults.timed):
            self._timers.later(f"act {index}", timed.at, lambda timed=timed: self.suffer(timed))  # type: ignore[misc]

    # what a transport asks and does

    @property
    def address(self) -> str:
        """Its Bluetooth address."""
        return self.profile.device.address

    @property
    def advertised_name(self) -> str:
        """What its advertisement says; a name that was given to it is shortened to 8 bytes (dossier §4.9)."""
        if self.board.name != self.profile.device.name:
            return self.board.name.encode()[:8].decode("utf-8", "ignore")
        return self.profile.advertised_name or self.profile.device.name

    @property
    def characteristics(self) -> dict[str, Characteristic]:
        """What it offers, by UUID."""
        return self.board.characteristics

    @property
    def services(self) -> dict[str, tuple[Characteristic, ...]]:
        """Its GATT table."""
        return self.board.services

    @property
    def battery(self) -> int:
        """Charge in percent."""
        return self.board.battery

    @battery.setter
    def battery(self, percent: int) -> None:
        self.board.battery = percent

    @property
    def advertising(self) -> bool:
        """Whether a central would see it now: one that is connected does not advertise (dossier §2.1)."""
        return not (self._silent or self._held or self._connection is not None)

    @property
    def connected(self) -> bool:
        """Whether a central holds the only link."""
        return self._connection is not None or self._held

    @property
    def reachable(self) -> bool:
        """Whether the central that is connected is heard, and hears."""
        return not (self._silent or self._stalled)

    @property
    def _silent(self) -> bool:
        return self._off or self._away or self._crashed

    @property
    def streaming(self) -> bool:
        """Whether what the microphone hears now reaches a central."""
        return self.heard() and self.reachable

    def connect(self, central: str = "") -> Connection:
        """Take a connection of ``central``; only while ``advertising``."""
        assert self.advertising
        wants = self.faults.security_request or self.profile.asks_for_bond
        self._connection = Connection(self, central, self.mtu, wants_security=wants)
        self._audio_from_us = self._clock.boot_us() + round(LATE_START_SECONDS * 1e6)
        self._timers.later("battery", self.profile.battery_seconds, self._tell_battery)
        self.storage.connected()
        self.on_event("connected")
        return self._connection

    def disconnect(self) -> None:
        """End the connection from the central's side; harmless when there is none."""
        if self._connection is not None:
            self._connection.end(Ending.LOCAL)

    async def wait_advertising(self, seconds: float) -> bool:
        """Wait until it advertises; say whether it did within ``seconds``."""
        until_us = self._clock.boot_us() + round(seconds * 1e6)
        while not self.advertising and (left_us := until_us - self._clock.boot_us()) > 0:
            seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(seen)
            timer = self._clock.call_later(left_us / 1e6, lambda seen=seen: _settle(seen))  # type: ignore[misc]
            try:
                await seen
            finally:
                timer.cancel()
                if seen in self._waiting:
                    self._waiting.remove(seen)
        return self.advertising

    def refusal(self, connection: Connection, characteristic: Characteristic) -> int | None:
        """See Peripheral."""
        refuses = self.faults.insufficient_encryption and characteristic.protected and not connection.encrypted
        return self.faults.encryption_error if refuses else None

    def accept_pairing(self, connection: Connection) -> int | None:
        """See Peripheral. A pendant keeps one bond; we let the newest take its place."""
        key = self._keys.getrandbits(128)
        self.bonds = {connection.central: key}
        self.on_event("paired")
        return key

    def knows(self, central: str, key: int) -> bool:
        """See Peripheral."""
        return self.bonds.get(central) == key

    def subscribed(self, uuid: str) -> None:
        """See Peripheral."""
        self.on_event(f"subscribed to {uuid}")

    def released(self, connection: Connection, ending: Ending) -> None:
        """See Peripheral."""
        if self._connection is not connection:
            return
        self._connection = None
        self._late.clear()
        self.storage.disconnected()
        for name in ("battery", "supervision"):
            self._timers.cancel(name)
        if self._forgetful and connection.central in self.bonds:
            self.forget_bonds()
            self._forgetful = False
        if self._apart is None and ending in (Ending.TIMEOUT, Ending.REMOTE):
            self._apart = Fate.CUT
        self._voice.lose(self.why_not())
        self.on_event(f"disconnected ({ending})")
        self._changed()
        self.on_ended(ending)

    # what happens to it

    def suffer(self, timed: Timed) -> None:
        """Let one act of the faults happen now."""
        seconds = timed.seconds
        self.on_event(f"fault: {timed.act}" + ("" if seconds is None else f" ({seconds:g})"))
        match timed.act:
            case Act.CUT:
                self.cut()
            case Act.END:
                self.end()
            case Act.AWAY:
                self.go_away(seconds)
            case Act.HELD:
                self.hold(seconds)
            case Act.STALL:
                self.stall(seconds or 1.0)
            case Act.REBOOT:
                self.reboot(clock_back_seconds=seconds)
            case Act.OFF:
                self.power_off(seconds)
            case Act.PRESS:
                self.press(TAP if seconds is None else int(seconds))

    def cut(self) -> None:
        """Break the link at once, for both sides, as if its supervision timeout were over."""
        self._drop(Ending.TIMEOUT, Fate.CUT)

    def end(self) -> None:
        """End the connection, as a pendant does for reasons of its own."""
        self._drop(Ending.REMOTE, Fate.CUT)

    def go_away(self, seconds: float | None = FOREVER) -> None:
        """Go out of range, for ever or for ``seconds``; a link that hears nothing ends after SUPERVISION_SECONDS."""
        self._away = True
        self._fall_silent(Fate.AWAY)
        self._timers.later("away", seconds, self.come_back)

    def come_back(self) -> None:
        """Be in range again; a link that has not ended delivers what waited."""
        self._timers.cancel("away")
        self._away = False
        self._changed()

    def stall(self, seconds: float) -> None:
        """Let nothing through for ``seconds``, without an end of the link; what waits then comes as a burst."""
        self._stalled = True

        def over() -> None:
            self._stalled = False
            self._changed()

        self._timers.later("stall", seconds, over)

    def hold(self, seconds: float | None = FOREVER, *, consuming: bool = False) -> None:
        """Let another central have the only link; a ``consuming`` one subscribes to audio, so that ids go on."""
        self._held, self._consumed = True, consuming  # before the drop: nobody may connect in between
        self._drop(Ending.TIMEOUT, Fate.HELD)
        self._timers.later("held", seconds, self.let_go)

    def let_go(self) -> None:
        """Let the other central disconnect."""
        self._timers.cancel("held")
        self._held = self._consumed = False
        self._apart = Fate.HELD if self._apart is None else self._apart
        self._changed()

    def reboot(self, *, clock_back_seconds: float | None = None) -> None:
        """Crash and start again: ids from 0, the clock from the last written time or from so many seconds ago.

        The central finds out by its supervision timeout.
        """
        self._crashed = True
        self._voice.restart()
        self.storage.stopped(crashed=True)
        if self.profile.custody and clock_back_seconds is None:
            self.clock.set(None)  # newer code waits for a client to set it (dossier §4.3)
        else:
            self.clock.crash(clock_back_seconds)
        self._fall_silent(Fate.OFF)

        def started() -> None:
            self._crashed = False
            self.storage.started()
            self._changed()

        self._timers.later("restart", RESTART_SECONDS if self._connection is None else SUPERVISION_SECONDS, started)

    def power_off(self, seconds: float | None = FOREVER, *, graceful: bool = True) -> None:
        """Switch off; ``graceful`` ends the connection first, an empty battery does not."""
        self._off = True
        if graceful:
            self._drop(Ending.REMOTE, Fate.OFF)
        self.storage.stopped(crashed=not graceful)
        self._fall_silent(Fate.OFF)
        self._timers.later("off", seconds, self.power_on)

    def power_on(self) -> None:
        """Start: ids from 0; its clock went on (dossier §4.3)."""
        if self._off:
            self._timers.cancel("off")
            self._drop(Ending.TIMEOUT, Fate.OFF)
            self._off = False
            self._voice.restart()
            self.storage.started()
            self._changed()

    def press(self, code: int = TAP) -> None:
        """Press its button: 1 tap, 2 double tap, 3 long press (dossier §4.4)."""
        if self._off:
            return
        self.board.press(code)
        if code == TAP and self.faults.tap_power_off:
            self.power_off()

    def forget_bonds(self) -> None:
        """Lose its side of every bond."""
        self.bonds.clear()

    def close(self) -> None:
        """Let go of everything that waits for a time."""
        self.disconnect()
        self._timers.clear()
        self.storage.close()

    @property
    def unheard(self) -> int:
        """Frames thrown away because nobody could receive them."""
        return self._voice.unheard

    @property
    def record(self) -> list[Truth]:
        """What became of everything that was played so far, in order, neighbours of one fate joined.

        What waits for a stalled link is not in it yet.
        """
        return self._voice.ledger.record()

    # audio

    async def wait_streaming(self) -> None:
        """Wait until what the microphone hears reaches a central."""
        while not self.streaming:
            await self._clock.sleep(BLOCK_SAMPLES / SAMPLE_RATE)

    async def play(self, samples: Iterable[Samples], *, seconds: float | None = None) -> float:
        """Let the microphone hear int16 blocks of any length at 16 kHz mono; return the seconds heard.

        Takes as long as the audio, in the clock's time. ``seconds`` stops it early. The last microphone block is filled
        with silence.
        """
        started_us = self._clock.boot_us()
        heard_before = self.heard_seconds
        heard = 0
        for block in blocks(samples):
            if seconds is not None and heard >= seconds * SAMPLE_RATE:
                break
            heard += BLOCK_SAMPLES
            await self._until(started_us, heard)
            self.heard_seconds = heard_before + heard / SAMPLE_RATE
            self._voice.hear(block * 0 if self.board.mic_gain == 0 else block)
            if self._cuts and self.heard_seconds >= self._cuts[0]:
                del self._cuts[0]
                self.cut()
        return heard / SAMPLE_RATE

    async def play_packets(self, packets: Sequence[bytes]) -> None:
        """Send codec frames that were encoded before, in the same bursts and with the same faults as ``play``."""
        started_us = self._clock.boot_us()
        each = BLOCK_US // self.profile.codec.frame_us
        for burst, first in enumerate(range(0, len(packets), each), start=1):
            await self._until(started_us, burst * BLOCK_SAMPLES)
            self._voice.say(packets[first : first + each])

    def store_packets(self, packets: Sequence[bytes]) -> None:
        """Have heard codec frames, while nobody was connected, in the time right up to now; no time passes.

        What was stored before should end before they begin. Only while nobody is connected.
        """
        assert not self.connected
        frame_us, per_block = self.profile.codec.frame_us, BLOCK_US // self.profile.codec.frame_us
        began_us = self._clock.boot_us() - len(packets) * frame_us
        ids = self._voice.next_id, self._voice.next_id
        for index, packet in enumerate(packets):
            start_us = began_us + index * frame_us
            full_us = began_us + (index // per_block + 1) * BLOCK_US
            self.storage.take(packet, (start_us, start_us + frame_us), min(full_us, self._clock.boot_us()), ids)

    def store(self, samples: Iterable[Samples], *, seconds: float | None = None) -> float:
        """Encode int16 blocks of any length at 16 kHz mono for ``store_packets``; return their seconds."""
        encode, per_frame = encoder(self.profile.codec), self.profile.codec.frame_us * SAMPLE_RATE // 1_000_000
        packets: list[bytes] = []
        for block in blocks(samples):
            if seconds is not None and len(packets) * per_frame >= seconds * SAMPLE_RATE:
                break
            packets += [encode(frame) for frame in block.reshape(-1, per_frame)]
        self.store_packets(packets)
        return len(packets) * per_frame / SAMPLE_RATE

    async def _until(self, started_us: int, heard: int) -> None:
        # sleeping to absolute times keeps the cadence free of drift, but for the one that is asked for
        due_us = started_us + round(heard * 1_000_000 / SAMPLE_RATE / (1 + self.faults.drift_ppm * 1e-6))
        await self._clock.sleep(max(0.0, (due_us - self._clock.boot_us()) / 1e6))

    # what its voice asks

    def heard(self) -> bool:
        """Whether a central listens to audio, leaving aside whether anything gets through."""
        limit = self.data_length if self.profile.fragments_by_data_length else self.mtu
        link = self._connection
        return (
            link is not None
            and link.subscribed(gatt.AUDIO_DATA)
            and limit >= MINIMUM_LIMIT
            and self._clock.boot_us() >= self._audio_from_us
            and not (self._off or self._crashed)
        )

    @property
    def consumed(self) -> bool:
        """Whether another central has the link, and listens."""
        return self._held and self._consumed

    @property
    def stalled(self) -> bool:
        """Whether the link holds but lets nothing through."""
        return self._stalled

    @property
    def off(self) -> bool:
        """Whether it is switched off."""
        return self._off

    def why_not(self) -> Fate:
        """Say why audio does not reach a central now."""
        if self._off or self._crashed:
            return Fate.OFF
        if self._away:
            return Fate.AWAY
        if self._held:
            return Fate.HELD
        if self._apart is not None:
            return self._apart
        return Fate.UNCONNECTED if self._connection is None else Fate.UNSUBSCRIBED

    def flows(self) -> None:
        """Be told that audio reaches a central."""
        self._apart = None

    def send_audio(self, value: bytes) -> None:
        """Send one notification of audio."""
        self._send(gatt.AUDIO_DATA, value)

    # what its storage asks

    @property
    def listening(self) -> bool:
        """Whether a central subscribed to the storage's notifications."""
        return self._connection is not None and self._connection.subscribed(gatt.STORAGE_CONTROL)

    def send_stored(self, value: bytes) -> bool:
        """Send a notification of the storage; False when the stack refuses it."""
        if not self.listening or len(value) > self.mtu - ATT_HEADER_BYTES or self._off or self._crashed:
            return False
        self._notify(gatt.STORAGE_CONTROL, value)
        return True

    # the link

    def _notify(self, uuid: str, value: bytes) -> None:
        """Send a value other than audio."""
        if self._stalled or self._away:
            if self._connection is not None and self._connection.subscribed(uuid):
                self._late.append((uuid, value))
        elif self.reachable:
            self._send(uuid, value)

    def _send(self, uuid: str, value: bytes) -> None:
        link = self._connection
        if link is not None and link.subscribed(uuid):  # who received the last one may have ended the connection
            self.sent += 1
            self.on_sent()
            link.deliver(uuid, value)

    def _tell_battery(self) -> None:
        if self._connection is not None:
            self._timers.later("battery", self.profile.battery_seconds, self._tell_battery)
            if self.reachable:
                self._notify(gatt.BATTERY_LEVEL, bytes([self.battery]))

    def _drop(self, ending: Ending, fate: Fate) -> None:
        if self._connection is not None:
            self._apart = fate
            self._connection.end(ending)

    def _fall_silent(self, fate: Fate) -> None:
        if self._connection is not None:
            if fate is Fate.OFF:
                self._late.clear()
                self._voice.lose(fate)
            if "supervision" not in self._timers:
                self._timers.later("supervision", SUPERVISION_SECONDS, self._time_out)

    def _time_out(self) -> None:
        self._drop(Ending.TIMEOUT, Fate.AWAY if self._away and not (self._off or self._crashed) else Fate.OFF)

    def _changed(self) -> None:
        """See what follows from something being over."""
        if not self._silent:
            self._timers.cancel("supervision")
        if self.reachable and self._connection is not None:
            late, self._late = self._late, []
            for uuid, value in late:
                self._send(uuid, value)
            self._voice.catch_up()
            if self._connection is not None:
                self._connection.moved()
        if self.advertising:
            waiting, self._waiting = self._waiting, []
            for seen in waiting:
                _settle(seen)

    def _to_bootloader(self) -> None:
        self.power_off(FOREVER, graceful=False)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
