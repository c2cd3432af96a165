"""Conversations and segments in the shape that tools made for Omi read (data model dossier §6)."""

from __future__ import annotations

from typing import Any

from omi_edge.domain import Utterance
from omi_edge.store import memories, transcripts
from omi_edge.store.connection import Connection
from omi_edge.store.conversations import ConversationRow
from omi_edge.store.filters import Filters
from omi_edge.store.memories import TaskRow
from omi_edge.web.listing import MAX_PAGE
from omi_edge.web.times import iso, iso_or_none

NO_SPEAKER = "SPEAKER_00"
"""Omi has no word for an unknown voice: a label without a number breaks its own reader (dossier §6.3)."""


def offset(at_us: int, origin_us: int) -> float:
    """Return seconds from ``origin_us``, never negative."""
    return round(max(0, at_us - origin_us) / 1e6, 3)


def segment(
    id: str, text: str, speaker: str | None, person_id: str | None, start_us: int, end_us: int, origin_us: int
) -> dict[str, Any]:
    """Return a transcript segment (dossier §6.3); its times count from ``origin_us``."""
    label = speaker or NO_SPEAKER
    number = label.rpartition("_")[2]
    return {
        "id": id,
        "text": text,
        "speaker": label,
        "speaker_id": int(number) if number.isdecimal() else 0,
        "is_user": False,
        "person_id": person_id,
        "start": offset(start_us, origin_us),
        "end": offset(end_us, origin_us),
        "translations": [],
    }


def conversation(conn: Connection, row: ConversationRow) -> dict[str, Any]:
    """Return a conversation (dossier §6.1) with its segments and tasks."""
    said = transcripts.utterances(conn, row.id) if row.version_id else []
    own = Filters(conversation=row.id)
    tasks = memories.list_tasks(conn, filters=own, limit=MAX_PAGE, cursor=None).items
    return {
        "id": row.id,
        "created_at": iso(row.created_us),
        "started_at": iso(row.started_us),
        "finished_at": iso(row.ended_us),
        "source": "omi",
        "language": None,
        "structured": {
            "title": row.title,
            "overview": row.overview,
            "emoji": row.emoji or "🧠",
            "category": row.category,
            "action_items": [_action_item(task, row.id) for task in tasks],
            "events": [],
        },
        "transcript_segments": [_utterance(one, row.started_us) for one in said if one.text],
        "photos": [],
        "audio_files": [],
        "apps_results": [],
        "plugins_results": [],
        "discarded": False,
        "visibility": "private",
        "status": {"open": "in_progress"}.get(row.state.value, row.state.value),
    }


def _utterance(one: Utterance, origin_us: int) -> dict[str, Any]:
    return segment(one.id, one.text, one.speaker, one.person_id, one.start_us, one.end_us, origin_us)


def _action_item(task: TaskRow, conversation_id: str) -> dict[str, Any]:
    return {
        "description": task.description,
        "completed": task.state == "completed",
        "created_at": iso(task.created_us),
        "due_at": iso_or_none(task.due_us),
        "completed_at": iso_or_none(task.completed_us),
        "conversation_id": conversation_id,
    }
