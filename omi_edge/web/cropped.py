"""Friend-Lite's audio calls: the speech of a conversation alone, and the speech segments of who sends now.

A cut is never stored. It is made of the conversation's segments as it is asked for, with the padding and the minimum
that are set today; so it can be made again at any time, and no text depends on it.

    segments        ├────────┤     ├─┤        ├─────┤├──────────────┤
    minimum         ├────────┤                ├─────┤├──────────────┤     what is shorter is left out
    padding        ├──────────┤              ├───────────────────────┤    what meets is one
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Literal

import msgspec

from omi_edge.config import AudioConfig
from omi_edge.domain import SAMPLE_RATE, SpeechSegment
from omi_edge.errors import BadInput, NotFound
from omi_edge.store import conversations, segments
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.database import Database
from omi_edge.web import ranges, timeline, wire
from omi_edge.web.audio import WAV_MEDIA, WavForm, wav_header
from omi_edge.web.route import Answer, Call, NoQuery, Route, Stream

Range = tuple[int, int]
"""From, to just before; UTC in microseconds."""


class CroppedQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """In which form."""

    format: Literal["json", "wav"] | None = None
    """json: what there is, as Friend-Lite tells it. wav: the audio itself. When absent: wav for a client whose Accept
    header names audio, else json."""


async def cropped(call: Call[CroppedQuery, None]) -> Answer | Stream:
    """Tell the cut of a conversation, or play it."""
    row, cut = await _cut(call)
    named = _names_audio(call.request.headers.getall("Accept", ()))
    if call.query.format == "wav" or (call.query.format is None and named):
        return _played(call, row, cut)
    path = f"/api/conversations/{row.id}/cropped?format=wav"
    told = wire.Cropped(
        audio_uuid=row.id,
        original_audio_path=f"/v1/conversations/{row.id}/audio?format=wav",
        cropped_audio_path=path if cut.forms else None,
        speech_segments=[wire.SpeechSpan(start_us / 1e6, end_us / 1e6) for start_us, end_us in cut.ranges],
        cropped_duration=cut.seconds if cut.forms else None,
        cropped_at=call.controls.clock.utc_us() / 1e6 if cut.forms else None,
        has_cropped_version=bool(cut.forms),
    )
    return Answer(told, (row.id,), headers={"Vary": "Accept"})


async def reprocess(call: Call[NoQuery, None]) -> Answer:
    """Cut a conversation again with today's settings."""
    row, cut = await _cut(call)
    settings = call.controls.config.audio
    if not cut.forms:
        raise BadInput(_nothing(settings), "id")
    told = wire.Reprocessed(
        "Cut again with today's padding and minimum", row.id, len(cut.ranges), cut.seconds, settings.crop_padding,
        settings.crop_minimum,
    )  # fmt: skip
    return Answer(told, (row.id,))


async def speech_segments(call: Call[NoQuery, None]) -> Answer:
    """Tell the speech of those who send audio over sockets now, in the conversations that go on."""
    named = call.controls.doors.named()

    def read(conn: Connection) -> dict[str, tuple[str, list[SpeechSegment]]]:
        """By source its open conversation."""
        opened = conversations.open_ones(conn)
        wanted = {visit.source_id for visit in named.values()}
        return {
            row.source_id: (row.id, [one.segment for one in segments.of_conversation(conn, row.id)])
            for row in opened
            if row.source_id in wanted
        }

    found = await call.read(read)
    clients: dict[str, wire.ClientSpeech] = {}
    for name, visit in named.items():
        current, spoken = found.get(visit.source_id, (None, []))
        since_us = visit.sound.speaking_since_us
        clients[name] = wire.ClientSpeech(
            current_audio_uuid=current,
            speech_segments={} if current is None else {current: [(s.start_us / 1e6, s.end_us / 1e6) for s in spoken]},
            current_speech_start={} if since_us is None else {current or "": since_us / 1e6},
            connected=True,
            last_transcript_time=None if visit.text_us is None else visit.text_us / 1e6,
        )
    settings = call.controls.config.audio
    told = wire.SpeechSegments(len(clients), True, settings.crop_minimum, settings.crop_padding, clients)
    ids = {visit.source_id for visit in named.values()} | {row_id for row_id, _ in found.values()}
    return Answer(told, tuple(sorted(ids)), len(clients))


def cut_ranges(spoken: Iterable[SpeechSegment], minimum_us: int, padding_us: int) -> list[Range]:
    """Return what is cut out of segments, in order; nothing overlaps, and what touches is one."""
    found: list[Range] = []
    for segment in sorted(spoken, key=lambda one: one.start_us):
        if segment.end_us - segment.start_us < minimum_us:
            continue
        start_us, end_us = segment.start_us - padding_us, segment.end_us + padding_us
        if found and start_us <= found[-1][1]:
            found[-1] = (found[-1][0], max(end_us, found[-1][1]))
        else:
            found.append((start_us, end_us))
    return found


class Cut(msgspec.Struct, frozen=True):
    """The speech of a conversation, one after the other, as one WAV."""

    ranges: tuple[Range, ...]
    """Of which audio is kept."""
    forms: tuple[WavForm, ...]
    """One for each range."""
    tag: str

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(form.samples for form in self.forms)

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.samples / SAMPLE_RATE

    def length(self) -> int:
        """Bytes of the whole file."""
        return len(wav_header(0)) + 2 * self.samples

    async def pieces(self, db: Database, first: int, last: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes ``first`` to ``last``; of what is not asked for nothing is decoded."""
        header = wav_header(self.samples)
        if first < len(header):
            yield header[first : last + 1]
        at = len(header)
        for form in self.forms:
            size = 2 * form.samples
            low, high = max(first - at, 0), min(last - at, size - 1)
            at += size
            if low <= high:
                async with contextlib.aclosing(form.pieces(db, len(header) + low, len(header) + high)) as pieces:
                    async for piece in pieces:
                        yield piece


async def _cut(call: Call[CroppedQuery, None] | Call[NoQuery, None]) -> tuple[ConversationRow, Cut]:
    db, settings = call.controls.db, call.controls.config.audio

    def read(conn: Connection) -> tuple[ConversationRow, list[SpeechSegment]]:
        return conversations.get(conn, call.id), [one.segment for one in segments.of_conversation(conn, call.id)]

    row, spoken = await call.read(read)
    wanted = cut_ranges(spoken, round(settings.crop_minimum * 1e6), round(settings.crop_padding * 1e6))
    kept: list[Range] = []
    forms: list[WavForm] = []
    tags = hashlib.sha256()
    for start_us, end_us in wanted:
        try:
            plan = await timeline.plan(db, row.source_id, start_us, end_us, keep_silence=False)
        except NotFound:  # its audio is gone; the rest is not
            continue
        kept.append((start_us, end_us))
        forms.append(WavForm(plan))
        tags.update(plan.tag("wav").encode())
    return row, Cut(tuple(kept), tuple(forms), f'"{tags.hexdigest()[:32]}"')


def _played(call: Call[CroppedQuery, None], row: ConversationRow, cut: Cut) -> Stream:
    if not cut.forms:
        raise NotFound(_nothing(call.controls.config.audio))
    ranged = call.request if call.request.method == "GET" else call.request.clone(headers={})
    part = ranges.wanted(ranged, cut.length(), cut.tag)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": cut.tag,
        "Vary": "Accept",
        "Content-Disposition": f'inline; filename="{row.id}_cropped.wav"',
        **part.headers,
    }
    pieces = cut.pieces(call.controls.db, part.first, part.last)
    return Stream(pieces, WAV_MEDIA, (row.id,), status=200 if part.whole else 206, headers=headers, length=part.length)


def _names_audio(accepted: Sequence[str]) -> bool:
    return any(kind.strip().lower().startswith("audio/") for value in accepted for kind in value.split(","))


def _nothing(settings: AudioConfig) -> str:
    return (
        f"no speech of {settings.crop_minimum:g} s or more is kept of this conversation; audio.crop_minimum sets how "
        "long it must be."
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/conversations/{id}/cropped",
        summary="Ask for the speech of a conversation alone, as of Friend-Lite, or play it",
        act="audio.cropped",
        handler=cropped,
        query=CroppedQuery,
        returns=wire.Cropped,
        gives=(WAV_MEDIA,),
        also=(206,),
        head=True,
    ),
    Route(
        method="POST",
        path="/api/conversations/{id}/reprocess",
        summary="Cut the speech of a conversation again with today's padding and minimum",
        act="audio.reprocess",
        handler=reprocess,
        returns=wire.Reprocessed,
    ),
    Route(
        method="GET",
        path="/api/debug/speech_segments",
        summary="List the speech segments of the clients that send audio over sockets now",
        act="socket.segments",
        handler=speech_segments,
        returns=wire.SpeechSegments,
    ),
)
