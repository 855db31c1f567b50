"""Finds and ends processes that a supervisor left behind, by a mark in their environment.

A process inherits the mark from its parent, so that grandchildren in sessions of their own are found
too. It reads `/proc`; where there is none (macOS), nothing is found and process groups must do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "IMAGEMILL_SUPERVISED"
"""Variable in the environment of every supervised process; its value says by whom."""

_PROC = Path("/proc")


def marked(value: str) -> list[int]:
    """Pids of all living processes of this user that carry the mark with this value."""
    needle = f"{MARK}={value}".encode()
    pids = []
    for entry in _PROC.glob("[0-9]*"):
        # A process of another user cannot be read, one that ends while we look is gone.
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                pids.append(int(entry.name))
    return pids


def exists(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # no /proc, or not ours
        return True


def end(value: str, seconds: float = 5.0) -> list[int]:
    """SIGKILL every marked process, and again what it started meanwhile; returns those that were there."""
    deadline = time.monotonic() + seconds
    ended: set[int] = set()
    while pids := marked(value):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(pids)
        if time.monotonic() > deadline:  # one in an uninterruptible wait of the kernel
            break
        time.sleep(0.02)
    return sorted(ended)
