"""Rows of the store as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlencode

from omi_edge import domain
from omi_edge.rewrite import Change
from omi_edge.store import ledger, memories, offline, reprocessing, senders, sources, transcripts, uploads
from omi_edge.store.bookmarks import BookmarkRow
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.devices import BatteryRow, ConnectionRow, DeviceRow
from omi_edge.store.filters import Filters
from omi_edge.store.gaps import GapTotal
from omi_edge.store.ledger import Anchor, Span
from omi_edge.store.memories import EvidenceRow, MemoryRow, TaskRow
from omi_edge.store.rules import Heard
from omi_edge.store.search import Hit
from omi_edge.store.sources import SourceRow
from omi_edge.store.transcripts import VersionRow
from omi_edge.store.withheld import WithheldRow
from omi_edge.web import wire, wordwire
from omi_edge.web.route import Answer
from omi_edge.web.times import iso, iso_or_none, seconds


def source_of(row: ConversationRow) -> wire.SourceRef:
    """Return where a conversation was recorded."""
    return wire.SourceRef(row.source_id, row.source_name, row.source_kind, row.device_id, row.client_id)


def source_item(conn: Connection, row: SourceRow) -> wire.SourceItem:
    """Return a source."""
    return wire.SourceItem(
        id=row.id,
        name=row.name,
        kind=row.kind,
        device_id=row.device_id,
        client_id=row.client_id,
        created=iso(row.created_us),
        first=iso_or_none(row.first_us),
        heard_until=iso_or_none(row.heard_until_us),
        ended=iso_or_none(row.ended_us),
        time_known=row.time_known,
        lost_frames=row.lost_frames,
        audio_bytes=row.audio_bytes,
        dropped_bytes=row.dropped_bytes,
        dropped_seconds=seconds(row.dropped_us),
        refused=senders.is_refused(conn, row.id),
    )


def speakers(conn: Connection, conversation_id: str) -> list[wire.Speaker]:
    """Return who spoke in a conversation."""
    return [
        wire.Speaker(row.speaker, row.person_id, seconds(row.talk_us), row.utterances)
        for row in transcripts.speakers(conn, conversation_id)
    ]


def conversation_item(conn: Connection, row: ConversationRow) -> wire.ConversationItem:
    """Return a conversation for a list."""
    stored, uncertainty, guessed = _stored(conn, row)
    return wire.ConversationItem(
        id=row.id,
        state=row.state.value,
        title=row.title,
        overview=row.overview,
        category=row.category,
        emoji=row.emoji,
        start=iso(row.started_us),
        end=iso(row.ended_us),
        seconds=seconds(row.ended_us - row.started_us),
        source=source_of(row),
        speakers=speakers(conn, row.id),
        offline=stored,
        time_uncertainty_seconds=uncertainty,
        time_guessed=guessed,
    )


def conversation(
    conn: Connection, row: ConversationRow, tasks: Iterable[TaskRow], facts: Iterable[MemoryRow]
) -> wire.Conversation:
    """Return a conversation with everything derived from it."""
    item = conversation_item(conn, row)
    return wire.Conversation(
        **{name: getattr(item, name) for name in item.__struct_fields__},
        closed_by=row.closed_by,
        extractor=row.extractor,
        tasks=[task(found) for found in tasks],
        memories=[memory(found) for found in facts],
        transcript=f"/v1/conversations/{row.id}/transcript",
        audio=f"/v1/conversations/{row.id}/audio",
        final=_final(conn, row.id),
        postprocessing=postprocessing(conn, row.id),
    )


_POSTPROCESSING = {
    "queued": "in_progress", "running": "in_progress", "done": "completed", "cancelled": "canceled", "failed": "failed",
}  # fmt: skip
"""Omi's words for the states of a reprocessing."""


def postprocessing(conn: Connection, conversation_id: str) -> wire.Postprocessing:
    """Return how the last reprocessing that somebody asked for stands, rules left aside. Raises NotFound."""
    row = reprocessing.last_asked(conn, conversation_id, heard=True)
    if row is None:
        return wire.Postprocessing()
    return wire.Postprocessing(
        status=_POSTPROCESSING[row.state],
        model=row.engine,
        fail_reason=row.cause,
        emotional_feedback=row.emotional_feedback,
        id=row.batch_id,
        source_id=None if row.upload_id is None else uploads.get(conn, row.upload_id).source_id,
        version_id=row.version_id,
        done=row.done,
        total=row.total,
    )


def _final(conn: Connection, conversation_id: str) -> wire.FinalState | None:
    row = reprocessing.last_final(conn, conversation_id)
    if row is None:
        return None
    return wire.FinalState(row.batch_id, row.state, row.engine, row.done, row.total, row.cause)


def version(row: VersionRow) -> wire.TranscriptVersion:
    """Return a version of a transcript."""
    return wire.TranscriptVersion(
        row.id, row.kind, row.engine, iso(row.created_us), row.active, row.base_id, row.unfinished
    )


def utterance(row: domain.Utterance, from_us: int) -> wire.Utterance:
    """Return what somebody said; offsets count from ``from_us``, the start of the conversation."""
    return wire.Utterance(
        id=row.id,
        segment_id=row.segment_id,
        speaker=row.speaker,
        person_id=row.person_id,
        start=iso(row.start_us),
        end=iso(row.end_us),
        offset=seconds(row.start_us - from_us),
        seconds=seconds(row.end_us - row.start_us),
        text=row.text,
        confidence=row.confidence,
        outcome=row.outcome.value,
        words=[
            wire.Word(word.text, seconds(word.start_us - from_us), seconds(word.end_us - from_us), word.confidence)
            for word in row.words
        ],
    )


def span(row: EvidenceRow) -> wire.Span:
    """Return the seconds of audio that prove something."""
    return _span(row.conversation_id, row.utterance_id, row.start_us, row.end_us, row.offset_s, row.sent_in)


def task(row: TaskRow) -> wire.TaskItem:
    """Return a task."""
    return wire.TaskItem(
        id=row.id,
        description=row.description,
        state=row.state,
        owner=str(row.owner),
        owner_name=row.owner_name,
        due=iso_or_none(row.due_us),
        due_has_time=row.due_has_time,
        due_certain=row.due_certain,
        priority=row.priority,
        kind=row.kind,
        trigger=row.trigger,
        confidence=row.confidence,
        origin=row.origin,
        at=iso(row.at_us),
        created=iso(row.created_us),
        updated=iso(row.updated_us),
        completed=iso_or_none(row.completed_us),
        conversation_id=row.conversation_id,
        source_id=row.source_id,
        evidence=[span(found) for found in row.evidence],
    )


def memory(row: MemoryRow) -> wire.MemoryItem:
    """Return a memory."""
    return wire.MemoryItem(
        id=row.id,
        content=row.content,
        subject=row.subject,
        category=row.category,
        confidence=row.confidence,
        origin=row.origin,
        at=iso(row.at_us),
        created=iso(row.created_us),
        updated=iso(row.updated_us),
        conversation_id=row.conversation_id,
        source_id=row.source_id,
        evidence=[span(found) for found in row.evidence],
    )


def hit(conn: Connection, row: Hit) -> wire.Hit:
    """Return something found."""
    source = None
    sent_in = uploads.said_in(conn, row.ref_id) if row.kind == "utterance" else None
    source_id = sent_in or row.source_id
    if source_id is not None:
        found = sources.get(conn, source_id)
        source = wire.SourceRef(found.id, found.name, found.kind, found.device_id, found.client_id)
    proof = None
    if row.kind == "utterance" and row.conversation_id is not None and row.offset_s is not None:
        proof = _span(row.conversation_id, row.ref_id, row.start_us, row.end_us, row.offset_s, sent_in)
    elif evidence := memories.evidence_of(conn, row.ref_id):
        proof = span(evidence[0])
    return wire.Hit(
        kind=row.kind,
        id=row.ref_id,
        text=row.text,
        speaker=row.speaker,
        score=row.score,
        conversation_id=row.conversation_id,
        conversation_title=row.conversation_title or "",
        source=source,
        at=iso(row.start_us),
        span=proof,
    )


def by_source(conn: Connection, filters: Filters) -> Answer:
    """Return how much each source holds."""
    groups = [
        wire.Group(wire.SourceRef(row.id, row.name, row.kind, row.device_id, row.client_id), *counts)
        for row, *counts in sources.holdings(conn, filters)
    ]
    return Answer(wire.Page(groups, None), tuple(group.source.id for group in groups))


def notice(row: domain.Notice) -> wire.NoticeItem:
    """Return a notice."""
    return wire.NoticeItem(
        id=row.id,
        code=row.code,
        severity=row.severity.value,
        subjects=list(row.subject_ids),
        message=row.message,
        since=iso(row.since_us),
        last=iso(row.last_us),
        count=row.count,
        acknowledged=iso_or_none(row.acknowledged_us),
    )


def device_item(row: DeviceRow, state: domain.DeviceState) -> wire.DeviceItem:
    """Return a pendant: what its link tells now, and what was last known where it tells nothing."""
    codec = row.codec if state.codec is None else state.codec
    return wire.DeviceItem(
        id=row.address,
        name=row.name,
        own_name=row.own_name,
        model=row.model,
        firmware=row.firmware,
        hardware=row.hardware,
        manufacturer=row.manufacturer,
        state=state.state.value,
        since=iso_or_none(state.since_us or None),
        cause=state.cause,
        message=state.message,
        link=state.security or row.security or domain.Security.UNKNOWN.value,
        codec=None if codec is None else _codec(codec),
        battery=row.battery if state.battery is None else state.battery,
        charging=row.charging if state.charging is None else state.charging,
        hours_left=state.hours_left,
        rssi=row.rssi if state.rssi is None else state.rssi,
        features=list(state.features),
        led=state.led,
        mic_gain=state.mic_gain,
        storage=state.storage,
        clock_offset=None if row.clock_offset_us is None else seconds(row.clock_offset_us),
        clock_measured=iso_or_none(row.clock_us),
        remembered=iso(row.remembered_us),
        seen=iso_or_none(row.seen_us),
        connects=row.connects,
    )


def device(
    row: DeviceRow,
    state: domain.DeviceState,
    heard: Iterable[wire.SourceItem],
    standing: Iterable[domain.Notice],
    missing: Iterable[GapTotal],
) -> wire.Device:
    """Return a pendant with its sources, the notices about it, and what its sources miss today."""
    item = device_item(row, state)
    return wire.Device(
        **{name: getattr(item, name) for name in item.__struct_fields__},
        sources=list(heard),
        notices=[notice(found) for found in standing],
        gaps_today=[
            wire.GapTotal([cause.value for cause in found.causes], found.count, seconds(found.total_us), found.frames)
            for found in missing
        ],
    )


def battery(row: BatteryRow) -> wire.BatteryItem:
    """Return what a battery said."""
    return wire.BatteryItem(iso(row.at_us), row.percent, row.charging)


def connection(row: ConnectionRow) -> wire.ConnectionItem:
    """Return one connection to a pendant."""
    return wire.ConnectionItem(
        began=iso(row.began_us),
        ended=iso_or_none(row.ended_us),
        seconds=None if row.ended_us is None else seconds(row.ended_us - row.began_us),
        link=row.security or domain.Security.UNKNOWN.value,
        ending=row.ending,
    )


def recording(row: WithheldRow | None) -> wire.Recording:
    """Return whether what is heard is recorded, from the stretch that is open."""
    if row is None:
        return wire.Recording()
    return wire.Recording(row.kind.value, iso(row.start_us), iso_or_none(row.until_us), row.by)


def withheld(row: WithheldRow) -> wire.WithheldItem:
    """Return a stretch in which nothing was recorded."""
    return wire.WithheldItem(
        row.id, row.kind.value, iso(row.start_us), iso_or_none(row.end_us), iso_or_none(row.until_us), row.by
    )


def gap(row: domain.Gap) -> wire.GapItem:
    """Return a stretch without audio."""
    return wire.GapItem(
        source_id=row.source_id,
        start=iso(row.start_us),
        end=iso(row.end_us),
        seconds=seconds(row.end_us - row.start_us),
        causes=[cause.value for cause in row.causes],
        frames=row.frames,
    )


def ledger_account(row: SourceRow, spans: Sequence[Span], known: Sequence[Anchor]) -> wire.LedgerAccount:
    """Return a source's day."""
    return wire.LedgerAccount(
        source_id=row.id,
        name=row.name,
        seconds=seconds(sum(span.length_us for span in spans)),
        sums=[
            wire.LedgerSum(found.state.value, [cause.value for cause in found.causes], seconds(found.total_us),
                           found.places)
            for found in ledger.sums(spans)
        ],
        spans=[
            wire.LedgerSpan(
                start=iso(ledger.utc(known, span.start_us)),
                end=iso(ledger.utc(known, span.end_us - 1) + 1),  # a step at its very end belongs to the next
                seconds=seconds(span.length_us),
                state=span.state.value,
                causes=[cause.value for cause in span.causes],
                lost_seconds=seconds(span.lost_us),
            )
            for span in spans
        ],
        kind=row.kind,
    )  # fmt: skip


def bookmark(row: BookmarkRow) -> wire.BookmarkItem:
    """Return a marked moment."""
    return wire.BookmarkItem(row.id, row.source_id, iso(row.at_us), row.by, row.conversation_id)


def _stored(conn: Connection, row: ConversationRow) -> tuple[bool, float | None, bool]:
    """Say whether some of a conversation was fetched later, how far off its time may be, and whether it is a guess."""
    if row.source_kind != "pendant":
        return False, 0.0, False
    runs = offline.reaching(conn, row.source_id, row.started_us, row.ended_us)
    worst_us = max((run.uncertainty_us for run in runs), default=0)
    boundless = any(run.guessed and run.earliest_us is None for run in runs)
    return bool(runs), None if boundless else seconds(worst_us), any(run.guessed for run in runs)


def _codec(number: int) -> str:
    """Return a codec's name, or its number where it is none of the dossier's §5.1."""
    try:
        return domain.Codec(number).name.lower().replace("_", "-")
    except ValueError:
        return f"unknown ({number})"


def _span(
    conversation_id: str, utterance_id: str, start_us: int, end_us: int, offset_s: float, sent_in: str | None
) -> wire.Span:
    """Offsets in the path are of the conversation's timeline, to the millisecond like every time of the API.

    What was said in a recording that was sent in is played of that (``sent_in``): it may reach beyond both ends.
    """
    upto = offset_s + (end_us - start_us) / 1e6
    if sent_in is None:
        query = urlencode({"from": f"{max(0.0, offset_s):.3f}", "to": f"{max(0.0, upto):.3f}"})
    else:
        query = urlencode({"source": sent_in, "from": f"{offset_s:.3f}", "to": f"{upto:.3f}"})
    return wire.Span(
        conversation_id=conversation_id,
        utterance_id=utterance_id,
        start=iso(start_us),
        end=iso(end_us),
        offset=round(offset_s, 3),
        audio=f"/v1/conversations/{conversation_id}/audio?{query}",
    )


def effect(change: Change) -> wordwire.RuleEffect:
    """Return what a rule did in one place."""
    before, after = (" ".join(word.text for word in side) for side in (change.before, change.after))
    return wordwire.RuleEffect(change.rule_id, change.rule, before, after)


def heard(rows: Mapping[str, Heard]) -> list[wordwire.HeardSegment]:
    """Return what was heard where rules changed it, in order of time."""
    ordered = sorted(rows.items(), key=lambda one: one[1].words[0].start_us)
    return [
        wordwire.HeardSegment(
            segment_id, iso(row.words[0].start_us), " ".join(word.text for word in row.words),
            [effect(change) for change in row.changes],
        )
        for segment_id, row in ordered
    ]  # fmt: skip
