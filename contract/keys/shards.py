"""The numbers of shards, and the names of their objects.

Stems contain no dots, so a shard's manifest, output and commit differ by suffix alone.
"""

from __future__ import annotations

import re

MAX_OPEN_SHARDS = 100_000
"""The most shards of a plan that is open: the halves of its bisected shards are numbered from here."""

_SHARD = re.compile(r"shard-(\d+)(?:-r(\d+))?\.[a-z]+$")


def shard_stem(shard: int, retry: int = 0) -> str:
    """`shard-000042`, or `shard-000042-r1` for its rows after the first retry."""
    return f"shard-{shard:06d}" + (f"-r{retry}" if retry else "")


def parse_shard(key: str) -> tuple[int, int] | None:
    """Return the shard and retry number in an object key, or None."""
    match = _SHARD.search(key)
    return (int(match[1]), int(match[2] or 0)) if match else None


def child_shards(shard: int, planned: int) -> tuple[int, int]:
    """Return the numbers of the two halves of a bisected shard.

    They form a heap above the `planned` shards, so they are unique, and the same whichever worker splits the shard.
    """
    return planned + 2 * shard, planned + 2 * shard + 1
