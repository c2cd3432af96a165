"""No statement of the store walks through a table that grows."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from omi_edge.domain import (
    Cause,
    ChunkKind,
    Codec,
    ConversationState,
    Gap,
    JobState,
    LedgerState,
    Outcome,
    Severity,
    SpeechSegment,
    Stage,
    Turn,
    Withholding,
)
from omi_edge.errors import NotFound
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
    merging,
    notices,
    offline,
    people,
    recordings,
    reprocessing,
    rules,
    search,
    segments,
    senders,
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
from omi_edge.store.database import Database
from omi_edge.store.filters import Filters, encode_cursor
from omi_edge.store.search import Document
from omi_edge.store.vectors import VectorIndex
from tests.helpers import START_US
from tests.store import filling
from tests.store.filling import CONVERSATIONS, MODEL, SOURCES, chunk, utterance, vector

GROWING = {
    "audio_chunks", "segments", "conversations", "transcript_versions", "utterances", "turns", "tasks", "memories",
    "evidence", "documents", "vectors", "jobs", "notices", "audit", "people", "device_battery", "device_connections",
    "gaps", "withheld", "bookmarks", "ledger", "recordings", "offline_readings", "offline_records", "offline_runs",
    "offline_losses", "corrections", "correction_places", "reprocessings", "rule_changes",
    "uploads", "upload_pieces",
}  # fmt: skip
MODULES = (
    audio, audit, bookmarks, clients, conversations, devices, gaps, jobs, ledger, memories, merging, notices, offline,
    people,    recordings, rules, search,    segments, senders, settings, sources, transcripts, uploads, withheld,
)  # fmt: skip
"""All but ``export`` and ``inspect``, which read everything because that is what they are asked for."""


class Spy:
    """A connection that keeps each statement with the values it was given."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.index: VectorIndex | None = None
        self.statements: dict[str, Any] = {}

    def execute(self, statement: str, values: Any = ()) -> Any:
        self.statements.setdefault(statement, values)
        return self._conn.execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Any]) -> Any:
        rows = list(rows)
        if rows:
            self.statements.setdefault(statement, rows[0])
        return self._conn.executemany(statement, rows)


class Exercise:
    """Calls functions of the store, and knows which it called."""

    def __init__(self, spy: Spy) -> None:
        self.spy = spy
        self.called: set[str] = set()

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.called.add(f"{function.__module__}.{function.__name__}")
        return function(self.spy, *args, **kwargs)


def public_functions() -> set[str]:
    """Return the functions of the store that take a connection."""
    return {
        f"{module.__name__}.{name}"
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and next(iter(inspect.signature(function).parameters), None) == "conn"
    }


FILTERS: dict[str, Any] = {
    "source": SOURCES[0], "device": "AA:BB", "client": "cli_x", "since_us": START_US,
    "until_us": START_US + 10**12, "speaker": "SPEAKER_00", "conversation": CONVERSATIONS[0],
}  # fmt: skip


def all_filters() -> list[Filters]:
    """Return no filter, each alone, and each two together."""
    chosen = itertools.chain.from_iterable(itertools.combinations(FILTERS, count) for count in (0, 1, 2))
    return [msgspec.convert({name: FILTERS[name] for name in names}, Filters) for names in chosen]


def use_everything(do: Exercise) -> None:
    """Call every public function, with every filter where there are filters."""
    use_capture(do)
    use_conversations(do)
    use_memories(do)
    use_search(do)
    use_jobs(do)
    use_devices(do)
    use_timelines(do)
    use_ledger(do)
    use_recordings(do)
    use_uploads(do)
    use_offline(do)
    use_versions(do)
    use_the_rest(do)


def use_versions(do: Exercise) -> None:
    conversation_id, target = CONVERSATIONS[2], Target(from_us=0, to_us=2**62)
    live_id = do(transcripts.live_version, conversation_id)
    do(corrections.planned, conversation_id, target, "other words")
    change = do(corrections.add, conversation_id, target, "other words", actor="a", now_us=START_US)
    do(corrections.get, change.correction_id)
    do(corrections.listed, conversation_id)
    edited_id = do(conversations.get, conversation_id).version_id
    said = do(transcripts.utterances, conversation_id, live_id)
    do(corrections.carry, conversation_id, edited_id, live_id, said, now_us=START_US, activate=False)
    do(corrections.undo, change.correction_id, actor="a", now_us=START_US)
    do(search.numbers_of, [one.id for one in said])
    do(search.rename, {"utt_none": "utt_other"})
    do(transcripts.put_words, change.utterances[0])
    do(transcripts.words_of, conversation_id)
    do(transcripts.activate, conversation_id, live_id)
    do(transcripts.show, conversation_id, live_id)
    do(transcripts.version, conversation_id, live_id)
    do(search.show_utterances, conversation_id, said)
    do(audio.kept_us, SOURCES[0], START_US, START_US + 10**7)
    do(jobs.cancel, Stage.REPROCESS, conversation_id, START_US)
    do(transcripts.previous, conversation_id)
    do(vocabulary.add, "Ada", actor="a", now_us=START_US)
    do(vocabulary.expected, "Mia")
    do(vocabulary.suggestions)
    with contextlib.suppress(NotFound):  # nothing is offered
        do(vocabulary.dismiss, "zephyr", "Zephira", actor="a", now_us=START_US)
    do(transcripts.lineage, conversation_id)
    do(transcripts.number, live_id)
    do(corrections.pieces_of, conversation_id, "seg_2")
    rule = do(rules.add, PLAIN, "the", "ze", actor="a", now_us=START_US).rule
    made = do(rules.rewritten, "seg_2", said[0].words, conversation_id)
    do(rules.note, live_id, "seg_2", said[0].words, made)
    do(rules.heard, conversation_id, edited_id)
    do(rules.heard_words, conversation_id, "seg_2")
    do(rules.inherit, conversation_id, edited_id)
    do(rules.listed)
    do(rules.remove, rule.id)
    do(vocabulary.remove, "Ada")
    do(conversations.set_state, conversation_id, ConversationState.COMPLETED)
    do(conversations.ids_between, 0, 2**62)
    for end in ("cancelled", "done"):
        batch_id, _ = do(reprocessing.ask, [conversation_id], engine="e", keep=False, actor="a", now_us=START_US)
        row = do(reprocessing.batch, batch_id)[0]
        assert do(reprocessing.wanted, row)
        assert do(reprocessing.busy, conversation_id) is not None
        begun = do(reprocessing.begin, row, START_US)
        new = utterance(f"utt_{end}", conversation_id, START_US, "hello")
        do(reprocessing.grow, row, begun[0], [new])
        if end == "cancelled":
            do(reprocessing.cancel, batch_id, START_US)
        else:
            do(reprocessing.end, row, end, None, START_US)
            do(transcripts.finish, begun[0], "e", [msgspec.structs.replace(new, id="utt_whole")])
            do(reprocessing.made, row, begun[0])
            do(transcripts.drop_unfinished, begun[0])
    do(reprocessing.batches)
    do(reprocessing.ask_final, CONVERSATIONS[3], engine="e", now_us=START_US)
    do(reprocessing.renew_final, engine="other", now_us=START_US)
    do(reprocessing.last_final, CONVERSATIONS[3])
    do(reprocessing.last_asked, CONVERSATIONS[1])
    do(reprocessing.shown_upload, CONVERSATIONS[1])
    do(reprocessing.released, CONVERSATIONS[3])
    do(reprocessing.waiting_final)


def use_uploads(do: Exercise) -> None:
    row = do(uploads.begin, CONVERSATIONS[1], name="talk", start_us=None, client_id=None, now_us=START_US)
    do(uploads.put_piece, row, b"OggS")
    do(uploads.receiving, CONVERSATIONS[1])
    do(uploads.stored, row)
    assert do(uploads.latest, CONVERSATIONS[1]).id == row.id
    assert do(uploads.read, row, 1, 2) == b"gg"
    do(uploads.begin_to_hear, row)
    do(uploads.heard, row, START_US + 1, START_US)
    do(uploads.spoken, row)
    made = {"kind": "reprocessed", "engine": "e", "now_us": START_US, "utterances": (), "activate": False}
    do(transcripts.new_version, CONVERSATIONS[1], id="ver_sent", upload_id=row.id, **made)
    do(uploads.beside, "ver_sent")
    do(transcripts.uncorrected, CONVERSATIONS[1])
    do(uploads.spoken, row)
    do(uploads.of_source, CONVERSATIONS[1], row.source_id)
    do(uploads.said_in, "utt_none")
    do(uploads.get, row.id)
    do(uploads.of_version, "ver_none")
    do(uploads.remove, row.id)
    do(uploads.sweep)


def use_recordings(do: Exercise) -> None:
    digest = do(recordings.keyed, b"content")
    do(
        recordings.add, id="rec_x", source_id=SOURCES[1], name="talk", digest=digest, codec=Codec.OPUS_20MS,
        start_us=START_US, now_us=START_US,
    )  # fmt: skip
    do(recordings.unfinished)
    do(recordings.end, "rec_x", end_us=START_US + 10**12, left_out_us=0, complete=False, now_us=START_US)
    do(recordings.reopen, "rec_x")
    row = do(recordings.get, "rec_x")
    do(recordings.known, digest)
    do(recordings.heard_until_us, row)
    do(recordings.taken_spans, SOURCES[0], START_US, START_US + 10**12)
    do(recordings.progress, msgspec.structs.replace(row, end_us=START_US + 10**12))
    do(recordings.rewind, row)


def use_offline(do: Exercise) -> None:
    source_id = SOURCES[0]
    at = do(offline.cursor, source_id)
    assert at is not None
    reading_n = do(
        offline.begin_reading, source_id, away_us=None, connected_us=START_US, read_us=START_US, offset_us=None,
        ledger_us=0, codec=Codec.OPUS_20MS, step=1,
    )  # fmt: skip
    record = offline.RecordRow(0, at.position, reading_n, None, filling.PACKET)
    at = msgspec.structs.replace(at, position=at.position + 1)
    do(offline.keep, source_id, [record], at)
    do(offline.kept, source_id, 0, 0, 10)
    do(offline.finalize, source_id)
    do(offline.keep, source_id, [], at, (0, at.position))
    do(offline.lose, source_id, reading_n, store=0, first=90, last=91, records=2, why="freed")
    do(offline.note_head, reading_n, 0, at.position)
    do(offline.complete_reading, reading_n)
    do(offline.completed_since, source_id, reading_n)
    do(offline.readings, source_id, reading_n)
    do(offline.last_reading, source_id)
    do(offline.get_reading, reading_n)
    do(offline.source_ids)
    do(offline.placing, source_id)
    do(offline.unplaced, source_id, 10)
    do(offline.count_unplaced, source_id, 10)
    do(offline.heads, source_id, reading_n, 4)
    new = [offline.NewRun(goes_on, 0, record.seq, 0, record.seq, 10, None, 0) for goes_on in (False, True)]
    do(
        offline.place, source_id, reading_n, new, placed=(0, at.position), after=None, empty=[(9, 9)], now_us=START_US
    )  # fmt: skip
    run = do(offline.latest, source_id, 1)[0]
    for state in (offline.RunState.HELD, offline.RunState.PLACED):
        do(
            offline.settle_run, run.n, state=state, start_us=START_US, uncertainty_us=0, guessed=True,
            earliest_us=None, latest_us=START_US + 5,
        )  # fmt: skip
    do(offline.move_run, run.n, START_US + 1, 1)
    do(offline.get_run, run.n)
    do(offline.open_runs, source_id)
    do(offline.around, run)
    do(offline.may_be_of, run)
    do(offline.previous, run)
    do(offline.reassign, run.n, reading_n)
    do(offline.records, run, 10)
    do(offline.heard, run, frames=5, at_seq=run.first_seq, at_frame=5, left_out_us=0)
    do(offline.belongs, source_id, do(offline.held, source_id)[0].id)
    do(offline.decide, do(offline.held, source_id)[0].id, wanted=False)
    kept = filling.stored_run(do.spy, None, first=at.position)
    do(
        offline.settle_run, kept.n, state=offline.RunState.HELD, start_us=START_US, uncertainty_us=0, guessed=True,
        earliest_us=None, latest_us=START_US + 5,
    )  # fmt: skip
    do(offline.decide, kept.id, wanted=True)
    do(offline.reaching, source_id, START_US, START_US + 10**12)
    do(offline.waiting_bytes, source_id)
    do(offline.losses, source_id)
    for loss in do(offline.open_losses, source_id):
        do(offline.beside, source_id, loss)
        do(offline.split_loss, loss, loss.last)
        do(offline.settle_loss, loss.n, START_US, START_US + 5)


def use_ledger(do: Exercise) -> None:
    moment = ledger.Moment("boot", 10**12, START_US + 10**12)
    span = ledger.Span(START_US, START_US + 10**11, LedgerState.SPEECH)
    do(ledger.tick, moment)
    do(ledger.tick, ledger.Moment("boot", 10**12, START_US + 2 * 10**12))
    do(ledger.tick, ledger.Moment("next", 1, START_US + 3 * 10**12))
    do(ledger.tick, ledger.Moment("next", 2, START_US + 4 * 10**12))  # put right soon after a reboot: rows move
    do(ledger.now_us, moment)
    do(ledger.last_life_us)
    do(ledger.anchors)
    do(ledger.begin, SOURCES[0], START_US)
    do(ledger.write, SOURCES[0], span)
    do(ledger.write_all, span)
    do(ledger.put, SOURCES[0], START_US, START_US + 5, LedgerState.RECOVERED)
    do(ledger.between, SOURCES[0], START_US, START_US + 10**12)
    do(ledger.live, START_US, listening=True)
    do(ledger.known_sources)
    do(ledger.account, SOURCES[0], START_US, START_US + 10**12, moment)
    do(ledger.end, SOURCES[0], START_US)
    do(ledger.join, SOURCES[0], SOURCES[1])
    do(merging.move, "src_new", SOURCES[1], START_US)


def use_capture(do: Exercise) -> None:
    do(
        sources.add,
        id="src_new",
        kind="file",
        name="n",
        device_id=None,
        client_id="cli_x",
        codec=21,
        created_us=START_US,
    )
    do(sources.get, SOURCES[0])
    do(sources.number, SOURCES[0])
    do(sources.for_device, "AA:BB")
    do(sources.advance, SOURCES[0], heard_until_us=START_US, lost_frames=1)
    do(sources.set_ended, SOURCES[0], START_US)
    do(sources.list_all)
    do(sources.rename, SOURCES[0], "kitchen")
    sent = do(senders.admit, client_id="cli_x", device="laptop", name="laptop", now_us=START_US).source.id
    other = do(senders.admit, client_id="cli_x", device="tablet", name="tablet", now_us=START_US).source.id
    do(senders.admit, client_id="cli_x", device="tablet", name="tablet", now_us=START_US)
    do(senders.redirect, other, sent)
    do(senders.expected, sent)
    do(senders.refuse, sent, START_US)
    do(senders.is_refused, sent)
    do(senders.allow, sent)
    do(sources.unfinished)
    do(audio.put, chunk(SOURCES[0], START_US + 10**10, ChunkKind.SILENCE))
    do(audio.between, SOURCES[0], START_US, START_US + 10**7)
    do(audio.drop_silence, START_US + 10**12)
    do(audio.totals)
    do(segments.put, SpeechSegment("seg_new", SOURCES[0], START_US, START_US + 1, 1))
    do(segments.get, "seg_new")
    do(segments.of_conversation, CONVERSATIONS[0])
    do(segments.pending_before, SOURCES[0], START_US + 10)
    do(segments.settle, "seg_new", outcome=Outcome.TEXT, reason=None, engine=None, conversation_id=CONVERSATIONS[0])


def use_conversations(do: Exercise) -> None:
    do(
        conversations.create, id="con_new", source_id=SOURCES[0], started_us=START_US, ended_us=START_US + 1,
        now_us=START_US,
    )  # fmt: skip
    do(conversations.get, "con_new")
    do(conversations.number, "con_new")
    do(conversations.near, SOURCES[0], START_US, START_US + 1, 10)
    do(conversations.extend, "con_new", START_US, START_US + 5)
    do(conversations.open_ones)
    do(conversations.set_state, "con_new", ConversationState.PROCESSING)
    do(conversations.set_understanding, "con_new", title="", overview="", category="", emoji="", extractor="")
    do(conversations.ids_of_source, SOURCES[0])
    for filters in all_filters():
        for cursor in (None, encode_cursor(START_US + 10**12, 5)):
            do(conversations.listing, filters=filters, cursor=cursor)
        do(sources.holdings, filters)
    version = do(transcripts.live_version, "con_new")
    do(transcripts.append, version, [utterance("utt_new", "con_new", START_US, "hello")])
    do(
        transcripts.new_version, "con_new", id="ver_new", kind="final", engine="e", now_us=START_US,
        utterances=[utterance("utt_newer", "con_new", START_US, "hello")],
    )  # fmt: skip
    do(transcripts.utterances, "con_new")
    do(transcripts.utterance, "utt_new")
    do(transcripts.versions, "con_new")
    do(transcripts.put_turns, "con_new", [Turn(0, 1, None, 0.0)], "e")
    do(transcripts.turns, "con_new")
    do(transcripts.speakers, "con_new")


def use_memories(do: Exercise) -> None:
    do(memories.replace_derived, CONVERSATIONS[0], filling.understanding(), now_us=START_US)
    task = do(memories.create_task, description="d", now_us=START_US)
    fact = do(memories.create_memory, content="c", now_us=START_US)
    do(memories.get_task, task.id)
    do(memories.get_memory, fact.id)
    do(memories.evidence_of, task.id)
    do(memories.update_task, task.id, START_US, state="completed")
    do(memories.update_memory, fact.id, START_US, content="other")
    do(memories.delete_task, task.id)
    do(memories.delete_memory, fact.id)
    for filters in all_filters():
        for cursor in (None, encode_cursor(START_US + 10**12, 5)):
            for state in (None, "open"):
                do(memories.list_tasks, filters=filters, state=state, cursor=cursor)
            do(memories.list_memories, filters=filters, cursor=cursor)


def use_search(do: Exercise) -> None:
    index = VectorIndex()
    index.load(do.spy, MODEL)
    numbers = do(
        search.put_documents, [Document("ref", "summary", CONVERSATIONS[1], SOURCES[0], 0, 1, None, "lighthouse")]
    )
    do(search.without_vectors, MODEL, 10, conversation_id=CONVERSATIONS[1])
    do(search.put_vectors, MODEL, [(numbers[0], vector(1))])
    for filters in all_filters():
        do(search.search, index, "lighthouse plumber", np.asarray(vector(1)), filters=filters)
    do(search.remove_documents, ["ref"])
    do(search.remove_of_conversation, CONVERSATIONS[1], ["utterance"])


def use_jobs(do: Exercise) -> None:
    job = do(jobs.enqueue, Stage.EMBED, CONVERSATIONS[1], now_us=START_US)
    do(jobs.get, job.id)
    do(jobs.due, START_US, list(Stage), limit=100)
    do(jobs.next_due_us, list(Stage))
    do(jobs.start, job.id, START_US)
    do(jobs.enqueue, Stage.EMBED, CONVERSATIONS[1], now_us=START_US)
    do(jobs.retry, job.id, START_US, "cause")
    do(jobs.start, job.id, START_US)
    do(jobs.put_back, job.id)
    do(jobs.start, job.id, START_US)
    do(jobs.enqueue, Stage.EMBED, CONVERSATIONS[1], now_us=START_US)
    do(jobs.finish, job.id, JobState.DONE, None, START_US)
    do(jobs.sweep, START_US)
    do(jobs.counts)
    do(jobs.failed, 10)
    do(jobs.of_source, SOURCES[0])


def use_devices(do: Exercise) -> None:
    do(devices.remember, address="CC:DD", name="new", own_name="Omi", now_us=START_US)
    do(devices.remember, address="CC:DD", name="new", own_name="Omi", now_us=START_US)
    do(devices.get, "cc:dd")
    do(devices.list_all)
    do(devices.rename, "CC:DD", "newer")
    do(devices.note, "CC:DD", seen_us=START_US)
    do(devices.add_battery, "CC:DD", at_us=START_US, percent=5, charging=None)
    do(devices.battery, "CC:DD", since_us=0)
    connection_id = do(devices.began, "CC:DD", at_us=START_US, security=None)
    do(devices.connections, "CC:DD", 5)
    do(devices.close_open, START_US + 5)
    do(devices.ended, connection_id, at_us=START_US, ending="local")
    do(devices.forget, "CC:DD")


def use_timelines(do: Exercise) -> None:
    do(gaps.put, Gap(SOURCES[0], START_US, START_US + 5, (Cause.LOST,), 1))
    do(gaps.fill, SOURCES[0], START_US + 1, START_US + 2)
    do(gaps.totals, source_id=SOURCES[0], since_us=START_US, until_us=START_US + 5)
    mark = do(bookmarks.add, source_id=SOURCES[0], at_us=START_US, by="gesture")
    do(bookmarks.get, mark.id)
    for chosen in itertools.product((None, SOURCES[0]), (None, START_US), (None, START_US + 10**12)):
        where = dict(zip(("source_id", "since_us", "until_us"), chosen, strict=True))
        for cursor in (None, encode_cursor(START_US + 10**12, 5)):
            do(gaps.listed, **where, cursor=cursor)
            do(bookmarks.listed, **where, cursor=cursor)
    do(withheld.begin, Withholding.MUTED, now_us=START_US, until_us=None, by="gesture")
    do(withheld.begin, Withholding.MUTED, now_us=START_US, until_us=START_US + 5, by="gesture")
    do(withheld.get, do(withheld.current).id)
    do(withheld.end, at_us=START_US + 5)
    do(withheld.listed)
    do(withheld.listed, START_US, START_US + 10**12)


def use_the_rest(do: Exercise) -> None:
    do(audit.append, AuditEntry("a", "owner", "act"), START_US)
    do(audit.recent, 10)
    client, token = do(clients.add, "tablet", "owner", START_US)
    do(clients.get, client.id)
    do(clients.by_token, token)
    do(clients.list_all)
    do(clients.revoke, client.id, START_US)
    person = do(people.add, "Ada", now_us=START_US)
    do(people.get, person.id)
    do(people.rename, person.id, "Grace")
    do(people.speaks, person.id, "de")
    do(people.language_of, CONVERSATIONS[2], "seg_2")
    do(people.forget, person.id)
    do(people.list_all)
    for _ in range(2):
        notice = do(
            notices.raise_notice, code="c", severity=Severity.INFO, subject_ids=["x"], message="m", now_us=START_US
        )
    do(notices.get, notice.id)
    do(notices.active)
    do(notices.unseen, "c")
    do(notices.acknowledge, notice.id, START_US)
    do(notices.clear, "c", ["x"], START_US)
    do(settings.put, "k", "v")
    do(settings.get, "k")


def tables_by_name(statement: str) -> dict[str, str]:
    """Return the table behind each name that a plan may use."""
    found: dict[str, str] = {}
    for table, alias in re.findall(
        r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(\w+)(?:\s+(?!ON\b|WHERE\b|SET\b)([a-z]\w*))?", statement
    ):
        found[table] = table
        if alias:
            found[alias] = table
    return found


def plan(conn: Connection, statement: str, values: Any) -> list[str]:
    return [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def scans(statement: str, lines: list[str]) -> list[str]:
    """Return the lines of a plan that walk through a growing table."""
    names = tables_by_name(statement)
    found = ((line, re.match(r"SCAN (\w+)", line)) for line in lines)
    return [line for line, scan in found if scan and names.get(scan[1], scan[1]) in GROWING and "VIRTUAL" not in line]


def excuse(statement: str, lines: list[str]) -> str | None:
    """Return why a walk does no harm."""
    if "FROM vectors WHERE model = ?" in statement:
        return "read once, at the start: these are the bits that are held in memory"
    ordered = re.search(r"\bORDER BY .* LIMIT (\?|\d+)\s*$", statement) and not any("TEMP B-TREE" in x for x in lines)
    if not ordered:
        return None
    conditions = statement.split(" WHERE ", 1)[1] if " WHERE " in statement else ""
    if not conditions:
        return "a list in the order of its index, which ends with the page"
    if conditions.startswith(("state = 'failed'", "cleared_us IS NULL", "r.ended_us IS NULL")):
        return "a list in the order of an index that holds nothing but such rows, which ends with the page"
    if "u.speaker = ?" in conditions:
        # it may pass by many rows where little matches; most vaults have one pendant and few voices
        return "a list in the order of its index, which ends with the page; rows that do not match are passed by"
    return None


async def spied(db: Database) -> tuple[dict[str, Any], dict[str, list[str]], set[str]]:
    """Use everything once; return each statement with its values, each with its plan, and what was called."""

    def work(conn: Connection) -> tuple[dict[str, Any], dict[str, list[str]], set[str]]:
        spy = Spy(conn)
        do = Exercise(spy)
        use_everything(do)
        plans = {statement: plan(conn, statement, values) for statement, values in spy.statements.items()}
        return spy.statements, plans, do.called

    return await db.write(work)


async def test_no_statement_walks_through_a_table_that_grows(full: Database) -> None:
    _, plans, called = await spied(full)
    assert public_functions() - called == set(), "these are not looked at; call them in use_everything"
    walking = {
        statement: lines
        for statement, lines in plans.items()
        if scans(statement, lines) and excuse(statement, lines) is None
    }
    assert not walking


def test_a_walk_would_be_seen() -> None:
    statement = "SELECT t.id FROM tasks t WHERE t.description = ?"
    assert scans(statement, ["SCAN t"]) == ["SCAN t"]
    assert excuse(statement, ["SCAN t"]) is None
    assert excuse("SELECT id FROM audit ORDER BY at_us LIMIT ?", ["SCAN audit", "USE TEMP B-TREE FOR ORDER BY"]) is None
    assert scans("UPDATE jobs SET state = ?", ["SCAN jobs"]) == ["SCAN jobs"]
    assert scans("SELECT 1 FROM settings", ["SCAN settings"]) == []


async def test_lists_need_no_sorting(full: Database) -> None:
    """A page costs what is on it: unfiltered, by state, by time, and from a cursor on."""
    _, plans, _ = await spied(full)
    sorting = [
        statement
        for statement, lines in plans.items()
        if re.search(r"ORDER BY (\w\.)?(created_us|started_us|start_us|at_us) DESC", statement)
        and not re.search(r"source_n IN|conversation_n =|c\.id = \?", statement)  # a few rows, or those of a source
        and any("TEMP B-TREE" in line for line in lines)
    ]
    assert not sorting


async def test_triggers_do_not_walk_either(full: Database) -> None:
    """A plan does not show what the triggers of a statement do."""

    def bodies(conn: Connection) -> list[str]:
        triggers = conn.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        parts = [
            part.strip() for row in triggers for part in re.split(r"\bBEGIN\b", row[0])[1][: -len("END")].split(";")
        ]
        return [re.sub(r"\b(new|old)\.\w+", "NULL", part) for part in parts if part and "RAISE" not in part]

    def look(conn: Connection) -> dict[str, list[str]]:
        return {statement: scans(statement, plan(conn, statement, ())) for statement in bodies(conn)}

    found = await full.write(look)
    assert len(found) >= 4
    assert not [statement for statement, walking in found.items() if walking]


async def test_no_removal_searches_for_children_without_an_index(full: Database) -> None:
    """SQLite looks for rows that refer to a removed one; a plan does not show that."""
    statements, _, _ = await spied(full)
    removed = {found[1] for s in statements if (found := re.match(r"(?:DELETE FROM|INSERT OR REPLACE INTO) (\w+)", s))}
    assert {"documents", "vectors", "tasks", "memories", "evidence", "audio_chunks", "turns"} <= removed

    def unindexed(conn: Connection) -> list[tuple[str, str]]:
        found = []
        for (table,) in conn.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
        ):
            firsts = {row[1] for row in conn.execute(f"PRAGMA table_info ({table})") if row[5] == 1}
            for index in conn.execute(f"PRAGMA index_list ({table})"):
                firsts |= {row[2] for row in conn.execute(f"PRAGMA index_info ({index[1]})") if row[0] == 0}
            keys = conn.execute(f"PRAGMA foreign_key_list ({table})").fetchall()
            found += [(table, key[3]) for key in keys if key[2] in removed and key[3] not in firsts]
        return found

    assert await full.read(unindexed) == []


async def test_loading_the_vectors_is_the_one_whole_read_of_a_start(full: Database) -> None:
    """What reads whole tables at all is named here."""
    _, plans, _ = await spied(full)
    whole = [s for s, lines in plans.items() if scans(s, lines) and "LIMIT" not in s]
    assert whole == ["SELECT document_id, bits FROM vectors WHERE model = ? ORDER BY document_id"]
