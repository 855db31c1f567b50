"""Counts the cores that this process may use. It does not know what they are used for."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Return the cores that the affinity mask and a container's CPU quota (rounded up) allow; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, quota(_CGROUP) or allowed))


def quota(path: Path) -> int | None:
    """Return the whole cores that a cgroup v2 `cpu.max` file grants ("200000 100000" is 2), or None without a limit."""
    try:
        limit, period = path.read_text().split()
        return None if limit == "max" else -(-int(limit) // int(period))
    except (OSError, ValueError):
        return None
