"""Picks rows of a job to show, each with the address of its picture; reads a few shards at most."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.items import read_manifest
from contract.data.label_rows import ERROR
from contract.errors import ObjectNotFound
from contract.jobs import results
from contract.jobs.commits import iter_listed, read_commit
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from contract.jobs.status import ShardCommit
from contract.keys import JobKeys

_MOST_SHARDS = 64
"""Commits that are looked at for a row that failed."""


@dataclass(frozen=True)
class Sample:
    """A row, and the end of its picture's address, below that of its job."""

    row: Row
    picture: str


def first_rows(store: ObjectStore, id: str, most: int = 24, *, failed: bool = False) -> list[Sample]:
    """Return the first rows of a job that labels images, in order of shards; with `failed`, the first that failed."""
    found: list[Sample] = []
    for listed in islice(iter_listed(store, id), _MOST_SHARDS):
        commit = read_commit(store, id, listed.shard, listed.retry)
        if commit.errors if failed else commit.ok:
            found += shard_samples(store, id, commit, most - len(found), failed=failed)
        if len(found) >= most:
            break
    return found


def shard_samples(
    store: ObjectStore, id: str, commit: ShardCommit, most: int | None = None, *, failed: bool = False
) -> list[Sample]:
    """Return rows of a shard: those that failed, or those that did not."""
    if commit.split is not None or commit.output is None or not commit.output.endswith(".parquet"):
        return []
    try:
        manifest = read_manifest(store.get(JobKeys(id).manifest(commit.shard)))
    except ObjectNotFound:
        return []
    places = {(item.key, item.uri): place for place, item in enumerate(manifest)}
    rows = (row for row in results.committed(store, commit).to_pylist() if (row.get("status") == ERROR) == failed)
    known = ((row, places.get((row.get("key"), row.get("uri")))) for row in rows)
    return [Sample(row, f"pictures/{commit.shard}/{place}") for row, place in islice(known, most) if place is not None]


def first_made(store: ObjectStore, spec: ImagesSpec, most: int = 24) -> list[Sample]:
    """Return the first accepted images of a job that makes images."""
    found: list[Sample] = []
    for commit, index in islice(image_index.shards(store, spec), _MOST_SHARDS):
        rows = (row for row in index.to_pylist() if row["accepted"] and row["offset"] is not None)
        found += [
            Sample(row, f"made/{commit.shard}/{row['offset']}/{row['size']}") for row in islice(rows, most - len(found))
        ]
        if len(found) >= most:
            break
    return found
