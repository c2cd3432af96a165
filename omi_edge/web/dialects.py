"""What each socket door says and understands, beside audio: Friend-Lite's and Omi's."""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

import msgspec

from omi_edge.errors import NotFound
from omi_edge.events import Event
from omi_edge.store import conversations
from omi_edge.store.database import Database
from omi_edge.web import omi
from omi_edge.web.doors import Visit


class Heard(Enum):
    """What a text message of a client asks for."""

    NOTHING = "nothing"
    STOP = "stop"
    """Its audio ends for now."""
    PING = "ping"


class Dialect(Protocol):
    """How one door speaks."""

    keep_alive_bytes: int
    """Binary messages of at most so many bytes are no audio."""

    def hello(self) -> list[bytes]:
        """Return what is said first."""

    async def tell(self, event: Event) -> list[bytes]:
        """Return what is said of an event of this source."""

    def beat(self) -> list[bytes]:
        """Return what is said now and then."""

    def understand(self, text: str) -> Heard:
        """Say what a text message asks for; what is not known asks for nothing."""


class FriendLite:
    """`/ws` and `/ws_pcm` as the Friend-Lite backend served them: raw binary messages, and from later clients the
    headers of the Wyoming protocol between them, of which only the end of the audio matters here."""

    keep_alive_bytes = 0

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def hello(self) -> list[bytes]:
        """See Dialect."""
        return [_json({"type": "ready", "client_id": self._visit.client, "source_id": self._visit.source_id})]

    async def tell(self, event: Event) -> list[bytes]:
        """See Dialect."""
        if event.kind == "conversation":
            told = {name: event.data[name] for name in ("id", "state", "title")}
            return [_json({"type": "conversation", "data": told})]
        final = event.kind == "segment"
        if not event.data["text"]:
            return []
        origin_us = self._visit.kept.origin_us
        told = {
            "text": event.data["text"],
            "is_final": final,
            "segment_id": event.data["segment_id"],
            "start": omi.offset(event.data["start_us"], origin_us),
        }
        if final:
            told |= {
                "end": omi.offset(event.data["end_us"], origin_us),
                "confidence": event.data["confidence"],
                "conversation_id": event.data["conversation_id"],
            }
        return [_json({"type": "transcript" if final else "interim_transcript", "data": told})]

    def beat(self) -> list[bytes]:
        """See Dialect."""
        return []

    def understand(self, text: str) -> Heard:
        """See Dialect."""
        return {"audio-stop": Heard.STOP, "ping": Heard.PING}.get(_type(text), Heard.NOTHING)


class Listen:
    """`/v4/listen` (data model dossier §2): arrays are segments, objects are events."""

    keep_alive_bytes = 2
    """Dossier §2.2."""

    def __init__(self, visit: Visit, db: Database) -> None:
        self._visit = visit
        self._db = db

    def hello(self) -> list[bytes]:
        """See Dialect."""
        return [_json({"type": "service_status", "status": "ready", "status_text": "Service ready"})]

    async def tell(self, event: Event) -> list[bytes]:
        """See Dialect. A segment keeps its id while its text grows, so that it replaces what was told before."""
        data = event.data
        if event.kind == "conversation":
            return await self._conversation(data)
        if not data["text"]:
            return []
        end_us = data["end_us"] if event.kind == "segment" else event.at_us
        one = omi.segment(
            data["segment_id"], data["text"], None, None, data["start_us"], max(end_us, data["start_us"]),
            self._visit.kept.origin_us,
        )  # fmt: skip
        return [_json([one])]

    def beat(self) -> list[bytes]:
        """See Dialect."""
        return [_json({"type": "ping"})]

    def understand(self, text: str) -> Heard:
        """See Dialect."""
        return Heard.STOP if _type(text) == "CloseStream" else Heard.NOTHING

    async def _conversation(self, data: dict[str, Any]) -> list[bytes]:
        kind = {"processing": "memory_processing_started", "completed": "memory_created"}.get(data["state"])
        if kind is None:
            return []
        conversation_id = str(data["id"])
        try:
            dump = await self._db.read(lambda conn: omi.conversation(conn, conversations.get(conn, conversation_id)))
        except NotFound:
            return []
        more: dict[str, Any] = {"messages": []} if kind == "memory_created" else {}
        return [_json({"type": kind, "memory": dump, **more})]


def _type(text: str) -> str:
    """Return the ``type`` of a JSON object, empty for anything else."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return ""
    kind = found.get("type") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else ""


def _json(message: object) -> bytes:
    return msgspec.json.encode(message)
