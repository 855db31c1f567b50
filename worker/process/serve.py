"""Serves the messages of a worker: a shard to run, a job to finish. A message is a call; it knows no Celery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from contract.backend.ledger import Step
from contract.errors import ImagemillError, InvalidInput, JobFailed, WorkerUnfit
from contract.import_paths import load
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import read_spec
from worker.execution.resources import Resources
from worker.process.leaving import Leaving
from worker.process.self_test import SelfTest

if TYPE_CHECKING:
    from worker.execution.job_runner import JobRunner, ShardWork
    from worker.execution.leases import Lease

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
"""Before a message that this worker does not serve now goes back to its queue."""


class Messages:
    """What one process does with its messages; it serves none before it was tested, or while it is leaving."""

    def __init__(self, resources: Resources, self_test: SelfTest, leaving: Leaving) -> None:
        self._resources, self._backend, self._settings = resources, resources.backend, resources.settings
        self._self_test, self._leaving = self_test, leaving

    def run(self, job: str, shard: int) -> None:
        """Run a shard of a job.

        If the code for it cannot be loaded, that is a fault of the job, so that one which no worker can run ends; and
        this worker leaves, since an upgrade in place may have left it with modules of two versions.
        """
        name = self._backend.ledger.kind(job)
        if name is None:
            log.info("Redis has lost %s; the reconciler rebuilds it", job)
            return
        self._self_test.wait()
        if self._resources.health.unfit or self._resources.leaving.is_set():
            self._send_back(name, job, shard)
            return
        try:
            kind = kind_of(name)
        except InvalidInput:  # a newer version made the job
            self._refuse(name, job, shard, f"jobs of kind {name} are unknown", "upgrade Imagemill")
            return
        try:
            work: ShardWork[Any] = self._resources.once(load(kind.run))
            runner = self._resources.once(_make_runner)
        except Exception as error:  # mismatched modules fail in any way
            if self._leaving.unfit(error):  # a redelivery is not a second attempt
                why = f"what runs a job of kind {name} cannot be loaded ({type(error).__name__}: {error})"
                self._refuse(name, job, shard, why, "install Imagemill anew")
        else:
            runner.run(kind, work, job, shard)

    def finish(self, job: str) -> None:
        """Run the worker's part of finishing a job: end it, or write its page."""
        try:
            kind = kind_of(read_spec(self._backend.store, job))
            if kind.finish is None:
                raise InvalidInput(f"A job of kind {kind.name} is not finished on a worker.")
            finish: Callable[[str], None] = self._resources.once(load(kind.finish))
        except ImagemillError as error:
            log.warning("%s is not finished: %s", job, error)
        except ImportError as error:
            self._leaving.unfit(error)  # the message is resent, to a worker that can
        else:
            finish(job)

    def check(self, name: str, version: int) -> None:
        """Try the model `name@version`, which was pushed, and publish it or write down why not."""
        # Late, because the controller imports every task and no engine.
        try:
            from worker.models.check import admit
        except ImportError as error:
            self._leaving.unfit(error)  # the producer, which waits, asks again
            return
        admit(self._backend, name, version, self._settings.cache_dir)

    def _refuse(self, kind: str, job: str, shard: int, why: str, remedy: str) -> None:
        """Count a fault of a shard that this worker cannot run; the last one ends the job."""
        from worker.execution.runner import Host, Runner

        name = self._resources.name

        def refuse(lease: Lease) -> Step:
            tries = lease.trouble.faults + 1
            if tries >= self._settings.max_attempts:
                raise JobFailed(
                    f"On {tries} workers, the last one {name}, {why}; {remedy} there, restart them, then "
                    f"`imagemill resume {job}`."
                )
            raise WorkerUnfit(f"On {name} {why}.")

        Runner(kind, Host.of(self._resources), refuses=True).run(job, shard, refuse)

    def _send_back(self, kind: str, job: str, shard: int) -> None:
        """Send a message back that this worker does not serve now, for another one."""
        resources = self._resources
        why = resources.health.unfit or "is leaving"
        log.info("Shard %d of %s is left to another worker: this one %s", shard, job, why)
        resources.leaving.wait(_PAUSE_SECONDS)
        try:
            self._backend.queues.run(kind, job, [shard])
        except ImagemillError as error:  # the reconciler sends it
            log.info("%s", error)


def _make_runner(resources: Resources) -> JobRunner:
    from worker.execution.capabilities import Fit, of_this_process
    from worker.execution.job_runner import JobRunner
    from worker.execution.runner import Host

    settings = resources.settings
    fit = Fit(
        resources.backend, resources.once(of_this_process), resources.leaving, wait_seconds=settings.worker_wait_seconds
    )
    return JobRunner(Host.of(resources), fit)
