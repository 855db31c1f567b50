"""The part of an image that a resize looks at, before the resize, for a device that does it.

It knows no files and no devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import PIL
from numpy.typing import NDArray

from worker.engine.images.resample import Interpolation, Weights, weights

MOST_PIXELS = 2**19
"""Pixels of a region; a larger one is resized where it was decoded. JPEGs of any size are reduced below it at decoding,
and 32 regions for each of two batches of 16 lanes take 1.6 GB at most."""
_DOWN_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether this Pillow begins with the pass down where the height shrinks by more than twice as much as the width."""

# How the upright result lies in the one that is not: the place of its first pixel, and the steps to the next row and to
# the next column, in units of (size − 1 rows, size − 1 columns) and (rows, columns); EXIF 2.32, table 4, tag 274.
_TURNS: dict[int, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    1: ((0, 0), (1, 0), (0, 1)),
    2: ((0, 1), (1, 0), (0, -1)),
    3: ((1, 1), (-1, 0), (0, -1)),
    4: ((1, 0), (-1, 0), (0, 1)),
    5: ((0, 0), (0, 1), (1, 0)),
    6: ((0, 1), (0, -1), (1, 0)),
    7: ((1, 1), (0, -1), (-1, 0)),
    8: ((1, 0), (0, 1), (-1, 0)),
}

ORIENTATIONS = frozenset(_TURNS)


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels, uint8 [h, w, 3], and how they become the upright square, uint8 [size, size, 3]."""

    pixels: NDArray[np.uint8]
    across: Weights
    down: Weights
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    down_first: bool = False
    """Whether the pass down is the first one."""
    extent: tuple[int, int] = (0, 0)
    """Width and height of the image that it was cut from, which decide everything but the pixels."""


@dataclass(frozen=True, slots=True)
class Square:
    """The square of an image that a model looks at, and what resizes it."""

    across: Weights
    down: Weights
    down_first: bool
    extent: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int, size: int, crop: float, interpolation: Interpolation) -> Square:
        """Return the centre square of an image, `crop` × its short side."""
        side = crop * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return cls(
            weights(width, left, left + side, size, interpolation),
            weights(height, top, top + side, size, interpolation),
            down_first=_DOWN_FIRST and height > size and height - size > 2 * (width - size),
            extent=(width, height),
        )

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the pixels that the resize looks at."""
        return self.across.start, self.down.start, self.across.end, self.down.end

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the box."""
        left, top, right, bottom = self.box
        return bottom - top, right - left

    @property
    def small(self) -> bool:
        """Whether the box may be handed on as it is."""
        height, width = self.shape
        return height * width <= MOST_PIXELS

    def region(self, pixels: NDArray[np.uint8], orientation: int) -> Region:
        """Return the region with the pixels of the box, uint8 [h, w, 3]."""
        return Region(pixels, self.across, self.down, orientation, self.down_first, self.extent)


def finished(pixels: NDArray[np.uint8]) -> Region:
    """Return a region that is resized already, uint8 [size, size, 3]: its pixels stay as they are."""
    size = pixels.shape[0]
    same = weights(size, 0.0, float(size), size, "bilinear")
    return Region(pixels, same, same)


@dataclass(frozen=True, slots=True)
class Regions:
    """Several regions in few arrays, ready to be copied to a device."""

    pixels: NDArray[np.uint8]
    """All pixels, [bytes], region after region."""
    first: NDArray[np.int32]
    """[n, 2, size]: for each pass, across and down, where a result begins to look, within its region."""
    table: NDArray[np.int32]
    """[n, 2, taps, size]: the weights of each pass."""
    places: NDArray[np.int64]
    """[n, 8]: first byte, width, height, first row among the rows of all, taps across and down, and 0, 0."""
    turns: NDArray[np.int32]
    """[n, 3]: the pixel of the result at which row 0 and column 0 lie, and the steps to the next row and column."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: slice) -> Regions:
        places = self.places[at].copy()
        if not len(places):
            raise IndexError("a part of regions without any")
        start = int(places[0, 0])
        end = int(places[-1, 0] + 3 * places[-1, 1] * places[-1, 2])
        places[:, 0] -= start
        places[:, 3] -= places[0, 3]
        return Regions(self.pixels[start:end], self.first[at], self.table[at], places, self.turns[at])

    @property
    def size(self) -> int:
        """Width and height of the results."""
        return int(self.first.shape[2])

    @property
    def rows(self) -> int:
        """Rows of all regions together."""
        return int(self.places[-1, 3] + self.places[-1, 2])

    @property
    def highest(self) -> int:
        """Rows of the highest region."""
        return int(self.places[:, 2].max())


Allocate: TypeAlias = Callable[[tuple[int, ...], type[np.generic]], NDArray[Any]]
"""Returns an array of a shape and a dtype, with any content: `numpy.empty`, or what allocates pinned memory."""


def packed(parts: Sequence[Region | NDArray[np.uint8]], allocate: Allocate = np.empty) -> Regions:
    """Return regions, or finished squares uint8 [size, size, 3], as arrays that `allocate` makes."""
    regions = [part if isinstance(part, Region) else finished(part) for part in parts]
    n, size = len(regions), len(regions[0].across.first)
    taps = max(max(len(one.across.table), len(one.down.table)) for one in regions)
    pixels = allocate((sum(one.pixels.size for one in regions),), np.uint8)
    first, table = allocate((n, 2, size), np.int32), allocate((n, 2, taps, size), np.int32)
    places, turns = allocate((n, 8), np.int64), allocate((n, 3), np.int32)
    at = row = 0
    for i, one in enumerate(regions):
        source, passes, (base, down, right) = one.pixels, (one.across, one.down), turn(one.orientation, size)
        if one.down_first:  # mirrored at its diagonal the pass down is the one across
            source, passes, (down, right) = source.swapaxes(0, 1), (one.down, one.across), (right, down)
        height, width, _ = source.shape
        pixels[at : at + source.size].reshape(source.shape)[...] = source
        for j, one_pass in enumerate(passes):
            np.subtract(one_pass.first, one_pass.start, out=first[i, j])
            table[i, j, : len(one_pass.table)] = one_pass.table
            table[i, j, len(one_pass.table) :] = 0
        places[i] = at, width, height, row, len(passes[0].table), len(passes[1].table), 0, 0
        turns[i] = base, down, right
        at, row = at + one.pixels.size, row + height
    return Regions(pixels, first, table, places, turns)


def turn(orientation: int, size: int) -> tuple[int, int, int]:
    """Return the pixel at which row 0 and column 0 lie when upright, and the steps to the next row and column."""
    (bottom, right), (row_down, row_right), (column_down, column_right) = _TURNS[orientation]
    last = size - 1
    return bottom * last * size + right * last, row_down * size + row_right, column_down * size + column_right
