"""Parts of names that several kinds of objects share."""

from __future__ import annotations

import re

LATEST = 10**13 - 1
"""Milliseconds; the names count down from here, in the year 2286."""

_CONTENT = re.compile(r"-[0-9a-f]{16}\.[a-z]+$")


def record_name(prefix: str, key: str) -> str | None:
    """Return the name whose record, `name.json` at this prefix, an object is, or None."""
    name = key.removeprefix(prefix)
    return name.removesuffix(".json") if name.endswith(".json") and "/" not in name else None


def content_name(stem: str, digest: str, suffix: str) -> str:
    """Name an object by its content, so that attempts that differ never write over each other.

    `digest` is a SHA-256 in hex, of which 64 bits are kept: only attempts at one shard share a stem.
    """
    return f"{stem}-{digest[:16]}{suffix}"


def named_by_content(key: str) -> bool:
    """Return whether `content_name` made the name of this object."""
    return _CONTENT.search(key) is not None
