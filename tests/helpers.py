"""What many tests share."""

from __future__ import annotations

from datetime import UTC, datetime

START_US = int(datetime(2026, 3, 2, 9, 0, tzinfo=UTC).timestamp()) * 1_000_000
"""A Monday morning: where driven clocks of tests begin."""

PASSPHRASE = "correct horse battery staple"
"""Of every vault that tests make."""
