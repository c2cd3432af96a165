"""The schema, as numbered steps; each runs in one transaction, once, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omi_edge.errors import VaultNewer

Migration = tuple[int, str]

FIRST = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE clients (
    id TEXT PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE, token_hash BLOB UNIQUE, role TEXT NOT NULL,
    created_us INTEGER NOT NULL, last_seen_us INTEGER, revoked_us INTEGER
);

CREATE TABLE sources (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, name TEXT NOT NULL,
    device_id TEXT, client_id TEXT, codec INTEGER NOT NULL, created_us INTEGER NOT NULL, first_us INTEGER,
    heard_until_us INTEGER, ended_us INTEGER, time_known INTEGER NOT NULL DEFAULT 1,
    lost_frames INTEGER NOT NULL DEFAULT 0, audio_bytes INTEGER NOT NULL DEFAULT 0,
    silence_bytes INTEGER NOT NULL DEFAULT 0, dropped_bytes INTEGER NOT NULL DEFAULT 0,
    dropped_us INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sources_device ON sources (device_id);
CREATE INDEX sources_client ON sources (client_id);

-- the largest table: one index, no text ids
CREATE TABLE audio_chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source_n INTEGER NOT NULL REFERENCES sources, start_us INTEGER NOT NULL,
    duration_us INTEGER NOT NULL, codec INTEGER NOT NULL, kind INTEGER NOT NULL, lost INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX audio_chunks_time ON audio_chunks (source_n, start_us);
CREATE INDEX audio_chunks_silence ON audio_chunks (start_us) WHERE kind = 1;

CREATE TABLE conversations (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, source_n INTEGER NOT NULL REFERENCES sources,
    state TEXT NOT NULL, started_us INTEGER NOT NULL, ended_us INTEGER NOT NULL, created_us INTEGER NOT NULL,
    finished_us INTEGER, closed_by TEXT, title TEXT NOT NULL DEFAULT '', overview TEXT NOT NULL DEFAULT '',
    category TEXT NOT NULL DEFAULT 'other', emoji TEXT NOT NULL DEFAULT '', extractor TEXT NOT NULL DEFAULT '',
    version_id TEXT
);
CREATE INDEX conversations_time ON conversations (started_us, n);
CREATE INDEX conversations_source ON conversations (source_n, started_us, n);
CREATE INDEX conversations_unfinished ON conversations (state) WHERE state <> 'completed';

CREATE TABLE segments (
    id TEXT PRIMARY KEY, source_n INTEGER NOT NULL REFERENCES sources, start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL, speech_us INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT, engine TEXT,
    conversation_n INTEGER REFERENCES conversations
) WITHOUT ROWID;
CREATE INDEX segments_pending ON segments (source_n, start_us) WHERE outcome = 'pending';
CREATE INDEX segments_conversation ON segments (conversation_n, start_us);

CREATE TABLE transcript_versions (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    conversation_n INTEGER NOT NULL REFERENCES conversations, kind TEXT NOT NULL, engine TEXT NOT NULL,
    created_us INTEGER NOT NULL
);
CREATE INDEX transcript_versions_conversation ON transcript_versions (conversation_n);

CREATE TABLE people (
    id TEXT PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE, is_user INTEGER NOT NULL DEFAULT 0,
    created_us INTEGER NOT NULL
);

CREATE TABLE utterances (
    id TEXT PRIMARY KEY, version_n INTEGER NOT NULL REFERENCES transcript_versions, segment_id TEXT NOT NULL,
    speaker TEXT, person_id TEXT REFERENCES people, start_us INTEGER NOT NULL, end_us INTEGER NOT NULL,
    text TEXT NOT NULL, words BLOB NOT NULL, confidence REAL NOT NULL, outcome TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX utterances_version ON utterances (version_n, start_us);

CREATE TABLE turns (
    conversation_n INTEGER NOT NULL REFERENCES conversations, n INTEGER NOT NULL, start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL, speaker TEXT, confidence REAL NOT NULL, engine TEXT NOT NULL,
    PRIMARY KEY (conversation_n, n)
) WITHOUT ROWID;

CREATE TABLE tasks (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, conversation_n INTEGER REFERENCES conversations,
    source_n INTEGER, description TEXT NOT NULL, owner TEXT NOT NULL, owner_name TEXT, due_us INTEGER,
    due_has_time INTEGER NOT NULL, due_certain INTEGER NOT NULL, priority TEXT NOT NULL, kind TEXT NOT NULL,
    trigger_phrase TEXT,
    confidence REAL NOT NULL, state TEXT NOT NULL DEFAULT 'open', completed_us INTEGER,
    at_us INTEGER NOT NULL, created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL,
    origin TEXT NOT NULL, engine TEXT NOT NULL, client_id TEXT
);
CREATE INDEX tasks_conversation ON tasks (conversation_n);
CREATE INDEX tasks_time ON tasks (at_us, n);
CREATE INDEX tasks_source ON tasks (source_n, at_us, n);
CREATE INDEX tasks_state ON tasks (state, at_us, n);

CREATE TABLE memories (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, conversation_n INTEGER REFERENCES conversations,
    source_n INTEGER, content TEXT NOT NULL, subject TEXT NOT NULL, category TEXT NOT NULL, confidence REAL NOT NULL,
    at_us INTEGER NOT NULL, created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, origin TEXT NOT NULL,
    engine TEXT NOT NULL, client_id TEXT
);
CREATE INDEX memories_conversation ON memories (conversation_n);
CREATE INDEX memories_time ON memories (at_us, n);
CREATE INDEX memories_source ON memories (source_n, at_us, n);
-- what a person changed or deleted, as a digest of the text that was derived: it is not derived again
CREATE TABLE overruled (
    conversation_n INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE, digest BLOB NOT NULL,
    PRIMARY KEY (conversation_n, digest)
) WITHOUT ROWID;

CREATE TABLE evidence (
    thing_id TEXT NOT NULL, n INTEGER NOT NULL, utterance_id TEXT NOT NULL, conversation_n INTEGER NOT NULL,
    start_us INTEGER NOT NULL, end_us INTEGER NOT NULL, PRIMARY KEY (thing_id, n)
) WITHOUT ROWID;

-- one row for every text that can be found
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ref_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, conversation_n INTEGER,
    source_n INTEGER, at_us INTEGER NOT NULL, end_us INTEGER NOT NULL, speaker TEXT, text TEXT NOT NULL
);
CREATE INDEX documents_conversation ON documents (conversation_n, kind);
CREATE VIRTUAL TABLE documents_fts USING fts5 (
    text, content = 'documents', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO documents_fts (documents_fts, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER documents_added AFTER INSERT ON documents BEGIN
    INSERT INTO documents_fts (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER documents_removed AFTER DELETE ON documents BEGIN
    INSERT INTO documents_fts (documents_fts, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER documents_changed AFTER UPDATE OF text ON documents BEGIN
    INSERT INTO documents_fts (documents_fts, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO documents_fts (rowid, text) VALUES (new.id, new.text);
END;
CREATE TABLE vectors (
    document_id INTEGER PRIMARY KEY REFERENCES documents ON DELETE CASCADE, model TEXT NOT NULL, bits BLOB NOT NULL,
    codes BLOB NOT NULL, scale REAL NOT NULL
);

CREATE TABLE jobs (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, stage TEXT NOT NULL, subject_id TEXT NOT NULL,
    source_n INTEGER, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, again INTEGER NOT NULL DEFAULT 0,
    not_before_us INTEGER NOT NULL, created_us INTEGER NOT NULL, started_us INTEGER, finished_us INTEGER, cause TEXT,
    engine TEXT, UNIQUE (stage, subject_id)
);
CREATE INDEX jobs_due ON jobs (stage, not_before_us, n) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (state) WHERE state = 'running';
CREATE INDEX jobs_failed ON jobs (n) WHERE state = 'failed';
CREATE INDEX jobs_source ON jobs (source_n, state);
CREATE TABLE job_counts (stage TEXT NOT NULL, state TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (stage, state))
    WITHOUT ROWID;
CREATE TRIGGER jobs_counted AFTER INSERT ON jobs BEGIN
    INSERT INTO job_counts VALUES (new.stage, new.state, 1)
        ON CONFLICT (stage, state) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER jobs_recounted AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
    UPDATE job_counts SET count = count - 1 WHERE stage = old.stage AND state = old.state;
    INSERT INTO job_counts VALUES (new.stage, new.state, 1)
        ON CONFLICT (stage, state) DO UPDATE SET count = count + 1;
END;

CREATE TABLE notices (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, code TEXT NOT NULL, severity TEXT NOT NULL,
    subjects TEXT NOT NULL, message TEXT NOT NULL, since_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
    count INTEGER NOT NULL, acknowledged_us INTEGER, cleared_us INTEGER
);
CREATE UNIQUE INDEX notices_standing ON notices (code, subjects) WHERE cleared_us IS NULL;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, actor TEXT NOT NULL, role TEXT NOT NULL,
    act TEXT NOT NULL, ids TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL, request_id TEXT
);
CREATE TRIGGER audit_stays AFTER UPDATE ON audit BEGIN SELECT RAISE (ABORT, 'the audit only grows'); END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE (ABORT, 'the audit only grows'); END;
"""

SECOND = """
CREATE TABLE devices (
    n INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT NOT NULL COLLATE NOCASE UNIQUE,
    name TEXT NOT NULL COLLATE NOCASE UNIQUE, own_name TEXT NOT NULL, model TEXT NOT NULL DEFAULT '',
    firmware TEXT NOT NULL DEFAULT '', hardware TEXT NOT NULL DEFAULT '', manufacturer TEXT NOT NULL DEFAULT '',
    codec INTEGER, features INTEGER, security TEXT, remembered_us INTEGER NOT NULL, seen_us INTEGER, rssi INTEGER,
    battery INTEGER, charging INTEGER, clock_offset_us INTEGER, clock_us INTEGER,
    connects INTEGER NOT NULL DEFAULT 0, next_id INTEGER
);
CREATE TABLE device_battery (
    device_n INTEGER NOT NULL REFERENCES devices ON DELETE CASCADE, at_us INTEGER NOT NULL, percent INTEGER NOT NULL,
    charging INTEGER, PRIMARY KEY (device_n, at_us)
) WITHOUT ROWID;
CREATE TABLE device_connections (
    n INTEGER PRIMARY KEY AUTOINCREMENT, device_n INTEGER NOT NULL REFERENCES devices ON DELETE CASCADE,
    began_us INTEGER NOT NULL, ended_us INTEGER, security TEXT, ending TEXT
);
CREATE INDEX device_connections_device ON device_connections (device_n, n);
CREATE INDEX device_connections_open ON device_connections (device_n) WHERE ended_us IS NULL;

CREATE TABLE gaps (
    n INTEGER PRIMARY KEY AUTOINCREMENT, source_n INTEGER NOT NULL REFERENCES sources, start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL, causes TEXT NOT NULL, frames INTEGER NOT NULL
);
CREATE INDEX gaps_time ON gaps (start_us, n);
CREATE UNIQUE INDEX gaps_source ON gaps (source_n, start_us);

-- at most one is open, and it is the last
CREATE TABLE withheld (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, start_us INTEGER NOT NULL,
    end_us INTEGER, until_us INTEGER, actor TEXT NOT NULL
);
CREATE INDEX withheld_time ON withheld (start_us, n);

CREATE TABLE bookmarks (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, source_n INTEGER NOT NULL REFERENCES sources,
    at_us INTEGER NOT NULL, actor TEXT NOT NULL
);
CREATE INDEX bookmarks_time ON bookmarks (at_us, n);
CREATE INDEX bookmarks_source ON bookmarks (source_n, at_us, n);
"""

THIRD = """
-- of each source spans that do not overlap, on a time that the wall clock does not step
CREATE TABLE ledger (
    source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL, state TEXT NOT NULL, causes TEXT NOT NULL, lost_us INTEGER NOT NULL,
    losses INTEGER NOT NULL, PRIMARY KEY (source_n, start_us)
) WITHOUT ROWID;
-- the sources that have an account, since when and, once they are gone, until when
CREATE TABLE ledger_sources (
    source_n INTEGER PRIMARY KEY REFERENCES sources ON DELETE CASCADE, since_us INTEGER NOT NULL, until_us INTEGER
);
-- one row for each boot, and for each step of the wall clock
CREATE TABLE ledger_anchors (
    n INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, boot_us INTEGER NOT NULL, utc_us INTEGER NOT NULL,
    ledger_us INTEGER NOT NULL
);
-- the daemon's last sign of life
CREATE TABLE ledger_life (n INTEGER PRIMARY KEY CHECK (n = 1), at_us INTEGER NOT NULL, listening INTEGER NOT NULL);
ALTER TABLE withheld ADD COLUMN ledger_us INTEGER;
"""

FOURTH = """
-- who sends audio over a socket, and which source it belongs to: several may lead to one
CREATE TABLE senders (
    n INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT NOT NULL, device TEXT NOT NULL,
    source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
    refused_us INTEGER, UNIQUE (client_id, device)
);
CREATE INDEX senders_source ON senders (source_n);
"""

FIFTH = """
-- one row for each time that a recording was taken in; ``id`` is that of its source where it has one of its own
CREATE TABLE recordings (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, name TEXT NOT NULL, digest BLOB,
    codec INTEGER NOT NULL, start_us INTEGER NOT NULL, end_us INTEGER, left_out_us INTEGER NOT NULL DEFAULT 0,
    created_us INTEGER NOT NULL, ended_us INTEGER, complete INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX recordings_digest ON recordings (digest, n) WHERE digest IS NOT NULL;
CREATE INDEX recordings_source ON recordings (source_n, n);
CREATE INDEX recordings_open ON recordings (n) WHERE ended_us IS NULL;
CREATE INDEX segments_source ON segments (source_n, end_us);
"""

SIXTH = """
-- how far what a pendant stored is fetched, freed there, and placed on the timeline here
CREATE TABLE offline_cursors (
    source_n INTEGER PRIMARY KEY REFERENCES sources ON DELETE CASCADE, store INTEGER NOT NULL,
    position INTEGER NOT NULL, tail BLOB NOT NULL, identity TEXT, ends INTEGER NOT NULL, dropped INTEGER NOT NULL,
    final_store INTEGER NOT NULL DEFAULT 0, final_position INTEGER NOT NULL DEFAULT 0,
    placed_store INTEGER NOT NULL DEFAULT 0, placed_position INTEGER NOT NULL DEFAULT 0, after BLOB, last_run_n INTEGER
);
-- one row for each connection after which something was fetched: what its clocks showed
CREATE TABLE offline_readings (
    n INTEGER PRIMARY KEY AUTOINCREMENT, source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE,
    away_us INTEGER, connected_us INTEGER NOT NULL, read_us INTEGER NOT NULL, offset_us INTEGER,
    ledger_us INTEGER NOT NULL, codec INTEGER NOT NULL, step INTEGER NOT NULL, head_store INTEGER,
    head_position INTEGER, complete INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX offline_readings_source ON offline_readings (source_n, n);
-- blocks as they came, until they are heard
CREATE TABLE offline_records (
    source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, store INTEGER NOT NULL, seq INTEGER NOT NULL,
    reading_n INTEGER NOT NULL, began INTEGER, raw BLOB NOT NULL, PRIMARY KEY (source_n, store, seq)
) WITHOUT ROWID;
-- audio without a hole that the records hold, with its place on the timeline
CREATE TABLE offline_runs (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, reading_n INTEGER NOT NULL, state TEXT NOT NULL,
    store INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, at_seq INTEGER NOT NULL,
    at_frame INTEGER NOT NULL, frames INTEGER NOT NULL, heard INTEGER NOT NULL DEFAULT 0, start_us INTEGER,
    uncertainty_us INTEGER NOT NULL, guessed INTEGER NOT NULL DEFAULT 0, earliest_us INTEGER, latest_us INTEGER,
    left_out_us INTEGER NOT NULL DEFAULT 0, decided INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX offline_runs_source ON offline_runs (source_n, n);
CREATE INDEX offline_runs_open ON offline_runs (source_n, store, last_seq) WHERE state IN ('unknown', 'held', 'placed');
CREATE INDEX offline_runs_time ON offline_runs (source_n, start_us) WHERE start_us IS NOT NULL;
-- what the pendant gave up before it was here
CREATE TABLE offline_losses (
    n INTEGER PRIMARY KEY AUTOINCREMENT, source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE,
    reading_n INTEGER NOT NULL, store INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    records INTEGER NOT NULL, why TEXT NOT NULL, start_us INTEGER, end_us INTEGER, settled INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX offline_losses_source ON offline_losses (source_n, n);
CREATE INDEX offline_losses_open ON offline_losses (source_n) WHERE settled = 0;
"""

SEVENTH = """
ALTER TABLE conversations ADD COLUMN previous_version_id TEXT;
-- the version whose words this one shows: of an edited one what was corrected
ALTER TABLE transcript_versions ADD COLUMN base_id TEXT;
ALTER TABLE transcript_versions ADD COLUMN unfinished INTEGER NOT NULL DEFAULT 0;

CREATE TABLE corrections (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    conversation_n INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE, at_us INTEGER NOT NULL,
    before_text TEXT NOT NULL, after_text TEXT NOT NULL, pieces BLOB NOT NULL, actor TEXT NOT NULL,
    created_us INTEGER NOT NULL, undone_us INTEGER, undone_by TEXT
);
CREATE INDEX corrections_conversation ON corrections (conversation_n, n);
-- which corrections an edited version has, and which of them found no place in it
CREATE TABLE correction_places (
    version_n INTEGER NOT NULL REFERENCES transcript_versions ON DELETE CASCADE,
    correction_n INTEGER NOT NULL REFERENCES corrections ON DELETE CASCADE, found INTEGER NOT NULL,
    PRIMARY KEY (version_n, correction_n)
) WITHOUT ROWID;
CREATE INDEX correction_places_correction ON correction_places (correction_n);

-- transcripts that are made anew; several that were asked for at once are one batch
CREATE TABLE reprocessings (
    n INTEGER PRIMARY KEY AUTOINCREMENT, batch_id TEXT NOT NULL,
    conversation_n INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE, engine TEXT NOT NULL,
    keep INTEGER NOT NULL, state TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL, cause TEXT,
    version_id TEXT, actor TEXT NOT NULL, created_us INTEGER NOT NULL, ended_us INTEGER
);
CREATE INDEX reprocessings_batch ON reprocessings (batch_id, n);
CREATE INDEX reprocessings_conversation ON reprocessings (conversation_n, n);

-- the owner's words and names, for recognisers
CREATE TABLE vocabulary (
    n INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE, actor TEXT NOT NULL, created_us INTEGER NOT NULL
);
"""

EIGHTH = """
-- rules in the order in which they are applied
CREATE TABLE rules (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, pattern TEXT NOT NULL,
    replacement TEXT NOT NULL, actor TEXT NOT NULL, created_us INTEGER NOT NULL, UNIQUE (kind, pattern)
);
-- of a segment that rules changed: the words as they were heard, and what each rule did
CREATE TABLE rule_changes (
    version_n INTEGER NOT NULL REFERENCES transcript_versions ON DELETE CASCADE, segment_id TEXT NOT NULL,
    words BLOB NOT NULL, changes BLOB NOT NULL, PRIMARY KEY (version_n, segment_id)
) WITHOUT ROWID;
-- corrections made twice that the owner wants neither as a word nor as a rule
CREATE TABLE dismissed (
    before_text TEXT NOT NULL, after_text TEXT NOT NULL, actor TEXT NOT NULL, created_us INTEGER NOT NULL,
    PRIMARY KEY (before_text, after_text)
) WITHOUT ROWID;
ALTER TABLE people ADD COLUMN language TEXT NOT NULL DEFAULT '';
CREATE INDEX people_time ON people (created_us);
CREATE INDEX utterances_person ON utterances (person_id) WHERE person_id IS NOT NULL;
"""

NINTH = """
-- recordings that were sent in for a conversation; ``covers``: the time that they speak for
CREATE TABLE uploads (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    conversation_n INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    source_n INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, state TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0, start_us INTEGER NOT NULL, covers_from_us INTEGER NOT NULL,
    covers_to_us INTEGER NOT NULL, created_us INTEGER NOT NULL
);
CREATE INDEX uploads_conversation ON uploads (conversation_n, n);
CREATE INDEX uploads_source ON uploads (source_n);
CREATE INDEX uploads_coming ON uploads (state) WHERE state = 'receiving';
CREATE TRIGGER uploads_removed AFTER DELETE ON uploads BEGIN
    DELETE FROM audio_chunks WHERE source_n = old.source_n;
    DELETE FROM segments WHERE source_n = old.source_n;
    DELETE FROM sources WHERE n = old.source_n;
END;
-- what came, still encoded, until it is heard
CREATE TABLE upload_pieces (
    n INTEGER PRIMARY KEY, upload_n INTEGER NOT NULL REFERENCES uploads ON DELETE CASCADE, at INTEGER NOT NULL,
    raw BLOB NOT NULL, UNIQUE (upload_n, at)
);
ALTER TABLE transcript_versions ADD COLUMN upload_n INTEGER REFERENCES uploads ON DELETE SET NULL;
CREATE INDEX transcript_versions_upload ON transcript_versions (upload_n) WHERE upload_n IS NOT NULL;
ALTER TABLE reprocessings ADD COLUMN upload_n INTEGER REFERENCES uploads ON DELETE SET NULL;
ALTER TABLE reprocessings ADD COLUMN emotional_feedback INTEGER NOT NULL DEFAULT 0;
CREATE INDEX reprocessings_upload ON reprocessings (upload_n) WHERE upload_n IS NOT NULL;
"""

MIGRATIONS: Sequence[Migration] = (
    (1, FIRST),
    (2, SECOND),
    (3, THIRD),
    (4, FOURTH),
    (5, FIFTH),
    (6, SIXTH),
    (7, SEVENTH),
    (8, EIGHTH),
    (9, NINTH),
)


def migrate(
    connection: Any, progress: Callable[[str, float], None] | None = None, steps: Sequence[Migration] | None = None
) -> None:
    """Bring the file to the newest version of ``steps``, MIGRATIONS by default.

    Raises VaultNewer for a file that is beyond it; a step that fails leaves all as it was before that step.
    """
    steps = MIGRATIONS if steps is None else steps
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    newest = steps[-1][0]
    if version > newest:
        raise VaultNewer(
            f"the vault has version {version}, this omi-edge knows up to {newest}. Update omi-edge; nothing changed."
        )
    waiting = [step for step in steps if step[0] > version]
    for done, (number, script) in enumerate(waiting):
        if progress is not None:
            progress("migration", done / len(waiting))
        connection.execute("BEGIN EXCLUSIVE")
        try:
            for statement in statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if progress is not None and waiting:
        progress("migration", 1.0)


def statements(script: str) -> list[str]:
    """Cut a script at the semicolons that end statements; a trigger's body holds semicolons of its own."""
    found: list[str] = []
    lines: list[str] = []
    in_trigger = False
    for line in script.splitlines():
        if line.strip().startswith("--") or not line.strip():
            continue
        lines.append(line)
        in_trigger = in_trigger or line.startswith("CREATE TRIGGER")
        ended = line.rstrip().endswith("END;") if in_trigger else line.rstrip().endswith(";")
        if ended:
            found.append("\n".join(lines))
            lines, in_trigger = [], False
    return found
