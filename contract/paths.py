"""Keeps what a name from outside may point to inside the folder it belongs in.

Names come from records, indices and archives in a bucket. Whoever makes a path of one goes through `inside`, and
whoever writes there through `write_inside`, which follows no link that somebody has left in the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidInput

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def inside(folder: Path, name: str) -> Path:
    """Return the path of `name`, a relative path with `/` between its parts, in `folder`.

    Raises InvalidInput for a name that is absolute or empty, has a part `.` or `..`, a backslash, a colon or a control
    character, and for one that a link in the folder leads out of it.
    """
    parts = name.split("/")
    if not all(part not in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or _CONTROL.search(name):
        raise InvalidInput(
            f"{name!r} is no name for a file in {folder}; whatever names it was damaged or made to harm."
        )
    path = folder.joinpath(*parts)
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path.parent)]) != root:
        raise InvalidInput(f"{path.parent} is a link that leads out of {folder}; remove it, or name another folder.")
    return path


@contextmanager
def write_inside(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file that appears under its name once it is complete; on an error nothing of it remains.

    Raises InvalidInput as `inside` does.
    """
    path = inside(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = inside(folder, str(Path(name).with_name(f".{path.name}.part")))
    with create(part) as file:
        try:
            yield file
            file.flush()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def create(path: Path) -> BinaryIO:
    """Open a new file in place of whatever is there, which may be a link to another place."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666), "w+b")
