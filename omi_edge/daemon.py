"""The daemon: ordered start, named states, staged stop; and what the API may ask of it.

    new ─► starting: lock ─ socket ─ vault ─ index ─ pipeline ─ port ─ pendants ─► running ─► stopping ─► stopped

The socket answers /health from the first moment, so that a long migration can be watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omi_edge import health, observe
from omi_edge.capture.link import Radio
from omi_edge.capture.microphone import Microphone
from omi_edge.clock import Clock, held
from omi_edge.config import Config, zone
from omi_edge.domain import Codec, DeviceState, FetchProgress, Sighting, Withholding
from omi_edge.errors import BadInput, NotReady, OmiEdgeError
from omi_edge.events import Bus
from omi_edge.paths import models_folder, socket_path
from omi_edge.pipeline.devices import Devices
from omi_edge.pipeline.engines import ChosenEngines
from omi_edge.pipeline.microphone import MicrophoneSource, MicrophoneState
from omi_edge.pipeline.sockets import Sockets, SocketSound, check_sound
from omi_edge.pipeline.spine import Spine
from omi_edge.pipeline.withhold import Withhold
from omi_edge.pipeline.wyoming import WyomingServer, WyomingState
from omi_edge.store import recordings, sources
from omi_edge.store.bookmarks import BookmarkRow
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.devices import DeviceRow
from omi_edge.store.lock import FolderLock
from omi_edge.store.offline import RunRow
from omi_edge.store.vectors import VectorIndex
from omi_edge.store.withheld import WithheldRow
from omi_edge.web import app as web_app
from omi_edge.web import wire
from omi_edge.web.doors import Doors
from omi_edge.web.imports import import_state

log = logging.getLogger(__name__)

LIVE_SECTIONS = ("device", "conversation", "memory", "wearer", "log")
"""Sections of the configuration that take effect without a restart, as far as they do not name engines."""


class Daemon:
    """One data folder's daemon. ``serve_tcp`` and ``listen`` off: the same operations for one command."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        passphrase: str,
        clock: Clock,
        *,
        serve_tcp: bool = True,
        radio: Radio | None = None,
        listen: bool = True,
        reload: Callable[[], Config] | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._passphrase = passphrase
        self._clock = clock
        self._serve_tcp = serve_tcp
        self._radio = radio
        self._listen = listen
        self._reload = reload
        self._bus = Bus()
        self._engines = ChosenEngines(config, clock, models_folder(folder, config.models.folder))
        self._state = "new"
        self.since_us = clock.utc_us()
        self._db: Database | None = None
        self._index: VectorIndex | None = None
        self._spine: Spine | None = None
        self._devices: Devices | None = None
        self._withhold: Withhold | None = None
        self._sockets: Sockets | None = None
        self._microphone: MicrophoneSource | None = None
        self._wyoming: WyomingServer | None = None
        self.doors = Doors(clock)
        """Tickets, and the clients that send audio over sockets now."""
        self._opened = contextlib.AsyncExitStack()
        self._stop_wanted = asyncio.Event()
        self._progress: dict[str, float] = {}
        self._watch = health.Watch()
        self._receiving: dict[str, float] = {}
        self.address = ""
        """Base URL of the API on TCP, empty without one."""

    # --- what the API is handed (web.controls.Controls) -----------------------------------------------------------

    @property
    def db(self) -> Database:
        """The open vault; NotReady before it is open."""
        if self._db is None:
            raise NotReady(f"the daemon is {self._state}; ask again in a moment.")
        return self._db

    @property
    def index(self) -> VectorIndex:
        """Vectors in memory; NotReady before they are loaded."""
        if self._index is None:
            raise NotReady(f"the daemon is {self._state}; ask again in a moment.")
        return self._index

    @property
    def spine(self) -> Spine:
        """The pipeline; NotReady before it runs."""
        if self._spine is None:
            raise NotReady(f"the daemon is {self._state}; ask again in a moment.")
        return self._spine

    @property
    def devices(self) -> Devices:
        """The pendants; NotReady before they are looked for."""
        if self._devices is None:
            raise NotReady(f"the daemon is {self._state}; ask again in a moment.")
        return self._devices

    @property
    def wearables(self) -> Devices | None:
        """The pendants once they are looked for."""
        return self._devices

    @property
    def microphone(self) -> MicrophoneState | None:
        """How the microphone of this machine stands, when it is listened to."""
        return self._microphone.state if self._microphone is not None else None

    @property
    def wyoming(self) -> WyomingState | None:
        """How the Wyoming server stands, when there is one."""
        return self._wyoming.state if self._wyoming is not None else None

    @property
    def withheld(self) -> WithheldRow | None:
        """What the owner withholds now."""
        return self._withhold.current if self._withhold is not None else None

    @property
    def vault(self) -> Database | None:
        """The vault once it is open."""
        return self._db

    @property
    def pipeline(self) -> Spine | None:
        """The pipeline once it runs."""
        return self._spine

    @property
    def bus(self) -> Bus:
        """Where events are told."""
        return self._bus

    @property
    def clock(self) -> Clock:
        """The one clock."""
        return self._clock

    @property
    def config(self) -> Config:
        """Settings in force."""
        return self._config

    @property
    def folder(self) -> Path:
        """Data folder."""
        return self._folder

    @property
    def engines(self) -> ChosenEngines:
        """The engines, for health and status."""
        return self._engines

    @property
    def state(self) -> str:
        """new, starting, running, stopping, stopped or failed."""
        return self._state

    @property
    def progress(self) -> dict[str, float]:
        """Long work under way: what, and how far from 0 to 1."""
        return dict(self._progress)

    @property
    def ready(self) -> bool:
        """Whether requests are served."""
        return self._state == "running"

    def readiness(self) -> wire.Readiness:
        """Say whether requests are served."""
        return wire.Readiness(self.ready, self._state)

    async def health(self) -> wire.Health:
        """Check each part."""
        return await health.health_of(self, self._watch)

    async def status(self) -> wire.Status:
        """Gather what `omi-edge status` shows."""
        return await health.status_of(self)

    async def close_conversation(self, conversation_id: str) -> None:
        """End an open conversation by hand."""
        await self.spine.close_conversation(conversation_id)

    def check_recognizer(self, name: str) -> None:
        """Raise BadInput for a recogniser that does not exist, ModelMissing for one whose files are not here."""
        self._engines.check_recognizer(name)

    def poke_jobs(self) -> None:
        """Say that jobs were queued."""
        self.spine.jobs.poke()

    async def known_import(self, content: bytes) -> tuple[bytes, wire.ImportState | None]:
        """Return the keyed digest of a content's SHA-256, and where it stands when it is there or on its way."""

        def find(conn: Connection) -> tuple[bytes, str | None]:
            digest = recordings.keyed(conn, content)
            same = recordings.known(conn, digest)
            there = same is not None and (same.complete or same.ended_us is None)
            return digest, same.id if same is not None and there else None

        digest, found = await self.db.write(find)
        return digest, None if found is None else await self.import_state(found)

    async def begin_import(
        self,
        name: str,
        start_us: int,
        time_known: bool,
        client_id: str | None,
        *,
        codec: Codec = Codec.OPUS_20MS,
        digest: bytes | None = None,
        device: str | None = None,
        again: bool = False,
    ) -> str:
        """Register a recording to come; return its id."""
        return await self.spine.begin_recording(
            name, start_us, time_known, client_id, codec=codec, digest=digest, device=device, again=again
        )

    async def take_import(self, recording_id: str, body: AsyncIterator[bytes], *, framed: bool = False) -> None:
        """Run a recording through the pipeline as fast as it can be stored; ends it."""
        self._receiving[recording_id] = 0.0
        try:
            counted = body if framed else self._counted(recording_id, body)
            await self.spine.take_recording(recording_id, counted, framed=framed)
        finally:
            self._receiving.pop(recording_id, None)

    async def import_state(self, recording_id: str) -> wire.ImportState:
        """Say where a recording stands; NotFound."""
        counted = self._receiving.get(recording_id)
        return await self.db.read(lambda conn: import_state(conn, recording_id, counted))

    async def embed_query(self, text: str) -> npt.NDArray[np.float32] | None:
        """Return the unit vector of a query."""
        return np.asarray((await self._engines.embed([text]))[0])

    def check_sound(self, encoding: str, rate: int) -> None:
        """Raise BadInput for audio that a socket cannot bring."""
        check_sound(encoding, rate)

    def open_socket(self, source_id: str, encoding: str, rate: int, since_us: int) -> SocketSound:
        """Return the way in for the audio of a client that came at ``since_us``, boot time."""
        if self._sockets is None:
            raise NotReady(f"the daemon is {self._state}; ask again in a moment.")
        return self._sockets.open(source_id, encoding, rate, since_us)

    def device_state(self, address: str) -> DeviceState:
        """Say how a pendant stands."""
        return self.devices.state(address)

    async def scan_devices(self, seconds: float) -> list[Sighting]:
        """Look for pendants."""
        return await self.devices.scan(seconds)

    async def pair_device(self, address: str | None, name: str | None) -> DeviceRow:
        """Remember a pendant, bond with it where that is wanted, and listen to it."""
        return await self.devices.pair(address, name)

    async def forget_device(self, address: str) -> None:
        """Forget a pendant and its bond; its recordings stay."""
        await self.devices.forget(address)

    async def rename_device(self, address: str, name: str) -> DeviceRow:
        """Give a pendant another name here."""
        return await self.devices.rename(address, name)

    async def set_device(
        self, address: str, *, led: int | None, mic_gain: int | None, own_name: str | None
    ) -> DeviceState:
        """Change settings on a connected pendant."""
        return await self.devices.set(address, led, mic_gain, own_name)

    async def device_storage(self, address: str) -> wire.DeviceStorage:
        """Say what a connected pendant holds."""
        found = await self.devices.stored(address)
        return wire.DeviceStorage(
            found.protocol.value, found.used_bytes, found.free_bytes, found.items, found.clock_valid
        )

    def offline_progress(self, address: str) -> FetchProgress:
        """Say how the fetching of what a pendant stored stands."""
        return self.devices.fetching(address)

    async def fetch_offline(self, address: str) -> None:
        """Look again for what a connected pendant stored."""
        await self.devices.fetch_again(address)

    async def decide_offline(self, run_id: str, wanted: bool) -> RunRow:
        """Have a held recording heard, or let go of it undecoded."""
        return await self.spine.recovery.decide(run_id, wanted=wanted)

    async def withhold(self, kind: Withholding, seconds: float | None, by: str) -> WithheldRow:
        """Record nothing from now on."""
        return await self._the_withhold().begin(kind, seconds, by)

    async def resume(self, by: str) -> WithheldRow | None:
        """Record again."""
        return await self._the_withhold().end(by)

    async def add_bookmark(self, source_id: str | None, by: str) -> BookmarkRow:
        """Mark this moment; without a source, of the pendant that was heard last."""
        if source_id is None:
            pendants = [row for row in await self.db.read(sources.list_all) if row.kind == "pendant"]
            if not pendants:
                raise BadInput("no pendant was ever heard, so there is nothing to mark.")
            source_id = max(pendants, key=lambda row: row.heard_until_us or 0).id
        return await self.devices.bookmark(source_id, by)

    def _the_withhold(self) -> Withhold:
        if self._withhold is None:
            raise NotReady(f"the daemon is {self._state}; ask again in a moment.")
        return self._withhold

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Daemon:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start in order. Raises the first OmiEdgeError in the way, after undoing what was started."""
        self._become("starting")
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            self._become("failed")
            raise
        self._become("running")

    async def stop(self) -> None:
        """Stop in stages: links, requests, what was heard into the file, engines, vault, lock. Harmless twice."""
        if self._state in ("stopped", "new", "failed"):
            return
        self._become("stopping")
        await self._opened.aclose()
        self._become("stopped")

    async def run_until_signal(self) -> None:
        """Start, work until SIGTERM or SIGINT, stop. SIGHUP re-reads the configuration."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_wanted.set)
        loop.add_signal_handler(signal.SIGHUP, self._re_read)
        starting = asyncio.create_task(self.start())
        stopping = asyncio.create_task(self._stop_wanted.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            elif starting.exception() is not None:
                starting.result()
            else:
                await self._stop_wanted.wait()
        finally:
            stopping.cancel()
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _start(self) -> None:
        folder_lock = FolderLock(self._folder)
        folder_lock.acquire()
        self._opened.callback(folder_lock.release)
        application = web_app.make_app(self)
        unix_server = await web_app.serve_unix(application, socket_path(self._folder))
        self._opened.push_async_callback(unix_server.close)
        self._db = await self._open_vault()
        self._opened.push_async_callback(self._close_vault)
        index = VectorIndex()
        self._note_progress("reading the search index", 0.0)
        with held(self._clock):
            await self._db.read(functools.partial(index.load, model=self._engines.embedder_name))
        self._note_progress("reading the search index", 1.0)
        self._index = index
        self._db.index = self._index
        self._opened.push_async_callback(self._engines.close)
        self._spine = Spine(
            self._db, self._clock, self._bus, self._config, self._engines, self._index, zone(self._config).key
        )
        self._opened.push_async_callback(self._spine.ledger.stop)
        self._opened.push_async_callback(self._spine.stop)
        if self._listen:
            await self._spine.ledger.start()
        await self._spine.start()
        if self._serve_tcp:
            tcp_application = web_app.make_app(self)
            tcp_server = await web_app.serve_tcp(tcp_application, self._config.web.host, self._config.web.port)
            self.address = tcp_server.address
            self._opened.push_async_callback(tcp_server.close)
        self._withhold = Withhold(self._db, self._clock, self._bus, self._spine)
        self._opened.push_async_callback(self._withhold.stop)
        await self._withhold.start()
        self._devices = Devices(
            self._db, self._clock, self._bus, self._spine, self._withhold, self._config.device, self._radio,
            listen=self._listen,
        )  # fmt: skip
        self._opened.push_async_callback(self._devices.stop)
        await self._devices.start()
        if self._listen and self._config.microphone.device:
            microphone = Microphone(self._config.microphone.device, self._clock)
            self._microphone = MicrophoneSource(
                microphone, db=self._db, clock=self._clock, bus=self._bus, spine=self._spine
            )
            self._opened.push_async_callback(self._microphone.stop)
            self._microphone.start()
        if self._serve_tcp and self._config.wyoming.serve:
            self._wyoming = WyomingServer(
                self._config.wyoming, self._config.listen, engines=self._engines, db=self._db, clock=self._clock
            )
            self._opened.push_async_callback(self._wyoming.stop)
            await self._wyoming.start()
        self._sockets = Sockets(self._spine, self._clock)
        self._opened.push_async_callback(self.doors.close)

    async def _open_vault(self) -> Database:
        loop = asyncio.get_running_loop()

        def progress(what: str, fraction: float) -> None:
            loop.call_soon_threadsafe(self._note_progress, what, fraction)

        with held(self._clock):
            return await asyncio.to_thread(
                Database.open, self._folder, self._passphrase, self._clock, progress=progress
            )

    async def _close_vault(self) -> None:
        if self._db is not None:
            database, self._db = self._db, None
            await database.close()

    def _note_progress(self, what: str, fraction: float) -> None:
        if fraction >= 1.0:
            self._progress.pop(what, None)
        else:
            self._progress[what] = fraction

    def _re_read(self) -> None:
        if self._reload is None:
            return
        try:
            wanted = self._reload()
        except OmiEdgeError as error:
            log.error("the configuration stays as it was", extra={"cause": str(error)})
            return
        observe.set_up(style=wanted.log.format, level=wanted.log.level)
        kept = {section: getattr(wanted, section) for section in LIVE_SECTIONS}
        waiting = [
            section
            for section in wanted.__struct_fields__
            if section not in LIVE_SECTIONS and getattr(wanted, section) != getattr(self._config, section)
        ]
        self._config = Config(**{s: getattr(self._config, s) for s in self._config.__struct_fields__} | kept)
        if self._spine is not None:
            self._spine.reconfigure(self._config, zone(self._config).key)
        if self._devices is not None:
            self._devices.reconfigure(self._config.device)
        log.info("configuration re-read", extra={"needs_restart": ",".join(waiting) or "nothing"})

    def _become(self, state: str) -> None:
        self._state = state
        self.since_us = self._clock.utc_us()
        log.info("daemon", extra={"state": state} | ({"api": self.address} if state == "running" else {}))

    async def _counted(self, recording_id: str, pcm: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pcm:
            self._receiving[recording_id] += len(piece) / 32_000
            yield piece
