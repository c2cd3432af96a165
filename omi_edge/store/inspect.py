"""What is in the file, by counts alone."""

from __future__ import annotations

from omi_edge.store.connection import Connection

TABLES = (
    "sources", "audio_chunks", "segments", "conversations", "transcript_versions", "utterances", "turns", "tasks",
    "memories", "evidence", "overruled", "people", "documents", "vectors", "jobs", "notices", "clients", "settings",
    "audit", "devices", "device_battery", "device_connections", "gaps", "withheld", "bookmarks", "senders",
    "ledger", "ledger_sources", "ledger_anchors", "ledger_life",
    "recordings", "offline_cursors", "offline_readings", "offline_records", "offline_runs", "offline_losses",
    "corrections", "correction_places", "reprocessings", "vocabulary",
    "rules", "rule_changes", "dismissed", "uploads", "upload_pieces",
)  # fmt: skip


def counts(conn: Connection) -> dict[str, int]:
    """Return how many rows each table has."""
    return {table: conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
