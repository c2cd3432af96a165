"""A Wyoming server as recogniser: the real package's, and ones that do everything wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.clock import DrivenClock
from omi_edge.config import WyomingConfig
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import EngineSpec, HeardWord, Recognition
from omi_edge.errors import ConfigError, EngineError, EnginePermanent, EngineTransient
from omi_edge.listen import wyoming
from omi_edge.listen.guards import Span
from omi_edge.listen.wyoming import Answer, WyomingRecognizer, heard, spread
from omi_edge.wyoming import Event, encode_event
from tests.listen.sound import SHORT, noise, recording, segments
from tests.listen.wyoming_peers import Behaviour, Script, raw_server, real_server

SPEC = EngineSpec("omi_edge.listen.wyoming:WyomingRecognizer")
INFO = encode_event(Event("info", {"asr": [{"name": "x", "models": []}]}))


def spoken() -> bytes:
    """A segment with speech in it."""
    first = segments(SHORT)[0]
    return recording(SHORT)[first.start : first.end].tobytes()


async def ask(
    clock: DrivenClock,
    uri: str,
    pcm: bytes,
    *,
    blocks: int = 1,
    language: str = "",
    model: str = "",
    timeout: float = 5.0,
) -> tuple[list[str], Recognition]:
    """Return partial texts and the result."""
    owner = WyomingRecognizer(WyomingConfig(uri=uri, model=model, timeout=timeout), language, clock)
    return await talk(owner, pcm, blocks)


async def talk(owner: WyomingRecognizer, pcm: bytes, blocks: int = 1) -> tuple[list[str], Recognition]:
    size = -(-len(pcm) // blocks)
    async with owner.session() as call:
        await call(SPEC, "start", returns=type(None))
        said = []
        for at in range(0, len(pcm), size):
            said.append(await call(SPEC, "accept", pcm[at : at + size], returns=str))
            await asyncio.sleep(0)
        found = await call(SPEC, "finish", returns=Recognition)
        assert call.seconds > 0
    return said, found


@pytest.mark.parametrize("blocks", [1, 7])
async def test_the_real_server_hears_every_sample_and_its_text_comes_back(clock: DrivenClock, blocks: int) -> None:
    script, pcm = Script(), spoken()
    async with real_server(script) as uri:
        _, found = await ask(clock, uri, pcm, blocks=blocks)
    assert script.audio == pcm
    assert script.shapes == [(SAMPLE_RATE, 2, 1)]
    assert [word.text for word in found.words] == ["turn", "on", "the", "light"]
    assert found.engine == "wyoming faster-whisper 2.4.0 base-int8 (word times estimated)"
    assert found.language == "en"
    assert {word.confidence for word in found.words} == {0.0}
    times = [(word.start_ms, word.end_ms) for word in found.words]
    assert times == sorted(times)
    assert 0 <= times[0][0] < times[-1][1] <= len(pcm) // 32


async def test_model_and_language_are_asked_for_and_the_servers_own_are_recorded(clock: DrivenClock) -> None:
    script = Script(text="mach das licht an", language="de-DE", languages=("de", "en-US"))
    async with real_server(script) as uri:
        _, found = await ask(clock, uri, spoken(), language="de", model="base-int8")
        with pytest.raises(EnginePermanent, match=r"listen\.language"):
            await ask(clock, uri, spoken(), language="fr")
    assert (script.requests[0].name, script.requests[0].language) == ("base-int8", "de")
    assert found.language == "de"
    assert len(script.requests) == 1


async def test_over_a_unix_socket(clock: DrivenClock, tmp_path: Path) -> None:
    async with real_server(Script(), str(tmp_path / "w.sock")) as uri:
        assert (await ask(clock, uri, spoken()))[1].words


async def test_streamed_text_is_partial_text_and_its_end_is_the_result(clock: DrivenClock) -> None:
    script = Script(text="turn on the light", streams=True)
    owner_said: list[str] = []
    async with real_server(script) as uri:
        owner = WyomingRecognizer(WyomingConfig(uri=uri), "", clock)
        pcm = spoken()
        async with owner.session() as call:
            await call(SPEC, "start", returns=type(None))
            await call(SPEC, "accept", pcm, returns=str)
            while not owner_said or not owner_said[-1]:
                owner_said.append(await call(SPEC, "accept", b"", returns=str))
            found = await call(SPEC, "finish", returns=Recognition)
    assert owner_said[-1].startswith("so far")
    assert " ".join(word.text for word in found.words) == "turn on the light"


async def test_the_server_is_asked_once_what_it_is_and_again_after_a_failure(clock: DrivenClock) -> None:
    async with real_server(Script()) as uri:
        owner = WyomingRecognizer(WyomingConfig(uri=uri), "", clock)
        await talk(owner, spoken())
        known = owner.server
        assert known is not None
        await talk(owner, spoken())
        assert owner.server is known
    with pytest.raises(EngineTransient, match="cannot be reached"):
        await talk(owner, spoken())
    assert owner.server is None


async def test_bounds_of_the_servers_voice_are_where_the_words_go(clock: DrivenClock) -> None:
    pcm = spoken()
    middle = len(pcm) // 64
    async with real_server(Script(text="late", voice=[(middle, len(pcm) // 32)])) as uri:
        _, found = await ask(clock, uri, pcm)
    assert found.words[0].start_ms >= middle


async def test_what_is_said_over_noise_is_not_believed(clock: DrivenClock) -> None:
    async with real_server(Script(text="thanks for watching")) as uri:
        _, found = await ask(clock, uri, noise(3.0, 1000.0).tobytes())
    assert found.words == ()
    assert {one.reason for one in found.rejected} == {"little-speech"}


async def test_a_loop_is_cut(clock: DrivenClock) -> None:
    pcm = recording(SHORT)[: 20 * SAMPLE_RATE].tobytes()
    async with real_server(Script(text="so it goes " * 9)) as uri:
        _, found = await ask(clock, uri, pcm)
    assert [word.text for word in found.words] == ["so", "it", "goes"]
    assert {one.reason for one in found.rejected} == {"repetition"}


async def test_a_server_that_ends_before_the_sound_does_is_refused(clock: DrivenClock) -> None:
    async with real_server(Script(early=True)) as uri:
        with pytest.raises(EnginePermanent, match="before the sound had ended"):
            await ask(clock, uri, spoken() * 20, blocks=20)


async def test_no_speech_recognition_there(clock: DrivenClock) -> None:
    async with real_server(Script(programs=0)) as uri:
        with pytest.raises(EnginePermanent, match="offers no speech recognition"):
            await ask(clock, uri, spoken())


def says(*pieces: bytes, close: bool = True) -> Behaviour:
    """Describe itself, take everything that comes for a moment, say these bytes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        while not close and await reader.read(1 << 16):
            pass

    return behave


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(INFO)
    while True:
        writer.write(encode_event(Event("played")) * 100)
        await writer.drain()


async def endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it is, and reads nothing any more."""
    await reader.readline()
    writer.write(INFO)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("behave", "named"),
    [
        (says(), "does not say what it is|cannot be reached"),
        (says(close=False), "did not answer within"),
        (says(INFO), "without a text|ended the connection"),
        (says(INFO, close=False), "did not answer in time"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak Wyoming"),
        (says(INFO[:20]), "in the middle"),
        (says(b'{"type": "info", "data_length": 99999999999}\n'), "does not speak Wyoming"),
        (says(b'{"type": "info", "data": {"asr": {}}}\n'), "does not speak Wyoming"),
        (says(INFO, b'{"type": "transcript", "payload_length": 99999999999}\n', close=False), "not speak Wyoming"),
        (says(INFO, b'{"type": "transcript"}\n', close=False), "does not speak Wyoming"),
        (says(INFO, b'{"type": "transcript", "data": {"text": 5}}\n', close=False), "does not speak Wyoming"),
        (says(INFO, encode_event(Event("error", {"text": "boom"})), close=False), "reports an error"),
        (endless_line, "does not speak Wyoming|cannot be reached"),
        (flood, "talks without end"),
        (deaf, "takes no sound|did not answer in time"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_server_that_does_it_wrong(
    clock: DrivenClock, monkeypatch: pytest.MonkeyPatch, behave: Behaviour, named: str
) -> None:
    monkeypatch.setattr(wyoming, "CONNECT_SECONDS", 0.5)
    async with raw_server(behave) as uri:
        with pytest.raises(EngineError, match=named) as caught:
            await ask(clock, uri, spoken() * 40, timeout=1.0)
    assert "boom" not in str(caught.value)


async def test_a_server_that_goes_while_somebody_speaks(clock: DrivenClock) -> None:
    async def goes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(INFO)
        await reader.readexactly(20_000)
        writer.transport.abort()

    async with raw_server(goes) as uri:
        with pytest.raises(EngineTransient, match=r"ended the connection|without a text"):
            await ask(clock, uri, spoken() * 20, blocks=100)


async def test_nothing_is_left_of_a_call_that_was_cancelled(clock: DrivenClock) -> None:
    asked = asyncio.Event()

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(INFO)
        while b"audio-stop" not in await reader.read(1 << 16):
            pass
        asked.set()
        await asyncio.Event().wait()

    async with raw_server(hangs) as uri:
        task = asyncio.create_task(ask(clock, uri, spoken(), timeout=300.0))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_sound_before_a_segment(clock: DrivenClock) -> None:
    owner = WyomingRecognizer(WyomingConfig(uri="tcp://127.0.0.1:1"), "", clock)
    async with owner.session() as call:
        for method, given_ in (("accept", (b"\0\0",)), ("finish", ())):
            with pytest.raises(EngineTransient, match="before a segment"):
                await call(SPEC, method, *given_, returns=str)


def test_an_address_beyond_the_lan(clock: DrivenClock) -> None:
    with pytest.raises(ConfigError, match="not on your LAN"):
        WyomingRecognizer(WyomingConfig(uri="tcp://1.1.1.1:10300"), "", clock)


# --- what is made of an answer ------------------------------------------------------------------------------------


def test_words_are_spread_over_the_speech_by_their_letters() -> None:
    assert spread(["aa", "bbbbb", "aa"], [(100, 700), (1000, 1600)]) == (
        HeardWord("aa", 100, 400, 1.0),
        HeardWord("bbbbb", 400, 1300, 1.0),
        HeardWord("aa", 1300, 1600, 1.0),
    )


spans = st.lists(st.integers(0, 3000), min_size=2, max_size=8, unique=True).map(
    lambda at: [(a, b) for a, b in zip(sorted(at)[::2], sorted(at)[1::2], strict=False)]
)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30), spans)
def test_spread_words_keep_their_order_and_lie_in_the_speech(words: list[str], speech: Sequence[Span]) -> None:
    found = spread(words, speech)
    assert [word.text for word in found] == words
    assert found[0].start_ms == speech[0][0]
    assert found[-1].end_ms == speech[-1][1]
    for one, after in itertools.pairwise(found):
        assert one.start_ms <= one.end_ms <= after.end_ms
        assert one.start_ms <= after.start_ms
    for word in found:
        assert any(start <= word.start_ms <= end for start, end in speech)
        assert any(start <= word.end_ms <= end for start, end in speech)


@given(st.text(max_size=200), spans | st.just([]), st.lists(st.tuples(st.integers(-9, 9000), st.integers(-9, 9000))))
def test_whatever_is_answered_makes_a_record(text: str, speech: list[Span], voice: list[Span]) -> None:
    found = heard(Answer(text, "en", voice), 3000, speech, "", "x")
    stored = " ".join(word.text for word in found.words)
    assert stored.isprintable()
    json.dumps(stored)
    assert len(found.words) + sum(one.words for one in found.rejected) == len(
        "".join(c if c.isprintable() else " " for c in text).split()
    )
    if not speech:
        assert found.words == ()


@pytest.mark.parametrize(
    ("text", "speech", "reason"),
    [
        ("thank you for watching", [(300, 900)], "phantom-phrase"),
        ("subtitles by somebody", [(300, 500)], "phantom-phrase"),
        ("thank you for watching", [(300, 1400)], ""),
        ("thank you", [(300, 800)], ""),
        ("one two three four five six seven eight", [(0, 400)], "too-fast"),
        ("x" * 900, [(0, 2000)], "too-fast"),
        ("words", [], "little-speech"),
        ("words", [(0, 200)], ""),
        ("", [(0, 2000)], ""),
    ],
)
def test_guards_without_probabilities(text: str, speech: list[Span], reason: str) -> None:
    found = heard(Answer(text), 3000, speech, "en", "x")
    assert {one.reason for one in found.rejected} == ({reason} if reason else set())
    assert " ".join(word.text for word in found.words) == ("" if reason else text)


def test_a_voice_that_the_server_found_elsewhere_moves_nothing_away() -> None:
    found = heard(Answer("word", "", [(5000, 6000)]), 3000, [(300, 900)], "", "x")
    assert (found.words[0].start_ms, found.words[0].end_ms) == (300, 900)


def test_languages_of_a_server() -> None:
    for told, language in (("de_AT", "de"), ("EN", "en"), ("x", "fr"), ("../..", "fr"), ("", "fr")):
        assert heard(Answer("word", wyoming._language(told)), 1000, [(0, 900)], "fr", "x").language == language
