"""Derives a separate seed for each random choice. It knows no random number generator."""

from __future__ import annotations

import hashlib


def derived(seed: int, purpose: str, number: int) -> int:
    """Return the seed for one choice, below 2⁶³: the first 63 bits of a SHA-256 over the three arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
