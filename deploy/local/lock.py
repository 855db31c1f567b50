"""The lock of a data folder: it says whether a stack runs there, and in which process.

The kernel drops it with the process that holds it, however that ends, so that nothing is ever stale
and no reused pid is mistaken for a supervisor.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from contract.errors import InvalidInput
from deploy.local.private import open_private

LOCK_FILE = "lock"
_HELD_SECONDS, _LOOKED_AT_SECONDS = 0.5, 30.0
"""How long `acquire` waits for a stack that ends, and for a process that looks."""


class DataLock:
    """Held by at most one process a folder; holds no lock until `acquire`."""

    def __init__(self, data: Path) -> None:
        self._path = data / LOCK_FILE
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Raises InvalidInput where another process holds it."""
        file = open(self._path, "a+", opener=open_private)  # noqa: SIM115, it stays open
        began = time.monotonic()
        while not _try(file, fcntl.LOCK_EX):
            # `holder` shares the lock for an instant to look, and what can be shared is held by no stack.
            looked_at = _try(file, fcntl.LOCK_SH)
            fcntl.flock(file, fcntl.LOCK_UN)
            if time.monotonic() - began > (_LOOKED_AT_SECONDS if looked_at else _HELD_SECONDS):
                file.close()
                raise InvalidInput(
                    f"A process that looked whether a stack runs on {self._path.parent} stands still and keeps it "
                    f"locked; `fuser {self._path}` names it."
                    if looked_at
                    else f"Another stack runs on {self._path.parent}; stop it with "
                    f"`imagemill down --data {self._path.parent}`, or choose another folder with --data."
                )
            time.sleep(0.02)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    @property
    def held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def holder(data: Path) -> int | None:
    """Return the pid of the supervisor that runs on this folder, or None."""
    try:
        file = (data / LOCK_FILE).open()
    except FileNotFoundError:
        return None
    with file:
        for _ in range(50):
            if _try(file, fcntl.LOCK_SH):
                return None
            file.seek(0)
            if (text := file.read()).isdigit():
                return int(text)
            time.sleep(0.02)  # it holds the lock and is about to write its pid
    return None


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
