"""End jobs whose shards are done: count the commits, decide the end, then write what is derived from it.

The record of a kind in `contract.jobs.kinds` names its finalizer. What takes torch is handed to a worker. A finalizer
works under a lock that it renews, holds counters and no commits, and may be stopped or killed anywhere: the next one
starts over, and the first end that is written counts.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

from contract.backend.lock import Lock
from contract.data.items import parse_s3
from contract.errors import ImagemillError, LockLost, NewerVersion, ServiceUnavailable, StoreFull, WorkerLeaving
from contract.import_paths import load
from contract.instruments import FINALIZE_SECONDS
from contract.jobs.commits import Tally, iter_commits, read_retries, remove_superseded
from contract.jobs.ends import Standing, read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, close, read_created, read_plan, read_spec, reopen, settle
from contract.jobs.outputs import checked, leftovers, publish, run_again
from contract.jobs.specs import Classify, Evaluate, ImagesSpec, Spec, Train, Verify
from contract.jobs.status import Plan, Shards
from contract.keys.queues import QUEUE_GENERATE
from contract.telemetry import traces
from contract.watches.archive import forget_archived
from contract.watches.tables import forget_segment

log = logging.getLogger(__name__)

_LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class Ending:
    """What a finalizer ends: one run of a job, under a lock."""

    backend: Backend
    run: int
    lock: Lock
    leaving: threading.Event

    def check(self, job: str) -> None:
        """Raises LockLost if another finalizer may be at work, and WorkerLeaving if this process was told to end."""
        if not self.lock.held:
            raise LockLost(f"Another controller finalizes {job}.")
        if self.leaving.is_set():
            raise WorkerLeaving(f"Finalizing {job} is left to another controller.")

    def close(self, job: str, state: Any, reason: str = "", **details: Any) -> None:
        """End the run, unless it has ended; raises LockLost if another finalizer may be at work."""
        bucket, _ = parse_s3(read_spec(self.backend.store, job).output)
        if state == "succeeded" and not self.backend.store.bucket_exists(bucket):
            state, reason = "failed", f"The bucket {bucket!r} for the results is gone; restore it, then retry {job}."
        if not self.lock.renew():
            raise LockLost(f"Another controller finalizes {job}.")
        close(self.backend, job, state, reason, run=self.run, **details)


def finalize(
    backend: Backend, job: str, lock_seconds: float = _LOCK_SECONDS, leaving: threading.Event | None = None
) -> None:
    """End a job whose shards are done. It is safe to run twice, and stops at the next commit once `leaving` is set."""
    with backend.ledger.lock("finalize", job, lock_seconds) as lock:
        if lock is None or backend.ledger.state(job) != "finalizing":
            return
        now = read_standing(backend.store, job)
        ending = Ending(backend, now.run, lock, leaving or threading.Event())
        try:
            spec = read_spec(backend.store, job)
            if now.end is None:
                created = partial(read_created, backend.store, job)
                with FINALIZE_SECONDS.seconds(spec.kind), traces.span("finalize", job, created, kind=spec.kind):
                    load(kind_of(spec).finalize)(ending, spec)
            elif kind_of(spec).makes == "images" and now.end.labels is not None:
                _send(backend, job)  # its finalizer died before the summary
            else:
                settle(backend, job)
        except (LockLost, WorkerLeaving) as error:
            log.info("%s", error)
        except (ServiceUnavailable, StoreFull, NewerVersion):
            raise  # the reconciler sends it again
        except ImagemillError as error:
            ending.close(job, "failed", str(error))


def _committed(ending: Ending, spec: Spec) -> tuple[Plan, Tally] | None:
    """Count the commits; return the plan and the counts, or None if the bucket lacks some: then the job goes on.

    Commits may be missing if the error budget is exceeded: the job then ends with what there is. A shard whose output
    is gone runs again, once; then raises ObjectDamaged, which names what is missing.
    """
    store, job, lost = ending.backend.store, spec.id, 0
    plan = read_plan(store, job)
    if plan is not None:
        tally = Tally(plan.shards, read_retries(store, job).required)
        for commit, told in checked(store, spec):
            ending.check(job)
            tally.add(commit)
            if told:
                run_again(store, spec, commit, told)
                lost += 1
        if lost == 0 and (tally.complete or tally.current_errors > spec.error_limit(plan.items)):
            return plan, tally
    log.warning("The ledger says that %s is done, but the bucket lacks commits; the ledger is rebuilt", job)
    # As this run, whatever became of it: a job that was canceled meanwhile is not taken up again.
    reopen(ending.backend, job, Standing(ending.run, None))
    return None


def hand_over(ending: Ending, spec: ImagesSpec) -> None:
    """Have a worker end a job that generates images."""
    # Every tick comes here until the job has ended, and need not read every commit each time.
    if not _handed_over(ending.backend, spec.id) and _committed(ending, spec) is not None:
        ending.backend.queues.finish(spec.id)


def end_labels(ending: Ending, spec: Classify) -> None:
    """End a job that labels, and delete rows that a retry replaced."""
    found = _committed(ending, spec)
    if found is None:
        return
    plan, tally = found
    if tally.retried or tally.split:
        remove_superseded(ending.backend.store, spec.id, tally, spec.output)
    if ending.run:
        # Its rows may be others now.
        forget_segment(ending.backend.store, spec.id, spec.output)
        forget_archived(ending.backend.store, spec.id)
    counts: dict[str, Any] = {
        "total": plan.items,
        "skipped": plan.skipped,
        "ok": tally.ok,
        "errors": tally.errors,
        "done": tally.ok + tally.errors,
        "shards": Shards(total=plan.shards + 2 * len(tally.split), done=tally.shards),
        "error_codes": dict(tally.error_codes),
        "labels": dict(tally.labels.most_common()),
    }
    if tally.errors > spec.error_limit(plan.items):
        allowed = f"more than --max-errors {spec.max_errors} allows"
        ending.close(spec.id, "failed", f"{tally.errors:,} of {plan.items:,} images failed, {allowed}.", **counts)
    elif tally.ok + tally.errors != plan.items:
        rows = tally.ok + tally.errors
        reason = f"The shards hold {rows:,} rows and the plan {plan.items:,} items; start a new job."
        ending.close(spec.id, "failed", reason, **counts)
    else:
        ending.close(spec.id, "succeeded", **counts)


def end_single(ending: Ending, spec: Train | Evaluate | Verify) -> None:
    """End a job of one shard, whose result is complete already."""
    if _committed(ending, spec) is None:
        return
    store = ending.backend.store
    (commit,) = iter_commits(store, spec.id)
    publish(store, commit)
    figures: dict[str, Any] = {"model": commit.model or spec.model, "metrics": commit.metrics}
    ending.close(spec.id, "succeeded", ok=commit.ok, done=commit.ok, error_codes=commit.error_codes, **figures)
    for bucket, key in leftovers(store, spec, [commit]):
        store.delete(key, bucket=bucket)


def _handed_over(backend: Backend, job: str) -> bool:
    """Return whether a worker is ending the job, or a message for one is waiting."""
    return backend.ledger.locked("finish", job) or (job,) in backend.ledger.messages((QUEUE_GENERATE,), 0)


def _send(backend: Backend, job: str) -> None:
    if not _handed_over(backend, job):
        backend.queues.finish(job)
