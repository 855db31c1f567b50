"""The tars of a job and their indices as files: a WebDataset, as it is in the bucket, each verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from contract.backend.objects import ObjectStore
from contract.data.image_index import shards, tar_of
from contract.data.items import parse_s3
from contract.errors import ObjectDamaged
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from producer.exports.images.accepted import accepted, check
from producer.exports.images.target import Target


def write(store: ObjectStore, spec: ImagesSpec, target: Target, done: Callable[[int], None]) -> list[str]:
    """Write every shard; returns the names of the files. `done` is told how many images each has.

    A tar that is there already, of the right length and with the right images, is kept.
    """
    names = []
    for commit, index in shards(store, spec):
        assert commit.output is not None and commit.sha256 is not None, "a committed shard of images has an index"
        rows = accepted(index)
        tar, name = tar_of(commit.output), PurePosixPath(commit.output).name
        if rows:  # readers take a tar of nothing for a mistake
            _fetch_tar(store, tar, rows, target)
            names.append(PurePosixPath(tar).name)
        _fetch_index(store, commit.output, commit.sha256, target)
        names.append(name)
        done(len(rows))
    return names


def _fetch_tar(store: ObjectStore, address: str, rows: list[Row], target: Target) -> None:
    bucket, key = parse_s3(address)
    path = target.path(PurePosixPath(key).name)
    if _is_whole(path, store.size(key, bucket=bucket), rows, address):
        return
    with target.writing(path.name) as (file,):
        for piece in store.pieces(key, bucket=bucket):
            file.write(piece)
        file.flush()
        with target.part(path.name).open("rb") as written:
            _check(written, rows, address)


def _is_whole(path: Path, size: int, rows: list[Row], address: str) -> bool:
    """Whether an earlier export left the file as it should be."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    try:
        with path.open("rb") as file:
            _check(file, rows, address)
    except ObjectDamaged:
        return False
    return True


def _check(tar: BinaryIO, rows: list[Row], address: str) -> None:
    for row in rows:
        tar.seek(row["offset"])
        check(row, tar.read(row["size"]), address)


def _fetch_index(store: ObjectStore, address: str, sha256: str, target: Target) -> None:
    bucket, key = parse_s3(address)
    data = store.get(key, bucket=bucket)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ObjectDamaged(f"{address} changed while it was read (its sha256 differs); export the job again.")
    target.write(PurePosixPath(key).name, data)
