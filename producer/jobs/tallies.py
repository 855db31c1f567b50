"""Counts labels and error codes of jobs that run from their commits, and reads each commit once."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from contract.backend.objects import ObjectStore
from contract.jobs.commits import in_parallel, iter_listed, read_commit
from contract.jobs.status import Status

MOST_SHARDS = 2000
"""Shards of a job that runs that are counted; the end of a job counts all."""
_MOST_JOBS = 64
_THREADS = 8


@dataclass
class Tally:
    """What the commits of a job say so far."""

    codes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    retries: dict[int, int] = field(default_factory=dict)
    """The shards that are counted, each with the retry that is."""
    failing: int | None = None
    """The first shard in which an image failed."""

    @property
    def complete(self) -> bool:
        """Whether every shard that is committed is counted."""
        return len(self.retries) < MOST_SHARDS


class Tallies:
    """The tallies of the jobs that were looked at lately. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Tally] = OrderedDict()

    def of(self, store: ObjectStore, job: str) -> Tally:
        """Return the tally of a job's first `MOST_SHARDS` committed shards."""
        listed = {one.shard: one.retry for one in islice(iter_listed(store, job), MOST_SHARDS)}
        with self._lock:
            held = self._held.get(job, Tally())
        again = any(listed.get(shard) != retry for shard, retry in held.retries.items())
        known: Mapping[int, int] = {} if again else held.retries
        new = [(shard, retry) for shard, retry in listed.items() if shard not in known]
        codes, labels = (Counter[str](), Counter[str]()) if again else (held.codes.copy(), held.labels.copy())
        failing = [] if again or held.failing is None else [held.failing]
        for commit in in_parallel(lambda one: read_commit(store, job, *one), new, threads=_THREADS):
            codes.update(commit.error_codes)
            labels.update(commit.labels)
            failing += [commit.shard] if commit.errors else []
        found = Tally(codes, labels, listed, min(failing, default=None))
        with self._lock:
            self._held[job] = found
            self._held.move_to_end(job)
            while len(self._held) > _MOST_JOBS:
                self._held.popitem(last=False)
        return found

    def codes_of(self, store: ObjectStore, status: Status) -> dict[str, int]:
        """Return the number of failed images by code: as the end of a job says, or so far."""
        if status.ended or not status.errors:
            return dict(status.error_codes or {})
        return dict(self.of(store, status.id).codes)
