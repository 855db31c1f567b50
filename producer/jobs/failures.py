"""Finds the images of a job that failed, a page at a time; it reads commits and rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data.label_rows import ERROR
from contract.errors import InvalidInput
from contract.jobs import results
from contract.jobs.commits import in_parallel, iter_listed, read_commit
from contract.jobs.results import Row
from contract.jobs.status import ShardCommit

_THREADS = 8
MOST_SHARDS = 256
"""Commits that are looked at for a page; a job with fewer failures than shards may have short pages."""


@dataclass(frozen=True)
class Failure:
    """A row of an image that failed, and the shard whose manifest lists it."""

    shard: int
    row: Row


@dataclass(frozen=True)
class FailurePage:
    """Failures in the order of shards, and where the next page begins; an empty `after` on the last."""

    failures: list[Failure]
    after: str


def failures(
    store: ObjectStore, id: str, most: int, *, code: str = "", after: str = "", shards: int = MOST_SHARDS
) -> FailurePage:
    """Return at most `most` failures of a job that labels images, those with `code` if one is given.

    `after` is that of the page before, or `N.0` for shard N; raises InvalidInput for any other text. The commits of at
    most `shards` shards are looked at.
    """
    first, skipped = _place(after)
    found: list[Failure] = []
    shard = first
    listed = islice(iter_listed(store, id, first=first), shards)
    looked = 0
    for commit in in_parallel(lambda one: read_commit(store, id, one.shard, one.retry), listed, threads=_THREADS):
        looked, shard = looked + 1, commit.shard
        skip = skipped if commit.shard == first else 0
        if not _may_have(commit, code):
            continue
        table = _failed(store, commit, code)
        rows = table.slice(skip, most - len(found)).to_pylist()
        found += [Failure(commit.shard, row) for row in rows]
        if len(found) == most and table.num_rows > skip + len(rows):
            return FailurePage(found, f"{commit.shard}.{skip + len(rows)}")
        if len(found) == most:
            return FailurePage(found, f"{commit.shard + 1}.0" if _more(store, id, commit.shard + 1) else "")
    more = looked == shards and _more(store, id, shard + 1)
    return FailurePage(found, f"{shard + 1}.0" if more else "")


def _may_have(commit: ShardCommit, code: str) -> bool:
    return bool(
        commit.errors
        and commit.split is None
        and commit.output is not None
        and commit.output.endswith(".parquet")
        and (not code or code in commit.error_codes or not commit.error_codes)
    )


def _failed(store: ObjectStore, commit: ShardCommit, code: str) -> pa.Table:
    table = results.committed(store, commit)
    table = table.filter(pc.equal(table["status"], ERROR))
    return table.filter(pc.equal(table["error_code"], code)) if code else table


def _more(store: ObjectStore, id: str, first: int) -> bool:
    return next(iter_listed(store, id, first=first), None) is not None


def _place(after: str) -> tuple[int, int]:
    """Return the shard at which a page begins, and how many of its failures were on pages before."""
    shard, _, rows = (after or "0.0").partition(".")
    if not (shard.isdecimal() and rows.isdecimal() and len(after) <= 20):
        raise InvalidInput("This is no place that a page of failures gave; begin with the first page.")
    return int(shard), int(rows)
