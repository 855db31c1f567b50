"""Image sequences: which files are one, in which order, and which of its frames are looked at.

It knows names alone, neither where the files are nor what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Generic, TypeVar

F = TypeVar("F")

MAX_FRAMES = 100_000
"""Frames that a sequence may have, looked at or not: an hour at 25 a second is 90,000. While a source is listed, the
names of a folder are held until it ends, and a bucket may have a million images in one."""

MAX_IMAGES = 10
"""A frame may be as large as an image may, in bytes and in pixels, all frames together so many times as large."""

ANIMATIONS = frozenset([".gif", ".webp", ".apng"])
"""What holds a sequence by itself. A suffix has to tell: to look into a million files is to read them."""


def spread(count: int, most: int) -> list[int]:
    """Which of `count` frames are taken where at most `most` are: evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(n * (count - 1) / max(1, most - 1)) for n in range(most)]


def natural(name: str) -> tuple[list[str | int], str]:
    """What names are sorted by, so that people agree: `frame-2` before `frame-10`."""
    parts = re.split("([0-9]+)", name)  # words and numbers by turns, a word first
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


@dataclass
class Folder(Generic[F]):
    """The still images that lie in one folder, the frames of a sequence.

    `path` is the folder with a slash at its end, empty for the top; `length` is how many frames there are. Beyond
    MAX_FRAMES they are counted and not kept.
    """

    path: str
    length: int = 0
    _frames: list[tuple[str, F]] = field(default_factory=list)

    def add(self, name: str, frame: F) -> None:
        self.length += 1
        if self.length <= MAX_FRAMES:
            self._frames.append((name, frame))
        else:
            self._frames.clear()

    def frames(self, most: int) -> Sequence[F]:
        """The frames that are looked at, at most so many, in their order; none where there are too many."""
        ordered = sorted(self._frames, key=lambda found: natural(found[0]))
        return [ordered[n][1] for n in spread(len(ordered), most)]


def by_folder(files: Iterable[F], path: Callable[[F], str]) -> Iterator[F | Folder[F]]:
    """Image files as sequences: an animation as it comes, the stills of a folder when the folder has ended.

    `files` come in the order of their paths, or in any other that keeps what is below a folder together. So no more is
    held than the folders on the way to the present one.
    """
    open: list[Folder[F]] = []
    for file in files:
        place = path(file)
        while open and not place.startswith(open[-1].path):
            yield open.pop()
        if PurePosixPath(place).suffix.lower() in ANIMATIONS:
            yield file
            continue
        folder, slash, name = place.rpartition("/")
        if not open or open[-1].path != folder + slash:
            open.append(Folder(folder + slash))
        open[-1].add(name, file)
    while open:
        yield open.pop()
