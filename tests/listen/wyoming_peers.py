"""Wyoming servers for tests: one of the real package that does as it is told, and raw ones that do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import msgspec
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.server import AsyncEventHandler, AsyncTcpServer, AsyncUnixServer
from wyoming.vad import VoiceStarted, VoiceStopped

WHO = Attribution("somebody", "https://example.org")


class Script(msgspec.Struct):
    """What a server says, and what it was told."""

    text: str = "turn on the light"
    language: str | None = None
    languages: tuple[str, ...] = ("en",)
    streams: bool = False
    voice: list[tuple[int, int]] = []
    programs: int = 1
    early: bool = False
    """Whether it answers before the sound has ended."""
    requests: list[Transcribe] = []
    shapes: list[tuple[int, int, int]] = []
    audio: bytes = b""
    connections: int = 0

    def info(self) -> Info:
        model = AsrModel("base-int8", WHO, True, "a model", "1", list(self.languages))
        other = AsrModel("away", WHO, False, "not here", "1", ["xx"])
        return Info(asr=[AsrProgram("faster-whisper", WHO, True, "a program", "2.4.0", [model, other])] * self.programs)


class Handler(AsyncEventHandler):
    """A connection of the real package's server."""

    def __init__(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.script = script
        script.connections += 1

    async def handle_event(self, event: Event) -> bool:
        script = self.script
        if Describe.is_type(event.type):
            await self.write_event(script.info().event())
        elif Transcribe.is_type(event.type):
            script.requests.append(Transcribe.from_event(event))
            script.audio = b""
        elif AudioStart.is_type(event.type):
            start = AudioStart.from_event(event)
            script.shapes.append((start.rate, start.width, start.channels))
            if script.streams:
                await self.write_event(TranscriptStart(language=script.language).event())
        elif AudioChunk.is_type(event.type):
            script.audio += AudioChunk.from_event(event).audio
            if script.early:
                await self.write_event(Transcript(script.text).event())
            elif script.streams:
                await self.write_event(TranscriptChunk("so far ").event())
        elif AudioStop.is_type(event.type):
            await self._answer()
        return True

    async def _answer(self) -> None:
        script = self.script
        for start, end in script.voice:
            await self.write_event(VoiceStarted(start).event())
            await self.write_event(VoiceStopped(end).event())
        if not script.streams:
            await self.write_event(Transcript(script.text, language=script.language).event())
            return
        await self.write_event(TranscriptStart().event())
        for word in script.text.split():
            await self.write_event(TranscriptChunk(f"{word} ").event())
        await self.write_event(TranscriptStop().event())


@contextlib.asynccontextmanager
async def real_server(script: Script, path: str = "") -> AsyncIterator[str]:
    """Run the package's server; yield its URI."""
    server: AsyncTcpServer | AsyncUnixServer = AsyncUnixServer(path) if path else AsyncTcpServer("127.0.0.1", 0)
    await server.start(partial(Handler, script))
    inner = server._server
    assert isinstance(inner, asyncio.Server)
    try:
        yield f"unix://{path}" if path else f"tcp://127.0.0.1:{inner.sockets[0].getsockname()[1]}"
    finally:
        await server.stop()


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(behaviour: Behaviour) -> AsyncIterator[str]:
    """Run a server that does ``behaviour`` with each connection; yield its URI."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
