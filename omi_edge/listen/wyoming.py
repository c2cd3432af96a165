"""Speech recognition on another machine of the LAN: a Wyoming server, used like an engine process.

Each segment has a connection of its own, as Home Assistant does it: what one segment does to a server cannot reach the
next. The server tells text alone, no times and no probabilities; what is made of it is said in ``heard``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar, cast

import msgspec
import numpy as np

from omi_edge.clock import Clock, held
from omi_edge.config import WyomingConfig
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import NO_HINTS, EngineSpec, HeardWord, Hints, Recognition, Rejected
from omi_edge.errors import BadInput, EngineError, EnginePermanent, EngineTransient
from omi_edge.listen.guards import FASTEST_WORDS_PER_SECOND, Piece, Reason, Span, compression_ratio, guard
from omi_edge.listen.phantoms import is_phantom, letters
from omi_edge.listen.vad import SileroVad, speech_spans
from omi_edge.wyoming import LINE_BYTES, AudioShape, Event, Place, Voice, encode_event, fields, place_of, read_event

CONNECT_SECONDS = 5.0
"""For a connection, and for the first answer. A choice: a server on the LAN answers in milliseconds."""
CHUNK_BYTES = SAMPLE_RATE // 5 * 2
"""200 ms a message."""
INFO_BYTES = 1 << 20
"""Longest description of a server."""
TEXT_LETTERS = 20_000
MOST_EVENTS = 10_000
"""From a server, about one segment."""
LETTERS_PER_WORD = 9
"""Of the fastest speech: no language in which recognisers write spaces has longer words on average. A choice; only text
without spaces is ever judged by it."""
PHANTOM_WORD_MS = 200
"""Speech that each word of a phrase must have which recognisers are known to invent. Half of what 150 words a minute
take. A choice: there is no probability to ask."""
LANES = 2
"""Segments at once: the one that is being spoken, and one from the file."""
NOTE = "(word times estimated)"
"""Stands in the engine's name of every result."""
CONFIDENCE = 0.0
"""Of words of which no probability is told: none counts as none."""
MS = SAMPLE_RATE // 1000

T = TypeVar("T")


class _Attributed(msgspec.Struct, frozen=True):
    name: str
    version: str | None = None
    installed: bool = True


class _Model(_Attributed, frozen=True):
    languages: list[str] = []


class _Program(_Attributed, frozen=True):
    models: list[_Model] = []


class _Info(msgspec.Struct, frozen=True):
    asr: list[_Program] = []


class _Text(msgspec.Struct, frozen=True):
    text: str
    language: str | None = None


class Server(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    name: str
    """Program, version and model, for the record of each result."""
    languages: tuple[str, ...]
    """Codes, lower case; empty when it does not tell."""


class Answer(msgspec.Struct):
    """What a server said about one segment."""

    text: str = ""
    language: str = ""
    voice: list[Span] = msgspec.field(default_factory=list)
    """Where it found a voice, in milliseconds of the segment."""


class WyomingRecognizer:
    """The server that the settings name. ``language`` is an ISO 639-1 code, "" leaves the choice to the server.

    Raises ConfigError for an address that is not on the LAN.
    """

    def __init__(self, settings: WyomingConfig, language: str, clock: Clock) -> None:
        self.place = place_of(settings.uri)
        self.settings = settings
        self.language = language
        self.clock = clock
        self.server: Server | None = None
        """Known from the first answer on, asked again after a failure."""
        self._lanes = asyncio.Semaphore(LANES)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Conversation]:
        """Have a connection for one segment."""
        async with self._lanes:
            talk = Conversation(self)
            try:
                yield talk
            except EngineError:
                self.server = None
                raise
            finally:
                await talk.close()


class Conversation:
    """One segment. To be called like an ``engine.Session``; every call raises EngineTransient or EnginePermanent."""

    def __init__(self, owner: WyomingRecognizer) -> None:
        self._owner = owner
        self._clock = owner.clock
        self._spent_us = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[Answer] | None = None
        self._vad = SileroVad()
        self._probabilities: list[float] = []
        self._samples = 0
        self._rest = b""
        self._stopped = False
        self._partial = ""

    @property
    def seconds(self) -> float:
        """Machine time that the calls took."""
        return self._spent_us / 1e6

    async def __call__(self, spec: EngineSpec, method: str, *arguments: Any, returns: type[T]) -> T:
        """Run ``start``, ``accept`` or ``finish`` of engine.Recognizer."""
        began_us = self._clock.work_us()
        try:
            with held(self._clock):
                return cast("T", await getattr(self, method)(*arguments))
        finally:
            self._spent_us += self._clock.work_us() - began_us

    async def start(self, hints: Hints = NO_HINTS) -> None:
        """Connect, ask who is there where that is not known, and announce the sound. Names cannot be told."""
        async with self._failing("did not answer", CONNECT_SECONDS):
            place = self._owner.place
            self._reader, self._writer = await _connect(place)
            if self._owner.server is None:
                self._owner.server = await self._described(self._reader)
            language = self._language(self._owner.server, hints)
            request = {"name": self._owner.settings.model, "language": language}
            await self._send(Event("transcribe", {name: value for name, value in request.items() if value}))
            await self._send(Event("audio-start", self._shape(0)))
        self._listening = asyncio.create_task(self._listen(self._reader))

    async def accept(self, pcm: bytes) -> str:
        """Send samples, s16le mono 16 kHz; return the text so far, where the server tells any."""
        self._rest += pcm
        whole = len(self._rest) - len(self._rest) % 2
        data, self._rest = self._rest[:whole], self._rest[whole:]
        samples = np.frombuffer(data, np.int16)
        self._probabilities += (await asyncio.to_thread(self._vad.probabilities, samples)).tolist()
        async with self._failing("takes no sound", self._owner.settings.timeout):
            for offset in range(0, len(data), CHUNK_BYTES):
                self._check_listening()
                at_ms = (self._samples + offset // 2) // MS
                await self._send(Event("audio-chunk", self._shape(at_ms), data[offset : offset + CHUNK_BYTES]))
            self._check_listening()
        self._samples += len(samples)
        return self._partial

    async def finish(self) -> Recognition:
        """End the segment and wait for its text."""
        async with self._failing("did not answer in time", self._owner.settings.timeout):
            self._check_listening()
            assert self._listening is not None
            self._stopped = True
            await self._send(Event("audio-stop", {"timestamp": self._samples // MS}))
            answer = await self._listening
        server = self._owner.server
        name = f"wyoming {server.name if server is not None else 'server'} {NOTE}"
        return heard(answer, self._samples // MS, speech_spans(self._probabilities), self._owner.language, name)

    async def close(self) -> None:
        """End the connection. Harmless twice."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            if not self._listening.cancelled():
                self._listening.exception()  # told by the call it broke, or of no interest any more
        if self._writer is not None:
            self._writer.transport.abort()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _described(self, reader: asyncio.StreamReader) -> Server:
        await self._send(Event("describe"))
        for _ in range(MOST_EVENTS):
            event = await read_event(reader, data_limit=INFO_BYTES)
            if event is None:
                break
            if event.type == "info":
                return _server(fields(event, _Info), self._owner.settings.model)
        raise EngineTransient(f"{_called(self._owner.place)} does not say what it is.")

    def _language(self, server: Server, hints: Hints) -> str:
        """Return the language to ask for, "" for the server's own rule."""
        known = {code.split("-")[0] for code in server.languages}
        if hints.language and (not known or hints.language in known):
            return hints.language
        wanted = self._owner.language
        if wanted and known and wanted not in known:
            raise EnginePermanent(f"{_called(self._owner.place)} knows no {wanted!r}; see listen.language.")
        return wanted

    async def _listen(self, reader: asyncio.StreamReader) -> Answer:
        """Take what the server tells until it has told the text."""
        answer = Answer()
        pieces = ""
        for _ in range(MOST_EVENTS):
            event = await read_event(reader)
            if event is None:
                raise EngineTransient(f"{_called(self._owner.place)} closed the connection without a text.")
            if event.type == "voice-started":
                at_ms = fields(event, Voice).timestamp
                answer.voice.append((round(at_ms or 0), self._heard_ms))
            elif event.type == "voice-stopped":
                at_ms = fields(event, Voice).timestamp
                since_ms = answer.voice.pop()[0] if answer.voice else 0
                answer.voice.append((since_ms, max(since_ms, self._heard_ms if at_ms is None else round(at_ms))))
            elif event.type == "transcript-start":
                pieces = ""
            elif event.type == "transcript-chunk":
                pieces = (pieces + fields(event, _Text).text)[:TEXT_LETTERS]
                self._partial = " ".join(_printable(pieces).split())
            elif event.type in ("transcript", "transcript-stop"):
                final = fields(event, _Text) if event.type == "transcript" else _Text(pieces)
                self._check_stopped()
                answer.text, answer.language = final.text[:TEXT_LETTERS], _language(final.language)
                return answer
            elif event.type == "error":
                raise EngineTransient(f"{_called(self._owner.place)} reports an error; its own log says which.")
        raise EngineTransient(f"{_called(self._owner.place)} talks without end.")

    @property
    def _heard_ms(self) -> int:
        return self._samples // MS

    def _check_stopped(self) -> None:
        if not self._stopped:  # the rest would be lost, and nobody would know
            raise EnginePermanent(
                f"{_called(self._owner.place)} answered before the sound had ended; switch off its own detection of "
                "the end of speech."
            )

    def _check_listening(self) -> None:
        if self._listening is None:
            raise EngineTransient("the recogniser was given sound before a segment was begun.")
        if self._listening.done():
            self._listening.result()

    def _shape(self, at_ms: int) -> dict[str, int]:
        return {**msgspec.structs.asdict(AudioShape(SAMPLE_RATE, 2, 1)), "timestamp": at_ms}

    async def _send(self, event: Event) -> None:
        assert self._writer is not None
        self._writer.write(encode_event(event))
        await self._writer.drain()

    @contextlib.asynccontextmanager
    async def _failing(self, late: str, seconds: float) -> AsyncIterator[None]:
        """Make of whatever the server does wrong an EngineTransient that says so."""
        server = _called(self._owner.place)
        try:
            async with self._clock.time_limit(seconds):
                yield
        except TimeoutError as error:
            raise EngineTransient(f"{server} {late} within {seconds:.0f} s.") from error
        except OSError as error:
            told = self._listening
            if told is not None and told.done() and not told.cancelled() and isinstance(told.exception(), EngineError):
                told.result()
            raise EngineTransient(f"{server} cannot be reached, or ended the connection.") from error
        except BadInput as error:
            raise EngineTransient(f"{server} does not speak Wyoming: {error}") from error


def heard(answer: Answer, length_ms: int, speech: Sequence[Span], language: str, engine: str) -> Recognition:
    """Return what is believed of a server's answer about a segment of ``length_ms``, in which a VAD found ``speech``.

    The words are spread over the speech in proportion to their letters, inside the bounds of the voice that the server
    found, where it tells any that touch our speech: a guess, and called one. The guards then judge them.
    """
    text = " ".join(_printable(answer.text).split())
    spoken = answer.language or language or "en"
    if not text:
        return Recognition((), engine, spoken)
    words = spread(text.split(), _inside(speech, answer.voice) or list(speech) or [(0, length_ms)])
    speech_ms = sum(end - start for start, end in speech)
    reason = None
    if speech and len(letters(text)) > speech_ms / 1000 * FASTEST_WORDS_PER_SECOND * LETTERS_PER_WORD:
        reason = Reason.TOO_FAST
    elif speech_ms < len(words) * PHANTOM_WORD_MS and is_phantom(text, spoken):
        reason = Reason.PHANTOM if speech else Reason.LITTLE_SPEECH
    if reason is not None:
        return Recognition((), engine, spoken, (Rejected(0, length_ms, reason.value, len(words)),))
    guarded = guard([Piece(text, words, 0.0, 0.0, compression_ratio(text))], speech, language=spoken)
    believed = tuple(msgspec.structs.replace(word, confidence=CONFIDENCE) for word in guarded.words)
    return Recognition(believed, engine, spoken, guarded.rejected)


def spread(words: Sequence[str], spans: Sequence[Span]) -> tuple[HeardWord, ...]:
    """Return the words laid over ``spans`` one behind the other, each as long as its letters say.

    Their confidence is 1, so that no guard takes what is unknown for doubtful.
    """
    weights = [len(word) + 1 for word in words]
    total = sum(weights)
    length = sum(end - start for start, end in spans)
    found = []
    before = 0
    for word, weight in zip(words, weights, strict=True):
        start_ms = _at(spans, length * before // total, last=False)
        before += weight
        found.append(HeardWord(word, start_ms, max(start_ms, _at(spans, length * before // total, last=True)), 1.0))
    return tuple(found)


def _at(spans: Sequence[Span], offset: int, *, last: bool) -> int:
    """Return the time that lies ``offset`` behind the first start, gaps not counted; at a gap, its beginning or end."""
    for start, end in spans:
        if offset < end - start or (last and offset == end - start):
            return start + offset
        offset -= end - start
    return spans[-1][1]


def _inside(speech: Sequence[Span], voice: Sequence[Span]) -> list[Span]:
    """Return what of ``speech`` lies inside any of ``voice``, in order."""
    cut = [(max(one[0], other[0]), min(one[1], other[1])) for one, other in itertools.product(speech, _joined(voice))]
    return sorted((start, end) for start, end in cut if start < end)


def _joined(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


async def _connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if place.path:
        return await asyncio.open_unix_connection(place.path, limit=LINE_BYTES)
    return await asyncio.open_connection(place.host, place.port, limit=LINE_BYTES)


def _called(place: Place) -> str:
    return f"the Wyoming server at {place.path or f'{place.host} port {place.port}'}"


def _server(info: _Info, wanted: str) -> Server:
    if not info.asr:
        raise EnginePermanent("the Wyoming server offers no speech recognition; name another one in wyoming.uri.")
    program = next((one for one in info.asr if wanted in {model.name for model in one.models}), info.asr[0])
    models = [model for model in program.models if model.installed]
    model = wanted or (models[0].name if len(models) == 1 else "")
    asked = [one for one in models if one.name == wanted] or models
    name = " ".join(_printable(part)[:60] for part in (program.name, program.version or "", model) if part)
    languages = {code.lower().replace("_", "-") for one in asked for code in one.languages}
    return Server(name, tuple(sorted(languages)))


def _language(code: str | None) -> str:
    """Return the ISO 639 part of a code, "" for none and for nonsense."""
    found = (code or "").lower().replace("_", "-").split("-")[0]
    return found if found.isascii() and found.isalpha() and 2 <= len(found) <= 3 else ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
