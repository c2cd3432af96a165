"""What the API sends and takes: the JSON shapes of every route, from which the OpenAPI document is made.

Times are RFC 3339 in UTC with milliseconds; durations and offsets are seconds.
"""

from __future__ import annotations

from typing import Any

import msgspec

UNSET = msgspec.UNSET


class Page(msgspec.Struct, frozen=True):
    """One page of a list; ask again with ``cursor=next`` until ``next`` is null."""

    items: list[Any]
    next: str | None


class SourceRef(msgspec.Struct, frozen=True):
    """Where something was recorded."""

    id: str
    name: str
    kind: str
    device_id: str | None
    client_id: str | None


class Span(msgspec.Struct, frozen=True):
    """The seconds of audio that prove something."""

    conversation_id: str
    utterance_id: str
    start: str
    end: str
    offset: float
    """Seconds from the start of the conversation."""
    audio: str
    """Path that plays exactly these seconds."""


class Speaker(msgspec.Struct, frozen=True):
    """Who spoke in a conversation; ``label`` is null for speech of an uncertain voice."""

    label: str | None
    person_id: str | None
    seconds: float
    utterances: int


class ConversationItem(msgspec.Struct, frozen=True):
    """A conversation in a list."""

    id: str
    state: str
    title: str
    overview: str
    category: str
    emoji: str
    start: str
    end: str
    seconds: float
    source: SourceRef
    speakers: list[Speaker]


class Word(msgspec.Struct, frozen=True):
    """One word; offsets in seconds from the start of the conversation."""

    text: str
    start: float
    end: float
    confidence: float


class Utterance(msgspec.Struct, frozen=True):
    """Consecutive words of one speaker."""

    id: str
    segment_id: str
    speaker: str | None
    person_id: str | None
    start: str
    end: str
    offset: float
    seconds: float
    text: str
    confidence: float
    outcome: str
    words: list[Word]


class TranscriptVersion(msgspec.Struct, frozen=True):
    """One version of a transcript."""

    id: str
    kind: str
    engine: str
    created: str
    active: bool


class Transcript(msgspec.Struct, frozen=True):
    """The active version of a conversation's text."""

    conversation_id: str
    version: TranscriptVersion
    versions: list[TranscriptVersion]
    utterances: list[Utterance]


class TaskItem(msgspec.Struct, frozen=True):
    """A task with what proves it."""

    id: str
    description: str
    state: str
    owner: str
    owner_name: str | None
    due: str | None
    due_has_time: bool
    due_certain: bool
    priority: str
    kind: str
    trigger: str | None
    confidence: float
    origin: str
    created: str
    updated: str
    completed: str | None
    conversation_id: str | None
    source_id: str | None
    evidence: list[Span]


class MemoryItem(msgspec.Struct, frozen=True):
    """A memory with what proves it."""

    id: str
    content: str
    subject: str
    category: str
    confidence: float
    origin: str
    created: str
    updated: str
    conversation_id: str | None
    source_id: str | None
    evidence: list[Span]


class Conversation(msgspec.Struct, frozen=True):
    """One conversation with everything derived from it."""

    id: str
    state: str
    title: str
    overview: str
    category: str
    emoji: str
    start: str
    end: str
    seconds: float
    source: SourceRef
    speakers: list[Speaker]
    closed_by: str | None
    extractor: str
    tasks: list[TaskItem]
    memories: list[MemoryItem]
    transcript: str
    """Path of the transcript."""
    audio: str
    """Path of the audio."""


class TaskNew(msgspec.Struct, forbid_unknown_fields=True):
    """A task made by hand."""

    description: str
    due: str | None = None
    owner: str = "user"
    owner_name: str | None = None
    priority: str = "medium"


class TaskChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change in a task; absent fields stay."""

    description: str | msgspec.UnsetType = UNSET
    due: str | msgspec.UnsetType | None = UNSET
    owner: str | msgspec.UnsetType = UNSET
    owner_name: str | msgspec.UnsetType | None = UNSET
    priority: str | msgspec.UnsetType = UNSET
    state: str | msgspec.UnsetType = UNSET


class MemoryNew(msgspec.Struct, forbid_unknown_fields=True):
    """A memory made by hand."""

    content: str
    subject: str = ""
    category: str = "other"


class MemoryChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change in a memory; absent fields stay."""

    content: str | msgspec.UnsetType = UNSET
    subject: str | msgspec.UnsetType = UNSET
    category: str | msgspec.UnsetType = UNSET


class Hit(msgspec.Struct, frozen=True):
    """One thing found, with the second of audio that proves it."""

    kind: str
    id: str
    text: str
    speaker: str | None
    score: float
    conversation_id: str | None
    conversation_title: str
    source: SourceRef | None
    at: str
    span: Span | None


class SearchResult(msgspec.Struct, frozen=True):
    """What a search found, best first."""

    query: str
    hits: list[Hit]


class Group(msgspec.Struct, frozen=True):
    """How much one source holds."""

    source: SourceRef
    conversations: int


class ImportState(msgspec.Struct, frozen=True):
    """Where an imported recording stands."""

    source_id: str
    name: str
    state: str
    """receiving, processing, done or failed."""
    seconds: float
    """Audio taken so far."""
    jobs_left: int
    jobs_failed: int
    start: str
    """When the recording began."""
    conversations: list[str]


class Part(msgspec.Struct, frozen=True):
    """One part of the appliance."""

    name: str
    state: str
    """ok, busy, degraded, off or failed."""
    critical: bool
    since: str
    advice: str


class Health(msgspec.Struct, frozen=True):
    """One word for all, and each part."""

    status: str
    """healthy, degraded or critical."""
    state: str
    """The daemon's: starting, running, stopping."""
    parts: list[Part]


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests are served."""

    ready: bool
    state: str


class NoticeItem(msgspec.Struct, frozen=True):
    """Something the owner should know."""

    id: str
    code: str
    severity: str
    subjects: list[str]
    message: str
    since: str
    last: str
    count: int
    acknowledged: str | None


class EngineState(msgspec.Struct, frozen=True):
    """An engine process or tier."""

    name: str
    state: str
    pid: int | None
    starts: int
    failures: int
    busy_seconds: float


class Speed(msgspec.Struct, frozen=True):
    """How fast a tier is; ``real_time_factor`` above 1 is slower than people speak, null before the first use."""

    tier: str
    engine: str
    real_time_factor: float | None


class Status(msgspec.Struct, frozen=True):
    """Everything `omi-edge status` shows."""

    version: str
    state: str
    since: str
    vault: str
    sources: list[dict[str, Any]]
    jobs: dict[str, dict[str, int]]
    engines: list[EngineState]
    speeds: list[Speed]
    audio: dict[str, int]
    notices: list[NoticeItem]
    failed_jobs: list[dict[str, Any]]
    progress: list[dict[str, Any]]
    """Work of more than two seconds under way (a migration, an index): what, and how far from 0 to 1."""
    network: str
    """What keeps engines off the network."""
    web: str
    """Address of the API, empty when it is not served on the network."""


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class TokenNew(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make."""

    name: str
    role: str = "owner"


class TokenMade(msgspec.Struct, frozen=True):
    """A new token; it is shown this once."""

    id: str
    name: str
    role: str
    token: str
