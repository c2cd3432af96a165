"""What the API sends and takes: the JSON shapes of every route, from which the OpenAPI document is made.

Times are RFC 3339 in UTC with milliseconds; durations and offsets are seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from omi_edge.web.offlinewire import OfflineState
from omi_edge.web.wordwire import HeardSegment

UNSET = msgspec.UNSET

T = TypeVar("T")

Text = Annotated[str, Meta(min_length=1, max_length=4000)]
"""A sentence or two typed by a person; longer than any that an extractor makes."""
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Owner = Annotated[str, Meta(pattern="^(user|other|unknown)$")]
Priority = Annotated[str, Meta(pattern="^(low|medium|high)$")]
TaskState = Annotated[str, Meta(pattern="^(open|completed)$")]
Due = Annotated[str, Meta(max_length=40)]
"""RFC 3339, or a date alone for the end of that day where the wearer lives."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; ask again with ``cursor=next`` until ``next`` is null."""

    items: list[T]
    next: str | None


class SourceRef(msgspec.Struct, frozen=True):
    """Where something was recorded."""

    id: str
    name: str
    kind: str
    device_id: str | None
    client_id: str | None


class SourceItem(msgspec.Struct, frozen=True):
    """A source and how much was heard through it."""

    id: str
    name: str
    kind: str
    """pendant, file, microphone or socket."""
    device_id: str | None
    client_id: str | None
    created: str
    first: str | None
    heard_until: str | None
    ended: str | None
    time_known: bool
    lost_frames: int
    audio_bytes: int
    dropped_bytes: int
    """Size of the silence that was not kept."""
    dropped_seconds: float
    refused: bool
    """Whether nothing more is taken from its clients."""


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
    offline: bool
    """Whether some of it was stored on the pendant, and fetched later."""
    time_uncertainty_seconds: float | None
    """How far off its time may be; null where nothing tells."""
    time_guessed: bool
    """Whether the time of some of it is only the latest that it can be."""


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
    base_id: str | None = None
    """The version whose words it shows: of an edited one what was corrected, of a recording that was sent in what is
    shown outside its time."""
    unfinished: bool = False
    """Whether it is still being made."""


class Versions(msgspec.Struct, frozen=True):
    """The versions of a conversation's text, the oldest first."""

    conversation_id: str
    versions: list[TranscriptVersion]
    previous: str | None
    """The one that was active before the one that is."""


class DiffPart(msgspec.Struct, frozen=True):
    """Consecutive words that two versions share, or that one alone has."""

    kind: str
    """equal, removed or added."""
    text: str
    words: int
    at: str
    """When the first of them began."""


class Diff(msgspec.Struct, frozen=True):
    """What one version of a transcript has that another has not."""

    conversation_id: str
    before: TranscriptVersion
    after: TranscriptVersion
    parts: list[DiffPart]
    equal: int
    """Words."""
    removed: int
    added: int


Stretch = Annotated[str, Meta(max_length=20_000)]
"""Text of several utterances, typed by a person; empty where there are to be no words."""


class CorrectionNew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to stand in the place of what: name an utterance, or a conversation and a time."""

    text: Stretch
    utterance_id: Name | None = None
    to_utterance_id: Name | None = None
    """The last of several consecutive utterances."""
    word: Annotated[int, Meta(ge=1)] | None = None
    """Only this word of the one utterance; the first is 1."""
    to_word: Annotated[int, Meta(ge=1)] | None = None
    conversation_id: Name | None = None
    start: Annotated[str, Meta(max_length=40)] | None = None
    """Words spoken from this moment on, RFC 3339."""
    end: Annotated[str, Meta(max_length=40)] | None = None


class Correction(msgspec.Struct, frozen=True):
    """One correction, with what stood there."""

    id: str
    conversation_id: str
    at: str
    """When the utterance began that it changes, the first of several."""
    before: str
    after: str
    by: str
    created: str
    state: str
    """shown; unplaced: its audio is not in the active version; hidden: that one was made without it; undone."""
    undone: str | None
    undone_by: str | None


class Corrected(msgspec.Struct, frozen=True):
    """A correction, and the utterances that say something else now."""

    correction: Correction
    utterances: list[Utterance]


class VocabularyNew(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A word or a name."""

    text: Name


class VocabularyWord(msgspec.Struct, frozen=True):
    """A word or a name that recognisers should expect."""

    text: str
    by: str
    created: str


class Suggestion(msgspec.Struct, frozen=True):
    """What was put right by hand more than once."""

    before: str
    after: str
    count: int
    as_word: bool = True
    """Whether it is offered as a word as well as a rule; else that word is in the vocabulary."""


class Vocabulary(msgspec.Struct, frozen=True):
    """The owner's words, and what is offered as such; nothing is taken unasked."""

    words: list[VocabularyWord]
    suggestions: list[Suggestion]


class ReprocessNew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which transcripts are to be made anew: of one conversation, of those that began in a time, or all."""

    conversation_id: Name | None = None
    since: Annotated[str, Meta(max_length=40)] | None = None
    until: Annotated[str, Meta(max_length=40)] | None = None
    all: bool = False
    engine: Name | None = None
    """A recogniser; without it the one of the settings."""
    keep: bool = False
    """Keep the new versions beside the others instead of activating them."""
    upload: bool = False
    """Of the one conversation, what was last sent in for it in place of its own audio."""


class Postprocessing(msgspec.Struct, frozen=True):
    """How a conversation's second pass stands, in Omi's words."""

    status: str = "not_started"
    """not_started, in_progress, completed, canceled or failed."""
    model: str | None = None
    """The recogniser."""
    fail_reason: str | None = None
    emotional_feedback: bool = False
    """Whether feedback on emotions was asked for; kept, and used by nothing yet."""
    id: str | None = None
    """The reprocessing that it is; ``DELETE /v1/reprocess/{id}`` calls it off."""
    source_id: str | None = None
    """Of the audio that was sent in for it; null for the conversation's own."""
    version_id: str | None = None
    """What came of it."""
    done: int = 0
    """Segments."""
    total: int = 0


class ReprocessItem(msgspec.Struct, frozen=True):
    """One conversation of a reprocessing."""

    conversation_id: str
    state: str
    """queued, running, done, failed or cancelled."""
    done: int
    """Segments."""
    total: int
    cause: str | None
    version_id: str | None


class Refusal(msgspec.Struct, frozen=True):
    """A conversation that cannot be transcribed anew, and why."""

    conversation_id: str
    message: str


class Reprocessing(msgspec.Struct, frozen=True):
    """Transcripts that are made anew, and how far that is."""

    id: str
    state: str
    """queued, running, done, failed (of one at least) or cancelled."""
    engine: str
    keep: bool
    by: str
    created: str
    done: int
    """Segments, of all conversations."""
    total: int
    conversations: list[ReprocessItem]
    refused: list[Refusal] = []
    """In the answer to the call that asked for it."""


class Transcript(msgspec.Struct, frozen=True):
    """A version of a conversation's text, the active one unless another was asked for."""

    conversation_id: str
    version: TranscriptVersion
    versions: list[TranscriptVersion]
    utterances: list[Utterance]
    heard: list[HeardSegment] = []
    """Where correction rules made other words of what was heard."""


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
    at: str
    """When it was said; of what was made by hand, when it was made."""
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
    at: str
    """When it was said; of what was made by hand, when it was made."""
    created: str
    updated: str
    conversation_id: str | None
    source_id: str | None
    evidence: list[Span]


class FinalState(msgspec.Struct, frozen=True):
    """How far the last final pass of a conversation is."""

    id: str
    state: str
    """queued, running, done, failed or cancelled."""
    engine: str
    done: int
    """Segments."""
    total: int
    cause: str | None


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
    offline: bool
    """Whether some of it was stored on the pendant, and fetched later."""
    time_uncertainty_seconds: float | None
    """How far off its time may be; null where nothing tells."""
    time_guessed: bool
    """Whether the time of some of it is only the latest that it can be."""
    closed_by: str | None
    extractor: str
    tasks: list[TaskItem]
    memories: list[MemoryItem]
    transcript: str
    """Path of the transcript."""
    audio: str
    """Path of the audio."""
    final: FinalState | None = None
    """None when no final pass was asked for."""
    postprocessing: Postprocessing = Postprocessing()


class TaskNew(msgspec.Struct, forbid_unknown_fields=True):
    """A task made by hand."""

    description: Text
    due: Due | None = None
    owner: Owner = "user"
    owner_name: Name | None = None
    priority: Priority = "medium"


class TaskChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change in a task; absent fields stay."""

    description: Text | msgspec.UnsetType = UNSET
    due: Due | msgspec.UnsetType | None = UNSET
    owner: Owner | msgspec.UnsetType = UNSET
    owner_name: Name | msgspec.UnsetType | None = UNSET
    priority: Priority | msgspec.UnsetType = UNSET
    state: TaskState | msgspec.UnsetType = UNSET


class MemoryNew(msgspec.Struct, forbid_unknown_fields=True):
    """A memory made by hand."""

    content: Text
    subject: Annotated[str, Meta(max_length=200)] = ""
    category: Name = "other"


class MemoryChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change in a memory; absent fields stay."""

    content: Text | msgspec.UnsetType = UNSET
    subject: Annotated[str, Meta(max_length=200)] | msgspec.UnsetType = UNSET
    category: Name | msgspec.UnsetType = UNSET


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
    tasks: int
    memories: int


class ImportState(msgspec.Struct, frozen=True):
    """Where an imported recording stands."""

    source_id: str
    """The source that it is in; that of its pendant where it was put there."""
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
    id: str = ""
    """By which it is asked for."""
    complete: bool = True
    """Whether all of it was taken; what broke off goes on when it is sent again."""
    left_out: float = 0.0
    """Seconds that were not stored: its pendant's source has audio of that time, or the owner withheld it."""


class ImportContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a recording that is to be sent contains."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ImportCheck(msgspec.Struct, frozen=True):
    """Whether a recording is there already."""

    content: str
    """To be sent with the recording: it is then known again."""
    known: ImportState | None
    """The same content as it was taken before, or is being taken."""


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


class DeviceItem(msgspec.Struct, frozen=True):
    """A remembered pendant: what was last known of it, and how its link stands now."""

    id: str
    """Its address."""
    name: str
    """What the owner calls it."""
    own_name: str
    """What it advertises."""
    model: str
    firmware: str
    hardware: str
    manufacturer: str
    state: str
    """connected, searching, unavailable, refused or off."""
    since: str | None
    cause: str
    """Slug of what is in the way, empty when nothing is."""
    message: str
    """The same in words, with its cure."""
    link: str
    """What is known of its encryption: bonded, open or unknown."""
    codec: str | None
    battery: int | None
    """Percent."""
    charging: bool | None
    hours_left: float | None
    """Estimate from the battery's history."""
    rssi: int | None
    """dBm."""
    features: list[str]
    led: int | None
    """Brightness in percent."""
    mic_gain: int | None
    """Level 0 to 8."""
    storage: str
    """Protocol of its stored audio: none, single-file, multi-file, ring; empty while unknown."""
    clock_offset: float | None
    """Seconds that its clock was ahead of ours before it was set; null when it was unset."""
    clock_measured: str | None
    remembered: str
    seen: str | None
    connects: int


class GapTotal(msgspec.Struct, frozen=True):
    """How much is missing for the same causes."""

    causes: list[str]
    count: int
    seconds: float
    frames: int


class Device(DeviceItem, frozen=True):
    """A pendant with what hangs on it."""

    sources: list[SourceItem]
    notices: list[NoticeItem]
    gaps_today: list[GapTotal]
    """What its sources miss since midnight where the wearer lives, the longest first."""


class SightingItem(msgspec.Struct, frozen=True):
    """A pendant that advertises."""

    address: str
    name: str
    rssi: int | None
    """dBm."""
    remembered_as: str | None
    """What the owner calls it; null for a stranger."""


class ScanNew(msgspec.Struct, forbid_unknown_fields=True):
    """How long to look for pendants."""

    seconds: Annotated[float, Meta(ge=1, le=60)] = 10.0


class DeviceNew(msgspec.Struct, forbid_unknown_fields=True):
    """A pendant to pair."""

    address: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """The only one in sight when absent."""
    name: Name | None = None
    """What to call it; what it advertises when absent."""


class DeviceChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to call a pendant."""

    name: Name


class DeviceSettings(msgspec.Struct, forbid_unknown_fields=True):
    """What to set in a pendant; absent fields stay."""

    led: Annotated[int, Meta(ge=0, le=100)] | None = None
    """Brightness in percent."""
    mic_gain: Annotated[int, Meta(ge=0, le=8)] | None = None
    """Level; 0 is muted."""
    own_name: Annotated[str, Meta(min_length=1, max_length=20)] | None = None
    """What it advertises, at most 20 bytes of UTF-8."""


class BatteryItem(msgspec.Struct, frozen=True):
    """What a battery said."""

    at: str
    percent: int
    charging: bool | None


class ConnectionItem(msgspec.Struct, frozen=True):
    """One connection to a pendant."""

    began: str
    ended: str | None
    """Null while it is up."""
    seconds: float | None
    link: str
    """What was known of its encryption: bonded, open or unknown."""
    ending: str | None
    """timeout, remote, local, authentication, radio, stale or unknown; null while it is up."""


class DeviceStorage(msgspec.Struct, frozen=True):
    """What audio a pendant stores; null is what its protocol does not tell."""

    protocol: str
    """none, single-file, multi-file or ring."""
    used_bytes: int | None = None
    free_bytes: int | None = None
    items: int | None = None
    """Files or records that wait."""
    clock_set: bool | None = None
    """Whether its clock was set when it was asked."""
    message: str = ""
    """What its owner should know."""


class Recording(msgspec.Struct, frozen=True):
    """Whether what is heard is recorded."""

    state: str = "recording"
    """recording, muted or off_record."""
    since: str | None = None
    """Null while recording."""
    until: str | None = None
    """When recording goes on by itself; null for when it is told to."""
    by: str | None = None


class RecordingPause(msgspec.Struct, forbid_unknown_fields=True):
    """How long nothing is to be recorded."""

    seconds: Annotated[float, Meta(ge=1, le=2_592_000)] | None = None
    """At most 30 days; until it is told to go on when absent."""


class RecordingOff(msgspec.Struct, forbid_unknown_fields=True):
    """How long to be off the record."""

    seconds: Annotated[float, Meta(ge=1, le=2_592_000)] | None = None
    """At most 30 days; ``device.off_record`` of the settings when absent."""


class WithheldItem(msgspec.Struct, frozen=True):
    """A stretch in which nothing was recorded because the owner said so."""

    id: str
    kind: str
    """muted or off_record."""
    start: str
    end: str | None
    """Null while it lasts."""
    until: str | None
    """When it was to end by itself."""
    by: str


class GapItem(msgspec.Struct, frozen=True):
    """A stretch of a source without audio."""

    source_id: str
    start: str
    end: str
    seconds: float
    causes: list[str]
    """Every cause that fits what could be seen: one when it is certain."""
    frames: int
    """Frames known to be lost."""


class LedgerSum(msgspec.Struct, frozen=True):
    """How much of a day was of one state."""

    state: str
    """speech, silence, device_silent, lost, muted, off_record, disconnected, out_of_range, pendant_off, daemon_down,
    recovered, forgotten or unknown."""
    causes: list[str]
    """Of unknown time what it may have been, the likelier first; empty where nothing speaks for any."""
    seconds: float
    places: int
    """In how many stretches."""


class LedgerSpan(msgspec.Struct, frozen=True):
    """A stretch of one state."""

    start: str
    end: str
    """As the wall clock showed them; where it was stepped they are further apart than ``seconds``, or less."""
    seconds: float
    state: str
    causes: list[str]
    lost_seconds: float
    """What of it was lost in holes too short for a stretch of their own."""


class LedgerAccount(msgspec.Struct, frozen=True):
    """What became of every second of a source's day."""

    source_id: str
    name: str
    seconds: float
    """From the start of the day, or when the source was first seen, to its end or to now: the sum of ``sums``."""
    sums: list[LedgerSum]
    spans: list[LedgerSpan]
    """Without a hole, in order."""
    kind: str = "pendant"
    """Of the source: pendant, or socket for a client that sends over one."""


class LedgerDay(msgspec.Struct, frozen=True):
    """The ledger of a day, for each live source that was known by its end."""

    day: str
    zone: str
    start: str
    end: str
    items: list[LedgerAccount]


class BookmarkNew(msgspec.Struct, forbid_unknown_fields=True):
    """Marks this moment."""

    source_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """The source that is heard when absent."""


class BookmarkItem(msgspec.Struct, frozen=True):
    """A marked moment."""

    id: str
    source_id: str
    at: str
    by: str
    conversation_id: str | None
    """What was being said."""


class MicrophoneItem(msgspec.Struct, frozen=True):
    """The microphone of the machine that the daemon listens to."""

    state: str
    """listening, waiting (it is not there) or failed (nothing is heard before a restart)."""
    since: str
    name: str
    """What the system calls it; empty before it was opened."""
    level_db: float | None
    """How loud it is now, in dB below full scale; null while nothing is heard or to be heard."""
    lost_seconds: float
    """Sound that the machine was too slow to take, since the daemon began."""
    message: str


class FinalPass(msgspec.Struct, frozen=True):
    """The second pass over conversations that have ended."""

    engine: str
    waiting: int
    """Conversations."""
    working: str | None
    """The conversation that is being heard."""
    why: str
    """What those that wait wait for; "" for nothing but their turn."""
    trouble: str
    """Why the recogniser cannot be used, and how to mend that."""


class WyomingItem(msgspec.Struct, frozen=True):
    """How speech recognition for others is served."""

    address: str
    """tcp://host:port"""
    lan: bool
    """Whether anybody on the LAN may use it: the protocol knows no passwords."""
    clients: int
    answered: int
    """Requests answered since the start."""
    announced: bool
    """Whether it is announced on the LAN."""
    message: str
    """What is in the way of the announcement, and the cure."""


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
    devices: list[DeviceItem]
    recording: Recording
    microphone: MicrophoneItem | None = None
    """None when the daemon listens to none of its own."""
    final: FinalPass | None = None
    """None without a second pass."""
    wyoming: WyomingItem | None = None
    """None when it is not served."""
    offline: list[OfflineState] = []
    """Of the pendants whose stored audio is being fetched, waits to be heard, or waits for the owner's word."""


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class EventItem(msgspec.Struct, frozen=True):
    """One thing that happened, as the event stream tells it."""

    number: int
    """The ``id:`` of the stream: counts up from 1 in one run of the daemon."""
    kind: str
    at: str
    data: dict[str, Any]


class TokenNew(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make."""

    name: Name
    role: Annotated[str, Meta(pattern="^owner$")] = "owner"


class TokenItem(msgspec.Struct, frozen=True):
    """A client that holds a token; the token itself is not kept."""

    id: str
    name: str
    role: str
    created: str
    revoked: str | None


class TokenMade(msgspec.Struct, frozen=True):
    """A new token; it is shown this once."""

    id: str
    name: str
    role: str
    token: str


class TicketMade(msgspec.Struct, frozen=True):
    """A ticket; it opens one socket."""

    ticket: str
    expires: str
    seconds: float
    """How long it holds."""


class AuthMethods(msgspec.Struct, frozen=True):
    """Which ways to say who one is are open."""

    authorization_header: bool
    """``Authorization: Bearer TOKEN``."""
    ticket: bool
    """``?token=TICKET``, for sockets."""
    token_in_url: bool
    google_oauth: bool = False
    email_password: bool = False
    registration: bool = False


class AuthEndpoints(msgspec.Struct, frozen=True):
    """Where to go."""

    ticket: str
    """POST there with a token for a ticket."""
    sockets: list[str]


class AuthConfig(msgspec.Struct, frozen=True):
    """How a client may say who it is."""

    auth_methods: AuthMethods
    endpoints: AuthEndpoints
    ticket_seconds: float


class ActiveClient(msgspec.Struct, frozen=True):
    """A client that sends audio over a socket now. Times are seconds of the Unix epoch, as Friend-Lite tells them."""

    connected: bool
    client_id: str
    door: str
    """/ws, /ws_pcm or /v4/listen."""
    source_id: str
    source_name: str
    codec: str
    connected_since: float
    last_audio_time: float | None
    last_transcript_time: float | None
    conversation_start_time: float | None
    has_active_conversation: bool
    current_audio_uuid: str | None
    """The conversation that goes on."""
    frames: int
    bad_messages: int
    seconds: float
    """Length of the audio that was taken."""
    events_dropped: int
    """Messages that the client was too slow to take."""


class ActiveClients(msgspec.Struct, frozen=True):
    """Who sends audio over sockets now."""

    active_clients_count: int
    clients: dict[str, ActiveClient]


class SpeechSpan(msgspec.Struct, frozen=True):
    """Some speech, in seconds of the Unix epoch."""

    start: float
    end: float


class Cropped(msgspec.Struct, frozen=True):
    """The speech of a conversation alone, as Friend-Lite tells it. Times are seconds of the Unix epoch."""

    audio_uuid: str
    """The conversation."""
    original_audio_path: str
    """Path of the API that plays all that is kept."""
    cropped_audio_path: str | None
    """Path of the API that plays the speech alone; null without any."""
    speech_segments: list[SpeechSpan]
    """What the cut is made of, padding included."""
    cropped_duration: float | None
    """Seconds that it plays."""
    cropped_at: float | None
    """When it was cut: as it was asked for."""
    has_cropped_version: bool


class Reprocessed(msgspec.Struct, frozen=True):
    """What cutting a conversation again gave."""

    message: str
    audio_uuid: str
    speech_segments: int
    """How many pieces."""
    cropped_duration: float
    cropping_padding: float
    """audio.crop_padding"""
    min_speech_duration: float
    """audio.crop_minimum"""


class ClientSpeech(msgspec.Struct, frozen=True):
    """The speech of one client, by conversation. Times are seconds of the Unix epoch."""

    current_audio_uuid: str | None
    """The conversation that goes on."""
    speech_segments: dict[str, list[tuple[float, float]]]
    """From and to of each segment that has its words already."""
    current_speech_start: dict[str, float]
    """Since when somebody speaks; under "" while that belongs to no conversation yet."""
    connected: bool
    last_transcript_time: float | None


class SpeechSegments(msgspec.Struct, frozen=True):
    """The speech of those who send audio over sockets now, as Friend-Lite tells it."""

    active_clients: int
    audio_cropping_enabled: bool
    min_speech_duration: float
    cropping_padding: float
    clients: dict[str, ClientSpeech]


class SourceChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to call a source."""

    name: Name


class SourceMerged(SourceItem, frozen=True):
    """The source that clients send to from now on."""

    moved: bool
    """Whether it has what the other one held, too."""
    stays: str
    """Why that stays where it is; empty when it was moved."""


class SourceMerge(msgspec.Struct, forbid_unknown_fields=True):
    """Which source takes what another one holds."""

    into: Annotated[str, Meta(min_length=1, max_length=200)]
