"""Pictures of two simple classes, each with more than one way to look: what a small generator can learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.datasets.dataset import Dataset

CLASSES = ("disc", "bar")


def shapes(n: int = 256, size: int = 16, channels: int = 1, seed: int = 0) -> Dataset:
    """A disc, or a bar from left to right, brighter than its ground; each where, as large and as bright as drawn."""
    draws = np.random.default_rng((seed, 1))  # not the numbers that `split` chooses by for the same seed
    labels: NDArray[np.int64] = np.arange(n, dtype=np.int64) % 2
    rows, columns = np.mgrid[:size, :size]
    middle, extent = draws.uniform(0.3, 0.7, (2, n, 1, 1)) * size, draws.uniform(0.1, 0.25, (n, 1, 1)) * size
    disc = np.hypot(rows - middle[0], columns - middle[1]) < extent
    bar = np.broadcast_to(np.abs(rows - middle[0]) < extent / 2, disc.shape)
    bright = np.where(labels[:, None, None] == 0, disc, bar) * draws.uniform(150, 220, (n, 1, 1))
    pixels = (bright + 20).astype(np.uint8)[..., None]
    return Dataset(np.repeat(pixels, channels, axis=3), labels, CLASSES)
