"""Everything as one JSON document, piece by piece, so that its size does not matter."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from omi_edge.domain import Word
from omi_edge.errors import VaultDamaged
from omi_edge.rewrite import Change
from omi_edge.store.connection import Connection
from omi_edge.wording import Piece

SCHEMA = "omi-edge.export"
VERSION = 1

_TABLES: dict[str, str] = {
    "settings": "SELECT key, value FROM settings ORDER BY key",
    "clients": "SELECT id, name, role, created_us, last_seen_us, revoked_us FROM clients ORDER BY created_us, id",
    "sources": "SELECT id, kind, name, device_id, client_id, codec, created_us, first_us, heard_until_us, ended_us,"
    " time_known, lost_frames, audio_bytes, silence_bytes, dropped_bytes, dropped_us FROM sources ORDER BY n",
    "devices": "SELECT address, name, own_name, model, firmware, hardware, manufacturer, codec, features, security,"
    " remembered_us, seen_us, rssi, battery, charging, clock_offset_us, clock_us, connects, next_id FROM devices"
    " ORDER BY n",
    "device_battery": "SELECT d.address, b.at_us, b.percent, b.charging FROM device_battery b"
    " JOIN devices d ON d.n = b.device_n ORDER BY b.device_n, b.at_us",
    "device_connections": "SELECT d.address, c.began_us, c.ended_us, c.security, c.ending FROM device_connections c"
    " JOIN devices d ON d.n = c.device_n ORDER BY c.n",
    "gaps": "SELECT o.id AS source_id, g.start_us, g.end_us, g.causes, g.frames FROM gaps g"
    " JOIN sources o ON o.n = g.source_n ORDER BY g.n",
    "withheld": "SELECT id, kind, start_us, end_us, until_us, actor, ledger_us FROM withheld ORDER BY n",
    "ledger": "SELECT o.id AS source_id, l.start_us, l.end_us, l.state, l.causes, l.lost_us, l.losses FROM ledger l"
    " JOIN sources o ON o.n = l.source_n ORDER BY l.source_n, l.start_us",
    "ledger_sources": "SELECT o.id AS source_id, s.since_us, s.until_us FROM ledger_sources s"
    " JOIN sources o ON o.n = s.source_n ORDER BY s.source_n",
    "ledger_anchors": "SELECT boot_id, boot_us, utc_us, ledger_us FROM ledger_anchors ORDER BY n",
    "recordings": "SELECT r.id, o.id AS source_id, r.name, lower(hex(r.digest)) AS digest, r.codec, r.start_us,"
    " r.end_us, r.left_out_us, r.created_us, r.ended_us, r.complete FROM recordings r"
    " JOIN sources o ON o.n = r.source_n ORDER BY r.n",
    "ledger_life": "SELECT at_us, listening FROM ledger_life",
    "bookmarks": "SELECT b.id, o.id AS source_id, b.at_us, b.actor FROM bookmarks b"
    " JOIN sources o ON o.n = b.source_n ORDER BY b.n",
    "senders": "SELECT d.client_id, d.device, o.id AS source_id, d.first_us, d.last_us, d.refused_us FROM senders d"
    " JOIN sources o ON o.n = d.source_n ORDER BY d.n",
    "offline_cursors": "SELECT o.id AS source_id, c.store, c.position, lower(hex(c.tail)) AS tail, c.identity, c.ends,"
    " c.dropped, c.final_store, c.final_position, c.placed_store, c.placed_position, c.last_run_n"
    " FROM offline_cursors c JOIN sources o ON o.n = c.source_n ORDER BY c.source_n",
    "offline_readings": "SELECT r.n, o.id AS source_id, r.away_us, r.connected_us, r.read_us, r.offset_us, r.ledger_us,"
    " r.codec, r.step, r.head_store, r.head_position, r.complete FROM offline_readings r"
    " JOIN sources o ON o.n = r.source_n ORDER BY r.n",
    "offline_runs": "SELECT r.n, r.id, o.id AS source_id, r.reading_n, r.state, r.store, r.first_seq, r.last_seq,"
    " r.at_seq, r.at_frame, r.frames, r.heard, r.start_us, r.uncertainty_us, r.guessed, r.earliest_us, r.latest_us,"
    " r.left_out_us, r.decided FROM offline_runs r JOIN sources o ON o.n = r.source_n ORDER BY r.n",
    "offline_losses": "SELECT o.id AS source_id, l.reading_n, l.store, l.first, l.last, l.records, l.why, l.start_us,"
    " l.end_us, l.settled FROM offline_losses l JOIN sources o ON o.n = l.source_n ORDER BY l.n",
    "people": "SELECT id, name, is_user, created_us, language FROM people ORDER BY id",
    "conversations": "SELECT c.id, o.id AS source_id, c.state, c.started_us, c.ended_us, c.created_us, c.finished_us,"
    " c.closed_by, c.title, c.overview, c.category, c.emoji, c.extractor, c.version_id, c.previous_version_id"
    " FROM conversations c JOIN sources o ON o.n = c.source_n ORDER BY c.n",
    "segments": "SELECT s.id, o.id AS source_id, s.start_us, s.end_us, s.speech_us, s.outcome, s.reason, s.engine,"
    " c.id AS conversation_id FROM segments s JOIN sources o ON o.n = s.source_n"
    " LEFT JOIN conversations c ON c.n = s.conversation_n ORDER BY s.id",
    "transcript_versions": "SELECT v.id, c.id AS conversation_id, v.kind, v.engine, v.created_us, v.base_id,"
    " v.unfinished, u.id AS upload_id FROM transcript_versions v JOIN conversations c ON c.n = v.conversation_n"
    " LEFT JOIN uploads u ON u.n = v.upload_n ORDER BY v.n",
    "utterances": "SELECT u.id, v.id AS version_id, u.segment_id, u.speaker, u.person_id, u.start_us, u.end_us, u.text,"
    " u.words, u.confidence, u.outcome FROM utterances u JOIN transcript_versions v ON v.n = u.version_n"
    " ORDER BY u.version_n, u.start_us, u.id",
    "corrections": "SELECT k.id, c.id AS conversation_id, k.at_us, k.before_text, k.after_text, k.pieces, k.actor,"
    " k.created_us, k.undone_us, k.undone_by FROM corrections k JOIN conversations c ON c.n = k.conversation_n"
    " ORDER BY k.n",
    "correction_places": "SELECT v.id AS version_id, k.id AS correction_id, p.found FROM correction_places p"
    " JOIN transcript_versions v ON v.n = p.version_n JOIN corrections k ON k.n = p.correction_n"
    " ORDER BY p.version_n, p.correction_n",
    "reprocessings": "SELECT r.batch_id, c.id AS conversation_id, r.engine, r.keep, r.state, r.done, r.total, r.cause,"
    " r.version_id, r.actor, r.created_us, r.ended_us, r.emotional_feedback, u.id AS upload_id FROM reprocessings r"
    " JOIN conversations c ON c.n = r.conversation_n LEFT JOIN uploads u ON u.n = r.upload_n ORDER BY r.n",
    "uploads": "SELECT u.id, c.id AS conversation_id, o.id AS source_id, u.state, u.size, u.start_us, u.covers_from_us,"
    " u.covers_to_us, u.created_us FROM uploads u JOIN conversations c ON c.n = u.conversation_n"
    " JOIN sources o ON o.n = u.source_n ORDER BY u.n",
    "vocabulary": "SELECT text, actor, created_us FROM vocabulary ORDER BY n",
    "dismissed": "SELECT before_text, after_text, actor, created_us FROM dismissed ORDER BY before_text, after_text",
    "rules": "SELECT id, kind, pattern, replacement, actor, created_us FROM rules ORDER BY n",
    "rule_changes": "SELECT v.id AS version_id, r.segment_id, r.words, r.changes FROM rule_changes r"
    " JOIN transcript_versions v ON v.n = r.version_n ORDER BY r.version_n, r.segment_id",
    "turns": "SELECT c.id AS conversation_id, t.start_us, t.end_us, t.speaker, t.confidence, t.engine FROM turns t"
    " JOIN conversations c ON c.n = t.conversation_n ORDER BY t.conversation_n, t.n",
    "tasks": "SELECT t.id, c.id AS conversation_id, o.id AS source_id, t.description, t.owner,"
    " t.owner_name, t.due_us, t.due_has_time, t.due_certain, t.priority, t.kind, t.trigger_phrase, t.confidence,"
    " t.state, t.completed_us, t.at_us, t.created_us, t.updated_us, t.origin, t.engine, t.client_id"
    " FROM tasks t LEFT JOIN conversations c ON c.n = t.conversation_n"
    " LEFT JOIN sources o ON o.n = t.source_n ORDER BY t.n",
    "memories": "SELECT m.id, c.id AS conversation_id, o.id AS source_id, m.content, m.subject, m.category,"
    " m.confidence, m.at_us, m.created_us, m.updated_us, m.origin, m.engine, m.client_id FROM memories m"
    " LEFT JOIN conversations c ON c.n = m.conversation_n LEFT JOIN sources o ON o.n = m.source_n ORDER BY m.n",
    "overruled": "SELECT c.id AS conversation_id, lower(hex(r.digest)) AS digest FROM overruled r"
    " JOIN conversations c ON c.n = r.conversation_n ORDER BY r.conversation_n, r.digest",
    "evidence": "SELECT e.thing_id, e.n, e.utterance_id, c.id AS conversation_id, e.start_us, e.end_us FROM evidence e"
    " JOIN conversations c ON c.n = e.conversation_n ORDER BY e.thing_id, e.n",
    "notices": "SELECT id, code, severity, subjects, message, since_us, last_us, count, acknowledged_us, cleared_us"
    " FROM notices ORDER BY n",
    "jobs": "SELECT id, stage, subject_id, state, attempts, created_us, started_us, finished_us, cause, engine"
    " FROM jobs ORDER BY n",
    "audit": "SELECT id, at_us, actor, role, act, ids, outcome, count, request_id FROM audit ORDER BY id",
}
_AUDIO = (
    "SELECT a.id, o.id AS source_id, a.start_us, a.duration_us, a.codec, a.kind, a.lost{data} FROM audio_chunks a"
    " JOIN sources o ON o.n = a.source_n ORDER BY a.id"
)
_RECORDS = (
    "SELECT o.id AS source_id, r.store, r.seq, r.reading_n, r.began{data} FROM offline_records r"
    " JOIN sources o ON o.n = r.source_n ORDER BY r.source_n, r.store, r.seq"
)
_PIECES = "SELECT u.id AS upload_id, p.at{data} FROM upload_pieces p JOIN uploads u ON u.n = p.upload_n ORDER BY p.n"
_FLAGS = frozenset(
    {
        "is_user", "time_known", "due_has_time", "due_certain", "charging", "listening", "complete", "guessed",
        "settled", "unfinished", "found", "keep", "emotional_feedback",
    }
)  # fmt: skip


def document(conn: Connection, *, include_audio: bool = False) -> Iterator[str]:
    """Yield the document. Hashes of tokens, vectors and the full-text index, which follow from the rest, stay out.

    Audio chunks are listed; with ``include_audio`` each has its packets in base64, an empty one for a lost frame. So
    are the records of a pendant and the pieces of an upload that were not heard yet, each with its bytes in base64.
    """
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    yield f'{{"schema": "{SCHEMA}", "version": {VERSION}, "vault_version": {version}'
    for name, query in _TABLES.items():
        yield from _table(conn, name, query, _plain)
    query = _AUDIO.format(data=", a.data" if include_audio else "")
    yield from _table(conn, "audio_chunks", query, _chunk)
    query = _RECORDS.format(data=", r.raw" if include_audio else "")
    yield from _table(conn, "offline_records", query, _record)
    query = _PIECES.format(data=", p.raw" if include_audio else "")
    yield from _table(conn, "upload_pieces", query, _record)
    yield "}\n"


def _table(conn: Connection, name: str, query: str, shape: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[str]:
    yield f',\n"{name}": ['
    cursor = conn.execute(query)
    columns = [column[0] for column in cursor.description]
    separator = "\n"
    for row in cursor:
        try:
            shaped = shape(dict(zip(columns, row, strict=True)))
        except msgspec.DecodeError as error:  # SQLCipher may give a page that fails its check as zeros
            raise VaultDamaged(f"what is stored in {name} cannot be read. Put the vault back from a backup.") from error
        yield separator + msgspec.json.encode(shaped).decode()
        separator = ",\n"
    yield "]"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    if "words" in row:
        words = msgspec.msgpack.decode(row["words"], type=tuple[Word, ...])
        row["words"] = [_word(word) for word in words]
    if "pieces" in row:
        row["pieces"] = [
            {
                "segment_id": piece.segment_id,
                "at_us": piece.at_us,
                "before": [_word(word) for word in piece.before],
                "after": [_word(word) for word in piece.after],
            }
            for stretch in msgspec.msgpack.decode(row["pieces"], type=list[Piece])
            for piece in stretch.differences
        ]
    if "changes" in row:
        row["changes"] = [
            {
                "rule_id": change.rule_id,
                "rule": change.rule,
                "before": [_word(word) for word in change.before],
                "after": [_word(word) for word in change.after],
            }
            for change in msgspec.msgpack.decode(row["changes"], type=list[Change])
        ]
    for name in ("ids", "subjects"):
        if name in row:
            row[name] = msgspec.json.decode(row[name])
    if "causes" in row:
        row["causes"] = [name for name in row["causes"].split(",") if name]
    return {name: bool(value) if name in _FLAGS and value is not None else value for name, value in row.items()}


def _word(word: Word) -> dict[str, Any]:
    return {"text": word.text, "start_us": word.start_us, "end_us": word.end_us, "confidence": word.confidence}


def _chunk(row: dict[str, Any]) -> dict[str, Any]:
    data = row.pop("data", None)
    row["id"] = f"chk_{row['id']}"
    row["kind"] = ("heard", "silence")[row["kind"]]
    if data is not None:
        packets = msgspec.msgpack.decode(data, type=tuple[bytes, ...])
        row["packets"] = [base64.b64encode(packet).decode() for packet in packets]
    return row


def _record(row: dict[str, Any]) -> dict[str, Any]:
    if "raw" in row:
        row["raw"] = base64.b64encode(row["raw"]).decode()
    return row
