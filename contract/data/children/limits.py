"""Limits that a process sets for itself: its memory, no core dumps, and no life beyond its parent."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_expendable = False


def expendable() -> None:
    """Note that this process was started to read one stranger's source, and that its death is foreseen."""
    global _expendable
    _expendable = True


def is_expendable() -> bool:
    """Return whether what may end a process can be done in this one."""
    return _expendable


def limit_memory(more: int) -> bool:
    """Let this process take `more` bytes of memory beyond what it has; return whether the system enforces it.

    A larger allocation then fails: MemoryError in Python, and the like in libraries. The limit is on data
    (`RLIMIT_DATA`), not on addresses: allocators and threads reserve gigabytes of those and never touch them.
    """
    now = data_bytes()
    if now is None:
        return False
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))
    return True


def data_bytes() -> int | None:
    """Return the bytes of data of this process as `RLIMIT_DATA` counts them, or None where they are not known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), None)


def no_core_dump() -> None:
    """Leave no core dump behind: it would hold credentials, and whatever was read."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with_parent() -> bool:
    """Have the system kill this process when its parent ends; return False where it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
