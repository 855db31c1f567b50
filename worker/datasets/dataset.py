"""Labelled images as arrays, checked once, and the part of them that is held out.

It knows neither where they came from nor what learns from them, and imports no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidSource

_CHUNK = 1 << 24  # bytes of images that are held at a time while they are hashed


class Rows:
    """Chosen rows of an array of images, read when they are asked for; it copies nothing before.

    It has the shape and the indexing of an array on its first axis, so that a part of a memory-mapped file can
    stand where an array does; `np.asarray` reads all of it.
    """

    def __init__(self, images: NDArray[np.uint8], index: NDArray[np.int64]) -> None:
        self.images = images
        self._index = index
        self.shape: tuple[int, ...] = (len(index), *images.shape[1:])
        self.ndim = images.ndim
        self.dtype = images.dtype

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, rows: int | slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.images[self._index[rows]]
        return found

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def rows(self, index: NDArray[np.int64]) -> Rows:
        """Rows of these rows, of the same array."""
        return Rows(self.images, self._index[index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, or sequences of images, of one size.

    Raises InvalidSource where the arrays do not fit each other: it is told once, before an hour of training.
    """

    images: NDArray[np.uint8] | Rows
    """[n, size, size, c], c 1 or 3; of sequences [n, t, size, size, c], padded with zeros."""
    labels: NDArray[np.int64]
    """[n], 0 ≤ label < len(classes)."""
    classes: tuple[str, ...]
    lengths: NDArray[np.int64] | None = None
    """[n], 1 ≤ length ≤ t: how many frames of each sequence are real; None of images."""

    def __post_init__(self) -> None:
        shape, n = self.images.shape, len(self.labels)
        if n == 0:
            raise InvalidSource("The data holds no images; give at least two of each class.")
        if self.images.dtype != np.uint8 or self.images.ndim != (4 if self.lengths is None else 5):
            what = "images [n, size, size, c]" if self.lengths is None else "sequences [n, t, size, size, c]"
            raise InvalidSource(f"The data is {self.images.dtype} {list(shape)}; {what} of uint8 are needed.")
        if shape[0] != n:
            raise InvalidSource(f"The data has {shape[0]:,} images and {n:,} labels; give each image its label.")
        height, width, channels = shape[-3:]
        if height != width or channels not in (1, 3):
            raise InvalidSource(
                f"The images have {height} × {width} pixels and {channels} channels; models take squares of 1 or 3 "
                "channels, so resize or convert them."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InvalidSource(
                f"The labels go from {low} to {high}, and there are {len(self.classes)} classes; a label is the place "
                "of its class in their list, counted from 0."
            )
        if self.lengths is not None:
            self._check_lengths(self.lengths)

    def _check_lengths(self, lengths: NDArray[np.int64]) -> None:
        if len(lengths) != len(self):
            raise InvalidSource(
                f"The data has {len(self):,} sequences and {len(lengths):,} lengths; give each its own."
            )
        low, high = int(lengths.min()), int(lengths.max())
        if low < 1 or high > self.images.shape[1]:
            raise InvalidSource(
                f"The sequences are {low} to {high} frames long; they must have at least 1, and at most the "
                f"{self.images.shape[1]} that the data holds of each."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.images.shape[-2]

    @property
    def channels(self) -> int:
        return self.images.shape[-1]

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of shapes, pixels, labels, classes and lengths, as hex; reads all of them once."""
        digest = hashlib.sha256()
        for part in (self.images.shape, self.classes, self.lengths is not None):
            digest.update(f"{part!r}\n".encode())
        for numbers in (self.labels, self.lengths):
            if numbers is not None:
                digest.update(np.ascontiguousarray(numbers, "<i8").data)
        rows = max(1, _CHUNK // int(np.prod(self.images.shape[1:])))
        for start in range(0, len(self), rows):
            digest.update(np.ascontiguousarray(self.images[start : start + rows]).data)
        return digest.hexdigest()

    def rows(self, index: NDArray[np.int64]) -> Dataset:
        """Return the examples with these numbers, in their order, without copying pixels."""
        images = self.images.rows(index) if isinstance(self.images, Rows) else Rows(self.images, index)
        lengths = None if self.lengths is None else self.lengths[index]
        return Dataset(images, self.labels[index], self.classes, lengths)


def evenly(total: int, most: int) -> NDArray[np.int64]:
    """Which of `total` are taken where `most` are, all if there are no more: spread evenly over their order, which may
    go by class.
    """
    count = min(total, most)
    return np.arange(count, dtype=np.int64) * total // max(count, 1)


def split(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """What to train on, and what is held out: `share` of each class, at least one example, never all.

    The same data, share and seed give the same parts, also with another version of NumPy: the choice is by the raw
    output of PCG64, which is fixed (NEP 19), where the algorithms of `shuffle` and `permutation` are not. Raises
    InvalidSource naming a class with fewer than two examples.
    """
    draws = np.random.PCG64(seed).random_raw(len(data))
    held = np.zeros(len(data), bool)
    for label, name in enumerate(data.classes):
        members = np.flatnonzero(data.labels == label)
        if len(members) < 2:
            raise InvalidSource(
                f"The class {name!r} has {'one image' if len(members) else 'no image'}; it needs two at least, one to "
                "train on and one to hold out, so add images to it or leave it out."
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held[members[np.argsort(draws[members], kind="stable")[:count]]] = True
    return data.rows(np.flatnonzero(~held)), data.rows(np.flatnonzero(held))
