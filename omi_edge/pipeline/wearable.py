"""One remembered pendant while the daemon runs: its link's events become audio, rows, events and notices."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol, TypeVar

from msgspec.structs import replace

from omi_edge import gatt
from omi_edge.capture import device
from omi_edge.capture.absence import Witness
from omi_edge.capture.battery import Gauge, Level, Sample, hours_left
from omi_edge.capture.device import Button, Features, Model
from omi_edge.capture.greeting import Greeting
from omi_edge.capture.link import Link
from omi_edge.capture.receiver import Receiver, Take
from omi_edge.clock import Clock, held
from omi_edge.config import DeviceConfig
from omi_edge.domain import Codec, DeviceInfo, DeviceState, Ending, LinkState, Security, Severity
from omi_edge.errors import BadInput, LinkError, LinkUnavailable, OmiEdgeError, PendantAbsent, VaultError
from omi_edge.events import Bus
from omi_edge.pipeline.fetch import Fetch, Meeting
from omi_edge.pipeline.intake import Intake
from omi_edge.pipeline.spine import Spine
from omi_edge.store import devices, notices
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.devices import DeviceRow

log = logging.getLogger(__name__)

T = TypeVar("T")

TAP_SECONDS = 1.0
"""A tap that the link's end follows so soon may have switched the pendant off (dossier §4.4): it is no gesture then."""
MOST_JOBS = 16
"""Of one pendant at once; an honest one needs two or three."""
HISTORY_US = 14 * 86_400_000_000
REFUSALS = ("bad-peripheral", "not-encrypted", "pairing-failed", "att-refused", "bond-lost")


class Acts(Protocol):
    """What a gesture may do; implemented by the set of devices."""

    async def gesture(self, act: str, source_id: str) -> str:
        """Do it; return the name of what happened, for haptic feedback."""


class Wearable:
    """One pendant; conforms to ``capture.receiver.Host``."""

    def __init__(
        self, row: DeviceRow, link: Link, witness: Witness, *, db: Database, clock: Clock, bus: Bus, spine: Spine,
        config: DeviceConfig, acts: Acts,
    ) -> None:  # fmt: skip
        self.address = row.address
        self.config = config
        self.info = DeviceInfo(row.address, row.own_name, row.model, row.firmware, row.hardware, row.manufacturer)
        self._features = Features(row.features) if row.features is not None else None
        self.state = DeviceState(
            LinkState.SEARCHING,
            clock.utc_us(),
            battery=row.battery,
            charging=row.charging,
            features=self._features.names if self._features is not None else (),
            storage=device.storage_of(self.info).value if row.firmware else "",
        )
        self.name = row.name
        """What the owner calls it."""
        self._db = db
        self._clock = clock
        self._bus = bus
        self._spine = spine
        self._acts = acts
        self._witness = witness
        self._witness.mic_sleeps = device.mic_sleeps(self.info) or not row.firmware
        self._receiver = Receiver(link, clock, self, self._witness)
        self.fetch = Fetch(
            row.address, link, db=db, clock=clock, bus=bus, recovery=spine.recovery, tell=self._tell, clear=self._clear
        )
        self._connected_us = 0
        self._away_us: int | None = None
        self._gauge = Gauge(config.battery_low, config.battery_critical)
        self._intake: Intake | None = None
        self._connection: int | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._flooded = 0
        self._was_bonded = row.security == Security.BONDED.value
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for it."""
        self._running = asyncio.create_task(self._receiver.run(), name=f"pendant {self.address}")

    async def stop(self) -> None:
        """Disconnect; what was heard is stored."""
        was_connected = self._connection is not None
        await self.fetch.stop()
        for task in [task for task in (self._running, *self._jobs) if task is not None]:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if was_connected:
            self._witness.ended(self._clock.boot_us(), Ending.LOCAL)
            await self.ended(Ending.LOCAL)
        self._become(LinkState.OFF)

    @property
    def broken(self) -> bool:
        """Whether its task ended although it should not have."""
        return self._running is not None and self._running.done()

    def hurry(self) -> None:
        """Look for it at once."""
        self._receiver.hurry()

    # --- capture.receiver.Host ----------------------------------------------------------------------------------------

    @property
    def require_encryption(self) -> bool:
        """See Host."""
        return self.config.require_encryption == "require"

    @property
    def wants_bond(self) -> bool:
        """See Host."""
        return self._was_bonded and self.config.require_encryption == "prefer"

    async def connected(self, codec: Codec, security: Security) -> Take:
        """See Host."""
        with held(self._clock):
            intake = await self._spine.open_pendant(self.address, self.name, codec, self._witness)
            intake.reconnected()
            self._intake = intake
            self._connected_us = self._clock.utc_us()
            self._away_us = await self._read_away_us()
            self._connection = await self._write(
                lambda conn: devices.began(conn, self.address, at_us=self._clock.utc_us(), security=security.value)
            )
            await self._clear("bluetooth-unavailable", "pendant-refused")
        self._become(LinkState.CONNECTED, security=security, codec=int(codec))
        if self._was_bonded and security is Security.OPEN:
            self._soon(self._tell("link-open", Severity.WARNING, f"The link to {self.name} was encrypted and no longer "
                       f"is. Pair it anew: omi-edge devices pair {self.address}."))  # fmt: skip
        elif security is Security.BONDED:
            self._was_bonded = True
            self._soon(self._clear("link-open"))
        return intake.notify

    async def greeted(self, told: Greeting) -> None:
        """See Host."""
        self.info, self._features = told.info, told.features
        info = told.info
        await self._note(
            own_name=info.name, rssi=told.rssi, model=info.model, firmware=info.firmware, hardware=info.hardware,
            manufacturer=info.manufacturer, codec=self.state.codec, clock_offset_us=told.clock_offset_us,
            features=int(told.features) if told.features is not None else None, clock_us=self._clock.utc_us(),
        )  # fmt: skip
        self.state = replace(
            self.state, features=told.features.names if told.features is not None else (), rssi=told.rssi, led=told.led,
            mic_gain=told.mic_gain, storage=device.storage_of(info).value,
        )  # fmt: skip
        self.battery(told.battery, told.charging)
        note = device.firmware_note(info)
        if note is not None:
            await self._tell(note.code, Severity.INFO, f"{self.name}: {note.message}")
        await self._tell_gain(told.mic_gain)
        codec = Codec(self.state.codec) if self.state.codec is not None else None
        if codec is not None:
            self.fetch.name = self.name
            self.fetch.begin(
                Meeting(device.storage_of(info), codec, self._away_us, self._connected_us, told.clock_us,
                        told.clock_offset_us)
            )  # fmt: skip

    def battery(self, percent: int | None, charging: bool | None) -> None:
        """See Host."""
        percent = self.state.battery if percent is None else percent
        charging = self.state.charging if charging is None else charging
        if percent is None or ((percent, charging) == (self.state.battery, self.state.charging) and self._gauge.kept):
            return
        self.state = replace(self.state, battery=percent, charging=charging)
        sample = Sample(self._clock.utc_us(), percent, charging)
        level = self._gauge.judge(percent, charging)
        if self._gauge.worth_keeping(sample):
            self._soon(self._keep_battery(sample))
        if level is not None:
            self._soon(self._tell_level(level, percent))

    def pressed(self, button: Button) -> None:
        """See Host."""
        act = {
            Button.SINGLE_TAP: self.config.single_tap,
            Button.DOUBLE_TAP: self.config.double_tap,
            Button.LONG_PRESS: self.config.long_press,
        }.get(button, "nothing")
        self._bus.publish("device", self._clock.utc_us(), id=self.address, state=self.state.state.value,
                          button=button.name.lower())  # fmt: skip
        if act != "nothing":
            self._soon(self._gesture(act, after=TAP_SECONDS if button is Button.SINGLE_TAP else 0.0))

    def deaf(self, now: bool) -> None:
        """See Host."""
        if not now:
            self._soon(self._clear("no-audio"))
            return
        if device.model_of(self.info) in (Model.DEVKIT1, Model.DEVKIT2):
            why = (
                "This machine's Bluetooth adapter may lack the Data Length Extension of Bluetooth 4.2, without which a "
                "development kit sends none. Use a newer adapter."
            )
        elif device.mic_sleeps(self.info):
            why = (
                "Either it has been quiet for all that time, or the link's packets are too small for audio (MTU below "
                "100): say something near it; another adapter may do better."
            )
        else:
            why = "The link's packets may be too small for it (MTU below 100). Another adapter may do better."
        self._soon(self._tell("no-audio", Severity.ERROR, f"{self.name} is connected but sends no audio. {why}"))

    async def ended(self, ending: Ending) -> None:
        """See Host."""
        await self.fetch.stop()
        if self._intake is not None:
            await self._intake.finish()
        with held(self._clock):
            connection, self._connection = self._connection, None
            if connection is not None:
                now_us = self._clock.utc_us()
                await self._write(
                    functools.partial(devices.ended, connection_id=connection, at_us=now_us, ending=ending.value)
                )
                await self._note(seen_us=now_us)
        self._become(LinkState.SEARCHING, cause=f"link-{ending.value}", message=_ENDINGS[ending])
        await self._tell_flood()

    async def failed(self, error: OmiEdgeError) -> None:
        """See Host."""
        if isinstance(error, LinkUnavailable):
            state = LinkState.UNAVAILABLE
        elif error.slug in REFUSALS:
            state = LinkState.REFUSED
        else:
            state = LinkState.SEARCHING
        if (state, error.slug) == (self.state.state, self.state.cause):
            return
        self._become(state, cause=error.slug, message=str(error))
        if state is LinkState.UNAVAILABLE:
            await self._tell("bluetooth-unavailable", Severity.ERROR, f"Nothing can be heard: {error}")
        elif state is LinkState.REFUSED:
            await self._tell("pendant-refused", Severity.ERROR, f"{self.name} captures nothing: {error}")
        elif not isinstance(error, (PendantAbsent, LinkError)):
            log.warning("a pendant waits", extra={"cause": error.slug})

    async def bond_renewed(self, error: OmiEdgeError | None) -> None:
        """See Host."""
        if error is None:
            await self._tell("bond-renewed", Severity.WARNING, f"{self.name} had forgotten its pairing; it was paired "
                             "anew. If you did not reset it, look whether somebody else did.")  # fmt: skip
        else:
            await self._tell("bond-lost", Severity.ERROR, f"{self.name} forgot its pairing and could not be paired "
                             f"anew: {error} Pair it with `omi-edge devices pair {self.address}`.")  # fmt: skip

    # --- what the owner asks ------------------------------------------------------------------------------------------

    async def set(self, led: int | None, mic_gain: int | None, own_name: str | None) -> DeviceState:
        """Change settings on the pendant. Raises BadInput for what it does not offer, else as Receiver.write."""
        wanted = [
            ("led", led, Features.LED_DIMMING, gatt.LED_DIM_RATIO),
            ("mic_gain", mic_gain, Features.MIC_GAIN, gatt.MIC_GAIN),
            ("own_name", own_name, Features.DEVICE_NAME, gatt.DEVICE_NAME),
        ]
        writes: list[tuple[str, bytes]] = []
        for field, value, feature, uuid in wanted:
            if value is None:
                continue
            if not device.may_write_settings(self.info) or feature not in (self._features or Features(0)):
                raise BadInput(
                    f"{self.name} does not offer this setting: not this model, or not with this firmware.", field
                )
            data = device.own_name_value(value) if isinstance(value, str) else bytes([value])
            if data is None:
                raise BadInput(f"a pendant's own name has 1 to {device.OWN_NAME_BYTES} bytes of printable text.", field)
            writes.append((uuid, data))
        for uuid, data in writes:
            await self._receiver.write(uuid, data)
        self.state = replace(
            self.state, led=self.state.led if led is None else led,
            mic_gain=self.state.mic_gain if mic_gain is None else mic_gain,
        )  # fmt: skip
        await self._tell_gain(mic_gain)
        return self.state

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic of the connected pendant."""
        return await self._receiver.read(uuid)

    async def buzz(self, event: str) -> None:
        """Let the pendant vibrate for an event, as far as the owner chose so and the pendant can."""
        strength = dict(_pair(text) for text in self.config.haptics).get(event, 0)
        can = Features.HAPTIC in (self._features or Features(0)) or device.model_of(self.info) is Model.DEVKIT2
        if strength and can and self.state.state is LinkState.CONNECTED:
            try:
                await self._receiver.write(gatt.HAPTIC, bytes([strength]))
            except LinkError as error:
                log.debug("no haptic feedback", extra={"cause": error.slug})

    # --- what follows from events -------------------------------------------------------------------------------------

    async def _gesture(self, act: str, after: float) -> None:
        connection = self._connection
        if after:
            await self._clock.sleep(after)
        if self._connection != connection or self._intake is None:
            return
        with held(self._clock):
            done = await self._acts.gesture(act, self._intake.source_id)
        await self.buzz(done)  # not held: the pendant may answer only when time goes on

    async def _read_away_us(self) -> int | None:
        """Return when the connection before ended; None for the first, or when the file cannot be read."""
        try:
            rows = await self._db.read(lambda conn: devices.connections(conn, self.address, 1))
        except OmiEdgeError:
            return None
        return rows[0].ended_us if rows else None

    async def _keep_battery(self, sample: Sample) -> None:
        def work(conn: Connection) -> list[devices.BatteryRow]:
            devices.add_battery(
                conn, self.address, at_us=sample.at_us, percent=sample.percent, charging=sample.charging
            )
            return devices.battery(conn, self.address, since_us=sample.at_us - HISTORY_US)

        history = [Sample(row.at_us, row.percent, row.charging) for row in await self._write(work) or []]
        self.state = replace(self.state, hours_left=hours_left(history))
        self._tell_state()

    async def _tell_level(self, level: Level, percent: int) -> None:
        await self._clear("battery-low", "battery-critical")
        if level is Level.LOW:
            await self._tell("battery-low", Severity.WARNING, f"The battery of {self.name} is low ({percent} %).")
        elif level is Level.CRITICAL:
            await self._tell("battery-critical", Severity.ERROR,
                             f"The battery of {self.name} is nearly empty ({percent} %); it ends soon.")  # fmt: skip
        if level is not Level.FINE:
            await self.buzz("battery_low")

    async def _tell_gain(self, level: int | None) -> None:
        if level == 0:
            await self._tell("microphone-off", Severity.WARNING, f"The microphone of {self.name} is set to level 0: it "
                             "hears nothing. `omi-edge devices settings` changes it; 6 is the default.")  # fmt: skip
        elif level is not None:
            await self._clear("microphone-off")

    async def _tell_flood(self) -> None:
        thrown_away, self._flooded = self._receiver.flooded - self._flooded, self._receiver.flooded
        if thrown_away:
            await self._tell("pendant-flood", Severity.WARNING, f"{self.name} sent more than any pendant does: "
                             f"{thrown_away} notifications were thrown away. Is it really yours?")  # fmt: skip

    async def _tell(self, code: str, severity: Severity, message: str) -> None:
        try:
            await self._spine.raise_notice(code, severity, (self.address,), message)
        except VaultError as error:
            log.warning("a notice was not noted", extra={"notice": code, "cause": error.slug})

    async def _write(self, work: Callable[[Connection], T]) -> T | None:
        """Note something about the pendant; what cannot be noted now never keeps its audio from being taken."""
        try:
            return await self._db.write(work)
        except VaultError as error:
            log.warning("something about a pendant was not noted", extra={"cause": error.slug})
            return None

    async def _clear(self, *codes: str) -> None:
        def work(conn: Connection) -> None:
            for code in codes:
                notices.clear(conn, code, (self.address,))

        await self._write(work)

    async def _note(self, **fields: object) -> None:
        await self._write(lambda conn: devices.note(conn, self.address, **fields))

    def _become(self, state: LinkState, *, cause: str = "", message: str = "", security: Security | None = None,
                codec: int | None = None) -> None:  # fmt: skip
        self.state = replace(
            self.state, state=state, since_us=self._clock.utc_us(), cause=cause, message=message, security=security,
            codec=self.state.codec if codec is None else codec,
        )  # fmt: skip
        self._tell_state()
        log.info(
            "pendant", extra={"device": self.address[-5:], "state": state.value} | ({"cause": cause} if cause else {})
        )

    def _tell_state(self) -> None:
        self._bus.publish(
            "device", self._clock.utc_us(), id=self.address, state=self.state.state.value, cause=self.state.cause,
            battery=self.state.battery, charging=self.state.charging,
        )  # fmt: skip

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        """Do something that a notification asks for; its callback must not wait."""
        if len(self._jobs) >= MOST_JOBS:
            work.close()
            return
        task = asyncio.create_task(_guarded(work))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)


_ENDINGS = {
    Ending.TIMEOUT: "Nothing was heard of it any more: out of range, or without power.",
    Ending.REMOTE: "The pendant ended the connection.",
    Ending.LOCAL: "This side ended the connection.",
    Ending.AUTHENTICATION: "The keys of the two sides differ; pair it anew.",
    Ending.RADIO: "Bluetooth went away on this machine.",
    Ending.STALE: "It no longer answered.",
    Ending.UNKNOWN: "The connection ended; the system does not say why.",
}


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except OmiEdgeError as error:
        log.warning("a pendant's event was not followed", extra={"cause": error.slug})


def _pair(text: str) -> tuple[str, int]:
    event, _, strength = text.partition(":")
    return event, int(strength)
