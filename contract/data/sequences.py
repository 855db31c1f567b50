"""Groups files into image sequences, orders their frames, and chooses which frames a model sees.

It works on names alone, and knows neither where the files are nor what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Generic, TypeVar

F = TypeVar("F")

MAX_FRAMES = 100_000
"""The most frames in a sequence: an hour at 25 frames a second has 90,000. Listing holds the names of a folder until it
ends, and a bucket may have a million images in one folder."""

MAX_IMAGES = 10
"""All frames of a sequence together may be this many times as large as one image, in bytes and in pixels."""

ANIMATIONS = frozenset([".gif", ".webp", ".apng"])
"""Suffixes of files that hold a sequence. The suffix decides, because looking into a million files would read them."""


def spread(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` frames, evenly spread, with the first and the last; return their numbers."""
    if count <= most:
        return list(range(count))
    return [round(n * (count - 1) / max(1, most - 1)) for n in range(most)]


def natural(name: str) -> tuple[list[str | int], str]:
    """Return the sort key for natural order: `frame-2` before `frame-10`."""
    parts = re.split("([0-9]+)", name)  # words and numbers alternate, starting with a word
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


@dataclass
class Folder(Generic[F]):
    """The still images in one folder, which are the frames of a sequence.

    `path` is the folder with a trailing slash, empty for the top; `length` counts the frames. Beyond MAX_FRAMES they
    are counted but not kept.
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
        """Return at most `most` frames in natural order, evenly spread; none if the folder has more than MAX_FRAMES."""
        ordered = sorted(self._frames, key=lambda found: natural(found[0]))
        return [ordered[n][1] for n in spread(len(ordered), most)]


def by_folder(files: Iterable[F], path: Callable[[F], str]) -> Iterator[F | Folder[F]]:
    """Group image files into sequences: yield an animation at once, and the stills of a folder when the folder ends.

    `files` must come in an order that keeps everything below a folder together, such as that of their paths. Then only
    the folders above the current file are held.
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
