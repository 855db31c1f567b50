"""Reads the accepted images of a job again, each verified by its sha256, a few megabytes of a tar at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from contract.backend.objects import ObjectStore
from contract.data.dataset_card import columns
from contract.data.image_index import shards, tar_of
from contract.data.items import parse_s3
from contract.errors import ObjectDamaged
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from contract.jobs.status import ShardCommit
from producer.exports.labels import rounded


def accepted(index: pa.Table) -> list[Row]:
    """The rows of accepted images, in the order of their bytes in the tar."""
    rows: list[Row] = index.filter(index["accepted"]).to_pylist()
    return sorted(rows, key=lambda row: row["offset"])


def read(store: ObjectStore, spec: ImagesSpec) -> Iterator[tuple[Row, bytes]]:
    """Each accepted image of a job, shard by shard: its row, and the bytes of its file.

    Raises ObjectDamaged where an index or an image is not what was committed.
    """
    for commit, index in shards(store, spec):
        yield from of_shard(store, commit, index)


def of_shard(store: ObjectStore, commit: ShardCommit, index: pa.Table) -> Iterator[tuple[Row, bytes]]:
    """The same of one shard."""
    assert commit.output is not None, "a committed shard of images has an index"
    address = tar_of(commit.output)
    bucket, key = parse_s3(address)
    window = Window(store.pieces(key, bucket=bucket))
    for row in accepted(index):
        data = window.read(row["offset"], row["size"])
        check(row, data, address)
        yield row, data


def check(row: Row, data: bytes, address: str) -> None:
    """Raises ObjectDamaged where these are not the bytes of the image that was committed."""
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ObjectDamaged(
            f"{row['key']} in {address} is not what was committed (its sha256 differs); restore the tar from a backup, "
            "or make the images again as a new job."
        )


def metadata(spec: ImagesSpec, row: Row) -> dict[str, Any]:
    """What is told of an image in every layout, by `contract.data.dataset_card.COLUMNS`."""
    return {name: rounded(row[name]) for name in columns(spec)}


class Window:
    """Ranges of a stream, asked for in ascending order; what lies before the last is forgotten."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._start, self._data = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer where the stream ends."""
        while self._start + len(self._data) < offset + size and (piece := next(self._pieces, None)) is not None:
            kept = self._data[max(0, offset - self._start) :]
            self._start += len(self._data) - len(kept)
            self._data = kept + piece
        begin = offset - self._start
        return self._data[begin : begin + size]
