"""Read the labelled rows of a job from its committed shards. Rows that are not committed do not exist.

It knows where rows are and verifies them; it does not know what they are used for (an export, training data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3, read_manifest
from contract.errors import ObjectDamaged
from contract.jobs.commits import iter_commits
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
"""One row, with the columns of `contract.data.label_rows`."""


def tables(
    store: ObjectStore, job: str, *, failed: bool = False, only: Container[int] | None = None
) -> Iterator[tuple[ShardCommit, pa.Table]]:
    """Yield each committed shard's commit and rows, in shard order, one shard in memory at a time.

    With `failed`, yield only error rows, of the shards that have any; with `only`, those shards alone. Raises
    ObjectDamaged for a shard that does not match its commit.
    """
    from contract.data.label_rows import failures  # it loads Arrow

    for commit in iter_commits(store, job):
        if only is not None and commit.shard not in only:
            continue
        if commit.split is None and commit.output is not None and (commit.errors or not failed):
            table = committed(store, commit)
            yield commit, failures(table) if failed else table


def rows(store: ObjectStore, job: str, *, failed: bool = False) -> Iterator[Row]:
    """Yield what `tables` yields, row by row."""
    for _, table in tables(store, job, failed=failed):
        yield from table.to_pylist()


def with_items(store: ObjectStore, job: str) -> Iterator[list[tuple[Row, Item]]]:
    """Yield each committed shard's rows, each with its manifest item, which says where the image's bytes are."""
    for commit, table in tables(store, job):
        manifest = read_manifest(store.get(JobKeys(job).manifest(commit.shard)))
        items = {(item.key, item.uri): item for item in manifest}
        yield [(row, items[row["key"], row["uri"]]) for row in table.to_pylist()]


def committed(store: ObjectStore, commit: ShardCommit) -> pa.Table:
    """Return the rows that a commit stands for; raises ObjectDamaged if they do not match its sha256."""
    from contract.data.parquet import read_table  # it loads Arrow

    assert commit.output is not None, "a bisected shard has no rows"
    bucket, key = parse_s3(commit.output)
    data = store.get(key, bucket=bucket)
    if hashlib.sha256(data).hexdigest() != commit.sha256:
        raise ObjectDamaged(
            f"{commit.output} is not what was committed (its sha256 differs); restore it from a backup, or "
            "label the source again as a new job."
        )
    return read_table(data)
