"""Serves the messages of a worker: a ticket for a shard, a job to finish. A message is a call; it knows no Celery."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from contract.backend.dispatch import Can, Grant, next_shard
from contract.backend.ledger import Step
from contract.errors import ImagemillError, InvalidInput, JobFailed, WorkerUnfit
from contract.import_paths import load
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import read_created, read_spec
from contract.jobs.numerics import Capabilities, Needs
from contract.telemetry import traces
from worker.execution.admission import Offer
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

    def run(self, queue: str) -> None:
        """Ask for a shard of a queue, whose message says that there may be one, and run it.

        If the code for it cannot be loaded, that is a fault of the job, so that one which no worker can run ends; and
        this worker leaves, since an upgrade in place may have left it with modules of two versions.
        """
        self._self_test.wait()
        if self._resources.health.unfit or self._resources.leaving.is_set():
            self._send_back(queue)
            return
        with self._resources.admission.offer(queue) as offer:
            grant = self._next(queue, offer)
            if grant is None:
                log.debug("There is nothing for this worker on %s", queue)
                return
            offer.keep(Needs.parse(grant.needs))
            self._run(grant)

    def _next(self, queue: str, offer: Offer) -> Grant | None:
        resources, settings = self._resources, self._settings
        can = resources.once(_capabilities)
        return next_shard(
            self._backend.ledger,
            queue,
            f"{resources.name}:{uuid.uuid4().hex[:12]}",
            Can(
                can.device,
                can.precisions,
                long=offer.may_be_long,
                trains=offer.may_train,
                memory=can.memory,
                runtimes=can.runtimes,
                rule=can.rule.id,
            ),
            process=resources.process,
            lease_seconds=settings.lease_seconds,
            owner_slots=settings.owner_max_slots,
            speculative=settings.speculation == "on",
        )

    def _run(self, grant: Grant) -> None:
        try:
            kind = kind_of(grant.kind)
        except InvalidInput:  # a newer version made the job
            self._refuse(grant, f"jobs of kind {grant.kind} are unknown", "upgrade Imagemill")
            return
        try:
            work: ShardWork[Any] = self._resources.once(load(kind.run))
            runner = self._resources.once(_make_runner)
        except Exception as error:  # mismatched modules fail in any way
            # A message that comes again is not a second attempt.
            if self._leaving.unfit(error):
                why = f"what runs a job of kind {grant.kind} cannot be loaded ({type(error).__name__}: {error})"
                self._refuse(grant, why, "install Imagemill anew")
            else:
                self._give_back(grant)
        else:
            runner.run(kind, work, grant)

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
            with traces.span("finish", job, partial(read_created, self._backend.store, job), kind=kind.name):
                finish(job)

    def check(self, name: str, version: int) -> None:
        """Try the model `name@version`, which was pushed, and publish it or write down why not."""
        # Late, because the controller imports every task and no engine.
        try:
            from worker.models.check import admit
        except ImportError as error:
            self._leaving.unfit(error)  # the producer, which waits, asks again
            return
        admit(self._backend, name, version, self._settings.cache_dir, self._resources.once(_capabilities).rule)

    def _refuse(self, grant: Grant, why: str, remedy: str) -> None:
        """Count a fault of a shard that this worker cannot run; the last one ends the job."""
        from worker.execution.runner import Host, Runner

        name = self._resources.name

        def refuse(lease: Lease) -> Step:
            tries = lease.trouble.faults + 1
            if tries >= self._settings.max_attempts:
                raise JobFailed(
                    f"On {tries} workers, the last one {name}, {why}; {remedy} there, restart them, then "
                    f"`imagemill resume {grant.job}`."
                )
            raise WorkerUnfit(f"On {name} {why}.")

        Runner(Host.of(self._resources), refuses=True, kind=grant.kind).run(grant, refuse)

    def _give_back(self, grant: Grant) -> None:
        step = self._backend.ledger.release(grant.job, grant.shard, grant.token)
        self._backend.follow_up(grant.job, step)

    def _send_back(self, queue: str) -> None:
        """Send a ticket back that this worker does not serve now, for another one."""
        resources = self._resources
        log.info("A ticket of %s is left to another worker: this one %s", queue, resources.health.unfit or "is leaving")
        resources.leaving.wait(_PAUSE_SECONDS)
        try:
            self._backend.ledger.send_tickets(queue)
        except ImagemillError as error:  # the reconciler sends another
            log.info("%s", error)


def _capabilities(resources: Resources) -> Capabilities:
    """Return what this process computes on and in; the least there is if that cannot be known, to say so by a shard."""
    try:
        from worker.execution.capabilities import of_this_process

        return resources.once(of_this_process)
    except (ImagemillError, ImportError) as error:
        log.error("What this worker can compute in is not known: %s", error)
        return Capabilities(device="cpu", precisions=("fp32",))


def _make_runner(resources: Resources) -> JobRunner:
    from worker.execution.capabilities import Fit, of_this_process
    from worker.execution.job_runner import JobRunner
    from worker.execution.runner import Host

    return JobRunner(Host.of(resources), Fit(resources.backend, resources.once(of_this_process)))
