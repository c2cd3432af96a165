"""A real vault with one conversation in it, behind a small stand-in for the daemon, served on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.config import Config
from omi_edge.domain import (
    AudioChunk,
    ChunkKind,
    Codec,
    ConversationState,
    DeviceState,
    Evidence,
    FetchProgress,
    FetchState,
    LinkState,
    Memory,
    Outcome,
    Severity,
    Sighting,
    SpeechSegment,
    Task,
    TaskOwner,
    Understanding,
    Utterance,
    Withholding,
    Word,
)
from omi_edge.errors import BadInput, LinkLost, NotFound, NotReady, PendantAbsent
from omi_edge.events import Bus
from omi_edge.opus import Encoder
from omi_edge.store import (
    audio,
    bookmarks,
    clients,
    conversations,
    devices,
    memories,
    notices,
    offline,
    search,
    segments,
    sources,
    transcripts,
    withheld,
)
from omi_edge.store.bookmarks import BookmarkRow
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.store.devices import DeviceRow
from omi_edge.store.offline import RunRow
from omi_edge.store.search import Document
from omi_edge.store.vectors import VectorIndex
from omi_edge.store.withheld import WithheldRow
from omi_edge.web import app as web_app
from omi_edge.web import wire
from omi_edge.web.client import ApiClient
from omi_edge.web.doors import Doors
from tests.helpers import PASSPHRASE, START_US

SOURCE, CONVERSATION, SEGMENT, UTTERANCE = "src_1", "con_1", "seg_1", "utt_1"
SECOND_UTTERANCE = "utt_2"
ADDRESS = "C0:FF:EE:00:00:01"
FRAME_US = Codec.OPUS_20MS.frame_us
HEARD = ((0.0, 6.0, ChunkKind.HEARD), (6.0, 8.0, ChunkKind.SILENCE), (12.0, 20.0, ChunkKind.HEARD))
"""Stored stretches in seconds from the first chunk; nothing is stored between 8 and 12."""
BEGIN_S, END_S = 1.0, 19.0
"""The conversation, in seconds from the first chunk."""
BEGAN_US = START_US + round(BEGIN_S * 1e6)


class FakeSound:
    """Takes audio and keeps it."""

    def __init__(self, codec: str, since_us: int) -> None:
        self.codec = codec
        self.since_us = since_us
        self.frames = self.bad = self.heard_us = 0
        self.taken: list[bytes] = []
        self.pauses = 0
        self.closed = False
        self.speaking_since_us: int | None = None
        self.got = asyncio.Event()

    async def take(self, data: bytes) -> None:
        self.taken.append(data)
        self.frames += 1
        self.got.set()

    async def pause(self) -> None:
        self.pauses += 1
        self.got.set()

    async def close(self, alive_us: int) -> None:
        self.closed = True


class FakeControls:
    """What the daemon hands to the application."""

    def __init__(self, db: Database, folder: Path, clock: DrivenClock) -> None:
        self.opened = db
        self.folder = folder
        self.clock = clock
        self.config = Config()
        self.bus = Bus()
        self.doors = Doors(clock)
        self.sounds: dict[str, FakeSound] = {}
        self.index = VectorIndex()
        self.ready = True
        self.word = "healthy"
        self.closed: list[str] = []
        self.taken: dict[str, bytearray] = {}
        self.begun: dict[str, tuple[str, int, bool, str | None]] = {}
        self.begun_with: dict[str, tuple[Codec, bytes | None, str | None, bool]] = {}
        self.contents: dict[bytes, str] = {}
        """Which import has which digest."""
        self.whole: set[str] = set()
        """Imports whose body came to its end."""
        self.coming, self.ended = asyncio.Event(), asyncio.Event()
        """An import's body comes, and has ended in whatever way."""
        self.states: dict[str, DeviceState] = {}
        self.fetching: dict[str, FetchProgress] = {}
        """How the fetching of stored audio stands, by address."""
        self.in_sight: list[Sighting] = []
        self.asked: list[tuple[object, ...]] = []
        """What the API asked of pendants."""

    @property
    def db(self) -> Database:
        if not self.ready:
            raise NotReady("the daemon is starting; ask again in a moment.")
        return self.opened

    def readiness(self) -> wire.Readiness:
        return wire.Readiness(self.ready, "running" if self.ready else "starting")

    async def health(self) -> wire.Health:
        part = wire.Part("vault", "ok", True, "2026-03-02T09:00:00.000Z", "Look at /home/somebody.")
        return wire.Health(self.word, self.readiness().state, [part])

    async def status(self) -> wire.Status:
        return wire.Status("0", "running", "", "", [], {}, [], [], {}, [], [], [], "", "", [], wire.Recording())

    async def close_conversation(self, conversation_id: str) -> None:
        def close(conn: Connection) -> None:
            if conversations.get(conn, conversation_id).state is not ConversationState.OPEN:
                raise BadInput("only an open conversation can be ended.")
            conversations.set_state(conn, conversation_id, ConversationState.PROCESSING, closed_by="hand")

        await self.db.write(close)
        self.closed.append(conversation_id)

    def check_recognizer(self, name: str) -> None:
        if name not in ("pocketsphinx", "other"):
            raise BadInput("there is no such recogniser.", "engine")

    def poke_jobs(self) -> None:
        self.asked.append(("poke",))

    async def known_import(self, content: bytes) -> tuple[bytes, wire.ImportState | None]:
        digest = content[::-1]
        source_id = self.contents.get(digest)
        return digest, None if source_id is None else await self.import_state(source_id)

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
        source_id = f"src_import{len(self.begun)}"
        self.begun[source_id] = (name, start_us, time_known, client_id)
        self.begun_with[source_id] = (codec, digest, device, again)
        if digest is not None:
            self.contents[digest] = source_id
        return source_id

    async def take_import(self, source_id: str, body: AsyncIterator[bytes], *, framed: bool = False) -> None:
        taken = self.taken[source_id] = bytearray()
        try:
            async for piece in body:
                taken += piece
                self.coming.set()
            self.whole.add(source_id)
        finally:
            self.ended.set()

    async def import_state(self, source_id: str) -> wire.ImportState:
        if source_id not in self.begun:
            raise NotFound("there is no such recording.")
        size = len(self.taken.get(source_id, b""))
        return wire.ImportState(source_id, self.begun[source_id][0], "processing", size / 32_000, 1, 0, "", [])

    async def embed_query(self, text: str) -> npt.NDArray[np.float32] | None:
        return None

    def check_sound(self, encoding: str, rate: int) -> None:
        if encoding not in ("auto", "opus", "pcm16", "pcm8"):
            raise BadInput("this codec cannot be decoded here.", "codec")

    def open_socket(self, source_id: str, encoding: str, rate: int, since_us: int) -> FakeSound:
        self.sounds[source_id] = sound = FakeSound(encoding, since_us)
        return sound

    def device_state(self, address: str) -> DeviceState:
        return self.states.get(address, DeviceState(LinkState.OFF, 0))

    async def scan_devices(self, seconds: float) -> list[Sighting]:
        self.asked.append(("scan", seconds))
        return self.in_sight

    async def pair_device(self, address: str | None, name: str | None) -> DeviceRow:
        self.asked.append(("pair", address, name))
        found = [seen for seen in self.in_sight if address in (None, seen.address)]
        if not found:
            raise PendantAbsent("no pendant is in sight.")
        if len(found) > 1:
            raise BadInput(f"{len(found)} pendants are in sight; name one by its address.", "address")
        now_us, seen = self.clock.utc_us(), found[0]
        return await self.db.write(
            lambda conn: devices.remember(
                conn, address=seen.address, name=name or seen.name, own_name=seen.name, now_us=now_us
            )
        )

    async def forget_device(self, address: str) -> None:
        await self.db.write(lambda conn: devices.forget(conn, address))

    async def rename_device(self, address: str, name: str) -> DeviceRow:
        return await self.db.write(lambda conn: devices.rename(conn, address, name))

    async def set_device(
        self, address: str, *, led: int | None, mic_gain: int | None, own_name: str | None
    ) -> DeviceState:
        state = self.device_state(address)
        if state.state is not LinkState.CONNECTED:
            raise LinkLost("the pendant is not connected.")
        self.asked.append(("set", address, led, mic_gain, own_name))
        self.states[address] = state = msgspec.structs.replace(state, led=led, mic_gain=mic_gain)
        return state

    async def device_storage(self, address: str) -> wire.DeviceStorage:
        return wire.DeviceStorage("ring", 1000, 2000, 3, True)

    def offline_progress(self, address: str) -> FetchProgress:
        return self.fetching.get(address, FetchProgress(FetchState.AWAY, START_US))

    async def fetch_offline(self, address: str) -> None:
        if address in self.states and self.states[address].state is not LinkState.CONNECTED:
            raise LinkLost("the pendant is not connected. Bring it near.")
        self.asked.append(("fetch", address))

    async def decide_offline(self, run_id: str, wanted: bool) -> RunRow:
        self.asked.append(("decide", run_id, wanted))
        return await self.db.write(lambda conn: offline.decide(conn, run_id, wanted=wanted))

    async def withhold(self, kind: Withholding, seconds: float | None, by: str) -> WithheldRow:
        now_us = self.clock.utc_us()
        until_us = None if seconds is None else now_us + round(seconds * 1e6)
        return await self.db.write(lambda conn: withheld.begin(conn, kind, now_us=now_us, until_us=until_us, by=by))

    async def resume(self, by: str) -> WithheldRow | None:
        now_us = self.clock.utc_us()
        return await self.db.write(lambda conn: withheld.end(conn, at_us=now_us))

    async def add_bookmark(self, source_id: str | None, by: str) -> BookmarkRow:
        now_us = self.clock.utc_us()
        return await self.db.write(lambda conn: bookmarks.add(conn, source_id=source_id or SOURCE, at_us=now_us, by=by))


class Site(msgspec.Struct):
    """The API on both kinds of socket, and one client for each."""

    controls: FakeControls
    base: str
    socket: Path
    token: str
    unix: ApiClient
    tcp: aiohttp.ClientSession
    """Speaks plain HTTP, without a token of its own."""

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def rows(self) -> list[tuple[str, str, str]]:
        """Return (actor, act, outcome) of every audit row, oldest first."""

        def read(conn: Connection) -> list[tuple[str, str, str]]:
            found = conn.execute("SELECT actor, act, outcome FROM audit ORDER BY rowid").fetchall()
            return [tuple(row) for row in found]

        return await self.controls.opened.read(read)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short path, for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="oe-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def packets() -> list[bytes]:
    """Twenty seconds of a gliding tone as the pendant would send it."""
    rate = 16_000
    at = np.arange(20 * rate) / rate
    tone = (8000 * np.sin(2 * np.pi * (200 + 40 * at) * at)).astype(np.int16)
    encoder = Encoder(Codec.OPUS_20MS)
    return [encoder.encode(frame) for frame in tone.reshape(-1, rate // 50)]


@pytest.fixture(scope="session")
def filled_vault(empty_vault: Path, packets: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with one conversation, closed."""
    folder = Path(shutil.copytree(empty_vault, tmp_path_factory.mktemp("vaults") / "filled"))

    async def fill() -> None:
        db = Database.open(folder, PASSPHRASE, DrivenClock(START_US))
        await db.write(lambda conn: _fill(conn, packets))
        await db.close()

    asyncio.run(fill())
    return folder


@pytest.fixture
async def controls(tmp_path: Path, filled_vault: Path) -> AsyncIterator[FakeControls]:
    clock = DrivenClock(START_US + 3600_000_000)
    folder = Path(shutil.copytree(filled_vault, tmp_path / "data"))
    db = await asyncio.to_thread(Database.open, folder, PASSPHRASE, clock)
    yield FakeControls(db, folder, clock)
    await db.close()


@pytest.fixture
async def site(controls: FakeControls, short_path: Path) -> AsyncIterator[Site]:
    _, token = await controls.opened.write(lambda conn: clients.add(conn, "laptop", "owner", START_US))
    async with contextlib.AsyncExitStack() as stack:
        unix = await web_app.serve_unix(web_app.make_app(controls), short_path / "s")
        stack.push_async_callback(unix.close)
        tcp = await web_app.serve_tcp(web_app.make_app(controls), "127.0.0.1", 0)
        stack.push_async_callback(tcp.close)
        client = await stack.enter_async_context(ApiClient(socket=short_path / "s"))
        session = await stack.enter_async_context(aiohttp.ClientSession(tcp.address))
        yield Site(controls, tcp.address, short_path / "s", token, client, session)


def stored(packets: list[bytes]) -> list[AudioChunk]:
    """The chunks of the one recording, at most two seconds each."""
    chunks = []
    for begin, end, kind in HEARD:
        at = begin
        while at < end:
            run = tuple(packets[round(at * 50) : round(min(at + 2, end) * 50)])
            chunks.append(AudioChunk(SOURCE, START_US + round(at * 1e6), Codec.OPUS_20MS, run, kind))
            at += 2
    return chunks


def _fill(conn: Connection, packets: list[bytes]) -> None:
    sources.add(
        conn, id=SOURCE, kind="pendant", name="Omi", device_id=ADDRESS, client_id=None, codec=21, created_us=START_US
    )
    devices.remember(conn, address=ADDRESS, name="grey", own_name="Omi", now_us=START_US)
    for chunk in stored(packets):
        audio.put(conn, chunk)
    ended_us = START_US + round(END_S * 1e6)
    conversations.create(
        conn, id=CONVERSATION, source_id=SOURCE, started_us=BEGAN_US, ended_us=ended_us, now_us=START_US
    )
    segments.put(conn, SpeechSegment(SEGMENT, SOURCE, BEGAN_US, ended_us, ended_us - BEGAN_US))
    said = [
        _said(UTTERANCE, "SPEAKER_00", "I will bring the apples on Friday", 0.0, 4.0),
        _said(SECOND_UTTERANCE, "SPEAKER_01", "the dentist is at nine", 12.5, 16.0),
    ]
    transcripts.new_version(
        conn, CONVERSATION, id="ver_1", kind="final", engine="test", now_us=START_US, utterances=said
    )
    search.put_documents(
        conn,
        [Document(u.id, "utterance", CONVERSATION, SOURCE, u.start_us, u.end_us, u.speaker, u.text) for u in said],
    )
    proof = (Evidence(UTTERANCE, said[0].start_us, said[0].end_us),)
    memories.replace_derived(
        conn,
        CONVERSATION,
        Understanding(
            title="Apples",
            overview="About apples.",
            category="other",
            emoji="🍎",
            tasks=(Task("Bring the apples", TaskOwner.USER, due_us=START_US + 86_400_000_000, evidence=proof),),
            memories=(Memory("The dentist opens at nine", "dentist", evidence=proof),),
            engine="test",
        ),
        now_us=START_US,
    )
    conversations.set_understanding(
        conn, CONVERSATION, title="Apples", overview="About apples.", category="other", emoji="🍎", extractor="test"
    )
    notices.raise_notice(
        conn, code="disk_full", severity=Severity.ERROR, subject_ids=(SOURCE,), message="Free space.", now_us=START_US
    )


def _said(utterance_id: str, speaker: str, text: str, start_s: float, end_s: float) -> Utterance:
    start_us, end_us = BEGAN_US + round(start_s * 1e6), BEGAN_US + round(end_s * 1e6)
    words = text.split()
    step = (end_us - start_us) // len(words)
    heard = tuple(Word(w, start_us + i * step, start_us + (i + 1) * step, 0.9) for i, w in enumerate(words))
    return Utterance(
        utterance_id, CONVERSATION, SEGMENT, SOURCE, speaker, start_us, end_us, text, heard, 0.9, None, Outcome.TEXT
    )
