"""Runs one shard of any kind of job under its lease, and says what becomes of it when that goes wrong.

    take → begin → work → commit, or release

It knows neither what the work is nor Celery.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from contract.backend.ledger import Step
from contract.errors import (
    InvalidInput,
    JobFailed,
    JobStopped,
    LeaseLost,
    ModelError,
    ObjectDamaged,
    ServiceUnavailable,
    StoreFull,
    TrainingDiverged,
    WorkerLeaving,
    WorkerUnfit,
)
from contract.jobs.lifecycle import Backend, close
from worker.execution.leases import Lease, LeaseRenewer

log = logging.getLogger(__name__)

EXIT_DEVICE = 71
"""A worker's GPU raised an unforeseen error; start the worker again."""
Work = Callable[[Lease, int], Step]
"""Does a shard's work and commits it; the second argument counts the workers that it has killed."""


@dataclass(frozen=True)
class Runner:
    """Takes shards of one kind of job; `broken` says whether an unforeseen error may have broken the device."""

    kind: str
    name: str
    backend: Backend
    renewer: LeaseRenewer
    broken: Callable[[], bool]

    def run(
        self,
        job: str,
        shard: int,
        work: Work,
        turn: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        """Run a shard if it is free, and never raise for what a second worker can do better.

        `turn`, told how many workers the shard has killed, is where it waits for others in this process.
        """
        token = f"{self.name}:{uuid.uuid4().hex[:12]}"
        ledger = self.backend.ledger
        answer, kills = ledger.take(job, shard, token)
        if answer != "taken":
            # done, leased, stopped: the message was a copy. unknown: the reconciler rebuilds the job.
            log.info("Shard %d of %s is %s", shard, job, answer)
            return
        lease = Lease(job, shard, token)
        attempts, at_once = kills, False
        try:
            with self.renewer.hold(lease), turn(kills):
                if not ledger.begin(job, shard, token, kills + 1):
                    raise LeaseLost(f"Another worker holds shard {shard} of {job}.")
                lease.begin()
                log.info("Shard %d of %s begins, attempt %d", shard, job, kills + 1)
                step = work(lease, kills)
            self.backend.follow_up(job, step)
            return
        except (JobStopped, LeaseLost) as error:
            log.info("%s", error)
        except WorkerLeaving as error:
            log.info("%s", error)
            at_once = True
        except ServiceUnavailable as error:
            # No fault of the shard; the reconciler queues it again when the service is back.
            log.warning("Shard %d of %s waits: %s", shard, job, error)
        except (ModelError, InvalidInput, ObjectDamaged, TrainingDiverged, StoreFull, JobFailed) as error:
            log.error("The job %s cannot go on: %s", job, error)
            self._fail(job, str(error))
            return
        except WorkerUnfit as error:
            # Not at once: this worker would only take it again before it has left.
            attempts = kills + 1
            log.error("Shard %d of %s waits for another worker: %s", shard, job, error)
        except Exception:
            attempts, at_once = kills + 1, True  # enough of these, and the shard is taken for what is wrong
            log.exception("Shard %d of %s failed in attempt %d", shard, job, kills + 1)
        ledger.release(job, shard, token, attempts=attempts)
        if at_once:
            self.backend.queues.run(self.kind, job, [shard])
        if attempts > kills and self.broken():
            # An error that nobody foresaw may have broken the context of the device, and with it every
            # shard to come: whoever started this process starts it again.
            log.critical("Leaving, for the device may be broken")
            os._exit(EXIT_DEVICE)

    def _fail(self, job: str, reason: str) -> None:
        try:
            close(self.backend, job, "failed", reason)
        except StoreFull:
            # No room for the end either: the ledger tells it, until `resume` or a wiped Redis takes the job up.
            self.backend.ledger.end(job, "failed", reason)
