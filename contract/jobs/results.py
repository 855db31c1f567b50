"""Reads the labelled rows of a job from its committed shards. What is not committed does not exist.

It knows where rows are and that they are whole, not what they are turned into: an export, or data to train with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3, read_manifest
from contract.data.label_rows import ERROR
from contract.data.parquet import read_table
from contract.errors import ObjectDamaged
from contract.jobs.lifecycle import commit_keys, read_commit
from contract.jobs.status import ShardCommit
from contract.keys import JobKeys

Row = dict[str, Any]
"""One row, with the columns of `contract.data.label_rows`."""

_THREADS = 16
_AHEAD = 256  # commits


def read_commits(store: ObjectStore, job: str) -> list[ShardCommit]:
    """The newest commit of every shard, in the order of the shards; those of bisected shards too."""
    return list(iter_commits(store, job))


def iter_commits(store: ObjectStore, job: str) -> Iterator[ShardCommit]:
    """What `read_commits` gives, some at a time: those of two million rows, with their labels, take 100 MB."""
    newest = sorted(commit_keys(store, job).items())
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(newest), _AHEAD):
            yield from pool.map(lambda found: read_commit(store, job, *found), newest[start : start + _AHEAD])


def tables(store: ObjectStore, job: str, *, failed: bool = False) -> Iterator[tuple[ShardCommit, pa.Table]]:
    """The rows of each committed shard, in the order of the shards, with the commit; one is held at a time.

    With `failed` only the rows that are errors, from the shards that have any. Raises ObjectDamaged
    where a shard is not what its commit says.
    """
    for commit in iter_commits(store, job):
        if commit.split is None and commit.output is not None and (commit.errors or not failed):
            table = committed(store, commit)
            yield commit, table.filter(pc.equal(table["status"], ERROR)) if failed else table


def rows(store: ObjectStore, job: str, *, failed: bool = False) -> Iterator[Row]:
    """What `tables` gives, row by row."""
    for _, table in tables(store, job, failed=failed):
        yield from table.to_pylist()


def with_items(store: ObjectStore, job: str) -> Iterator[list[tuple[Row, Item]]]:
    """The rows of each committed shard, with the item of its manifest that says where the bytes are."""
    for commit, table in tables(store, job):
        manifest = read_manifest(store.get(JobKeys(job).manifest(commit.shard)))
        items = {(item.key, item.uri): item for item in manifest}
        yield [(row, items[row["key"], row["uri"]]) for row in table.to_pylist()]


def committed(store: ObjectStore, commit: ShardCommit) -> pa.Table:
    """The rows that a commit stands for."""
    assert commit.output is not None, "a bisected shard has no rows"
    bucket, key = parse_s3(commit.output)
    data = store.get(key, bucket=bucket)
    if hashlib.sha256(data).hexdigest() != commit.sha256:
        raise ObjectDamaged(
            f"{commit.output} is not what was committed (its sha256 differs); restore it from a backup, or "
            "label the source again as a new job."
        )
    return read_table(data)
