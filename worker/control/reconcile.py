"""The tick: fire due schedules, then resend whatever a killed worker, a wiped Redis or a lost message left undone.

The reconciler compares bucket, ledger and queues, which should agree, and sends what is missing. Duplicate messages are
harmless, so it need not be certain that one was lost.
"""

from __future__ import annotations

import logging

from contract import instruments, logs
from contract.errors import InvalidInput, UnknownJob
from contract.jobs.ends import Standing, read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, active_jobs, read_spec, rebuild, settle
from contract.jobs.status import ENDED
from contract.keys import WORKER_QUEUES, JobKeys
from contract.settings import Settings
from worker.control.clean import clean
from worker.control.fire_schedules import Clock, fire, utc_now

log = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
"""How often the bucket is asked whether a running job has ended: whoever ended it may have died before the ledger."""
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
    lost: dict[str, list[int]] = {}
    for job in sorted({*active_jobs(backend.store), *ledger.active()}):
        try:
            with logs.scope(job=job):
                late = _reconcile(backend, settings, job)
        except InvalidInput as error:  # made by a newer version; it must not block the others
            log.warning("%s waits for a controller of its version: %s", job, error)
            continue
        if late:
            lost[job] = late
    if lost:
        _requeue(backend, settings, lost)
    clean(backend, settings)


def _reconcile(backend: Backend, settings: Settings, job: str) -> list[int]:
    """Resend what a job lacks; return the shards that have been queued for long, whose messages may be lost.

    Raises InvalidInput for a job of an unknown kind.
    """
    ledger = backend.ledger
    state = ledger.state(job)
    if state is None:
        log.warning("Redis has lost %s; its ledger entry is rebuilt from the bucket", job)
        _rebuild(backend, job)
        return []
    if state in ENDED:
        now = settle(backend, job)
        if now.end is None and now.run > ledger.run(job):
            log.warning("%s was resumed and Redis does not know; its ledger entry is rebuilt", job)
            _rebuild(backend, job)
        return []
    kind_of(ledger.kind(job) or read_spec(backend.store, job))
    if state == "finalizing":
        if not ledger.locked("finalize", job):
            backend.queues.finalize(job)
        return []
    if ledger.once_in(_LOOK_SECONDS, f"standing:{job}") and read_standing(backend.store, job) != Standing(
        ledger.run(job), None
    ):
        log.warning("The bucket and Redis disagree about %s; its ledger entry is rebuilt", job)
        _rebuild(backend, job)
        settle(backend, job)
        return []
    step = ledger.lapsed(job)
    if step.state == "rebuilding":
        _rebuild(backend, job)
        return []
    if step.queue:
        instruments.REQUEUES.add(len(step.queue), "lapsed")
        log.warning("Shards %s of %s are queued again", list(step.queue), job)
    backend.follow_up(job, step)
    # A planner holds a lock while it works; without the lock its message may be lost.
    if state in ("queued", "planning") and not ledger.locked("plan", job):
        backend.queues.plan(job)
    return [shard for shard, age in ledger.waiting(job).items() if age > settings.reconcile_seconds]


def _requeue(backend: Backend, settings: Settings, late: dict[str, list[int]]) -> None:
    """Resend the messages that should be in a queue and are not."""
    waiting = backend.ledger.messages(WORKER_QUEUES, settings.lease_seconds)
    for job, shards in late.items():
        missing = [shard for shard in shards if (job, shard) not in waiting]
        if missing:
            instruments.REQUEUES.add(len(missing), "lost")
            log.warning("The messages of %d shards of %s were lost; queued again", len(missing), job)
            backend.follow_up(job, backend.ledger.requeue(job, missing))


def _rebuild(backend: Backend, job: str) -> None:
    """Rebuild the ledger entry, unless an earlier tick still does: that of a large job takes minutes."""
    with backend.ledger.lock("rebuild", job, _REBUILD_SECONDS) as lock:
        if lock is None:
            return
        try:
            rebuild(backend, job)
            instruments.REQUEUES.add(1, "rebuilt")
        except UnknownJob:
            log.warning("%s has no spec in the bucket; it is dropped", job)
            backend.store.delete(JobKeys(job).active)
            backend.ledger.drop(job)
