"""Files and folders that nobody but their owner can read or write."""

from __future__ import annotations

import os
from pathlib import Path

UMASK = 0o077
"""For processes whose files hold what users put into the stack."""


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, never readable by anybody but its owner."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def open_private(path: str, flags: int) -> int:
    """Open a file for its owner alone, as the `opener` of `open`; one that others could read is closed to them."""
    file = os.open(path, flags, 0o600)
    if os.fstat(file).st_mode & UMASK:
        os.fchmod(file, 0o600)
    return file


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter, or close an existing one to others."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & UMASK:
        path.chmod(0o700)
    return path
