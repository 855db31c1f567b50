"""The weights with which Pillow resizes images of 8 bits a channel, as the integers that it computes with.

Pillow makes two passes, first across and then down, each a sum of products of pixels and weights in 22 bits behind the
binary point, rounded to a byte (its `src/libImaging/Resample.c`). Whoever adds the same integers gets the same pixels,
on any device and in any order. It knows no images, and imports numpy alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bicubic", "bilinear"]

PRECISION_BITS = 22
"""Bits behind the point of a weight: 32 without the 8 of a pixel and 2 for sums beyond white."""
_SUPPORT: dict[Interpolation, float] = {"bicubic": 2.0, "bilinear": 1.0}
_SHARPNESS = -0.5
"""The parameter a of Keys 1981, "Cubic convolution interpolation for digital image processing"."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One pass: result x is the sum over j of `table[j, x]` × the pixel at `first[x]` + j.

    `first` is int32 [size] and `table` int32 [taps, size]; a weight beyond the last pixel is 0.
    """

    first: NDArray[np.int32]
    table: NDArray[np.int32]
    end: int
    """One more than the largest place that any result looks at."""

    @property
    def start(self) -> int:
        """The smallest place that any result looks at."""
        return int(self.first[0])


@lru_cache(maxsize=1024)
def weights(length: int, start: float, end: float, size: int, interpolation: Interpolation) -> Weights:
    """Return the weights that resize the part `start`..`end` of a line of `length` pixels to `size` pixels.

    They are computed in float64 in the order in which Pillow does; its box is in float32.
    """
    begin = np.float32(start)
    scale = float(np.float32(end) - begin) / size
    wide = max(scale, 1.0)
    support = _SUPPORT[interpolation] * wide
    centres = float(begin) + (np.arange(size) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), length)
    places = np.arange(2 * math.ceil(support) + 1)[:, None]
    found = _kernel(interpolation, np.abs((places + first - centres + 0.5) * (1.0 / wide)))
    found[places >= last - first] = 0.0
    total = np.zeros(size)
    for row in found:  # one after the other: numpy's sum adds in pairs where it may
        total += row
    np.divide(found, total, out=found, where=total != 0.0)
    table = np.trunc(found * (1 << PRECISION_BITS) + np.where(found < 0, -0.5, 0.5)).astype(np.int32)
    taps = max(1, int((last - first).max()))
    return Weights(first.astype(np.int32), np.ascontiguousarray(table[:taps]), int(last.max()))


def _kernel(interpolation: Interpolation, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the filter at distances `x` ≥ 0 from its centre."""
    if interpolation == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    a = _SHARPNESS
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
