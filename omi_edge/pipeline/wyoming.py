"""Our speech recognition for Home Assistant and others who speak Wyoming: samples in, text out, and nothing kept.

What is said through it belongs to whoever asks: it is heard, answered and forgotten; neither sound nor text reaches the
encrypted file, only one row of the audit for each answer. The protocol knows no passwords; so whatever a peer can make
us hold or wait for is bounded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge import __version__
from omi_edge.clock import Clock
from omi_edge.config import ListenConfig, WyomingConfig, serves_at
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import Recognition
from omi_edge.errors import BadInput, ConfigError, EngineError, NotReady, OmiEdgeError, PortInUse
from omi_edge.listen.convert import Converter
from omi_edge.listen.gate import Closed, Opened, SpeechGate
from omi_edge.listen.vad import SileroVad
from omi_edge.pipeline.announce import Announcement
from omi_edge.pipeline.recognizer import SpeechModel
from omi_edge.store import audit
from omi_edge.store.audit import AuditEntry
from omi_edge.store.database import Database
from omi_edge.wyoming import LINE_BYTES, AudioShape, Event, address_of, encode_event, fields, is_near, read_event

log = logging.getLogger(__name__)

MOST_CLIENTS = 8
"""Connections at once; one transcription each."""
LONGEST_SECONDS = 120.0
"""Audio of one request. Home Assistant ends a command after seconds."""
IDLE_SECONDS = 30.0
"""For an event to come whole, and for the peer to take what it is sent."""
GOING_SECONDS = 1.0
NAME = "omi-edge"
MS = SAMPLE_RATE // 1000
BACKLOG = 16


class Listener(Protocol):
    """What is asked of the engines."""

    async def recognize(self, pcm: bytes) -> Recognition:
        """Recognise one whole segment."""

    async def recognize_live(self, blocks: AsyncIterator[bytes], partial: Callable[[str], None]) -> Recognition:
        """Recognise one segment in the live process."""

    @property
    def speech_model(self) -> SpeechModel:
        """What hears now."""


class WyomingState(msgspec.Struct, frozen=True):
    """How the server stands."""

    address: str
    """tcp://host:port"""
    lan: bool
    """Whether others than this machine can reach it."""
    clients: int
    answered: int
    """Texts since the start."""
    announced: bool
    message: str
    """What is in the way of the announcement, and the cure."""


class WyomingServer:
    """One listening port. ``start`` raises PortInUse, or ConfigError for an address that cannot be listened at."""

    def __init__(
        self, settings: WyomingConfig, listen: ListenConfig, *, engines: Listener, db: Database, clock: Clock
    ) -> None:
        self.engines = engines
        self.clock = clock
        self.answered = 0
        self._settings = settings
        self._listen = listen
        self._db = db
        self._server: asyncio.Server | None = None
        self._guests: set[asyncio.Task[None]] = set()
        self._address = serves_at(settings)
        self._port = settings.port
        self._announcement = Announcement(NAME)

    @property
    def state(self) -> WyomingState:
        """How it stands."""
        host = f"[{self._address}]" if self._address.version == 6 else str(self._address)
        return WyomingState(
            f"tcp://{host}:{self._port}", not self._address.is_loopback, len(self._guests), self.answered,
            self._announcement.announced, self._announcement.message,
        )  # fmt: skip

    async def start(self) -> None:
        """Listen, and say so on the LAN when it is to be found there."""
        settings = self._settings
        try:
            self._server = await asyncio.start_server(
                self._welcome, str(self._address), settings.port, limit=LINE_BYTES, backlog=BACKLOG
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"port {settings.port} of {settings.host} is taken by another program. Stop that one, or choose "
                    "another with wyoming.port."
                ) from error
            raise ConfigError(
                f"cannot listen on port {settings.port} of {settings.host}: {os.strerror(error.errno or 0)}. "
                "wyoming.host must be an address of this machine."
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]
        log.info("wyoming is served", extra={"address": self.state.address})
        if settings.announce and not self._address.is_loopback:
            self._announcement.start(self._address, self._port)

    async def stop(self) -> None:
        """Listen no more and end all connections. Harmless twice."""
        await self._announcement.stop()
        if self._server is None:
            return
        self._server.close()
        guests = list(self._guests)
        for guest in guests:
            guest.cancel()
        if guests:
            await asyncio.wait(guests)
        self._server = None

    def gate(self) -> SpeechGate:
        """Return what says where speech is."""
        return SpeechGate(SileroVad(), open=self._listen.vad_open, close=self._listen.vad_close)

    async def note(self, peer: str, outcome: str) -> None:
        """Write the audit row of one request. Raises VaultError when that cannot be done."""
        entry = AuditEntry(f"wyoming:{peer}", "wyoming", "wyoming.transcribe", (), outcome, int(outcome == "done"))
        now_us = self.clock.utc_us()
        await self._db.write(lambda conn: audit.append(conn, entry, now_us))

    def info(self) -> dict[str, Any]:
        """Return what ``describe`` is answered with."""
        model = self.engines.speech_model
        program = {
            "name": NAME,
            "description": "Speech recognition on the box of an Omi pendant's wearer",
            "attribution": {"name": NAME, "url": ""},
            "installed": True,
            "version": __version__,
            "models": [
                {
                    "name": model.name,
                    "description": model.name,
                    "attribution": {"name": model.maker, "url": model.url},
                    "installed": True,
                    "version": None,
                    "languages": list(model.languages),
                }
            ],
            "supports_transcript_streaming": False,
            "requires_external_vad": True,
        }
        return {"asr": [program], **{kind: [] for kind in ("tts", "handle", "intent", "wake", "mic", "snd")}}

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = (writer.get_extra_info("peername") or ("",))[0]
        address = address_of(peer)
        guest = Guest(self, reader, writer, peer)
        try:
            if address is None or not is_near(address):
                log.warning("a wyoming client from beyond the LAN was refused")
                return
            if len(self._guests) >= MOST_CLIENTS:
                await guest.refuse(NotReady(f"{MOST_CLIENTS} clients are connected already; come back in a moment."))
                return
            self._guests.add(task)
            await guest.run()
        except asyncio.CancelledError:
            return  # asyncio would report it: the server stops
        finally:
            self._guests.discard(task)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with self.clock.time_limit(GOING_SECONDS):
                    await writer.wait_closed()
            writer.transport.abort()


class Guest:
    """One connection: any number of requests, one after the other."""

    def __init__(
        self, server: WyomingServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._sound: _Sound | None = None

    async def run(self) -> None:
        """Serve until the peer goes, does something wrong, or sends nothing for too long."""
        try:
            while (event := await self._next()) is not None:
                await self._take(event)
        except TimeoutError:
            log.info("a wyoming client fell silent and was cut off")
        except OSError:
            log.debug("a wyoming client went away")
        except OmiEdgeError as error:
            log.info("a wyoming client was cut off", extra={"cause": error.slug})
            await self.refuse(error)

    async def refuse(self, error: OmiEdgeError) -> None:
        """Say why the connection ends, if the peer listens."""
        with contextlib.suppress(OSError, TimeoutError):
            await self._send(Event("error", {"text": str(error), "code": error.slug}))

    async def _next(self) -> Event | None:
        async with self._server.clock.time_limit(IDLE_SECONDS):
            return await read_event(self._reader)

    async def _take(self, event: Event) -> None:
        """Do what an event asks; events of no meaning here are passed over, as the protocol has it."""
        if event.type == "describe":
            await self._send(Event("info", self._server.info()))
        elif event.type == "ping":
            await self._send(Event("pong", {"text": event.data["text"]} if _short(event.data.get("text")) else {}))
        elif event.type == "audio-start":
            self._sound = _Sound(self._server.gate(), fields(event, AudioShape))
        elif event.type == "audio-chunk":
            shape = fields(event, AudioShape)
            if self._sound is None:
                self._sound = _Sound(self._server.gate(), shape)
            await self._tell(await asyncio.to_thread(self._sound.take, shape, event.payload))
        elif event.type == "audio-stop" and self._sound is not None:
            sound, self._sound = self._sound, None
            await self._tell(await asyncio.to_thread(sound.finish))
            await self._answer(sound)

    async def _tell(self, voice: list[Event]) -> None:
        for event in voice:
            await self._send(event)

    async def _answer(self, sound: _Sound) -> None:
        texts, language = [], ""
        try:
            for pcm in sound.speech():
                recognition = await self._heard(pcm)
                language = recognition.language
                texts += [word.text for word in recognition.words]
        except EngineError:
            await self._server.note(self._peer, "failed")
            raise
        await self._server.note(self._peer, "done")
        self._server.answered += 1
        told = {"text": " ".join(texts)} | ({"language": language} if language else {})
        await self._send(Event("transcript", told))

    async def _heard(self, pcm: bytes) -> Recognition:
        """In the live process: so a request waits for an open segment at most, not for a whole conversation."""

        async def blocks() -> AsyncIterator[bytes]:
            yield pcm

        try:
            return await self._server.engines.recognize_live(blocks(), lambda _: None)
        except EngineError:
            return await self._server.engines.recognize(pcm)

    async def _send(self, event: Event) -> None:
        async with self._server.clock.time_limit(IDLE_SECONDS):
            self._writer.write(encode_event(event))
            await self._writer.drain()


class _Sound:
    """The audio of one request, and where speech is in it."""

    def __init__(self, gate: SpeechGate, shape: AudioShape) -> None:
        self._gate = gate
        self._converter = Converter(shape.rate, shape.width, shape.channels)
        self._samples: list[npt.NDArray[np.int16]] = []
        self._count = 0
        self._spans: list[tuple[int, int]] = []

    def take(self, shape: AudioShape, data: bytes) -> list[Event]:
        """Take samples; return what is to be told of the voice in them. Raises BadInput when it is too much."""
        events: list[Event] = []
        if (shape.rate, shape.width, shape.channels) != self._converter.shape:
            events = self._add(self._converter.finish())
            self._converter = Converter(shape.rate, shape.width, shape.channels)
        return events + self._add(self._converter.convert(data))

    def finish(self) -> list[Event]:
        """Say that this was all."""
        return self._add(self._converter.finish()) + self._voice(self._gate.finish())

    def speech(self) -> list[bytes]:
        """Return the samples of each stretch of speech, s16le."""
        whole = np.concatenate(self._samples) if self._samples else np.zeros(0, np.int16)
        return [whole[start:end].tobytes() for start, end in self._spans]

    def _add(self, samples: npt.NDArray[np.int16]) -> list[Event]:
        self._count += len(samples)
        if self._count > LONGEST_SECONDS * SAMPLE_RATE:
            raise BadInput(f"a request must not be longer than {LONGEST_SECONDS:.0f} s.")
        self._samples.append(samples)
        return self._voice(self._gate.accept(samples)) if len(samples) else []

    def _voice(self, found: list[Any]) -> list[Event]:
        events = []
        for one in found:
            if isinstance(one, Opened):
                events.append(Event("voice-started", {"timestamp": one.start // MS}))
            elif isinstance(one, Closed):
                self._spans.append((one.start, one.end))
                events.append(Event("voice-stopped", {"timestamp": one.end // MS}))
        return events


def _short(text: object) -> bool:
    return isinstance(text, str) and len(text) <= 1000
