"""Plan jobs: cut a source, or what is to be generated, into shards, and queue them.

The record of a kind in `contract.jobs.kinds` names its planner. A planner knows sources and manifests, not how a shard
is run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice, repeat

from contract.backend.lock import Lock
from contract.data.items import Item, read_manifest, shard_sizes, sharded, write_manifest
from contract.errors import ImagemillError, ServiceUnavailable
from contract.import_paths import load
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, close, read_plan, read_spec
from contract.jobs.sources import source_kind
from contract.jobs.specs import Classify, Generate, Interpolate, Reconstruct, Spec, Synthesize
from contract.jobs.status import ENDED, Plan
from contract.keys import JobKeys, parse_shard
from worker.generation import candidate_plan
from worker.generation.candidate_plan import CandidateBlock
from worker.sources.lister import labelled_items, lister

log = logging.getLogger(__name__)

# A planner that dies is replaced after this many seconds.
_LOCK_SECONDS = 60.0


def plan(backend: Backend, job: str, lock_seconds: float = _LOCK_SECONDS) -> None:
    """Plan a job, or continue where an earlier planner stopped; return at once if another planner is at work."""
    with backend.ledger.lock("plan", job, lock_seconds) as lock:
        if lock is None:
            return
        try:
            _plan(backend, job, lock)
        except ServiceUnavailable:
            raise  # the reconciler sends the plan again
        except ImagemillError as error:
            if lock.renew():  # else its successor decides
                close(backend, job, "failed", str(error))
        except Exception as error:
            # An unforeseen error would recur: better a job that fails with a reason than one that never starts.
            log.exception("The plan of %s failed", job)
            close(backend, job, "failed", f"The source could not be planned ({error!r}); see the controller's log.")


def _plan(backend: Backend, job: str, lock: Lock) -> None:
    spec = read_spec(backend.store, job)
    state = backend.ledger.state(job)
    if state is None or state in ENDED or source_kind(spec.source.kind).packed_by_producer:
        return
    done = read_plan(backend.store, job) or load(kind_of(spec).plan)(backend, spec, lock)
    if done is None:
        return
    limit = spec.error_limit(done.items)
    step = backend.ledger.complete(job, shards=done.shards, items=done.items, error_limit=limit, skipped=done.skipped)
    backend.follow_up(job, step)


def single_shard(backend: Backend, spec: Spec, lock: Lock) -> None:
    """Queue the only shard of a job; whoever runs it completes the plan, since only the data says how much there is."""
    backend.follow_up(spec.id, backend.ledger.planned(spec.id, 0, 0))


def cut_source(backend: Backend, spec: Classify, lock: Lock) -> Plan | None:
    """Cut the source into shards, after those that exist; return None if the job ended or another planner took over."""
    job = spec.id
    listing = lister(backend.store, spec.source, frames=spec.frames)
    number, total, last = _written(backend, job)
    sizes = islice(shard_sizes(spec.shard_size), number, None)
    for chunk in sharded(listing.rest(total, last), sizes):
        if not _write_manifest(backend, job, number, write_manifest(chunk)):
            return None
        step = backend.ledger.planned(job, number, len(chunk))
        backend.follow_up(job, step)
        total += len(chunk)
        number += 1
        if step.state in ENDED or step.state == "unknown" or not lock.renew():
            return None
    if not lock.renew():
        return None
    if not total:
        close(backend, job, "failed", _nothing(spec.source.label, listing.skipped))
        return None
    return _write_plan(backend, job, shards=number, items=total, skipped=listing.skipped)


def cut_blocks(backend: Backend, spec: Reconstruct, lock: Lock) -> Plan | None:
    """Cut the source into blocks of `shard_size` images; the last may be smaller.

    No shard runs before the plan is complete, so after a planner died the next one starts over, and blocks of two
    listings never mix. A source that is read as a whole needs no manifests. Return None if another planner took over.
    """
    number = total = 0
    counted = lister(backend.store, spec.source).count("test")
    if counted is not None:
        total = min(counted, spec.count or counted)
        number = -(-total // spec.shard_size)
    else:
        images = islice(labelled_items(backend.store, spec.source), spec.count)
        for block in sharded(images, repeat(spec.shard_size)):
            if not lock.renew():
                return None
            backend.store.put(JobKeys(spec.id).manifest(number), write_manifest(block, labels=True))
            total += len(block)
            number += 1
    if not total:
        close(backend, spec.id, "failed", _nothing(spec.source.label, 0))
        return None
    return _write_plan(backend, spec.id, shards=number, items=total)


def _write_plan(backend: Backend, job: str, *, shards: int, items: int, skipped: int = 0) -> Plan:
    """Write the plan, unless another planner did; return the one that stands."""
    plan = Plan(shards=shards, items=items, skipped=skipped)
    backend.store.put_if_absent(JobKeys(job).plan, plan.to_json())
    return read_plan(backend.store, job) or plan


def _write_manifest(backend: Backend, job: str, number: int, data: bytes) -> bool:
    """Write a manifest, unless another planner did; return False if that one holds other items.

    A planner that was stopped past its lock must not replace what its successor planned: it may be running.
    """
    key = JobKeys(job).manifest(number)
    return backend.store.put_if_absent(key, data) or backend.store.get(key) == data


def cut_images(backend: Backend, spec: Generate, lock: Lock) -> Plan:
    """Plan every image of a generation."""
    return _write_blocks(backend, spec.id, candidate_plan.whole_plan(spec))


def cut_candidates(backend: Backend, spec: Synthesize, lock: Lock) -> Plan:
    """Plan the first candidates of a synthesis; it adds more once it knows how many were accepted."""
    return _write_blocks(backend, spec.id, candidate_plan.initial_plan(spec))


def _write_blocks(backend: Backend, job: str, blocks: Sequence[CandidateBlock]) -> Plan:
    candidate_plan.write(backend.store, job, blocks)
    return _write_plan(backend, job, shards=len(blocks), items=sum(map(len, blocks)))


def cut_steps(backend: Backend, spec: Interpolate, lock: Lock) -> Plan:
    """Cut the steps of an interpolation into shards, which know by their number which steps are theirs."""
    return _write_plan(backend, spec.id, shards=-(-spec.steps // spec.shard_size), items=spec.steps)


def _written(backend: Backend, job: str) -> tuple[int, int, Item | None]:
    """Return what an earlier planner wrote: the number of shards, the number of items, the last item."""
    shards, items, last = 0, 0, None
    for entry in backend.store.list(JobKeys(job).plan_prefix):
        if parse_shard(entry.key):
            manifest = read_manifest(backend.store.get(entry.key))
            shards, items, last = shards + 1, items + len(manifest), manifest[-1]
    return shards, items, last


def _nothing(label: str, skipped: int) -> str:
    others = f" (other files: {skipped:,})" if skipped else ""
    return f"{label} holds no images{others}; check the address."
