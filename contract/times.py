"""Times as records have them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(seconds: str | float | None) -> str | None:
    """Format seconds since the epoch as UTC, ISO 8601 with milliseconds."""
    if not seconds:
        return None
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
