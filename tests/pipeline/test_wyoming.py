"""Our Wyoming server, asked by the real package's client and by strangers; and the client in a daemon's place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event as TheirEvent
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.vad import VoiceStarted, VoiceStopped

from omi_edge.clock import DrivenClock
from omi_edge.config import Config, ListenConfig, WebConfig, WyomingConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import EngineSpec, HeardWord, Recognition
from omi_edge.errors import BadInput, ConfigError, EngineTransient, PortInUse
from omi_edge.listen.convert import Converter
from omi_edge.pipeline import engines
from omi_edge.pipeline import wyoming as module
from omi_edge.pipeline.engines import ChosenEngines
from omi_edge.pipeline.recognizer import AGAIN_SECONDS, BUILT_IN, SOON_SECONDS, WHISPER_LANGUAGES, SpeechModel
from omi_edge.pipeline.wyoming import WyomingServer
from omi_edge.store import audit
from omi_edge.store.database import Database
from omi_edge.wyoming import LINE_BYTES, Event, encode_event, read_event
from tests.helpers import PASSPHRASE
from tests.listen.sound import SHORT, WORDS, recording, segments
from tests.listen.wyoming_peers import Script, real_server

SPOKEN = recording(SHORT)[: 12 * SAMPLE_RATE]
STUB = "tests.pipeline.test_recognizer:BuiltIn"


class Scripted:
    """Engines that say how much they were given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.broken = 0
        self.may = asyncio.Event()
        self.may.set()

    @property
    def speech_model(self) -> SpeechModel:
        return SpeechModel("scripted", "a test", "https://example.org", ("en", "de"))

    async def recognize_live(self, blocks: AsyncIterator[bytes], partial: Callable[[str], None]) -> Recognition:
        return await self.recognize(b"".join([pcm async for pcm in blocks]))

    async def recognize(self, pcm: bytes) -> Recognition:
        await self.may.wait()
        if self.broken:
            self.broken -= 1
            raise EngineTransient("engine live ended in the middle of a call and is restarted.")
        self.given.append(pcm)
        return Recognition((HeardWord(f"part{len(self.given)}", 0, 9, 0.9),), "scripted")


class Served:
    """A server, and what is behind it."""

    def __init__(self, db: Database, clock: DrivenClock) -> None:
        self.engines = Scripted()
        self.db = db
        self.server = WyomingServer(
            WyomingConfig(serve=True, port=0), ListenConfig(), engines=self.engines, db=db, clock=clock
        )

    @property
    def port(self) -> int:
        return int(self.server.state.address.rsplit(":", 1)[1])

    async def rows(self) -> list[audit.AuditEntry]:
        return [row.entry for row in await self.db.read(audit.recent) if row.entry.role == "wyoming"]

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=LINE_BYTES)


@pytest.fixture
async def served(db: Database, clock: DrivenClock) -> AsyncIterator[Served]:
    made = Served(db, clock)
    await made.server.start()
    yield made
    await made.server.stop()


@contextlib.asynccontextmanager
async def client(served: Served) -> AsyncIterator[AsyncTcpClient]:
    async with AsyncTcpClient("127.0.0.1", served.port, connect_timeout=5, read_timeout=30) as found:
        yield found


async def speak(
    found: AsyncTcpClient, pcm: bytes, rate: int = 16_000, width: int = 2, channels: int = 1
) -> tuple[str, list[TheirEvent]]:
    """Ask as Home Assistant does: all the sound, then read until there is a text."""
    await found.write_event(Transcribe(language="en").event())
    await found.write_event(AudioStart(rate, width, channels).event())
    for at in range(0, len(pcm), 4096):
        await found.write_event(AudioChunk(rate, width, channels, pcm[at : at + 4096]).event())
    await found.write_event(AudioStop().event())
    told: list[TheirEvent] = []
    while (event := await found.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, told
        told.append(event)
    raise ConnectionError(told)


async def test_what_home_assistant_does(served: Served) -> None:
    async with client(served) as found:
        await found.write_event(Describe().event())
        event = await found.read_event()
        assert event is not None
        (program,) = Info.from_event(event).asr
        assert (program.name, program.installed, program.supports_transcript_streaming) == ("omi-edge", True, False)
        assert [(m.name, m.languages, m.installed) for m in program.models] == [("scripted", ["en", "de"], True)]
        assert program.version
    async with client(served) as found:
        text, told = await speak(found, SPOKEN.tobytes())
    assert text.startswith("part1")
    assert len(text.split()) == len(served.engines.given)
    starts = [VoiceStarted.from_event(one).timestamp for one in told if VoiceStarted.is_type(one.type)]
    stops = [VoiceStopped.from_event(one).timestamp for one in told if VoiceStopped.is_type(one.type)]
    assert len(starts) == len(stops) == len(served.engines.given)
    spans = [(start, stop) for start, stop in zip(starts, stops, strict=True) if start is not None and stop is not None]
    assert all(start < stop for start, stop in spans)
    sent = [SPOKEN[start * 16 : stop * 16].tobytes() for start, stop in spans]
    assert [len(pcm) // 1600 for pcm in served.engines.given] == [len(pcm) // 1600 for pcm in sent]
    (row,) = await served.rows()
    assert (row.actor, row.act, row.outcome, row.ids) == ("wyoming:127.0.0.1", "wyoming.transcribe", "done", ())
    assert served.server.state.answered == 1


async def test_one_connection_asks_again_and_pings(served: Served) -> None:
    async with client(served) as found:
        await found.write_event(Ping("still there?").event())
        event = await found.read_event()
        assert event is not None
        assert Pong.from_event(event).text == "still there?"
        await speak(found, SPOKEN.tobytes())
        await found.write_event(TheirEvent("something-new", {"a": 1}, b"xyz"))
        assert (await speak(found, b"\0" * 64_000))[0] == ""
    assert len(await served.rows()) == 2


async def test_where_nobody_speaks_nobody_is_asked(served: Served) -> None:
    async with client(served) as found:
        assert await speak(found, b"\0" * 96_000) == ("", [])
        assert (await speak(found, b""))[0] == ""
    assert served.engines.given == []


async def test_several_at_once(served: Served) -> None:
    async def one() -> str:
        async with client(served) as found:
            return (await speak(found, SPOKEN.tobytes()))[0]

    assert all(text.startswith("part") for text in await asyncio.gather(*(one() for _ in range(4))))
    assert len(await served.rows()) == 4


def shaped(rate: int, width: int, channels: int) -> bytes:
    """The spoken words in another shape, by simple means."""
    at = np.arange(0, len(SPOKEN), SAMPLE_RATE / rate)
    mono = np.interp(at, np.arange(len(SPOKEN)), SPOKEN) / 32768
    if width == 1:
        data = np.clip(np.rint(mono * 128 + 128), 0, 255).astype(np.uint8)
    else:
        data = np.clip(mono * 2 ** (8 * width - 1), -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1).astype("<i4")
    many = np.repeat(data, channels)
    if width == 3:
        return many.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return many.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes()


@pytest.mark.parametrize(
    "shape",
    [(16_000, 2, 2), (8000, 2, 1), (48_000, 2, 2), (44_100, 3, 1), (16_000, 4, 1), (22_050, 1, 1), (48_000, 4, 6)],
)
async def test_any_shape_is_heard_as_the_same(served: Served, shape: tuple[int, int, int]) -> None:
    async with client(served) as found:
        assert (await speak(found, shaped(*shape), *shape))[0]
    heard = sum(map(len, served.engines.given)) / 32_000
    plain = sum(one.end - one.start for one in segments(SHORT) if one.end <= len(SPOKEN)) / SAMPLE_RATE
    assert heard == pytest.approx(plain, abs=2.0)
    assert np.abs(np.frombuffer(served.engines.given[0], np.int16)).max() > 1000


@given(st.integers(8000, 192_000), st.integers(1, 4), st.integers(1, 8), st.lists(st.binary(max_size=500), max_size=5))
@example(8000, 1, 1, [bytes(21)])
def test_any_bytes_of_any_shape_are_samples(rate: int, width: int, channels: int, blocks: list[bytes]) -> None:
    converter = Converter(rate, width, channels)
    count = sum(len(converter.convert(block)) for block in blocks) + len(converter.finish())
    frames = sum(map(len, blocks)) // (width * channels)
    # what is shorter than the resampler's filter, 21 samples at 8 kHz, comes to nothing: 2.6 ms
    assert count == pytest.approx(frames * SAMPLE_RATE / rate, abs=43)


def test_samples_of_each_width_have_one_loudness() -> None:
    half = {1: b"\xc0", 2: b"\x00\x40", 3: b"\x00\x00\x40", 4: b"\x00\x00\x00\x40"}
    for width, sample in half.items():
        assert Converter(16_000, width, 2).convert(sample * 6).tolist() == [16_384] * 3, width


@pytest.mark.parametrize(
    "shape", [(1, 2, 1), (7999, 2, 1), (10**9, 2, 1), (16_000, 0, 1), (16_000, 5, 1), (16_000, 2, 0), (16_000, 2, 9)]
)
def test_shapes_that_are_not_taken(shape: tuple[int, int, int]) -> None:
    with pytest.raises(BadInput):
        Converter(*shape)


async def ended(reader: asyncio.StreamReader) -> list[Event]:
    """What is told until the connection ends."""
    found = []
    with contextlib.suppress(ConnectionError, BadInput):
        while (event := await read_event(reader, data_limit=1 << 20)) is not None:
            found.append(event)
    return found


START = encode_event(Event("audio-start", {"rate": 16_000, "width": 2, "channels": 1}))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[" * 30_000 + b"\n",
        b"x" * 200_000,
        b'{"type": "audio-chunk", "payload_length": 4294967296}\n',
        b'{"type": "transcribe", "data_length": 4294967296}\n',
        b'{"type": "audio-start", "data": {"rate": 1, "width": 2, "channels": 1}}\n',
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 2}}\n',
        b'{"type": "audio-chunk", "data": {}, "payload_length": 2}\n\0\0',
        START + b'{"type": "audio-chunk", "data": {"rate": 9, "width": 2, "channels": 1}, "payload_length": 2}\n\0\0',
    ],
    ids=lambda sent: repr(sent[:50]),
)
async def test_strangers_are_told_and_cut_off(served: Served, sent: bytes) -> None:
    reader, writer = await served.raw()
    writer.write(sent)
    told = await ended(reader)
    assert [event.type for event in told] in (["error"], [])  # a reset may overtake the last word
    writer.close()
    async with client(served) as found:
        assert (await speak(found, SPOKEN.tobytes()))[0]


async def test_half_an_event_and_no_more(served: Served) -> None:
    for sent in (b'{"type": "aud', START + b'{"type": "audio-chunk", "payload_length": 900}\nxx', b"", START):
        _, writer = await served.raw()
        writer.write(sent)
        await writer.drain()
        writer.close()
    async with client(served) as found:
        assert (await speak(found, SPOKEN.tobytes()))[0]


async def test_one_who_says_nothing_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)
    reader, writer = await served.raw()
    writer.write(b'{"type":')
    assert await ended(reader) == []
    writer.close()


async def test_too_long_a_request_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 2.0)
    async with client(served) as found:
        with pytest.raises(ConnectionError) as caught:
            await speak(found, b"\0" * 128_000)
    assert "must not be longer than 2 s" in repr(caught.value)
    assert await served.rows() == []


async def test_no_more_than_some_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CLIENTS", 1)
    async with client(served) as first:
        await first.write_event(Describe().event())
        await first.read_event()
        reader, writer = await served.raw()
        (told,) = await ended(reader)
        assert told.data["code"] == "not-ready"
        writer.close()


async def test_peers_from_beyond_the_lan(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_near", lambda _: False)
    reader, writer = await served.raw()
    assert await ended(reader) == []
    writer.close()


async def test_a_recogniser_that_fails_is_asked_again_then_said_to_fail(served: Served) -> None:
    served.engines.broken = 1
    async with client(served) as found:
        assert (await speak(found, SPOKEN.tobytes()))[0]
    served.engines.broken = 2
    async with client(served) as found:
        with pytest.raises(ConnectionError, match="engine-transient"):
            await speak(found, SPOKEN.tobytes())
    assert [row.outcome for row in await served.rows()] == ["failed", "done"]


async def test_without_an_audit_row_there_is_no_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(peer: str, outcome: str) -> None:
        raise PortInUse("stands for a full disk.")

    monkeypatch.setattr(served.server, "note", refuse)
    async with client(served) as found:
        with pytest.raises(ConnectionError, match="port-in-use"):
            await speak(found, SPOKEN.tobytes())


async def test_it_stops_in_the_middle_of_everything(db: Database, clock: DrivenClock) -> None:
    served = Served(db, clock)
    served.engines.may.clear()
    await served.server.start()
    reader, writer = await served.raw()
    sound = encode_event(Event("audio-chunk", {"rate": 16_000, "width": 2, "channels": 1}, SPOKEN.tobytes()))
    writer.write(START + sound + encode_event(Event("audio-stop")))
    assert await read_event(reader) is not None
    await served.server.stop()
    await served.server.stop()
    await ended(reader)
    writer.close()
    assert await served.rows() == []


async def test_a_port_that_is_taken_and_an_address_that_is_not_ours(
    served: Served, db: Database, clock: DrivenClock
) -> None:
    for settings, kind in (
        (WyomingConfig(serve=True, port=served.port), PortInUse),
        (WyomingConfig(serve=True, host="192.168.254.253", lan=True, port=0), ConfigError),
    ):
        server = WyomingServer(settings, ListenConfig(), engines=served.engines, db=db, clock=clock)
        with pytest.raises(kind):
            await server.start()
        await server.stop()


# --- the client, as the daemon uses it ----------------------------------------------------------------------------


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.RECOGNIZERS, BUILT_IN, EngineSpec(STUB))


def asking(uri: str, timeout: float = 5.0) -> Config:
    return Config(listen=ListenConfig(recognizer="wyoming"), wyoming=WyomingConfig(uri=uri, timeout=timeout))


async def blocks() -> AsyncIterator[bytes]:
    pcm = SPOKEN.tobytes()
    for at in range(0, len(pcm), 32_000):
        yield pcm[at : at + 32_000]


@pytest.mark.usefixtures("stub")
async def test_a_server_that_goes_gives_way_and_comes_back(clock: DrivenClock, tmp_path: Path) -> None:
    path = str(tmp_path / "w.sock")
    found = ChosenEngines(asking(f"unix://{path}"), clock, tmp_path)
    pcm = SPOKEN.tobytes()
    said: list[str] = []
    try:
        async with real_server(Script(text="hello there", streams=True), path):
            live = await found.recognize_live(blocks(), said.append)
            assert live.engine.startswith("wyoming faster-whisper")
            assert (await found.recognize(pcm)).engine == live.engine
            assert [word.text for word in live.words] == ["hello", "there"]
            assert any(said)
            assert await found.check() == ""
            assert found.tiers["live recogniser"].engine == "wyoming"
        with pytest.raises(EngineTransient):  # its job hears it
            await found.recognize_live(blocks(), said.append)
        assert (await found.recognize(pcm)).engine == "built-in 1 (instead of wyoming: failed)"
        trouble = await found.check()
        assert "cannot be reached" in trouble
        assert "wyoming.uri" in trouble
        assert (await found.recognize(pcm)).engine.startswith("built-in 1")
        await clock.advance(SOON_SECONDS + 1)
        assert (await found.recognize(pcm)).engine.startswith("built-in 1")  # asked again, in vain: at once
        async with real_server(Script(text="hello again"), path):
            await clock.advance(SOON_SECONDS + 1)
            assert (await found.recognize(pcm)).engine.startswith("built-in 1")  # twice as long now
            await clock.advance(SOON_SECONDS)
            assert (await found.recognize(pcm)).engine.startswith("wyoming faster-whisper")
            assert await found.check() == ""
        assert found.live.starts == 0
    finally:
        await found.close()


@pytest.mark.usefixtures("stub")
async def test_it_is_never_left_alone_for_longer_than_a_model(clock: DrivenClock, tmp_path: Path) -> None:
    found = ChosenEngines(asking(f"unix://{tmp_path}/none.sock"), clock, tmp_path)
    try:
        with pytest.raises(EngineTransient):
            await found.recognize(b"\0\0")
        for _ in range(12):
            await found.recognize(b"\0\0")
            await clock.advance(AGAIN_SECONDS + 1)
        async with real_server(Script(), f"{tmp_path}/none.sock"):
            assert (await found.recognize(SPOKEN.tobytes())).engine.startswith("wyoming")
    finally:
        await found.close()


async def test_it_can_be_named_for_a_transcript_made_anew(clock: DrivenClock, tmp_path: Path) -> None:
    async with real_server(Script(text="anew")) as uri:
        found = ChosenEngines(Config(wyoming=WyomingConfig(uri=uri)), clock, tmp_path)
        found.check_recognizer("wyoming")
        assert [word.text for word in (await found.recognize_with("wyoming", SPOKEN.tobytes())).words] == ["anew"]
        await found.close()
    nothing = ChosenEngines(Config(), clock, tmp_path)
    with pytest.raises(BadInput, match=r"wyoming\.uri"):
        nothing.check_recognizer("wyoming")


def test_whisper_languages_are_faster_whispers() -> None:
    tokenizer = __import__("faster_whisper.tokenizer", fromlist=["_LANGUAGE_CODES"])
    assert sorted(WHISPER_LANGUAGES) == sorted(tokenizer._LANGUAGE_CODES)


# --- both, in one daemon ------------------------------------------------------------------------------------------


async def test_a_daemon_serves_and_stores_nothing(folder: Path, clock: DrivenClock) -> None:
    config = Config(wyoming=WyomingConfig(serve=True, port=0), web=WebConfig(port=0))
    async with Daemon(config, folder, PASSPHRASE, clock) as daemon:
        state = (await daemon.status()).wyoming
        assert state is not None
        assert (state.lan, state.announced, state.message) == (False, False, "")
        pcm = recording(WORDS[0])[: 4 * SAMPLE_RATE].tobytes()
        async with AsyncTcpClient("127.0.0.1", int(state.address.rsplit(":", 1)[1])) as found:
            await found.write_event(Describe().event())
            event = await found.read_event()
            assert event is not None
            assert Info.from_event(event).asr[0].models[0].name == "pocketsphinx"
            text, _ = await speak(found, pcm)
        assert text
        found_state = msgspec.to_builtins(await daemon.status())
        assert found_state["sources"] == []
        assert found_state["audio"].get("bytes", 0) == 0
        assert text not in repr(found_state)
        rows = await daemon.db.read(audit.recent)
        assert [row.entry.act for row in rows if row.entry.role == "wyoming"] == ["wyoming.transcribe"]
        assert text not in repr(rows)
        parts = {part.name: part.state for part in (await daemon.health()).parts}
        assert parts["wyoming"] == "ok"
