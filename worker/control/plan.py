"""Plan jobs: cut a source, or what is to be generated, into shards, and queue them.

The record of a kind in `contract.jobs.kinds` names its planner. A planner knows sources and manifests, not how a shard
is run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice

from contract.data.items import Item, sharded
from contract.errors import ImagemillError, InvalidSource, ServiceUnavailable
from contract.fleet.sizes import Next, follow
from contract.import_paths import load
from contract.jobs.ends import read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, close, read_plan, read_spec
from contract.jobs.sources import source_kind
from contract.jobs.specs import Classify, Generate, Interpolate, Reconstruct, Spec, Synthesize
from contract.jobs.status import ENDED, Plan
from worker.control.plan_log import PlanLog, write_plan
from worker.generation import candidate_plan
from worker.generation.candidate_plan import CandidateBlock
from worker.sources.lister import Lister, labelled, lister

log = logging.getLogger(__name__)

MAX_ITEMS = 100_000_000
"""The most images of a job; at 512 a shard, 200,000 shards."""


def plan(backend: Backend, job: str) -> None:
    """Plan a job, or continue where an earlier planner stopped.

    Several planners of one job make one plan (`worker.control.plan_log`); a lock only saves their work. Raises
    ServiceUnavailable if a server does not answer, and MemoryError.
    """
    run = read_standing(backend.store, job).run
    try:
        _plan(backend, job)
    except (ServiceUnavailable, MemoryError):
        raise  # faults of this machine, not of the source
    except ImagemillError as error:
        close(backend, job, "failed", str(error), run=run)
    except Exception as error:
        # An unforeseen error would recur: better a job that fails with a reason than one that never starts.
        log.exception("The plan of %s failed", job)
        reason = (
            f"The source could not be planned ({type(error).__name__}: {str(error)[:200]}); see the controller's log."
        )
        close(backend, job, "failed", reason, run=run)


def _plan(backend: Backend, job: str) -> None:
    spec = read_spec(backend.store, job)
    state = backend.ledger.state(job)
    if state is None or state in ENDED or not source_kind(spec.source.kind).has_planner:
        return
    done = read_plan(backend.store, job) or load(kind_of(spec).plan)(backend, spec)
    if done is None:
        return
    limit = spec.error_limit(done.items)
    step = backend.ledger.complete(job, shards=done.shards, items=done.items, error_limit=limit, skipped=done.skipped)
    backend.follow_up(job, step)


def single_shard(backend: Backend, spec: Spec) -> None:
    """Queue the only shard of a job; whoever runs it completes the plan, since only the data says how much there is."""
    backend.follow_up(spec.id, backend.ledger.planned(spec.id, 0, 0))


def cut_source(backend: Backend, spec: Classify) -> Plan | None:
    """Cut the source into shards, after those that exist; return None if the job ended or Redis forgot it."""
    listing = lister(backend.store, spec.source, frames=spec.frames)

    def announce(shard: int, items: int) -> bool:
        step = backend.ledger.planned(spec.id, shard, items)
        backend.follow_up(spec.id, step)
        return step.state not in ENDED and step.state != "unknown"

    sizes = follow(backend.store, backend.ledger, spec)
    return _cut(PlanLog(backend.store, spec.id), listing, sizes, announce=announce)


def cut_blocks(backend: Backend, spec: Reconstruct) -> Plan:
    """Cut the source into blocks of `shard_size` images; the last may be smaller.

    No shard runs before the plan is complete. A source that is read as a whole needs no manifests.
    """
    listing = lister(backend.store, spec.source, labels=True)
    counted = listing.count("test")
    if counted is None:
        plan_log = PlanLog(backend.store, spec.id, labels=True)
        made = _cut(plan_log, listing, lambda shards, images: spec.shard_size, most=spec.count)
        assert made is not None, "nothing stops it"
        return made
    items = min(counted, spec.count or counted)
    if not items:
        raise InvalidSource(_nothing(listing))
    return write_plan(backend.store, spec.id, Plan(shards=-(-items // spec.shard_size), items=items, skipped=0))


def _cut(
    plan_log: PlanLog,
    listing: Lister,
    size: Next,
    *,
    most: int | None = None,
    announce: Callable[[int, int], bool] = lambda shard, items: True,
) -> Plan | None:
    """Append the rest of a listing, at most `most` items in all, to a log; return None once `announce` says to stop.

    `size` returns that of the next shard. `announce` is told each shard and its number of items.
    """
    while True:
        listing.skipped = 0
        left = None if most is None else most - plan_log.items
        items = islice(_rest(listing, plan_log), left)
        ours = True
        sizes = (size(plan_log.shards, plan_log.items) for _ in count())  # asked when a shard begins
        for chunk in () if plan_log.ended else sharded(items, sizes):
            shard, before = plan_log.shards, plan_log.items
            ours = plan_log.append(chunk)
            if plan_log.items > MAX_ITEMS:
                label = listing.source.label
                raise InvalidSource(
                    f"{label} has more than {MAX_ITEMS:,} images; split it, and start a job for each part."
                )
            if plan_log.shards > shard and not announce(shard, plan_log.items - before):
                return None
            if not ours:
                break
        else:
            if not plan_log.items:
                raise InvalidSource(_nothing(listing))
            ours = plan_log.ended or plan_log.end()
        if ours or plan_log.ended:
            return plan_log.complete(listing.skipped)


def _rest(listing: Lister, plan_log: PlanLog) -> Iterator[Item]:
    items = listing.rest(plan_log.items, plan_log.last)
    return labelled(listing, items) if listing.labels else items


def cut_images(backend: Backend, spec: Generate) -> Plan:
    """Plan every image of a generation."""
    return _write_blocks(backend, spec.id, candidate_plan.whole_plan(spec))


def cut_candidates(backend: Backend, spec: Synthesize) -> Plan:
    """Plan the first candidates of a synthesis; it adds more once it knows how many were accepted."""
    return _write_blocks(backend, spec.id, candidate_plan.initial_plan(spec))


def _write_blocks(backend: Backend, job: str, blocks: Sequence[CandidateBlock]) -> Plan:
    candidate_plan.begin(backend.store, job, blocks)
    return write_plan(backend.store, job, Plan(shards=len(blocks), items=sum(map(len, blocks)), skipped=0))


def cut_steps(backend: Backend, spec: Interpolate) -> Plan:
    """Cut the steps of an interpolation into shards, which know by their number which steps are theirs."""
    plan = Plan(shards=-(-spec.steps // spec.shard_size), items=spec.steps, skipped=0)
    return write_plan(backend.store, spec.id, plan)


def _nothing(listing: Lister) -> str:
    others = f" (other files: {listing.skipped:,})" if listing.skipped else ""
    return f"{listing.source.label} holds no images{others}; check the address."
