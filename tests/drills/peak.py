"""The most memory that this process has had resident, for programs that drills run."""

from __future__ import annotations

from pathlib import Path


def peak_mb() -> int:
    """Return it in MiB. Not `ru_maxrss`, which a child inherits from the process that forked it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024
