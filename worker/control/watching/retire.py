"""Ends what a removed watch left open, and deletes what it wrote; its jobs and their rows stay."""

from __future__ import annotations

from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, parse_spec
from contract.keys.jobs import JobKeys
from contract.keys.watches import parse_watch_state, watch_prefix, watch_state
from contract.watches.segments import read_segment, segment_numbers
from worker.control.plan_log import PlanLog


def retire(backend: Backend, root: str) -> None:
    """End the open segment below the folder of a watch, and delete the folder. It is safe to do twice."""
    store = backend.store
    for number in segment_numbers(store, root)[-1:]:
        segment = read_segment(store, root, number)
        if not segment.job or not store.exists(JobKeys(segment.job).active):
            continue
        plan = PlanLog(store, segment.job)
        while not plan.ended and not plan.end():
            pass
        if not plan.items:
            lifecycle.close(backend, segment.job, "canceled", "Its watch was removed before it found an image.")
            continue
        spec = parse_spec(segment.spec)
        assert isinstance(spec, Classify), "a watch labels"
        done = plan.complete(0)
        limit = spec.error_limit(done.items)
        step = backend.ledger.complete(spec.id, shards=done.shards, items=done.items, error_limit=limit, skipped=0)
        backend.follow_up(spec.id, step)
    store.delete_all([entry.key for entry in store.list(root)])


def leftovers(backend: Backend, name: str, stamp: str | None) -> list[str]:
    """Return the folders of removed watches of this name; `stamp` is that of the watch that has the name now."""
    found = (parse_watch_state(entry.key) for entry in backend.store.list(watch_prefix(name), folders=True))
    return [watch_state(name, was[1]) for was in found if was is not None and was[1] != stamp]
