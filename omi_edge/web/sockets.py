"""/ws, /ws_pcm, /v4/listen: audio from clients that hold no pendant of ours, and its text back to them.

Each socket is served by three tasks: one hears, one tells what happens, one beats. A client that takes nothing for
WRITE_SECONDS, or gives no sign of life for SILENT_SECONDS, is cut off; what it is told waits in a bounded queue of its
own. So nobody waits for a slow one but itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta

from omi_edge.domain import Severity
from omi_edge.errors import BadInput
from omi_edge.events import Event, Subscription
from omi_edge.store import clients, conversations, ledger, notices, senders
from omi_edge.store.connection import Connection
from omi_edge.web import wire
from omi_edge.web.dialects import Dialect, FriendLite, Heard, Listen
from omi_edge.web.doors import CLOSE_GOING, CLOSE_REVOKED, Visit
from omi_edge.web.ledger import moment
from omi_edge.web.middleware import STOPPING
from omi_edge.web.route import Answer, Call, NoQuery, Route, Socket

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""Omi's heartbeat (data model dossier §2.4)."""
SILENT_SECONDS = 60.0
"""Without any message, a pong at least, the client is gone. Omi's server waits 300 s (dossier §2.4), for it does not
ask."""
WRITE_SECONDS = 10.0
TELL_LIMIT = 256
"""Events that wait for a slow client; the oldest is dropped."""
OPUS_MESSAGE_BYTES = 4096
"""Longest message of a door for single Opus frames."""
PCM_MESSAGE_BYTES = 1 << 18
"""Eight seconds of 16-bit samples at 16 kHz."""
TOLD = ("partial", "segment", "conversation")

Label = Annotated[str, Meta(min_length=1, max_length=100)]


class FriendQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends, under any of the names that Friend-Lite's clients gave it over time."""

    token: str | None = None
    """A ticket; never a token."""
    device_name: Label | None = None
    client_id: Label | None = None
    user_id: Label | None = None
    uid: Label | None = None
    sample_rate: int = 16_000
    """Of ``/ws_pcm``: 8000 or 16000."""


class ListenQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of Omi's server (data model dossier §2.1); others are left alone."""

    token: str | None = None
    """A ticket; never a token."""
    uid: Label | None = None
    codec: str | None = None
    """opus, opus_fs320, pcm16 or pcm8. When absent: Opus if the first message is a pendant's packet, else pcm8."""
    sample_rate: int | None = None
    """8000 or 16000; 8000 when absent, as on Omi's server."""
    channels: Annotated[int, Meta(ge=1, le=1)] = 1
    language: str = "en"
    """Taken and left alone: the recogniser has the language of the settings."""
    conversation_timeout: Annotated[int, Meta(ge=2, le=14_400)] = 120
    """Taken and left alone: ``conversation.silence`` of the settings holds."""
    source: str | None = None


class _Sounds(msgspec.Struct, frozen=True):
    """What a door takes."""

    encoding: str
    rate: int
    message_limit: int


async def opus(call: Call[FriendQuery, None]) -> Socket:
    """Take a pendant's Opus frames, one a message."""
    sound = _Sounds("opus", 16_000, OPUS_MESSAGE_BYTES)
    return await _door(call, "/ws", _friend(call.query), sound, FriendLite)


async def pcm(call: Call[FriendQuery, None]) -> Socket:
    """Take bare samples, s16le mono."""
    sound = _Sounds("pcm16", call.query.sample_rate, PCM_MESSAGE_BYTES)
    return await _door(call, "/ws_pcm", _friend(call.query), sound, FriendLite)


async def listen(call: Call[ListenQuery, None]) -> Socket:
    """Take audio as Omi's server does."""
    query = call.query
    encoding = {"opus_fs320": "opus", None: "auto"}.get(query.codec, query.codec or "")
    sound = _Sounds(encoding, 8000 if query.sample_rate is None else query.sample_rate, PCM_MESSAGE_BYTES)
    db = call.controls.db
    return await _door(call, "/v4/listen", query.uid or "", sound, lambda visit: Listen(visit, db))


async def active(call: Call[NoQuery, None]) -> Answer:
    """Tell who sends audio over sockets now."""
    named = call.controls.doors.named()
    opened = {row.source_id: row for row in await call.read(conversations.open_ones)}
    found: dict[str, wire.ActiveClient] = {}
    for name, visit in named.items():
        row = opened.get(visit.source_id)
        found[name] = wire.ActiveClient(
            connected=True,
            client_id=name,
            door=visit.door,
            source_id=visit.source_id,
            source_name=visit.source_name,
            codec=visit.sound.codec,
            connected_since=visit.began_us / 1e6,
            last_audio_time=None if visit.audio_us is None else visit.audio_us / 1e6,
            last_transcript_time=None if visit.text_us is None else visit.text_us / 1e6,
            conversation_start_time=None if row is None else row.started_us / 1e6,
            has_active_conversation=row is not None,
            current_audio_uuid=None if row is None else row.id,
            frames=visit.sound.frames,
            bad_messages=visit.sound.bad,
            seconds=visit.sound.heard_us / 1e6,
            events_dropped=visit.dropped,
        )
    return Answer(wire.ActiveClients(len(found), found), tuple(visit.source_id for visit in named.values()), len(found))


def _friend(query: FriendQuery) -> str:
    return query.device_name or query.client_id or query.user_id or query.uid or ""


async def _door(
    call: Call[Any, None], door: str, device: str, takes: _Sounds, speaks: Callable[[Visit], Dialect]
) -> Socket:
    """Say to which source the audio belongs, and return the socket that takes it."""
    controls, caller = call.controls, call.caller
    controls.doors.check_room()
    controls.check_sound(takes.encoding, takes.rate)
    owner = caller.actor.removeprefix("client:")
    came = moment(controls.clock)

    def admit(conn: Connection) -> Answer:
        found = senders.admit(
            conn, client_id=caller.client_id or "", device=device, name=device or owner, now_us=came.utc_us
        )
        ledger.begin(conn, found.source.id, came.boot_us + ledger.tick(conn, came))
        notice = None
        if found.is_new:
            notice = notices.raise_notice(
                conn, code="new-source", severity=Severity.INFO, subject_ids=(found.source.id,), now_us=came.utc_us,
                message=f"A client that was never heard before sends audio with the token of {owner}. If it is not "
                f"yours, refuse it (POST /v1/sources/{found.source.id}/refuse) and revoke the token.",
            )  # fmt: skip
        return Answer((found, notice), (found.source.id,))

    answer = await call.change(admit)
    found, notice = answer.body
    if notice is not None:
        controls.bus.publish(
            "notice", came.utc_us, id=notice.id, code=notice.code, severity=notice.severity.value,
            message=notice.message,
        )  # fmt: skip
    label = f"{owner}-{device}" if device else owner
    stopping = call.request.app[STOPPING]

    async def converse(socket: web.WebSocketResponse) -> tuple[int, str]:
        doors = controls.doors
        kept = doors.kept(found.source.id, controls.bus.last_number, round(controls.config.conversation.silence * 1e6))
        sound = controls.open_socket(found.source.id, takes.encoding, takes.rate, came.boot_us)
        clock = controls.clock
        visit = Visit(label, door, found.source.id, found.source.name, sound, clock.utc_us(), kept)
        await doors.enter(visit)
        log.info("a socket is open", extra={"door": door, "source": visit.source_id})
        talk = _Talk(socket, call, visit, speaks(visit))
        try:
            return await talk.run(stopping)
        finally:
            try:
                await visit.sound.close(talk.alive_us)
            finally:
                doors.leave(visit)
            log.info(
                "a socket has ended",
                extra={"source": visit.source_id, "frames": visit.sound.frames, "bad": visit.sound.bad},
            )

    return Socket(converse, takes.message_limit, answer.ids)


class _Talk:
    """One open socket."""

    def __init__(self, socket: web.WebSocketResponse, call: Call[Any, None], visit: Visit, dialect: Dialect) -> None:
        self._socket = socket
        self._request = call.request
        self._controls = call.controls
        self._clock = call.controls.clock
        self._visit = visit
        self._dialect = dialect
        self._client_id = call.caller.client_id
        self.alive_us = self._clock.boot_us()
        """Boot time of the client's last sign of life."""
        self._taking = False
        self._writing = asyncio.Lock()

    async def run(self, stopping: asyncio.Event) -> tuple[int, str]:
        """Serve it to its end; return close code and reason."""
        with self._controls.bus.subscribe(after=self._visit.kept.told, limit=TELL_LIMIT) as subscription:
            tasks: list[asyncio.Task[tuple[int, str]]] = [
                asyncio.create_task(self._hear(), name="socket hear"),
                asyncio.create_task(self._tell(subscription), name="socket tell"),
                asyncio.create_task(self._beat(), name="socket beat"),
                asyncio.create_task(self._wait(stopping), name="socket stop"),
                asyncio.create_task(self._ended(), name="socket end"),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                done = [task for task in tasks if task.done()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return self._outcome(done)

    def _outcome(self, done: list[asyncio.Task[tuple[int, str]]]) -> tuple[int, str]:
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            if isinstance(error, BadInput):
                return 1003, str(error)
            if isinstance(error, ConnectionError | TimeoutError):
                self._cut()
                return 1006, ""
            raise error
        return CLOSE_GOING

    async def _hear(self) -> tuple[int, str]:
        visit = self._visit
        while True:
            message = await self._socket.receive()
            self.alive_us = self._clock.boot_us()
            if message.type is aiohttp.WSMsgType.BINARY:
                if len(message.data) <= self._dialect.keep_alive_bytes:
                    continue
                visit.audio_us = self._clock.utc_us()
                self._taking = True
                await visit.sound.take(message.data)
                self._taking = False
                self.alive_us = self._clock.boot_us()
            elif message.type is aiohttp.WSMsgType.TEXT:
                await self._obey(message.data)
            elif message.type is aiohttp.WSMsgType.PING:
                async with self._writing, self._clock.time_limit(WRITE_SECONDS):
                    await self._socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                continue
            elif message.type is aiohttp.WSMsgType.ERROR:
                return self._socket.close_code or 1002, "a message was too long or no WebSocket message"
            else:
                return 1000, ""

    async def _obey(self, text: str) -> None:
        asked = self._dialect.understand(text)
        if asked is Heard.STOP:
            await self._visit.sound.pause()
        elif asked is Heard.PING:
            await self._say([b'{"type":"pong"}'])

    async def _tell(self, subscription: Subscription) -> tuple[int, str]:
        visit = self._visit
        await self._say(self._dialect.hello())
        while True:
            event = await subscription.get()
            visit.dropped = subscription.dropped
            if event.kind not in TOLD or event.data.get("source_id") != visit.source_id:
                continue
            if not await self._may_listen():
                return CLOSE_REVOKED
            said = await self._dialect.tell(event)
            await self._say(said)
            self._note_told(event, bool(said))

    def _note_told(self, event: Event, said: bool) -> None:
        if event.kind != "partial":
            self._visit.kept.told = max(self._visit.kept.told, event.number)
        if said and event.kind == "segment":
            self._visit.text_us = self._clock.utc_us()

    async def _beat(self) -> tuple[int, str]:
        while True:
            await self._clock.sleep(BEAT_SECONDS)
            if not await self._may_listen():
                return CLOSE_REVOKED
            if not self._taking and self._clock.boot_us() - self.alive_us > SILENT_SECONDS * 1e6:
                self._cut()
                return 1006, ""
            async with self._writing, self._clock.time_limit(WRITE_SECONDS):
                await self._socket.ping()
            await self._say(self._dialect.beat())

    async def _say(self, messages: list[bytes]) -> None:
        for message in messages:
            async with self._writing, self._clock.time_limit(WRITE_SECONDS):
                await self._socket.send_str(message.decode())

    async def _wait(self, stopping: asyncio.Event) -> tuple[int, str]:
        await stopping.wait()
        return CLOSE_GOING

    async def _ended(self) -> tuple[int, str]:
        return await asyncio.shield(self._visit.ending)

    async def _may_listen(self) -> bool:
        client_id = self._client_id
        if client_id is None:
            return True
        row = await self._controls.db.read(lambda conn: clients.get(conn, client_id))
        return row.revoked_us is None

    def _cut(self) -> None:
        """End the connection without a word: the client takes none."""
        if self._request.transport is not None:
            self._request.transport.abort()


ROUTES = (
    Route(
        method="GET",
        path="/ws",
        summary="Send a pendant's Opus frames, one a binary message, as to Friend-Lite",
        act="socket.opus",
        handler=opus,
        query=FriendQuery,
        status=101,
        upgrade=True,
    ),
    Route(
        method="GET",
        path="/ws_pcm",
        summary="Send bare samples, s16le mono, as to Friend-Lite",
        act="socket.pcm",
        handler=pcm,
        query=FriendQuery,
        status=101,
        upgrade=True,
    ),
    Route(
        method="GET",
        path="/v4/listen",
        summary="Send audio and get its text, as from Omi's server",
        act="socket.listen",
        handler=listen,
        query=ListenQuery,
        status=101,
        upgrade=True,
    ),
    Route(
        method="GET",
        path="/api/active_clients",
        summary="List the clients that send audio over sockets now",
        act="socket.list",
        handler=active,
        returns=wire.ActiveClients,
    ),
)
