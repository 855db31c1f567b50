"""Reads the accepted images of a job, each verified by its sha256, a few megabytes of a tar at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from contract.backend.objects import ObjectStore
from contract.data.dataset_card import columns
from contract.data.dataset_stats import DatasetStats
from contract.data.image_index import shards, tar_of
from contract.data.items import parse_s3
from contract.datasets.contents import tables
from contract.datasets.versions import Grown
from contract.errors import ObjectDamaged
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from contract.jobs.status import ShardCommit
from producer.exports.labels.source import rounded


def accepted(index: pa.Table) -> list[Row]:
    """Return the rows of the accepted images, in the order of their bytes in the tar."""
    rows: list[Row] = index.filter(index["accepted"]).to_pylist()
    return sorted(rows, key=lambda row: row["offset"])


@dataclass(frozen=True)
class ImageSet:
    """The images of one ended job as an exporter sees them."""

    store: ObjectStore
    spec: ImagesSpec
    stats: DatasetStats

    def shards(self) -> Iterator[tuple[ShardCommit, pa.Table]]:
        """Return each committed shard with its index, which has a row for each candidate.

        Raises ObjectDamaged if an index is not what was committed.
        """
        return shards(self.store, self.spec)

    def accepted(self) -> Iterator[tuple[Row, bytes]]:
        """Return each accepted image, shard by shard: its row, and the bytes of its file.

        Raises ObjectDamaged if an index or an image is not what was committed.
        """
        for commit, index in self.shards():
            yield from of_shard(self.store, commit, index)


@dataclass(frozen=True)
class GrownSet(ImageSet):
    """The images of a dataset at a version; `spec` is that of the newest version, under the name of the dataset."""

    grown: Grown

    def shards(self) -> Iterator[tuple[ShardCommit, pa.Table]]:
        return tables(self.store, self.grown)


def of_shard(store: ObjectStore, commit: ShardCommit, index: pa.Table) -> Iterator[tuple[Row, bytes]]:
    """Return the accepted images of one shard."""
    assert commit.output is not None, "a committed shard of images has an index"
    address = tar_of(commit.output)
    bucket, key = parse_s3(address)
    window = Window(store.pieces(key, bucket=bucket))
    for row in accepted(index):
        data = window.read(row["offset"], row["size"])
        check(row, data, address)
        yield row, data


def check(row: Row, data: bytes, address: str) -> None:
    """Raise ObjectDamaged unless `data` is the image that was committed."""
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ObjectDamaged(
            f"{row['key']} in {address} is not what was committed (its sha256 differs); restore the tar from a backup, "
            "or make the images again as a new job."
        )


def metadata(spec: ImagesSpec, row: Row) -> dict[str, Any]:
    """Return the columns that every format has for an image; see `contract.data.dataset_card.COLUMNS`."""
    return {name: rounded(row[name]) for name in columns(spec)}


class Window:
    """Reads ranges of a stream in ascending order, and forgets what lies before the last one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._start, self._data = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer at the end of the stream."""
        while self._start + len(self._data) < offset + size and (piece := next(self._pieces, None)) is not None:
            kept = self._data[max(0, offset - self._start) :]
            self._start += len(self._data) - len(kept)
            self._data = kept + piece
        begin = offset - self._start
        return self._data[begin : begin + size]
