"""Runs one shard of any kind of job under its lease, and says what becomes of it when that goes wrong.

    lease → turn → begin → work → commit, or release

An exception never counts like a death. First this process proves itself on known good input; then the shard waits and
goes to another process, until enough of them have failed. It knows neither what the work is nor Celery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from contract import instruments
from contract.backend.dispatch import Grant
from contract.backend.ledger import Step
from contract.errors import (
    ImagemillError,
    InvalidInput,
    InvalidSettings,
    JobFailed,
    JobStopped,
    LeaseLost,
    ModelError,
    NewerVersion,
    ObjectDamaged,
    ServiceUnavailable,
    ShardDone,
    StoreFull,
    TrainingDiverged,
    WorkerLeaving,
    WorkerUnfit,
)
from contract.fleet.rates import Meter
from contract.jobs.lifecycle import Backend, close
from contract.telemetry import logs, traces
from worker.execution.exclusive import Turns
from worker.execution.health import Health
from worker.execution.leases import Lease, LeaseRenewer
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

Work = Callable[[Lease], Step]
"""Does a shard's work and commits it."""
_AVOID_SECONDS = 10.0
"""For so long a shard that failed here is left to other processes; then this one looks again whether there are any."""


class ImagesFailed(ImagemillError):
    """Images of a shard failed alone in this process, in which a known good image passed; others must try them."""

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        self.errors = errors
        super().__init__(f"{len(errors)} images failed alone, the first with {said(next(iter(errors.values())))}.")


@dataclass(frozen=True)
class Host:
    """The process that runs shards, as far as a runner must know it."""

    name: str
    process: str
    """Unique among all processes that ever were; the name is only unique among those alive."""
    backend: Backend
    renewer: LeaseRenewer
    turns: Turns
    health: Health
    max_attempts: int
    fault_seconds: float
    meter: Meter = field(default_factory=Meter)

    @classmethod
    def of(cls, resources: Resources) -> Host:
        """Return the process that has these parts."""
        return cls(
            name=resources.name,
            process=resources.process,
            backend=resources.backend,
            renewer=resources.renewer,
            turns=resources.turns,
            health=resources.health,
            meter=resources.meter,
            max_attempts=resources.settings.max_attempts,
            fault_seconds=resources.settings.fault_seconds,
        )


@dataclass(frozen=True)
class Runner:
    """Runs shards of one kind of job. `elsewhere` says whether a live process other than these could run them.

    `long` work is not waited for by a shard that must run alone. What only `refuses` a shard, and says why, may do so
    again in the same process.
    """

    host: Host
    elsewhere: Callable[[frozenset[str]], bool] = lambda _: False
    long: bool = False
    refuses: bool = False
    kind: str = ""
    """The kind of the jobs, as a label of the metrics."""

    def run(self, grant: Grant, work: Work) -> None:
        """Run a leased shard, and never raise for what a second worker can do better."""
        trouble = grant.trouble
        lease = Lease(grant.job, grant.shard, grant.token, trouble, self.host.process, copy=grant.copy, run=grant.run)
        logs.tell(job=grant.job, shard=grant.shard, attempt=trouble.attempts)
        try:
            self._run(lease, work)
        except ImagemillError as error:
            log.warning("Shard %d of %s is given back, as soon as Redis answers: %s", lease.shard, lease.job, error)
            self.host.renewer.release_later(lease)

    def _run(self, lease: Lease, work: Work) -> None:
        """Run a shard; raises an error if nobody could be told what becomes of it."""
        host, job, shard, token, trouble = self.host, lease.job, lease.shard, lease.token, lease.trouble
        if host.process in trouble.processes and not self.refuses and self._pass_on(lease):
            return
        try:
            with host.renewer.hold(lease), host.turns.hold(suspect=trouble.suspect, long=self.long) as turn:
                if host.health.leaving.is_set() and not self.refuses:
                    raise WorkerLeaving(f"This worker is leaving; another runs shard {shard} of {job}.")
                lease.begin(turn)
                if not host.backend.ledger.begin(job, shard, token, lease.mode):
                    raise LeaseLost(f"Another worker holds shard {shard} of {job}.")
                how = ", alone" if turn.alone else ", as a second copy" if lease.copy else ""
                log.info("Shard %d of %s begins%s, attempt %d", shard, job, how, trouble.attempts)
                step = work(lease)
            self._ended(lease, lease.outcome)
            host.backend.follow_up(job, step)
        except (JobStopped, LeaseLost) as error:
            lost = "overtaken" if isinstance(error, ShardDone) else "lost"
            self._ended(lease, "stopped" if isinstance(error, JobStopped) else lost)
            log.info("%s", error)
            self._release(lease)
        except WorkerLeaving as error:
            self._ended(lease, "returned")
            log.info("%s", error)
            self._release(lease)
        except ServiceUnavailable as error:
            # No fault of the shard.
            self._ended(lease, "postponed", error)
            log.warning("Shard %d of %s waits: %s", shard, job, error)
            host.backend.ledger.postpone(job, shard, token, trouble.pause())
        except WorkerUnfit as error:
            self._ended(lease, "unfit", error)
            log.error("Shard %d of %s is left to another worker: %s", shard, job, error)
            host.backend.ledger.fault(job, shard, token, trouble.pause(), process=host.process)
        except (InvalidSettings, NewerVersion) as error:
            self._fault(lease, error)  # of this worker, not of the job
        except (ModelError, InvalidInput, ObjectDamaged, TrainingDiverged, StoreFull, JobFailed) as error:
            self._ended(lease, "failed", error)
            log.error("The job %s cannot go on: %s", job, error)
            self._fail(lease, str(error))
        except Exception as error:
            self._fault(lease, error)

    def _pass_on(self, lease: Lease) -> bool:
        """Leave a shard that failed here to another process, or have this one started afresh if there is none.

        Return False if this process must try again.
        """
        trouble, health = lease.trouble, self.host.health
        if self.elsewhere(trouble.processes):
            self._ended(lease, "passed_on")
            log.info("Shard %d of %s failed here and is left to another worker", lease.shard, lease.job)
            ledger = self.host.backend.ledger
            step = ledger.avoid(lease.job, lease.shard, lease.token, _AVOID_SECONDS, process=self.host.process)
            self.host.backend.follow_up(lease.job, step)
            return True
        if trouble.images or len(trouble.processes) < self.host.max_attempts:
            self._release(lease)
            health.leave(f"shard {lease.shard} of {lease.job} failed here, and no other worker could try it")
            return True
        return False

    def _fault(self, lease: Lease, error: Exception) -> None:
        """Find out whether this process is at fault; if not, remember that it failed the shard, or end the job."""
        job, shard, trouble, host = lease.job, lease.shard, lease.trouble, self.host
        images = error.errors if isinstance(error, ImagesFailed) else {}
        if images:
            log.warning("Shard %d of %s: %s", shard, job, error)
        else:
            log.error("Shard %d of %s raised", shard, job, exc_info=error)
        try:
            host.health.check()
        except WorkerUnfit as unfit:
            self._ended(lease, "unfit", unfit)
            log.critical("%s", unfit)
            self._release(lease)
            host.health.leave(host.health.unfit)
            return
        processes = trouble.processes | {host.process}
        enough = len(processes) >= host.max_attempts and trouble.failing_seconds >= host.fault_seconds
        self._ended(lease, "failed" if enough and not images else "faulted", error)
        if enough and not images:
            self._fail(
                lease,
                f"Shard {shard} failed on {len(processes)} workers, for {trouble.failing_seconds:.0f} s, while known "
                f"good images passed there; the last error, on {host.name}, was {said(error)}; see its log, then "
                f"`imagemill resume {job}`.",
            )
            return
        host.backend.ledger.fault(job, shard, lease.token, trouble.pause(), process=host.process, images=images)

    def _ended(self, lease: Lease, outcome: str, error: Exception | None = None) -> None:
        instruments.ATTEMPTS.add(1, self.kind, outcome)
        if lease.copy:
            instruments.SPECULATIVE_ATTEMPTS.add(1, self.kind, outcome)
        traces.note(outcome=outcome)
        if error is not None:
            traces.fail(error)

    def _release(self, lease: Lease) -> None:
        step = self.host.backend.ledger.release(lease.job, lease.shard, lease.token)
        self.host.backend.follow_up(lease.job, step)

    def _fail(self, lease: Lease, reason: str) -> None:
        """End the run that the shard belongs to; one that was opened meanwhile goes on, and has the shard back."""
        backend = self.host.backend
        try:
            close(backend, lease.job, "failed", reason, run=lease.run)
        except StoreFull:
            # No room for the end either: the ledger tells it, until `resume` or a wiped Redis takes the job up.
            backend.ledger.end(lease.job, "failed", reason, run=lease.run)
        self._release(lease)


def said(error: BaseException) -> str:
    """Return the name of an error and what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
