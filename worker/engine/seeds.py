"""A seed of its own for each random choice. It knows no generator of random numbers."""

from __future__ import annotations

import hashlib


def derived(seed: int, purpose: str, number: int) -> int:
    """A seed of its own for one choice, 0 ≤ it < 2⁶³: the first 63 bits of a SHA-256 over the three parts."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
