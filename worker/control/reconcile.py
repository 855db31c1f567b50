"""The tick: fire due schedules, then resend whatever a killed worker, a wiped Redis or a lost message left undone.

The reconciler compares bucket and ledger, which should agree, and tops up the tickets in the queues. One too many does
no harm, so it need not be certain that one was lost.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence

from contract import instruments
from contract.backend import dispatch
from contract.backend.glance import COMPARED, Glance, glance
from contract.backend.heartbeats import Worker
from contract.errors import InvalidInput, NewerVersion, ObjectDamaged, ServiceUnavailable, UnknownJob
from contract.jobs.ends import Standing, read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, active_jobs, close, read_spec, readmit, rebuild, settle
from contract.jobs.loads import names_of
from contract.jobs.numerics import Needs, able, lacking, live_rules, serving, unmet
from contract.jobs.sources import source_kind
from contract.jobs.status import ENDED
from contract.keys.jobs import JobKeys
from contract.models.rules import Rule
from contract.settings import Settings
from contract.telemetry import logs
from worker.control.clean import clean
from worker.control.fire_schedules import Clock, fire, utc_now
from worker.control.tickets import top_up

log = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
"""How often the bucket is asked whether a running job has ended: whoever ended it may have died before the ledger."""
_LOOKS = 20
"""How many jobs a round may compare with the bucket beyond an even spread over the rounds; each is a request."""
_PLANS = 200
"""Jobs for which a round sends a planner's message again, chosen at random: most messages are not lost, they wait."""
_REBUILD_SECONDS = 60.0
"""A rebuild whose process died is taken up after this long."""


def tick(backend: Backend, settings: Settings, now: Clock = utc_now) -> None:
    """Run one round, unless the last one was less than half an interval ago: two clocks do the work of one."""
    if not backend.ledger.once_in(settings.reconcile_seconds / 2, "tick"):
        return
    with instruments.RECONCILE_SECONDS.seconds():
        _tick(backend, settings, now)


def _tick(backend: Backend, settings: Settings, now: Clock) -> None:
    ledger = backend.ledger
    ledger.ticked(5 * settings.reconcile_seconds)
    # Schedules first: a job that cannot be reconciled must not delay them.
    fire(backend, settings, now())
    workers = ledger.workers()
    rules = live_rules(workers)
    dispatch.set_rules(ledger, {id: rule.model_dump_json() for id, rule in rules.items()})
    jobs = sorted({*active_jobs(backend.store), *ledger.active()})
    looks = _LOOKS + math.ceil(len(jobs) * settings.reconcile_seconds / _LOOK_SECONDS)
    found = glance(ledger, jobs)
    unplanned = [job for job, seen in found.items() if seen.state in ("queued", "planning") and not seen.planned]
    sent_again = set(random.sample(unplanned, min(_PLANS, len(unplanned))))
    for job, seen in found.items():
        try:
            with logs.scope(job=job):
                _readmit(backend, job, seen, rules)
                looks -= _reconcile(
                    backend, settings, job, seen, workers, may_look=looks > 0, may_plan=job in sent_again
                )
        except (InvalidInput, NewerVersion) as error:  # made by a newer version; it must not block the others
            log.warning("%s waits for a controller of its version: %s", job, error)
        except ServiceUnavailable:
            raise
        except ObjectDamaged as error:
            log.error("%s cannot be reconciled: %s", job, error)
        except Exception:
            log.exception("%s cannot be reconciled", job)
    top_up(backend, workers)
    clean(backend, settings)


def _reconcile(
    backend: Backend,
    settings: Settings,
    job: str,
    seen: Glance,
    workers: Sequence[Worker],
    *,
    may_look: bool,
    may_plan: bool,
) -> bool:
    """Send what a job lacks, and say or end it if no worker can run it; return whether it was compared with the bucket.

    Raises InvalidInput for a job of an unknown kind.
    """
    ledger = backend.ledger
    if seen.state is None:
        log.warning("Redis has lost %s; its ledger entry is rebuilt from the bucket", job)
        _rebuild(backend, job)
        return True
    if seen.state in ENDED:
        now = settle(backend, job)
        if now.end is None and now.run > ledger.run(job):
            log.warning("%s was resumed and Redis does not know; its ledger entry is rebuilt", job)
            _rebuild(backend, job)
        return True
    kind = kind_of(seen.kind or read_spec(backend.store, job))
    if seen.state == "finalizing":
        if not seen.finalized:
            backend.queues.finalize(job)
        return False
    looks = may_look and not seen.compared and ledger.once_in(_LOOK_SECONDS, f"{COMPARED}:{job}")
    if looks and read_standing(backend.store, job) != Standing(ledger.run(job), None):
        log.warning("The bucket and Redis disagree about %s; its ledger entry is rebuilt", job)
        _rebuild(backend, job)
        settle(backend, job)
        return True
    found = ledger.lapsed(job)
    if found.step.state == "rebuilding":
        _rebuild(backend, job)
        return True
    if found.shards:
        instruments.REQUEUES.add(len(found.shards), "lapsed")
        log.warning("Shards %s of %s may run again: their leases have expired", list(found.shards), job)
    backend.follow_up(job, found.step)
    # A planner holds a lock while it works; without the lock its message may be lost.
    if may_plan and source_kind(seen.source_kind or read_spec(backend.store, job).source.kind).has_planner:
        backend.queues.plan(job)
    if found.ready and not found.running:
        _find_worker(backend, settings, job, seen, kind.queue, Needs.parse(found.needs), workers)
    return looks


def _readmit(backend: Backend, job: str, seen: Glance, rules: Mapping[str, Rule]) -> None:
    """Hold the models of a job against the rules by which the live workers load models, if these are others by now."""
    if seen.state not in (None, *ENDED) and seen.ruled != ",".join(sorted(rules)):
        readmit(backend, job, rules.values())


def _find_worker(
    backend: Backend,
    settings: Settings,
    job: str,
    seen: Glance,
    queue: str,
    needs: Needs,
    workers: Sequence[Worker],
) -> None:
    """End a job that none of the live workers of its queue can run, once that has been so for long enough.

    While there is no worker at all, it waits: one may be about to start.
    """
    there = serving(workers, queue)
    able_ones = able(there, queue, needs)
    clear = seen.unmet if not there else bool(able_ones) and (seen.unmet or seen.waiting_for is not None)
    if clear:
        backend.ledger.met(job)
    if able_ones:
        return
    models = names_of(read_spec(backend.store, job)) if there and live_rules(there) else ()
    what = lacking(needs, there, queue, models)
    if clear or what != seen.waiting_for:
        backend.ledger.waits_for(job, what)
    if not there:
        return
    if backend.ledger.unmet(job) < settings.worker_wait_seconds:
        log.warning("%s needs %s, which no live worker has", job, needs)
    else:
        close(backend, job, "failed", unmet(job, needs, there, queue, models), run=seen.run)


def _rebuild(backend: Backend, job: str) -> None:
    """Rebuild the ledger entry, unless an earlier tick still does: that of a large job takes minutes.

    A job that has a damaged commit ends; `resume` takes it up once that is deleted.
    """
    with backend.ledger.lock("rebuild", job, _REBUILD_SECONDS) as lock:
        if lock is None:
            return
        # The run that the bucket is read for: one that somebody opens meanwhile goes on.
        run = read_standing(backend.store, job).run
        try:
            rebuild(backend, job)
            instruments.REQUEUES.add(1, "rebuilt")
        except NewerVersion:
            raise
        except ObjectDamaged as error:
            close(backend, job, "failed", str(error), run=run)
        except UnknownJob:
            log.warning("%s has no spec in the bucket; it is dropped", job)
            backend.store.delete(JobKeys(job).active)
            backend.ledger.drop(job)
