"""Generated images as a WebDataset: a copy of the tars of the job and their indices, each verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from contract.backend.objects import ObjectStore
from contract.data.dataset_card import WEBDATASET, image_suffix
from contract.data.image_index import tar_of
from contract.data.items import parse_s3
from contract.errors import ObjectDamaged
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from contract.keys.shards import shard_stem
from producer.exports.images.accepted import ImageSet, accepted, check
from producer.exports.images.croissant import DataFile, Records, file_set, joined
from producer.exports.images.target import Target

LAYOUT = WEBDATASET


def write(images: ImageSet, target: Target, done: Callable[[int], None]) -> list[str]:
    """Write every shard and return the names of the files; `done` gets the number of images in each.

    Keeps a tar that already exists with the right length and the right images.
    """
    store = images.store
    names = []
    for commit, index in images.shards():
        assert commit.output is not None and commit.sha256 is not None, "a committed shard of images has an index"
        rows = accepted(index)
        stem = shard_stem(commit.shard)
        if rows:  # readers refuse an empty tar
            _fetch_tar(store, tar_of(commit.output), rows, target, f"{stem}.tar")
            names.append(f"{stem}.tar")
        _fetch_index(store, commit.output, commit.sha256, target, f"{stem}.parquet")
        names.append(f"{stem}.parquet")
        done(len(rows))
    return names


def records(spec: ImagesSpec, files: Sequence[DataFile]) -> Records:
    """Say where Croissant finds images, their columns and the candidates."""
    suffix, indices = image_suffix(spec), {"fileSet": {"@id": "indices"}}
    tars = [{"@id": file.name} for file in files if file.name.endswith(".tar")]
    sets = [
        file_set("image-files", f"*{suffix}", suffix, "The images in the tars.", containedIn=tars),
        file_set("indices", "shard-*.parquet", ".parquet", "A row for each candidate, of each shard."),
    ]
    return Records(joined(spec, suffix, indices), sets, candidates=indices)


def _fetch_tar(store: ObjectStore, address: str, rows: list[Row], target: Target, name: str) -> None:
    bucket, key = parse_s3(address)
    if _is_whole(target.path(name), store.size(key, bucket=bucket), rows, address):
        return
    with target.writing(name) as (file,):
        for piece in store.pieces(key, bucket=bucket):
            file.write(piece)
        file.flush()
        with target.part(name).open("rb") as written:
            _check(written, rows, address)


def _is_whole(path: Path, size: int, rows: list[Row], address: str) -> bool:
    """Whether an earlier export left the complete file."""
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


def _fetch_index(store: ObjectStore, address: str, sha256: str, target: Target, name: str) -> None:
    bucket, key = parse_s3(address)
    data = store.get(key, bucket=bucket)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ObjectDamaged(f"{address} changed while it was read (its sha256 differs); export the job again.")
    target.write(name, data)
