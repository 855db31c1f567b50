"""Small data that a model can learn in seconds, and what else the tests of training share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.datasets.dataset import Dataset

CLASSES = ("dark", "left", "top")


def images(n: int = 48, size: int = 16, channels: int = 1, seed: int = 0) -> Dataset:
    """Noise; of the second class the left half is bright, of the third the upper half."""
    draws = np.random.default_rng(seed)
    labels: NDArray[np.int64] = np.arange(n, dtype=np.int64) % len(CLASSES)
    pixels = draws.integers(0, 128, (n, size, size, channels), np.uint8)
    pixels[labels == 1, :, : size // 2] += 127
    pixels[labels == 2, : size // 2] += 127
    return Dataset(pixels, labels, CLASSES)


def sequences(n: int = 48, frames: int = 6, size: int = 8, seed: int = 0) -> Dataset:
    """A bright row that moves down, up, or not at all; of 3 frames or more, padded with zeros."""
    draws = np.random.default_rng(seed)
    labels: NDArray[np.int64] = np.arange(n, dtype=np.int64) % 3
    lengths: NDArray[np.int64] = draws.integers(3, frames + 1, n)
    pixels = np.zeros((n, frames, size, size, 1), np.uint8)
    for one, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        for frame in range(length):
            pixels[one, frame, (3 + (0, 1, -1)[label] * frame) % size] = 255
    return Dataset(pixels, labels, ("still", "down", "up"), lengths)
