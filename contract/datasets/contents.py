"""The images of a dataset as rows: the indices of all its versions, one behind the other, each verified."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from contract.backend.objects import ObjectStore
from contract.datasets.versions import Grown
from contract.jobs.commits import in_parallel
from contract.jobs.results import committed
from contract.jobs.status import ShardCommit


def commits(grown: Grown) -> Iterator[ShardCommit]:
    """Yield each shard of a dataset, oldest version first, numbered through."""
    parts = (part for version in grown.versions for part in version.parts)
    for number, part in enumerate(parts):
        yield ShardCommit(
            shard=number, items=part.accepted, ok=part.accepted, errors=0, output=part.index, sha256=part.sha256
        )


def tables(store: ObjectStore, grown: Grown) -> Iterator[tuple[ShardCommit, pa.Table]]:
    """Yield each shard with its index, which has a row for each candidate.

    Raises ObjectDamaged if an index is not what was committed.
    """
    yield from in_parallel(lambda commit: (commit, committed(store, commit)), commits(grown), threads=8)
