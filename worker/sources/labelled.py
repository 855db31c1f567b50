"""Finds the IDX files of a source, and reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.errors import InvalidSource
from contract.jobs.specs import Source
from worker.sources import idx
from worker.sources.lister import Lister, Part


class Idx(Lister):
    """IDX files, which are read as a whole and never listed."""

    def items(self) -> Iterator[Item]:
        raise InvalidSource(f"{self.source.label} is data to train with; it has no images one by one.")

    def count(self, part: Part) -> int:
        return len(read_idx(self.store, self.source, part)[1])

    def has_test_part(self) -> bool:
        """Return whether there are several pairs of files."""
        return len(_pairs(self.store, self.source)) > 1


def read_idx(store: ObjectStore, source: Source, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images, uint8 [n, h, w, 1], and labels, int64 [n], of IDX files: of several pairs those of `part`."""
    pair = _choose(_pairs(store, source), part, source)
    bucket, _ = parse_s3(source.uri)
    images, labels = (io.BytesIO(store.get(key, bucket=bucket)) for key in (pair.images, pair.labels))
    return idx.read_pair(images, labels, pair)


def _pairs(store: ObjectStore, source: Source) -> dict[str, idx.Pair]:
    bucket, prefix = parse_s3(source.uri)
    return idx.pairs([entry.key for entry in store.list(prefix, bucket=bucket)])


def _choose(pairs: dict[str, idx.Pair], part: Part, source: Source) -> idx.Pair:
    if not pairs:
        raise InvalidSource(f"{source.label} holds no IDX files; they end in -images-idx3-ubyte, perhaps with .gz.")
    if len(pairs) == 1:
        return next(iter(pairs.values()))
    starts = ("train",) if part == "train" else ("t10k", "test")
    fitting = [pair for stem, pair in pairs.items() if PurePosixPath(stem).name.startswith(starts)]
    if len(fitting) != 1:
        names = ", ".join(PurePosixPath(stem).name for stem in pairs)
        raise InvalidSource(f"{source.label} holds several pairs of IDX files ({names}); name one of them.")
    return fitting[0]
