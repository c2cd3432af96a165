"""Small values that belong to the file."""

from __future__ import annotations

from omi_edge.store.connection import Connection


def get(conn: Connection, key: str) -> str | None:
    """Return a value, None when it was never put."""
    row = conn.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row is not None else None


def put(conn: Connection, key: str, value: str) -> None:
    """Store a value."""
    conn.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", (key, value))
