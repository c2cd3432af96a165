"""Ids that are unique everywhere and sort by the time they were made."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


def new_id(prefix: str, utc_us: int) -> str:
    """Return ``prefix_`` and 26 characters: 48 bits of milliseconds, then 80 random bits (the ULID layout)."""
    number = ((utc_us // 1000) & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    return prefix + "_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
