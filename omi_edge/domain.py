"""The nouns that cross a queue or a stage: frozen, typed, each field with its unit.

Times are integer microseconds. ``_us`` on UTC fields counts from the Unix epoch; ``boot_us`` counts from the start of
the machine and includes suspend. The wearer's zone is applied only where something is shown.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

SAMPLE_RATE = 16_000
"""Samples per second of all PCM inside omi-edge: s16le, mono."""

SECOND_US = 1_000_000


class Codec(IntEnum):
    """Audio codec ids of characteristic 19B10002 (protocol dossier §5.1)."""

    PCM16 = 0
    PCM8 = 1
    MULAW16 = 10
    MULAW8 = 11
    OPUS_10MS = 20
    OPUS_20MS = 21

    @property
    def frame_us(self) -> int:
        """Duration of one codec frame in microseconds."""
        return {Codec.PCM8: 20_000, Codec.MULAW8: 20_000, Codec.OPUS_20MS: 20_000}.get(self, 10_000)


class Notification(msgspec.Struct, frozen=True):
    """One BLE notification as it arrived."""

    data: bytes
    boot_us: int


class Frame(msgspec.Struct, frozen=True):
    """One whole codec frame, and how many were lost right before it."""

    data: bytes
    boot_us: int
    lost: int = 0
    jump: int | None = None
    """On the first frame of a connection: how far its id is ahead of the one that was due, modulo 65 536."""


class ChunkKind(StrEnum):
    """Why a stretch of audio is kept."""

    HEARD = "heard"
    """Speech, or within two seconds of what could be speech: kept."""
    SILENCE = "silence"
    """The rest: kept only for ``audio.keep_silence``."""


class AudioChunk(msgspec.Struct, frozen=True):
    """At most two seconds of consecutive codec frames of one source; the unit that becomes durable."""

    source_id: str
    start_us: int
    """UTC of the first sample."""
    codec: Codec
    packets: tuple[bytes, ...]
    """One codec frame each; an empty packet is a lost frame, to be concealed by the decoder."""
    kind: ChunkKind = ChunkKind.HEARD
    id: int = 0
    """Given by the store, unique in the file, never re-used; 0 until stored."""

    @property
    def duration_us(self) -> int:
        """Length of the chunk in microseconds."""
        return len(self.packets) * self.codec.frame_us

    @property
    def end_us(self) -> int:
        """UTC just after the last sample."""
        return self.start_us + self.duration_us

    @property
    def lost(self) -> int:
        """Number of lost frames inside the chunk."""
        return sum(not packet for packet in self.packets)


class Outcome(StrEnum):
    """What became of a speech segment once a recogniser has heard it."""

    PENDING = "pending"
    TEXT = "text"
    EXPECTED_SILENCE = "expected_silence"
    """No words, and the VAD was hardly sure of speech either."""
    UNEXPECTED_EMPTY = "unexpected_empty"
    """No words although the VAD was sure of speech."""
    FAILED = "failed"


class SpeechSegment(msgspec.Struct, frozen=True):
    """One stretch of speech, at most 30 s, cut by the VAD; what a recogniser is given."""

    id: str
    source_id: str
    start_us: int
    end_us: int
    speech_us: int
    """How much of it the VAD took for speech."""

    @property
    def speech_ratio(self) -> float:
        """Share of the segment that the VAD took for speech, 0 to 1."""
        return self.speech_us / max(1, self.end_us - self.start_us)


class Cause(StrEnum):
    """Why a stretch of a source's timeline holds no audio."""

    LOST = "lost"
    """Packets that the pendant sent, or threw away because its queue was full."""
    DEVICE_SILENT = "device_silent"
    """The microphone slept (dossier §5.5)."""
    MUTED = "muted"
    OFF_RECORD = "off_record"
    DISCONNECTED = "disconnected"
    """The link was down although the pendant was near and on: this machine's Bluetooth, another central, a policy."""
    OUT_OF_RANGE = "out_of_range"
    PENDANT_OFF = "pendant_off"
    """Switched off, empty, or it restarted."""
    DAEMON_DOWN = "daemon_down"
    UNKNOWN = "unknown"


class LedgerState(StrEnum):
    """What became of a stretch of a live source's time. Where several fit, the one named first here holds."""

    FORGOTTEN = "forgotten"
    """Deleted at the owner's wish."""
    OFF_RECORD = "off_record"
    MUTED = "muted"
    RECOVERED = "recovered"
    """Came later, from what the pendant had stored."""
    SPEECH = "speech"
    """Heard, within two seconds of what could be speech."""
    SILENCE = "silence"
    """Heard, and nothing was said."""
    LOST = "lost"
    DEVICE_SILENT = "device_silent"
    """The microphone slept."""
    PENDANT_OFF = "pendant_off"
    OUT_OF_RANGE = "out_of_range"
    DISCONNECTED = "disconnected"
    DAEMON_DOWN = "daemon_down"
    """Nobody listened: omi-edge did not run, or the machine was off or suspended."""
    UNKNOWN = "unknown"


class Gap(msgspec.Struct, frozen=True):
    """A stretch of a source's timeline without audio, with every cause that fits what the client could see."""

    source_id: str
    start_us: int
    end_us: int
    causes: tuple[Cause, ...]
    """One when it is certain; ``unknown`` alone when nothing speaks for any."""
    frames: int = 0
    """Frames known to be lost, counted by notification ids; 0 when ids cannot tell."""


class Word(msgspec.Struct, frozen=True, array_like=True):
    """One recognised word."""

    text: str
    start_us: int
    """UTC."""
    end_us: int
    confidence: float
    """0 to 1, the recogniser's own posterior."""


class Turn(msgspec.Struct, frozen=True):
    """One stretch spoken by one voice."""

    start_us: int
    end_us: int
    speaker: str | None
    """``SPEAKER_NN`` inside one conversation, or None when the voice is uncertain."""
    confidence: float


class Utterance(msgspec.Struct, frozen=True):
    """Consecutive words of one speaker."""

    id: str
    conversation_id: str
    segment_id: str
    source_id: str
    speaker: str | None
    start_us: int
    end_us: int
    text: str
    words: tuple[Word, ...]
    confidence: float
    person_id: str | None = None
    outcome: Outcome = Outcome.TEXT


class Evidence(msgspec.Struct, frozen=True):
    """Where something derived was heard: an utterance and the audio it spans."""

    utterance_id: str
    start_us: int
    end_us: int


class ConversationState(StrEnum):
    """Where a conversation stands."""

    OPEN = "open"
    PROCESSING = "processing"
    COMPLETED = "completed"


class TaskOwner(StrEnum):
    """Who is to do a task."""

    USER = "user"
    OTHER = "other"
    UNKNOWN = "unknown"


class Task(msgspec.Struct, frozen=True):
    """Something to do, with the words that say so."""

    description: str
    owner: TaskOwner = TaskOwner.UNKNOWN
    owner_name: str | None = None
    due_us: int | None = None
    """UTC instant; for a day without a time, the end of that day in the wearer's zone."""
    due_has_time: bool = False
    due_certain: bool = True
    priority: str = "medium"
    """low, medium or high."""
    kind: str = "clear_commitment"
    """explicit_command, clear_commitment, direct_request or inferred (data model dossier §6.4)."""
    trigger: str | None = None
    """The owner's spoken trigger phrase, when one was used."""
    confidence: float = 0.5
    evidence: tuple[Evidence, ...] = ()


class Memory(msgspec.Struct, frozen=True):
    """One short fact with a named subject, with the words that say so."""

    content: str
    subject: str
    category: str = "other"
    confidence: float = 0.5
    evidence: tuple[Evidence, ...] = ()


class Understanding(msgspec.Struct, frozen=True):
    """What an extractor made of one conversation."""

    title: str
    overview: str
    category: str
    """One of Omi's 33 categories (data model dossier §6.2)."""
    emoji: str
    tasks: tuple[Task, ...]
    memories: tuple[Memory, ...]
    engine: str


class Stage(StrEnum):
    """The durable jobs, in the order of the flow."""

    TRANSCRIBE = "transcribe"
    DIARIZE = "diarize"
    ASSEMBLE = "assemble"
    EXTRACT = "extract"
    EMBED = "embed"
    REPROCESS = "reprocess"
    """At the owner's wish: every segment of a conversation is transcribed anew."""
    FINAL = "final"
    """The same by the final recogniser, when there is leisure for it."""


class JobState(StrEnum):
    """Where a job stands; done, failed and cancelled are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(msgspec.Struct, frozen=True):
    """One durable piece of work on one subject (a segment or a conversation)."""

    id: str
    stage: Stage
    subject_id: str
    state: JobState
    attempts: int
    not_before_us: int
    cause: str | None = None


class Severity(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Notice(msgspec.Struct, frozen=True):
    """Something the owner should know; folded by code and subject."""

    id: str
    code: str
    severity: Severity
    subject_ids: tuple[str, ...]
    message: str
    """Cause and cure in one or two sentences, without content."""
    since_us: int
    last_us: int
    count: int
    acknowledged_us: int | None = None


class DeviceInfo(msgspec.Struct, frozen=True):
    """What a pendant says about itself."""

    address: str
    name: str
    model: str = ""
    firmware: str = ""
    hardware: str = ""
    manufacturer: str = ""


class Security(StrEnum):
    """What is known of a link's encryption."""

    BONDED = "bonded"
    """The host stack encrypts this link with a stored key as soon as it is up."""
    OPEN = "open"
    UNKNOWN = "unknown"
    """The host stack does not tell (macOS)."""


class Ending(StrEnum):
    """How a connection ended, as far as the host stack tells."""

    TIMEOUT = "timeout"
    """Nothing was heard for the supervision timeout: out of range, or the pendant lost its power."""
    REMOTE = "remote"
    """The pendant ended it."""
    LOCAL = "local"
    """This side ended it."""
    AUTHENTICATION = "authentication"
    """Encryption failed: the keys of the two sides differ."""
    RADIO = "radio"
    """Bluetooth went away on this machine: switched off, unplugged, or its service restarted."""
    STALE = "stale"
    """The stack still called it connected, but nothing answered."""
    UNKNOWN = "unknown"


class Sighting(msgspec.Struct, frozen=True):
    """A pendant that was seen advertising."""

    address: str
    """Bluetooth address; on macOS the identifier that CoreBluetooth gives."""
    name: str
    rssi: int | None
    """dBm."""
    boot_us: int
    """When."""


class LinkState(StrEnum):
    """How a remembered pendant stands."""

    CONNECTED = "connected"
    SEARCHING = "searching"
    """Not in sight, or between two attempts."""
    UNAVAILABLE = "unavailable"
    """Bluetooth cannot be used on this machine now."""
    REFUSED = "refused"
    """It answers, but nothing is captured: policy, wrong services, an unknown codec."""
    OFF = "off"
    """Not listened to: no daemon, or ``device.bluetooth`` is off."""


class DeviceState(msgspec.Struct, frozen=True):
    """What is known of a pendant's connection at the moment; None where nothing is."""

    state: LinkState
    since_us: int
    cause: str = ""
    """Slug of the error in the way."""
    message: str = ""
    """Its cause and cure in words."""
    security: Security | None = None
    codec: int | None = None
    rssi: int | None = None
    battery: int | None = None
    """Percent."""
    charging: bool | None = None
    hours_left: float | None = None
    """Estimate from the battery's history."""
    features: tuple[str, ...] = ()
    led: int | None = None
    """LED dim ratio in percent."""
    mic_gain: int | None = None
    """Level 0 to 8 (dossier §4.1)."""
    storage: str = ""
    """Protocol of its stored audio: none, single-file, multi-file, ring."""


class FetchState(StrEnum):
    """How the fetching of a pendant's stored audio stands."""

    AWAY = "away"
    """It is not connected, or stores nothing."""
    FETCHING = "fetching"
    DONE = "done"
    """All that it held is here."""
    WAITING = "waiting"
    """Something is in the way; it is tried again."""


class FetchProgress(msgspec.Struct, frozen=True):
    """How far the stored audio of a connected pendant is fetched."""

    state: FetchState
    since_us: int
    done_bytes: int = 0
    total_bytes: int = 0
    done_us: int = 0
    """How much audio that is; of the rest it is an estimate from what has come."""
    total_us: int = 0
    left_us: int | None = None
    """How long it will take, at the speed so far; None where that cannot be told."""
    message: str = ""
    """What is in the way, and the cure."""


class Withholding(StrEnum):
    """Why the owner wants nothing to be recorded."""

    MUTED = "muted"
    OFF_RECORD = "off_record"
