"""Picks rows of a job to show, each with the address of its picture; reads a few shards at most."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.image_index import DESCRIPTIONS, INDEX
from contract.data.items import read_manifest
from contract.data.label_rows import OK
from contract.errors import ObjectNotFound
from contract.jobs import results
from contract.jobs.commits import Committed, iter_listed, read_commit
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from producer.jobs.tallies import MOST_SHARDS

_MOST_SHARDS = 64
"""Commits that are looked at for a row."""
_NEWEST = 4


@dataclass(frozen=True)
class Sample:
    """A row, and the end of its picture's address, below that of its job."""

    row: Row
    picture: str


def first_rows(store: ObjectStore, id: str, most: int = 24) -> list[Sample]:
    """Return the first rows of a job that labels images, in the order of shards."""
    return _rows(store, id, islice(iter_listed(store, id), _MOST_SHARDS), most)


def newest_rows(store: ObjectStore, id: str, most: int = 24) -> list[Sample]:
    """Return rows of the shards that were committed last, as far as the numbers of a plan that grows say so."""
    listed = deque(islice(iter_listed(store, id), MOST_SHARDS), _NEWEST)
    return _rows(store, id, reversed(listed), most)


def _rows(store: ObjectStore, id: str, listed: Iterable[Committed], most: int) -> list[Sample]:
    found: list[Sample] = []
    for one in listed:
        commit = read_commit(store, id, one.shard, one.retry)
        if commit.ok:
            found += shard_samples(store, id, commit, most - len(found))
        if len(found) >= most:
            break
    return found


def shard_samples(store: ObjectStore, id: str, commit: ShardCommit, most: int | None = None) -> list[Sample]:
    """Return rows of a shard that did not fail."""
    if commit.split is not None or commit.output is None or not commit.output.endswith(".parquet"):
        return []
    try:
        manifest = read_manifest(store.get(JobKeys(id).manifest(commit.shard)))
    except ObjectNotFound:
        return []
    places = {(item.key, item.uri): place for place, item in enumerate(manifest)}
    table = results.committed(store, commit)
    rows = table.filter(pc.equal(table["status"], OK)).slice(0, most).to_pylist()
    known = ((row, places.get((row.get("key"), row.get("uri")))) for row in rows)
    return [Sample(row, f"pictures/{commit.shard}/{place}") for row, place in known if place is not None]


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


def first_candidates(store: ObjectStore, spec: ImagesSpec, most: int = 24) -> list[Sample]:
    """Return candidates of a synthesis that passed the gate, while none is selected yet."""
    found: list[Sample] = []
    for one in islice(iter_listed(store, spec.id), _MOST_SHARDS):
        commit = read_commit(store, spec.id, one.shard, one.retry)
        if commit.output is None or not commit.output.endswith(INDEX):
            continue
        table = results.committed(store, commit)
        passing = table.filter(pc.is_valid(table["offset"])).slice(0, most - len(found))
        rows = passing.select([name for name in passing.column_names if name in DESCRIPTIONS]).to_pylist()
        found += [Sample(row, f"made/{commit.shard}/{row['offset']}/{row['size']}") for row in rows]
        if len(found) >= most:
            break
    return found
