"""The plan of a source as a log in the bucket: each shard's manifest is written once, and the next planner goes on.

Safety does not rest on a lock. A planner that was stopped past its lock and wakes may append a shard, or find that
its successor did; either way the manifests follow each other, and both planners go on behind the last. An empty
manifest ends the log, so that no planner appends to a plan that another has completed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from contract.backend.objects import ObjectStore
from contract.data.items import Item, read_manifest, write_manifest
from contract.jobs.commits import in_parallel
from contract.jobs.lifecycle import read_plan
from contract.jobs.status import Plan
from contract.keys.jobs import JobKeys
from contract.keys.shards import parse_shard

_END = b""
_THREADS = 8


class PlanLog:
    """The manifests of a job so far; with `labels` they hold the labels too.

    `found` is given the items of each shard that is there already, or that another planner wrote.
    """

    def __init__(
        self,
        store: ObjectStore,
        job: str,
        *,
        labels: bool = False,
        found: Callable[[Sequence[Item]], None] = lambda items: None,
    ) -> None:
        self._store, self._job, self._labels, self._found = store, job, labels, found
        self.shards = 0
        """Number of shards so far."""
        self.items = 0
        """Number of items in them."""
        self.last: Item | None = None
        """The last item."""
        self.ended = False
        keys = (entry.key for entry in store.list(JobKeys(job).plan_prefix) if parse_shard(entry.key))
        numbered = (key for number, key in enumerate(keys) if parse_shard(key) == (number, 0))
        for data in in_parallel(store.get, numbered, threads=_THREADS):
            if not self.ended:
                self._follow(data)

    def append(self, items: Sequence[Item]) -> bool:
        """Write the next shard; return False if another planner wrote another one there, which now is the last."""
        return self._put(write_manifest(items, labels=self._labels), items)

    def end(self) -> bool:
        """End the log; return False if another planner has appended a shard, which now is the last."""
        return self._put(_END, ())

    def complete(self, skipped: int) -> Plan:
        """Write that the plan is complete, and return the plan that stands."""
        return write_plan(self._store, self._job, Plan(shards=self.shards, items=self.items, skipped=skipped))

    def _put(self, data: bytes, items: Sequence[Item]) -> bool:
        key = JobKeys(self._job).manifest(self.shards)
        if not self._store.put_if_absent(key, data):
            there = self._store.get(key)
            # Only after the plan is complete does anybody else, who splits a shard, write a manifest.
            if there != data and (plan := read_plan(self._store, self._job)) is not None:
                while self.shards < plan.shards:
                    self._follow(self._store.get(JobKeys(self._job).manifest(self.shards)))
                self.ended = True
                return False
            if there != data:
                self._follow(there)
                return False
        self._add(items)
        return True

    def _follow(self, data: bytes) -> None:
        items = read_manifest(data)
        self._found(items)
        self._add(items)

    def _add(self, items: Sequence[Item]) -> None:
        """Go on behind a manifest; an empty one ends the log."""
        if not items:
            self.ended = True
            return
        self.shards, self.items, self.last = self.shards + 1, self.items + len(items), items[-1]


def write_plan(store: ObjectStore, job: str, plan: Plan) -> Plan:
    """Write a plan unless there is one, and return the plan that stands."""
    if store.put_if_absent(JobKeys(job).plan, plan.to_json()):
        return plan
    return read_plan(store, job) or plan
