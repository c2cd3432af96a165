"""The microphone of this machine that `microphone.device` names, as a live source beside the pendants.

What it hears is encoded as a pendant would and takes a pendant's way. Samples that were lost count as lost frames; from
when it is unplugged until it is back is a gap, and the ledger calls it disconnected. While the owner withholds
recording, what comes is thrown away before anything looks at it, its level included.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging

import msgspec
import numpy as np
from msgspec.structs import replace

from omi_edge.capture.absence import Hole, Witness
from omi_edge.capture.microphone import Heard, Microphone, Opened, Sound, Waiting, level_db
from omi_edge.clock import Clock, held
from omi_edge.domain import SAMPLE_RATE, Cause, Codec, Notification, Severity
from omi_edge.errors import MicrophoneError, OmiEdgeError, VaultError
from omi_edge.events import Bus
from omi_edge.ids import new_id
from omi_edge.opus import Encoder
from omi_edge.pipeline.intake import Intake
from omi_edge.pipeline.spine import Spine
from omi_edge.store import notices, sources
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.sources import SourceRow

log = logging.getLogger(__name__)

DEVICE_ID = "microphone"
"""Of its source, in place of a pendant's address: whichever one is chosen, it is the machine's."""
NAME = "Microphone"
CODEC = Codec.OPUS_20MS
FRAME_SAMPLES = CODEC.frame_us * SAMPLE_RATE // 1_000_000
TELL_SECONDS = 10.0
"""How often its level is told as an event."""
RETRY_SECONDS = 5.0


class MicrophoneState(msgspec.Struct, frozen=True):
    """How the microphone stands."""

    state: str = "waiting"
    """listening, waiting (it is not there) or failed (nothing will be heard before a restart)."""
    name: str = ""
    """What the system calls it; empty before it was opened."""
    level_db: float | None = None
    """Of the last tenth of a second, in dB below full scale; None while nothing is heard or to be heard."""
    lost_us: int = 0
    """Sound that this machine was too slow to take, since the daemon began."""
    message: str = ""
    since_us: int = 0


class MicrophoneWitness(Witness):
    """What a hole in its audio means: either it was away, or this machine was too slow."""

    def causes(self, hole: Hole) -> tuple[Cause, ...]:
        """See Witness."""
        return (Cause.DISCONNECTED,) if hole.reconnected else (Cause.LOST,)


class MicrophoneSource:
    """Listens to one microphone while the daemon runs."""

    def __init__(self, microphone: Microphone, *, db: Database, clock: Clock, bus: Bus, spine: Spine) -> None:
        self._microphone = microphone
        self._db = db
        self._clock = clock
        self._bus = bus
        self._spine = spine
        self._witness = MicrophoneWitness()
        self._state = MicrophoneState(since_us=clock.utc_us())
        self._running: asyncio.Task[None] | None = None
        self._source_id = ""
        self._intake: Intake | None = None
        self._encoder: Encoder | None = None
        self._rest = b""
        self._number = 0
        """Frames counted, lost ones too, as a pendant counts notifications."""
        self._absent_us: int | None = clock.boot_us()
        """Boot time since when it is not heard."""
        self._told_us = 0

    @property
    def state(self) -> MicrophoneState:
        """How it stands."""
        return self._state

    def start(self) -> None:
        """Begin to listen."""
        self._running = asyncio.create_task(self._run(), name="microphone")

    async def stop(self) -> None:
        """Let go of it; what was heard is stored."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        with held(self._clock), contextlib.suppress(VaultError):
            if self._intake is not None:
                await self._intake.finish()
            await self._account()

    async def _run(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(self._microphone.listen()) as heard:
                    async for item in heard:
                        await self._take(item)
            except MicrophoneError as error:
                self._become("failed", message=str(error))
                await self._tell(f"Nothing is heard: {error}")
                return
            except OmiEdgeError as error:  # the vault, or the codec: it is tried again, and the gap tells
                log.warning("the microphone waits", extra={"cause": error.slug})
                self._leave()
                self._become("waiting", message=str(error))
            await self._clock.sleep(RETRY_SECONDS)

    async def _take(self, item: Heard) -> None:
        if isinstance(item, Sound):
            await self._hear(item)
        elif isinstance(item, Opened):
            with held(self._clock):
                await self._open()
            self._become("listening", name=item.name)
            self._told_us = 0  # its first level is told at once
            await self._clear()
        elif isinstance(item, Waiting):
            with held(self._clock):
                if self._intake is not None:
                    await self._intake.finish()
                self._leave()
            first = self._state.message == ""
            self._become("waiting", message=item.message)
            if first:
                await self._tell(f"{self._state.name or NAME}: {item.message}")

    async def _open(self) -> None:
        if not self._source_id:
            row = await self._db.read(lambda conn: sources.for_device(conn, DEVICE_ID))
            if row is None:
                row = await self._db.write(self._register)
            self._source_id = row.id
        self._intake = await self._spine.open_socket(self._source_id, CODEC, self._witness)
        self._intake.reconnected()
        await self._account()
        self._absent_us = None
        self._encoder = Encoder(CODEC)
        self._rest = b""

    def _register(self, conn: Connection) -> SourceRow:
        now_us = self._clock.utc_us()
        row = sources.add(
            conn, id=new_id("src", now_us), kind="microphone", name=NAME, device_id=DEVICE_ID, client_id=None,
            codec=CODEC, created_us=now_us,
        )  # fmt: skip
        self._spine.ledger.seen(conn, row.id)
        return row

    def _leave(self) -> None:
        if self._absent_us is None:
            self._absent_us = self._clock.boot_us()
        self._intake = None

    async def _account(self) -> None:
        """Enter into the ledger for how long it was away."""
        since_us, source_id = self._absent_us, self._source_id
        if since_us is None or not source_id:
            return
        now_us, causes = self._clock.boot_us(), (Cause.DISCONNECTED,)
        await self._db.write(lambda conn: self._spine.ledger.missing(conn, source_id, since_us, now_us, causes))

    async def _hear(self, sound: Sound) -> None:
        intake, encoder = self._intake, self._encoder
        assert intake is not None and encoder is not None
        if sound.lost:
            self._rest = b""
            self._number += -(-sound.lost // FRAME_SAMPLES)
            lost_us = self._state.lost_us + sound.lost * 1_000_000 // SAMPLE_RATE
            self._state = replace(self._state, lost_us=lost_us)
            log.warning("sound of the microphone was lost", extra={"samples": sound.lost})
        if self._spine.withheld:
            self._rest = b""
            self._state = replace(self._state, level_db=None)
            return
        now_us = self._clock.boot_us()
        pcm = self._rest + sound.pcm
        whole = len(pcm) - len(pcm) % (2 * FRAME_SAMPLES)
        self._rest = pcm[whole:]
        frames = np.frombuffer(pcm[:whole], "<i2").astype(np.int16).reshape(-1, FRAME_SAMPLES)
        with held(self._clock):
            packets = await asyncio.to_thread(lambda: [encoder.encode(frame) for frame in frames])
        for behind, packet in zip(reversed(range(len(packets))), packets, strict=True):
            value = (self._number & 0xFFFF).to_bytes(2, "little") + b"\0" + packet
            intake.notify(Notification(value, now_us - behind * CODEC.frame_us))
            self._number += 1
        self._state = replace(self._state, level_db=level_db(sound.pcm))
        if now_us - self._told_us >= TELL_SECONDS * 1e6:
            self._publish()

    def _become(self, state: str, *, name: str = "", message: str = "") -> None:
        name = name or self._state.name
        if (state, name, message) != (self._state.state, self._state.name, self._state.message):
            self._state = replace(
                self._state, state=state, name=name, message=message, level_db=None, since_us=self._clock.utc_us()
            )
            self._publish()
            log.info("microphone", extra={"state": state})

    def _publish(self) -> None:
        self._told_us = self._clock.boot_us()
        self._bus.publish(
            "microphone", self._clock.utc_us(), state=self._state.state, name=self._state.name,
            level_db=self._state.level_db, message=self._state.message,
        )  # fmt: skip

    async def _tell(self, message: str) -> None:
        try:
            await self._spine.raise_notice("microphone-gone", Severity.WARNING, (), message)
        except VaultError as error:
            log.warning("a notice was not noted", extra={"notice": "microphone-gone", "cause": error.slug})

    async def _clear(self) -> None:
        try:
            await self._db.write(functools.partial(notices.clear, code="microphone-gone", subject_ids=()))
        except VaultError as error:
            log.warning("a notice was not cleared", extra={"notice": "microphone-gone", "cause": error.slug})
