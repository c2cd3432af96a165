"""Puts something into every table, through the functions that the product uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from omi_edge.domain import (
    AudioChunk,
    Cause,
    ChunkKind,
    Codec,
    ConversationState,
    Evidence,
    Gap,
    JobState,
    LedgerState,
    Memory,
    Outcome,
    Severity,
    SpeechSegment,
    Stage,
    Task,
    TaskOwner,
    Turn,
    Understanding,
    Utterance,
    Withholding,
    Word,
)
from omi_edge.rewrite import PLAIN
from omi_edge.store import (
    audio,
    audit,
    bookmarks,
    clients,
    conversations,
    corrections,
    devices,
    gaps,
    jobs,
    ledger,
    memories,
    notices,
    offline,
    people,
    recordings,
    reprocessing,
    rules,
    search,
    segments,
    settings,
    sources,
    transcripts,
    uploads,
    vocabulary,
    withheld,
)
from omi_edge.store.audit import AuditEntry
from omi_edge.store.connection import Connection
from omi_edge.store.corrections import Target
from omi_edge.store.offline import CursorRow, NewRun, RecordRow, RunState
from omi_edge.store.search import Document
from tests.helpers import START_US

SECOND = 1_000_000
MINUTE = 60 * SECOND
SOURCES = ("src_pendant", "src_file")
ADDRESS = "AA:BB"
CONVERSATIONS = tuple(f"con_{n}" for n in range(4))
PACKET = bytes(range(100, 180))
"""Stands for an Opus packet; long enough not to occur by chance."""
SENTENCES = (
    "the zephyr lighthouse needs new paint",
    "I will call the plumber tomorrow",
    "Marguerite is allergic to walnuts",
    "let us meet at the harbour café",
)
MODEL = "test"
DIMENSIONS = 64


@contextmanager
def undone(conn: Connection) -> Iterator[None]:
    """Undo at the end of the block what it wrote, so that examples of a property do not meet."""
    conn.execute("SAVEPOINT example")
    try:
        yield
    finally:
        conn.execute("ROLLBACK TO example")
        conn.execute("RELEASE example")


def vector(seed: int) -> npt.NDArray[np.float32]:
    """Return a random unit vector, always the same one for a seed."""
    values = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values), np.float32)


def add_source(conn: Connection, source_id: str = SOURCES[0], *, device_id: str | None = ADDRESS) -> None:
    """Register a source."""
    sources.add(
        conn, id=source_id, kind="pendant" if device_id else "file", name=source_id, device_id=device_id,
        client_id=None, codec=Codec.OPUS_20MS, created_us=START_US,
    )  # fmt: skip


def add_conversation(
    conn: Connection, conversation_id: str = CONVERSATIONS[0], source_id: str = SOURCES[0], start_us: int = START_US
) -> None:
    """Begin a conversation of one minute."""
    conversations.create(
        conn, id=conversation_id, source_id=source_id, started_us=start_us, ended_us=start_us + MINUTE, now_us=start_us
    )


def chunk(source_id: str, start_us: int, kind: ChunkKind = ChunkKind.HEARD, packets: int = 100) -> AudioChunk:
    """Return a chunk with one lost frame."""
    return AudioChunk(source_id, start_us, Codec.OPUS_20MS, (PACKET,) * (packets - 1) + (b"",), kind)


def utterance(
    utterance_id: str, conversation_id: str, start_us: int, text: str, speaker: str | None = "SPEAKER_00",
    source_id: str = SOURCES[0], segment_id: str = "seg_0",
) -> Utterance:  # fmt: skip
    """Return an utterance of two seconds with its words."""
    words = tuple(
        Word(w, start_us + n * 200_000, start_us + (n + 1) * 200_000, 0.5) for n, w in enumerate(text.split())
    )
    return Utterance(
        utterance_id,
        conversation_id,
        segment_id,
        source_id,
        speaker,
        start_us,
        start_us + 2 * SECOND,
        text,
        words,
        0.75,
    )


def understanding(tasks: tuple[Task, ...] = (), facts: tuple[Memory, ...] = (), engine: str = "rules") -> Understanding:
    """Return what an extractor could say."""
    return Understanding("Title", "Overview", "other", "💬", tasks, facts, engine)


def fill(conn: Connection) -> None:
    """Put something into every table."""
    fill_first(conn)
    fill_second(conn)
    fill_third(conn)
    fill_fourth(conn)
    fill_fifth(conn)
    fill_sixth(conn)


def fill_second(conn: Connection) -> None:
    """Put something into the tables of the second step, for the sources of the first."""
    devices.remember(conn, address=ADDRESS, name="grey", own_name="Omi", now_us=START_US)
    devices.note(conn, ADDRESS, model="Omi CV 1", codec=Codec.OPUS_20MS, features=0x1EC, rssi=-60, clock_offset_us=5)
    for n in range(3):
        at_us = START_US + n * MINUTE
        devices.add_battery(conn, ADDRESS, at_us=at_us, percent=90 - n, charging=n == 0)
        connection_id = devices.began(conn, ADDRESS, at_us=at_us, security="bonded")
        devices.ended(conn, connection_id, at_us=at_us + SECOND, ending="timeout")
        causes = (Cause.OUT_OF_RANGE, Cause.PENDANT_OFF)
        gaps.put(conn, Gap(SOURCES[0], at_us + SECOND, at_us + 2 * SECOND, causes, n))
        conn.execute(
            "INSERT OR IGNORE INTO senders (client_id, device, source_n, first_us, last_us)"
            " SELECT 'cli_x', 'phone', n, ?, ? FROM sources WHERE id = ?",
            (at_us, at_us, SOURCES[0]),
        )
        bookmarks.add(conn, source_id=SOURCES[0], at_us=at_us, by="gesture")
        withheld.begin(conn, Withholding.MUTED, now_us=at_us, until_us=at_us + MINUTE, by="uid:1000")
        withheld.end(conn, at_us=at_us + SECOND)
        digest = recordings.keyed(conn, b"content")
        recordings.add(
            conn, id=f"rec_{n}", source_id=SOURCES[0], name="talk.wav", digest=digest, codec=Codec.OPUS_20MS,
            start_us=at_us, now_us=at_us,
        )  # fmt: skip
        moment = ledger.Moment("boot", at_us - START_US, at_us + n * MINUTE)
        start_us = moment.boot_us + ledger.tick(conn, moment)
        span = ledger.Span(start_us, start_us + SECOND, LedgerState.UNKNOWN, causes)
        ledger.write(conn, SOURCES[0], span)
        ledger.live(conn, start_us, listening=True)


def stored_run(conn: Connection, start_us: int | None, *, first: int = 0, records: int = 3) -> offline.RunRow:
    """Fetch some records of the pendant, each with ten frames, and place them as one run; return it."""
    source_id = SOURCES[0]
    reading_n = offline.begin_reading(
        conn, source_id, away_us=START_US, connected_us=START_US + MINUTE, read_us=START_US + MINUTE, offset_us=0,
        ledger_us=0, codec=Codec.OPUS_20MS, step=1,
    )  # fmt: skip
    rows = [RecordRow(0, first + n, reading_n, None, PACKET) for n in range(records)]
    end = first + records
    offline.keep(conn, source_id, rows, CursorRow(0, end, PACKET, 2**63), (0, end))
    new = NewRun(False, 0, first, 0, end - 1, 10 * records, start_us, SECOND)
    offline.place(
        conn, source_id, reading_n, [new], placed=(0, end), after=None, empty=(), now_us=START_US
    )  # fmt: skip
    return offline.latest(conn, source_id, 1)[0]


def fill_third(conn: Connection) -> None:
    """Put something into the tables of the sixth step: a run that was heard, one that is held, and a loss."""
    run = stored_run(conn, START_US)
    offline.heard(conn, run, frames=run.frames, at_seq=run.last_seq, at_frame=10, left_out_us=0)
    run = stored_run(conn, None, first=3)
    offline.settle_run(
        conn, run.n, state=RunState.HELD, start_us=START_US + MINUTE, uncertainty_us=MINUTE, guessed=True,
        earliest_us=START_US, latest_us=START_US + 2 * MINUTE,
    )  # fmt: skip
    offline.complete_reading(conn, run.reading_n)
    offline.lose(conn, SOURCES[0], run.reading_n, store=0, first=6, last=8, records=3, why="overwritten")


def fill_fourth(conn: Connection) -> None:
    """Put something into the tables of the seventh step: a correction, a reprocessing and a word."""
    vocabulary.add(conn, "Marguerite", actor="uid:1000", now_us=START_US)
    target = Target(from_us=START_US, to_us=START_US + MINUTE)
    corrections.add(conn, CONVERSATIONS[0], target, "the zephyr is repainted", actor="uid:1000", now_us=START_US)
    reprocessing.ask(conn, CONVERSATIONS[:1], engine="scripted", keep=True, actor="uid:1000", now_us=START_US)


def fill_fifth(conn: Connection) -> None:
    """Put something into the tables of the eighth step: a person's language, a rule and what it did, a dismissal."""
    people.add(conn, "Zoé", now_us=START_US, language="fr")
    rules.add(conn, PLAIN, "zephyr", "Zephira", actor="uid:1000", now_us=START_US)
    said = utterance("utt_x", CONVERSATIONS[0], START_US, "the zephyr", segment_id="seg_0").words
    live_id = transcripts.live_version(conn, CONVERSATIONS[0])
    rules.note(conn, live_id, "seg_0", said, rules.rewritten(conn, "seg_0", said))
    conn.execute("INSERT INTO dismissed VALUES ('mar', 'marguerite', 'uid:1000', ?)", (START_US,))


def fill_sixth(conn: Connection) -> None:
    """Put something into the tables of the ninth step: a recording that was sent in."""
    row = uploads.begin(conn, CONVERSATIONS[0], name="talk", start_us=None, client_id=None, now_us=START_US)
    uploads.put_piece(conn, row, b"OggS")
    uploads.stored(conn, row)


def fill_first(conn: Connection) -> None:
    """Put two sources, four conversations and all that hangs on them into the vault: the tables of the first step."""
    settings.put(conn, "zone", "Europe/Paris")
    clients.add(conn, "phone", "owner", START_US)
    conn.execute("INSERT INTO people (id, name, is_user, created_us) VALUES ('per_0', 'Marguerite', 1, ?)", (START_US,))
    add_source(conn, SOURCES[0])
    add_source(conn, SOURCES[1], device_id=None)
    for n, conversation_id in enumerate(CONVERSATIONS):
        source_id, start_us = SOURCES[n % 2], START_US + n * 10 * MINUTE
        for m in range(5):
            kind = ChunkKind.SILENCE if m == 4 else ChunkKind.HEARD
            audio.put(conn, chunk(source_id, start_us + m * 2 * SECOND, kind))
        segments.put(conn, SpeechSegment(f"seg_{n}", source_id, start_us, start_us + 8 * SECOND, 7 * SECOND))
        jobs.enqueue(conn, Stage.TRANSCRIBE, f"seg_{n}", now_us=start_us)
        add_conversation(conn, conversation_id, source_id, start_us)
        said = [
            utterance(f"utt_{n}_{m}", conversation_id, start_us + m * 2 * SECOND, text, f"SPEAKER_0{m % 2}", source_id,
                      f"seg_{n}")
            for m, text in enumerate(SENTENCES)
        ]  # fmt: skip
        transcripts.append(conn, transcripts.live_version(conn, conversation_id), said)
        segments.settle(
            conn, f"seg_{n}", outcome=Outcome.TEXT, reason=None, engine="scripted", conversation_id=conversation_id
        )
        transcripts.put_turns(conn, conversation_id, [Turn(start_us, start_us + SECOND, "SPEAKER_00", 0.9)], "scripted")
        numbers = search.put_documents(
            conn,
            [
                Document(u.id, "utterance", conversation_id, source_id, u.start_us, u.end_us, u.speaker, u.text)
                for u in said
            ],
        )
        search.put_vectors(conn, MODEL, [(number, vector(100 * n + m)) for m, number in enumerate(numbers)])
        memories.replace_derived(
            conn,
            conversation_id,
            understanding(
                (
                    Task(
                        "Call the plumber", TaskOwner.USER, due_us=start_us + 86_400 * SECOND,
                        evidence=(Evidence(f"utt_{n}_1", start_us + 2 * SECOND, start_us + 4 * SECOND),),
                    ),
                ),
                (
                    Memory(
                        "Marguerite is allergic to walnuts", "Marguerite", "health",
                        evidence=(Evidence(f"utt_{n}_2", start_us + 4 * SECOND, start_us + 6 * SECOND),),
                    ),
                ),
            ),
            now_us=start_us + MINUTE,
        )  # fmt: skip
        jobs.enqueue(conn, Stage.ASSEMBLE, conversation_id, now_us=start_us)
    conversations.set_state(
        conn, CONVERSATIONS[0], ConversationState.COMPLETED, closed_by="silence", finished_us=START_US + MINUTE
    )
    derived = memories.list_tasks(conn, limit=9).items
    memories.update_task(conn, derived[0].id, START_US, description="Call the electrician")
    memories.create_task(conn, description="Buy stamps", now_us=START_US)
    memories.create_memory(conn, content="The spare key is under the pot", now_us=START_US)
    first = jobs.due(conn, START_US, [Stage.TRANSCRIBE])[0]
    jobs.start(conn, first.id, START_US)
    jobs.finish(conn, first.id, JobState.FAILED, "EnginePermanent", START_US, "scripted")
    notices.raise_notice(
        conn, code="job.failed", severity=Severity.ERROR, subject_ids=["seg_0"], message="It failed.", now_us=START_US
    )
    audit.append(conn, AuditEntry("uid:1000", "owner", "export", (CONVERSATIONS[0],), count=4), START_US)
