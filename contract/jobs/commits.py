"""Read the commits of a job as a stream: listed in order, read in parallel, counted, and dropped.

A job of 10^8 images has tens of thousands of commits; what is kept of them is a few counters.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import NewerVersion, ObjectDamaged
from contract.jobs.status import Retry, RunStart, ShardCommit
from contract.keys.jobs import JobKeys, parse_run
from contract.keys.shards import parse_shard, shard_stem

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 32  # twice as many commits are held; one with 4,096 labels takes a megabyte
_COMMIT_BYTES = 16 * 2**20  # 4,096 items with labels of a kilobyte each take 4 MB

LABELS_AT_MOST = 65_536
"""Distinct labels that are counted by name; the largest public label sets have about 22,000."""
CODES_AT_MOST = 256
"""Distinct error codes that are counted by name; the product has about twenty."""
OTHER = "(other)"
"""Counts what comes after so many distinct names."""


@dataclass(frozen=True)
class Committed:
    """What the listing says about one shard: its newest retry, and the earlier ones that are still there."""

    shard: int
    retry: int
    earlier: tuple[int, ...] = ()


def iter_listed(store: ObjectStore, id: str, *, first: int = 0) -> Iterator[Committed]:
    """Yield each committed shard in the order of the listing, which is nearly that of the numbers, from `first` on."""
    keys = JobKeys(id)
    # All retries of a shard follow each other: `-r1.json` and `.json` sort before any further digit.
    listed = store.list(keys.commit_prefix, after=keys.commit(first - 1) if first else "")
    entries = (found for entry in listed if (found := parse_shard(entry.key)))
    for shard, group in groupby(entries, key=lambda found: found[0]):
        *earlier, newest = sorted(retry for _, retry in group)
        yield Committed(shard, newest, tuple(earlier))


def iter_commits(store: ObjectStore, id: str) -> Iterator[ShardCommit]:
    """Yield the newest commit of every shard, bisected ones included, in the order of the listing."""
    return in_parallel(lambda found: read_commit(store, id, found.shard, found.retry), iter_listed(store, id))


def in_parallel(call: Callable[[T], R], wanted: Iterable[T], *, threads: int = _THREADS) -> Iterator[R]:
    """Yield `call` of each, in order; at most twice as many results as `threads` are held."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for one in wanted:
            waiting.append(pool.submit(call, one))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_commit(store: ObjectStore, id: str, shard: int, retry: int = 0) -> ShardCommit:
    """Return the commit of a shard; raises ObjectNotFound, ObjectDamaged for what is no commit, and NewerVersion."""
    key = JobKeys(id).commit(shard, retry)
    data = store.get(key, limit=_COMMIT_BYTES)
    if len(data) > _COMMIT_BYTES:
        raise ObjectDamaged(f"s3://{store.bucket}/{key} is larger than a commit can be; delete it, then resume {id}.")
    try:
        return ShardCommit.model_validate_json(data)
    except ValidationError as error:
        if all(one["type"] == "extra_forbidden" for one in error.errors(include_url=False)):
            raise NewerVersion(
                f"s3://{store.bucket}/{key} is the commit of a newer version; upgrade what reads it, or stop {id}."
            ) from error
        raise ObjectDamaged(
            f"s3://{store.bucket}/{key} is not a commit that this version can read ({type(error).__name__}); upgrade, "
            f"or delete it and resume {id}."
        ) from error


def iter_retries(store: ObjectStore, id: str) -> Iterator[Retry]:
    """Yield the job's retries, oldest first."""
    keys = JobKeys(id)
    for entry in store.list(keys.retry_prefix):
        yield Retry.model_validate_json(store.get(entry.key))
    for entry in store.list(keys.run_prefix):
        found = parse_run(entry.key)
        if found and found[1] == "start":
            start = RunStart.model_validate_json(store.get(entry.key))
            if start.retry is not None:
                yield start.retry


@dataclass
class Retries:
    """All retries of a job in one: how many there were, and which shards must have been run again by which."""

    number: int = 0
    required: dict[int, int] = field(default_factory=dict)
    """The number of the last retry that names each shard, for the shards that were retried."""


def read_retries(store: ObjectStore, id: str) -> Retries:
    """Return what the retries of a job ask for."""
    found = Retries()
    for retry in iter_retries(store, id):
        found.number = max(found.number, retry.number)
        found.required.update(dict.fromkeys(retry.shards, retry.number))
    return found


@dataclass
class Tally:
    """Counters over the commits of a job with `planned` shards. Its size depends on neither images nor shards.

    A commit from before a retry that its shard `required` is counted, but the shard is missing.
    """

    planned: int
    required: Mapping[int, int] = field(default_factory=dict)
    ok: int = 0
    errors: int = 0
    shards: int = 0
    split: set[int] = field(default_factory=set)
    """Bisected shards: few, since each has killed workers."""
    error_codes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    current_errors: int = 0
    """`errors` without those that a retry is to run again."""
    retried: bool = False
    """Whether a shard was run again."""
    _planned_done: int = 0
    _halves: set[int] = field(default_factory=set)
    _halves_done: set[int] = field(default_factory=set)

    def add(self, commit: ShardCommit) -> None:
        """Count one shard; each must come once."""
        self.ok += commit.ok
        self.errors += commit.errors
        self.shards += 1
        add_bounded(self.error_codes, commit.error_codes, CODES_AT_MOST)
        add_bounded(self.labels, commit.labels, LABELS_AT_MOST)
        self.retried = self.retried or commit.retry > 0
        if commit.split:
            self.split.add(commit.shard)
            self._halves.update(commit.split)
        if commit.retry < self.required.get(commit.shard, 0):
            return
        self.current_errors += commit.errors
        if commit.shard < self.planned:
            self._planned_done += 1
        else:
            self._halves_done.add(commit.shard)

    @property
    def complete(self) -> bool:
        """Whether every planned shard, and each half of a bisected one, has its commit, or that of its last retry."""
        return self._planned_done >= self.planned and self._halves <= self._halves_done


def count_commits(store: ObjectStore, id: str, planned: int, required: Mapping[int, int] | None = None) -> Tally:
    """Return the counters over all commits of a job."""
    tally = Tally(planned, required or {})
    for commit in iter_commits(store, id):
        tally.add(commit)
    return tally


def add_bounded(total: Counter[str], more: Mapping[str, int], at_most: int) -> None:
    """Add `more` to `total`, and to `OTHER` what would be a name beyond `at_most`."""
    for name, number in more.items():
        known = name in total or len(total) < at_most
        total[name if known else OTHER] += number


def remove_superseded(store: ObjectStore, id: str, tally: Tally, output: str) -> None:
    """Delete rows below `output` that the newest commits do not stand for, so that each row is there once.

    These are rows from before a retry or a bisection, also of a worker that died before it could commit them. It is
    safe to run twice.
    """
    bucket, prefix = parse_s3(output)
    keys = JobKeys(id)

    def remove(found: Committed) -> None:
        rows = range(found.retry + 1 if found.shard in tally.split else found.retry)
        for retry in rows:
            store.delete(f"{prefix}{shard_stem(found.shard, retry)}.parquet", bucket=bucket)
        for retry in found.earlier:
            store.delete(keys.commit(found.shard, retry))

    wanted = (found for found in iter_listed(store, id) if found.retry or found.shard in tally.split)
    for _ in in_parallel(remove, wanted):
        pass
