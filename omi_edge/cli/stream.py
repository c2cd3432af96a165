"""`stream`: be a client of the socket doors of a daemon, here or elsewhere; audio goes there, its text comes back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
from yarl import URL

from omi_edge.capture.microphone import Input, Microphone, list_inputs
from omi_edge.capture.replay import Recording
from omi_edge.cli.passphrase import file_problem
from omi_edge.cli.present import plain, print_json, print_table, wants_progress
from omi_edge.cli.session import run_verb
from omi_edge.cli.settings import Number, Settings, pass_settings, verb
from omi_edge.cli.sound import CODEC, FRAME_SAMPLES, TONE_HZ, TONE_SECONDS, Live, Meter, Recorded, Source, frames, sine
from omi_edge.clock import Clock, SystemClock
from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import (
    AlreadyRunning,
    BadInput,
    ConfigError,
    Forbidden,
    NotReady,
    OmiEdgeError,
    Unauthorized,
    UsageError,
)
from omi_edge.opus import Encoder

CONNECT_SECONDS = 10.0
WRITE_SECONDS = 30.0
HEARTBEAT_SECONDS = 20.0
TRIES = 10
LONGEST_WAIT_SECONDS = 30.0
QUIET_SECONDS = 3.0
"""After the last text nothing more is waited for."""
LOOK_SECONDS = 0.1
DOORS = {
    "/ws": "Opus, one 20 ms frame a message",
    "/ws_pcm": "s16le samples, 20 ms a message",
    "/v4/listen": "Opus, one 20 ms frame a message",
}
_FINAL: dict[int, tuple[type[OmiEdgeError], str]] = {
    1003: (BadInput, "the daemon does not take this audio"),
    1009: (BadInput, "the daemon found a message too long"),
    4401: (Unauthorized, "the token was revoked; `omi-edge token create NAME` makes a new one"),
    4403: (Forbidden, "the owner of the daemon refused this source"),
    4409: (AlreadyRunning, "another client of the same name has connected; give --uid another name"),
}
"""Close codes after which coming back is of no use."""
_REFUSED: dict[int, tuple[type[OmiEdgeError], str]] = {
    400: (BadInput, "the daemon does not take these parameters"),
    401: (Unauthorized, "the token is not valid there; `omi-edge token create NAME` makes one"),
    403: (Forbidden, "the daemon refuses this source, or its name in --to is not one of its own"),
    404: (UsageError, "there is no such door; is it an omi-edge?"),
}


class Told(msgspec.Struct):
    """What became of a stream."""

    format: str
    samples: int = 0
    frames: int = 0
    seconds: float = 0.0
    connections: int = 0
    texts: int = 0


@verb(
    "stream",
    examples=(
        "omi-edge stream talk.wav --to ws://127.0.0.1:8460/v4/listen --token-file T",
        "omi-edge stream --tone --to ws://127.0.0.1:8460/ws_pcm --token-file T --uid me",
        "omi-edge stream --mic --to ws://127.0.0.1:8460/ws --token-file T --uid kitchen",
        "omi-edge stream --list-mics",
    ),
)
@click.argument("file", type=click.Path(path_type=Path), required=False, metavar="[FILE]")
@click.option("--tone", is_flag=True, help="Send a tone in place of a file.")
@click.option(
    "--mic", is_flag=False, flag_value="default", metavar="[DEVICE]",
    help="Send what a microphone hears: the default one, or a number or (a part of) a name from --list-mics.",
)  # fmt: skip
@click.option("--list-mics", is_flag=True, help="Show the microphones of this machine, and send nothing.")
@click.option("--to", "url", metavar="URL", help="ws:// or wss://, with /ws, /ws_pcm or /v4/listen.")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="F", help="Read the token from F (0600).")
@click.option("--uid", metavar="U", default="stream", show_default=True, help="Be the client U, a source of its own.")
@click.option("--duration", type=Number(0.02), metavar="S", help="Send no more than S seconds.")
@click.option(
    "--speed", type=Number(0.01), default=1.0, show_default=True, metavar="X", help="Send X times as fast as spoken."
)
@click.option(
    "--linger", type=Number(0), default=20.0, show_default=True, metavar="S",
    help="Wait at most S seconds for text after the end.",
)  # fmt: skip
@pass_settings
def stream(
    settings: Settings, file: Path | None, tone: bool, mic: str | None, list_mics: bool, url: str | None,
    token_file: Path | None, uid: str, duration: float | None, speed: float, linger: float,
) -> None:  # fmt: skip
    """Send a recording, a tone or a microphone to a daemon's socket as if it were spoken now, and print the text that
    comes back.

    When the connection breaks it is made again, and goes on where it was; with a microphone, with what it hears then.
    An unplugged microphone is waited for. With --json each line is one message.
    """
    clock = SystemClock()
    if list_mics:
        return _show_inputs(settings, run_verb(list_inputs(clock)))
    if (file is not None) + tone + (mic is not None) != 1:
        raise click.UsageError("name a FILE, or give --tone or --mic.")
    if url is None or token_file is None:
        raise click.UsageError("give --to and --token-file.")
    to = _door(url)
    source: Source
    if mic is not None:
        if not mic.strip():
            raise click.UsageError("--mic needs a number or a name; without either it is the default one.")
        if speed != 1.0:
            raise click.UsageError("a microphone hears as fast as time passes; leave --speed out.")
        source, form = Live(Microphone(mic, clock), duration, Meter(wants_progress(settings))), "microphone"
    elif tone:
        source, form = Recorded(frames(sine(duration or TONE_SECONDS), duration)), f"tone of {TONE_HZ} Hz"
    else:
        assert file is not None
        recording = Recording(file)
        info = recording.info
        source = Recorded(frames(recording.read(), duration))
        form = f"{info.codec}, {info.rate} Hz, {info.channels} channel(s)"
    return run_verb(_Stream(settings, clock, to, _token(token_file), uid, form, source, speed, linger).run())


def _show_inputs(settings: Settings, found: list[Input]) -> None:
    if settings.json:
        return print_json(found)
    rows = [
        [str(one.index), one.name, str(one.channels), f"{one.rate} Hz", "default" if one.default else ""]
        for one in found
    ]
    return print_table(["number", "name", "channels", "rate", ""], rows, nothing="no microphone is there")


class _Stream:
    """One stream, over as many connections as it takes."""

    def __init__(
        self, settings: Settings, clock: Clock, to: URL, token: str, uid: str, form: str,
        source: Source, speed: float, linger: float,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._clock = clock
        self._door = to.path
        name = "uid" if to.path == "/v4/listen" else "device_name"
        self._to = to.update_query({name: uid})
        if to.path == "/v4/listen":
            self._to = self._to.update_query(codec="opus_fs320", sample_rate=str(SAMPLE_RATE), source="desktop")
        self._token = token
        self._source = source
        self._encoder = None if to.path == "/ws_pcm" else Encoder(CODEC)
        self._waiting: bytes | None = None
        self._speed = speed
        self._linger = linger
        self.told = Told(form)
        self._heard_us = 0
        """When the last text came."""

    async def run(self) -> None:
        """Send all of it. Raises what keeps it from being sent."""
        self._show("format", {"input": self.told.format, "sent": DOORS[self._door], "rate": SAMPLE_RATE})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._source.start(self._show)
        try:
            await self._send_all(timeout)
        finally:
            await self._source.close()
        self._show("done", {name: getattr(self.told, name) for name in self.told.__struct_fields__})

    async def _send_all(self, timeout: aiohttp.ClientTimeout) -> None:
        failures = 0
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"}, timeout=timeout
        ) as session:
            while not await self._attempt(session):
                before, failures = failures, failures + 1
                if not self.told.connections or failures > TRIES:
                    raise NotReady("no omi-edge answers there. Is it running, and is the address in --to right?")
                wait = min(LONGEST_WAIT_SECONDS, 2.0**before)
                self._show("waiting", {"seconds": wait})
                await self._clock.sleep(wait)
                if self._connected:
                    failures = 0

    async def _attempt(self, session: aiohttp.ClientSession) -> bool:
        """Connect and send; return whether all was sent."""
        self._connected = False
        try:
            async with session.ws_connect(self._to, heartbeat=HEARTBEAT_SECONDS, compress=0) as ws:
                self._connected = True
                self._source.connected()
                self.told.connections += 1
                self._show("connected", {"connections": self.told.connections})
                return await self._converse(ws)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in _REFUSED:
                kind, sentence = _REFUSED[error.status]
                raise kind(f"{sentence}.") from error
            return False
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return False

    async def _converse(self, ws: aiohttp.ClientWebSocketResponse) -> bool:
        hearing = asyncio.create_task(self._hear(ws))
        sending = asyncio.create_task(self._send(ws))
        try:
            await asyncio.wait((hearing, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                return True
        finally:
            for task in (hearing, sending):
                task.cancel()
            await asyncio.gather(hearing, sending, return_exceptions=True)
        if not hearing.cancelled() and hearing.exception() is not None:
            hearing.result()
        if ws.close_code in _FINAL:
            kind, sentence = _FINAL[ws.close_code]
            raise kind(f"{sentence}.")
        return False

    async def _send(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        sent = 0
        began_us = self._clock.boot_us()
        while (message := await self._next()) is not None:
            due_us = began_us + round(sent * CODEC.frame_us / self._speed)
            early = due_us - self._clock.boot_us()
            if early > 0 and not self._source.live:
                await self._clock.sleep(early / 1e6)
            async with self._clock.time_limit(WRITE_SECONDS):
                await ws.send_bytes(message)
            self._waiting = None
            sent += 1
            self.told.frames += 1
            self.told.samples += FRAME_SAMPLES
            self.told.seconds = round(self.told.samples / SAMPLE_RATE, 3)
        await self._source.close()  # a microphone is not listened to any longer than it is sent
        await ws.send_str('{"type":"CloseStream"}' if self._door == "/v4/listen" else '{"type":"audio-stop"}\n')
        self._show("sent", {"samples": self.told.samples, "frames": self.told.frames, "seconds": self.told.seconds})
        ended_us = self._clock.boot_us()
        while (now_us := self._clock.boot_us()) - ended_us < self._linger * 1e6:
            if self._heard_us > ended_us and now_us - self._heard_us > QUIET_SECONDS * 1e6:
                return
            await self._clock.sleep(LOOK_SECONDS)

    async def _next(self) -> bytes | None:
        """Return the message that is to be sent now: the one that a broken connection did not take, or the next."""
        if self._waiting is None:
            frame = await self._source.next()
            if frame is not None:
                encoder = self._encoder
                self._waiting = frame.astype("<i2").tobytes() if encoder is None else encoder.encode(frame)
        return self._waiting

    async def _hear(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT or message.data == "ping":
                continue
            try:
                told = msgspec.json.decode(message.data)
            except msgspec.DecodeError:
                continue
            if isinstance(told, dict) and told.get("type") == "ping":
                continue
            if isinstance(told, list) or (isinstance(told, dict) and "transcript" in str(told.get("type"))):
                self._heard_us = self._clock.boot_us()
                self.told.texts += 1
            self._show("message", told)

    def _show(self, kind: str, data: Any) -> None:
        self._source.step_aside()
        if self._settings.json:
            print_json({"kind": kind, "data": data})
            sys.stdout.flush()  # a pipe must not wait for more of them
        elif kind == "message":
            for line in _lines(data):
                print(plain(line))
            sys.stdout.flush()
        else:
            told = ", ".join(f"{name} {value}" for name, value in data.items())
            self._settings.say(f"{kind}: {told}")


def _lines(told: Any) -> Iterator[str]:
    """Yield what a message says to a person."""
    if isinstance(told, list):
        for one in told:
            if isinstance(one, dict):
                yield f"{one.get('start', 0):7.2f} {one.get('text', '')}"
    elif isinstance(told, dict):
        data = told.get("data")
        if isinstance(data, dict) and "text" in data:
            yield f"{data.get('start', 0):7.2f} {data['text']}" + ("" if data.get("is_final") else " …")
        else:
            memory = told.get("memory") or data
            title = memory.get("title") or memory.get("id", "") if isinstance(memory, dict) else ""
            yield f"[{told.get('type', '?')}] {title or told.get('status', '')}".rstrip()


def _door(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise BadInput("--to is no URL; write it like ws://127.0.0.1:8460/ws.") from error
    if url.scheme not in ("ws", "wss") or not url.host or url.path not in DOORS:
        raise BadInput(f"--to must be ws:// or wss://, a host, and one of {', '.join(DOORS)}.")
    if url.query_string or url.user:
        raise BadInput("--to holds no parameters and no token; --uid and --token-file are for those.")
    return url


def _token(path: Path) -> str:
    if problem := file_problem(path):
        raise ConfigError(problem.replace("passphrase file", "token file"))
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} holds no text that can be read; write it anew.") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"the token file {path} holds no token; `omi-edge token create NAME` prints one.")
    return token
