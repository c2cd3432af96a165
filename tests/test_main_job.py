"""The main job end to end: the shipped recording through simulator, link, daemon, engines, file and API.

Time is driven by the clock. One run serves all tests of this module; what was said is checked against the script.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import av
import msgspec
import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.cli.demo import in_range
from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig, Config, ConversationConfig, WearerConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE
from omi_edge.listen.transcribe import PocketSphinxRecognizer
from omi_edge.listen.wer import word_error_rate
from omi_edge.paths import socket_path
from omi_edge.pipeline.hearing import decode_span
from omi_edge.store import audio, segments
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database
from omi_edge.virtual import bus
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.script import Line, load_script, recording_path
from omi_edge.web import wire
from omi_edge.web.client import ApiClient
from tests.helpers import START_US, drive

PASSPHRASE = "correct horse battery staple"
SCRIPT = load_script()


class Run(NamedTuple):
    written: dict[str, bytes]
    """Everything on disk while the daemon ran and after it: vault, write-ahead log, key slots, log, temporary files."""
    conversations: list[wire.Conversation]
    transcripts: list[wire.Transcript]
    events: list[tuple[str, dict[str, object]]]
    hits: list[wire.Hit]
    ogg: bytes
    ogg_with_silence: bytes
    proof: bytes
    status: wire.Status
    health: wire.Health
    export: dict[str, object]
    segment_pcm: dict[str, bytes]
    """PCM of each segment as the file gives it back."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    place = tmp_path_factory.mktemp("main-job")
    (place / "tmp").mkdir()
    handler = logging.FileHandler(place / "everything.log")
    handler.setFormatter(_Everything())
    root = logging.getLogger()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place / "tmp"))
        patch.setattr(tempfile, "tempdir", None)
        level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(handler)
        found = asyncio.run(_run(place))
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
    found.written.update(_files(place, "after"))
    yield found


class _Everything(logging.Formatter):
    """All that a record holds, at any level: none of it may be content."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.getMessage()} {vars(record)}"


def _files(place: Path, when: str) -> dict[str, bytes]:
    return {f"{when} {path.name}": path.read_bytes() for path in place.rglob("*") if path.is_file()}


async def _run(place: Path) -> Run:
    folder = place / "data"
    clock = DrivenClock(START_US)
    config = Config(
        conversation=ConversationConfig(silence=8.0),
        audio=AudioConfig(keep_silence=3600.0),
        wearer=WearerConfig(time_zone="Europe/Berlin"),
    )
    await asyncio.to_thread(Database.create, folder, PASSPHRASE, clock)
    pendant = Pendant(clock)
    async with (
        in_range(pendant, clock) as radio,
        Daemon(config, folder, PASSPHRASE, clock, serve_tcp=False, radio=radio) as daemon,
        ApiClient(socket=socket_path(folder)) as client,
    ):
        # where there can be a bus of our own, and always on CI, this goes over real bleak
        assert ("real bleak" in radio.transport) is (bus.available() or os.environ.get("CI") == "true")
        with daemon.bus.subscribe(after=0, limit=100_000) as subscription:
            await drive(clock, daemon.pair_device(pendant.address, None))
            await clock.advance(2.0)
            playing = asyncio.create_task(pendant.play(Recording(recording_path()).read()))
            while not playing.done():
                await clock.advance(5.0)
            await clock.advance(30.0)
            events = []
            while subscription.waiting:
                event = await subscription.get()
                events.append((event.kind, event.data))
        page = await client.request("GET", "/v1/conversations", returns=wire.Page)
        ids = [item["id"] for item in reversed(page.items)]
        conversations = [
            await client.request("GET", f"/v1/conversations/{one}", returns=wire.Conversation) for one in ids
        ]
        transcripts = [
            await client.request("GET", f"/v1/conversations/{one}/transcript", returns=wire.Transcript) for one in ids
        ]
        query = {"q": "appointment with the dentist"}
        found = await client.request("GET", "/v1/search", query=query, returns=wire.SearchResult)
        first = next(hit.span for hit in found.hits if hit.span is not None)
        path = conversations[0].audio
        export = b"".join([piece async for piece in client.stream("/v1/export")])
        return Run(
            _files(place, "during"),
            conversations,
            transcripts,
            events,
            found.hits,
            b"".join([piece async for piece in client.stream(f"{path}?silence=drop")]),
            b"".join([piece async for piece in client.stream(f"{path}?silence=keep")]),
            b"".join([piece async for piece in client.stream(first.audio)]),
            await client.request("GET", "/v1/status", returns=wire.Status),
            await client.request("GET", "/health", returns=wire.Health),
            msgspec.json.decode(export),
            await daemon.db.read(lambda conn: _segment_pcm(conn, ids)),
        )


def _segment_pcm(conn: Connection, conversation_ids: list[str]) -> dict[str, bytes]:
    pcm = {}
    for conversation_id in conversation_ids:
        for row in segments.of_conversation(conn, conversation_id):
            one = row.segment
            chunks = audio.between(conn, one.source_id, one.start_us - 2_000_000, one.end_us)
            pcm[one.id] = decode_span(chunks, one.start_us, one.end_us).tobytes()
    return pcm


def _spoken(run: Run, index: int) -> str:
    return " ".join(utterance.text for utterance in run.transcripts[index].utterances)


def _line(words: str) -> Line:
    return next(line for line in SCRIPT.lines if words in line.text)


def test_the_pause_makes_two_conversations(run: Run) -> None:
    assert [conversation.state for conversation in run.conversations] == ["completed", "completed"]
    assert all(conversation.title and conversation.overview for conversation in run.conversations)
    assert all(conversation.closed_by == "silence" for conversation in run.conversations)


def test_what_was_said_is_what_was_written(run: Run) -> None:
    heard = " ".join(_spoken(run, index) for index in range(2))
    assert word_error_rate(SCRIPT.text(), heard) <= 0.20
    for index in range(2):
        assert word_error_rate(SCRIPT.text(index), _spoken(run, index)) <= 0.25


def test_confidence_tells_right_words_from_wrong(run: Run) -> None:
    said = set(SCRIPT.text().lower().split())
    words = [word for transcript in run.transcripts for utterance in transcript.utterances for word in utterance.words]
    right = [word.confidence for word in words if word.text.lower() in said]
    wrong = [word.confidence for word in words if word.text.lower() not in said]
    assert wrong
    assert np.mean(right) > np.mean(wrong) + 0.1


@pytest.mark.full
def test_the_text_is_the_engine_s_own_on_the_same_segments(run: Run) -> None:
    recognizer = PocketSphinxRecognizer()
    written: dict[str, list[str]] = {}
    for transcript in run.transcripts:
        for utterance in transcript.utterances:
            written.setdefault(utterance.segment_id, []).extend(word.text for word in utterance.words)
    assert written
    for segment_id, words in written.items():
        recognizer.start()
        recognizer.accept(run.segment_pcm[segment_id])
        assert [word.text for word in recognizer.finish().words] == words


def test_two_voices_and_who_said_what(run: Run) -> None:
    for index, conversation in enumerate(run.conversations):
        assert {speaker.label for speaker in conversation.speakers} - {None} == {"SPEAKER_00", "SPEAKER_01"}
        right = total = 0.0
        names: dict[str, dict[str | None, float]] = {}
        begin = _start(conversation)
        for utterance in run.transcripts[index].utterances:
            for word in utterance.words:
                at = begin + word.start
                line = next((one for one in SCRIPT.lines if one.start - 0.1 <= at <= one.end + 0.1), None)
                if line is not None:
                    counts = names.setdefault(line.speaker, {})
                    counts[utterance.speaker] = counts.get(utterance.speaker, 0.0) + word.end - word.start
        for counts in names.values():
            right += max(seconds for label, seconds in counts.items() if label is not None)
            total += sum(counts.values())
        assert right / total >= 0.9


def test_an_appointment_and_a_promise_have_their_dates(run: Run) -> None:
    tasks = [task for conversation in run.conversations for task in conversation.tasks]
    dentist = next(task for task in tasks if "dentist" in task.description.lower())
    # Monday 2 March 2026, 10:00 in Berlin when it was said: tomorrow at ten is Tuesday at nine UTC
    assert dentist.due == "2026-03-03T09:00:00.000Z"
    assert dentist.due_has_time
    contract = next(task for task in tasks if "contract" in task.description.lower())
    assert contract.due is not None
    assert datetime.fromisoformat(contract.due).astimezone(UTC).date().isoformat() == "2026-03-06"
    assert not contract.due_has_time
    assert any("milk" in task.description.lower() and "bread" in task.description.lower() for task in tasks)
    assert any("doctor" in task.description.lower() for task in tasks)


def test_memories_point_at_what_was_said(run: Run) -> None:
    memories = [memory for conversation in run.conversations for memory in conversation.memories]
    assert any("train" in memory.content.lower() and "boston" in memory.content.lower() for memory in memories)
    for memory in memories:
        assert memory.subject
        assert memory.evidence


def test_evidence_lies_where_the_words_were_spoken(run: Run) -> None:
    for words, wanted in (("dentist tomorrow", "dentist"), ("contract by friday", "contract")):
        line = _line(words)
        conversation = run.conversations[line.conversation]
        task = next(task for task in conversation.tasks if wanted in task.description.lower())
        (span, *_) = task.evidence
        at = _start(conversation) + span.offset
        assert line.start - 1.5 <= at <= line.end
        seconds = (datetime.fromisoformat(span.end) - datetime.fromisoformat(span.start)) / timedelta(seconds=1)
        assert 0 < seconds <= 12


def _start(conversation: wire.Conversation) -> float:
    """Seconds from the recording's own start: two seconds had passed when it began to play."""
    return (datetime.fromisoformat(conversation.start).timestamp() * 1e6 - START_US) / 1e6 - 2.0


def test_search_finds_it_and_plays_the_second(run: Run) -> None:
    hit = next(hit for hit in run.hits if hit.span is not None)
    assert "dentist" in hit.text.lower()
    assert 0.2 <= _seconds(run.proof) <= 15


def test_both_forms_of_the_audio_play(run: Run) -> None:
    kept, whole = _seconds(run.ogg), _seconds(run.ogg_with_silence)
    assert whole >= kept
    assert whole == pytest.approx(run.conversations[0].seconds, abs=5.0)


def _seconds(ogg: bytes) -> float:
    with av.open(io.BytesIO(ogg), "r") as container:
        return sum(frame.samples for frame in container.decode(container.streams.audio[0])) / 48_000


def test_partial_text_came_while_people_spoke_and_ends_as_the_stored_text(run: Run) -> None:
    partials: dict[object, str] = {}
    finals: dict[object, str] = {}
    for kind, data in run.events:
        if kind == "partial":
            partials[data["segment_id"]] = str(data["text"])
            assert data["segment_id"] not in finals
        elif kind == "segment":
            finals[data["segment_id"]] = str(data["text"])
    assert set(partials) == set(finals)
    assert word_error_rate(" ".join(finals.values()), " ".join(partials.values())) < 0.35


def test_speech_was_told_as_it_began_and_ended(run: Run) -> None:
    told: dict[object, list[tuple[object, object]]] = {}
    for kind, data in run.events:
        if kind == "speech":
            told.setdefault(data["segment_id"], []).append((data["state"], data["moment_us"]))
            assert set(data) == {"source_id", "segment_id", "state", "moment_us"}
        elif kind == "segment":
            assert told.pop(data["segment_id"]) == [
                ("started", data["start_us"]),
                ("stopped", data["end_us"]),
            ]
    assert all(len(moments) == 2 for moments in told.values())  # speech of which nothing was understood


def test_all_kinds_of_events_were_told(run: Run) -> None:
    kinds = {kind for kind, _ in run.events}
    assert {"speech", "partial", "segment", "conversation", "memory", "task", "device", "job"} <= kinds


def test_status_and_health_are_at_rest(run: Run) -> None:
    # how fast this machine recognises is no matter of right or wrong
    tiers = {speed.tier for speed in run.status.speeds}
    assert {part.state for part in run.health.parts if part.name not in tiers} <= {"ok", "off"}
    assert not run.status.failed_jobs
    assert not [notice for notice in run.status.notices if notice.code != "tier-slow"]
    assert all(set(states) <= {"done"} for states in run.status.jobs.values())
    (source,) = run.status.sources
    assert source["lost_frames"] == 0


def test_ids_are_the_same_in_api_events_and_export(run: Run) -> None:
    exported = msgspec.json.encode(run.export).decode()
    for conversation in run.conversations:
        assert conversation.id in exported
        for thing in (*(task.id for task in conversation.tasks), *(fact.id for fact in conversation.memories)):
            assert thing in exported
    told = {str(data["id"]) for kind, data in run.events if kind in ("task", "memory")}
    made = {task.id for conversation in run.conversations for task in conversation.tasks}
    made |= {fact.id for conversation in run.conversations for fact in conversation.memories}
    assert made <= told


def test_nothing_on_disk_can_be_read(run: Run) -> None:
    phrases = [line.text for line in SCRIPT.lines] + [
        utterance.text for transcript in run.transcripts for utterance in transcript.utterances
    ]
    phrases += [task.description for conversation in run.conversations for task in conversation.tasks]
    phrases += ["dentist", "boston", "michael", "contract"]
    packets = _packets(run.ogg)
    pcm = [piece[1000:1032] for piece in run.segment_pcm.values()]
    names = {"during vault.db", "during vault.db-wal", "during everything.log", "after vault.db", "after keyslots.json"}
    assert names <= run.written.keys()
    assert len(run.written["during vault.db-wal"]) > 100_000
    assert len(run.written["after vault.db"]) > 300_000
    assert b"job ended" in run.written["after everything.log"]
    for name, data in run.written.items():
        lowered = data.lower()
        for phrase in phrases:
            assert phrase.lower().encode() not in lowered, name
            assert phrase.encode("utf-16-le") not in data, name
        for packet in packets:
            assert packet not in data, name
        for piece in pcm:
            assert piece not in data, name


def _packets(ogg: bytes) -> list[bytes]:
    with av.open(io.BytesIO(ogg), "r") as container:
        packets = [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size > 20]
    assert packets
    return packets[:: max(1, len(packets) // 200)]


def test_stored_audio_is_what_was_played(run: Run) -> None:
    with av.open(io.BytesIO(run.ogg), "r") as container:
        heard = np.concatenate(
            [frame.to_ndarray().reshape(-1) for frame in container.decode(container.streams.audio[0])]
        )
    assert len(heard) / 48_000 == pytest.approx(len(heard[::3]) / SAMPLE_RATE, rel=1e-3)
    assert np.sqrt(np.mean(heard[::3].astype(np.float64) ** 2)) > 0.01
