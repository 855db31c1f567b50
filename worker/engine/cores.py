"""How many cores this process may use. It knows nothing of what they are used for."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Cores allowed by the affinity mask and, in a container, by its CPU quota (rounded up); at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, quota(_CGROUP) or allowed))


def quota(path: Path) -> int | None:
    """Whole cores of a cgroup v2 `cpu.max` file ("200000 100000" is 2); None where it sets no limit."""
    try:
        limit, period = path.read_text().split()
        return None if limit == "max" else -(-int(limit) // int(period))
    except (OSError, ValueError):
        return None
