"""Runs the shards of any job: reads its spec, gives up on a shard that kills its processes, commits what is made.

    lease → spec → make, or give up → commit → ledger

What a kind of job makes of a shard is its `ShardWork`; leases and failures are `worker.execution.runner`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from functools import partial
from typing import Any, Generic, TypeVar

from contract import instruments
from contract.backend.dispatch import Grant
from contract.backend.ledger import Step
from contract.errors import ImagemillError, JobFailed, ObjectNotFound, RuntimeUnsuited, ServiceUnavailable
from contract.jobs import outputs
from contract.jobs.commits import read_commit
from contract.jobs.kinds import JobKind
from contract.jobs.lifecycle import read_created, read_spec
from contract.jobs.numerics import Needs
from contract.jobs.specs import AnySpec
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.telemetry import traces
from worker.execution.capabilities import Fit
from worker.execution.leases import Lease
from worker.execution.runner import Host, Runner

log = logging.getLogger(__name__)

S = TypeVar("S", bound=AnySpec)

_SPECS_AT_MOST = 256


class ShardWork(ABC, Generic[S]):
    """The work of one kind of job on a shard. One object serves all shards of a process."""

    @abstractmethod
    def make(self, spec: S, lease: Lease, retry: int) -> ShardCommit:
        """Do the work of a shard, write its output, and return the commit that stands for it.

        `worker` and `seconds` are filled in afterwards. `lease.check()` must be called before each write, and
        `lease.progress()` now and then: a shard that shows none is taken for stuck.
        """

    @abstractmethod
    def give_up(self, spec: S, lease: Lease, retry: int, kills: int) -> ShardCommit:
        """Decide about a shard that, alone, ended `kills` processes, as many as may be.

        Return a commit that isolates the item at fault, or raise ModelError, which ends the job and says what to do.
        """

    def divisible(self, lease: Lease) -> bool:
        """Return whether `give_up` can tell items of the shard apart, because it holds more than one."""
        return True

    def retry_of(self, job: str, shard: int) -> int:
        """Return the number of the retry that the shard is run for, 0 for its first run."""
        return 0


def _count(kind: str, model: str, commit: ShardCommit) -> None:
    """Count what this process committed; halves of a bisected shard are counted when they are."""
    if commit.split is None:
        instruments.IMAGES.add(commit.ok, kind, model, "ok")
        instruments.IMAGES.add(commit.errors, kind, model, "error")
        for code, number in commit.error_codes.items():
            instruments.ERRORS.add(number, code)
    instruments.SHARD_SECONDS.observe(commit.seconds, kind)


class JobRunner:
    """Runs shards of jobs of every kind; one a process."""

    def __init__(self, host: Host, fit: Fit) -> None:
        self._host, self._backend, self._fit = host, host.backend, fit
        self._specs: OrderedDict[str, tuple[AnySpec, Needs, bool]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, kind: JobKind, work: ShardWork[Any], grant: Grant) -> None:
        """Run a shard with the work of its kind, or leave it to others if its job needs what this process has not."""
        needs = self._needs(kind, grant.job)
        if needs is not None and needs.signature != grant.needs:
            # The first worker of a job has decided its numerics class: from now on only those get it that have it.
            self._backend.follow_up(grant.job, self._backend.ledger.need(grant.job, needs.signature))
        if needs is not None and not (self._fit.capabilities.computes(needs) and self._loads(kind, grant.job)):
            log.info("Shard %d of %s needs %s and is left to another worker", grant.shard, grant.job, needs)
            step = self._backend.ledger.release(grant.job, grant.shard, grant.token)
            self._backend.follow_up(grant.job, step)
            return

        def commit(lease: Lease) -> Step:
            try:
                return self._commit(kind, work, lease)
            except RuntimeUnsuited as error:
                if self._fit.capabilities.runtimes != ("openvino",):
                    raise  # no other worker has more
                self._backend.follow_up(grant.job, self._backend.ledger.need_runtime(grant.job, "torch"))
                raise ServiceUnavailable(f"{error} Another worker may have torch.") from error

        def elsewhere(failed: frozenset[str]) -> bool:
            if needs is None:
                return self._fit.elsewhere(kind, Needs(), failed)
            return self._fit.elsewhere(kind, needs, failed, self._spec(kind, grant.job)[0])

        with traces.span(
            "shard",
            grant.job,
            partial(read_created, self._backend.store, grant.job),
            kind=kind.name,
            shard=grant.shard,
            attempt=grant.trouble.attempts,
            worker=self._host.name,
        ):
            Runner(self._host, elsewhere, kind.long, kind=kind.name).run(grant, commit)

    def _commit(self, kind: JobKind, work: ShardWork[Any], lease: Lease) -> Step:
        """Commit a shard by what is made of it, unless it is committed; the first commit counts."""
        store, job, shard = self._backend.store, lease.job, lease.shard
        spec, *_ = self._spec(kind, job)
        retry = work.retry_of(job, shard)
        try:
            commit = read_commit(store, job, shard, retry)
        except ObjectNotFound:
            began = time.monotonic()
            with traces.step("make"):
                if self._condemned(work, lease):
                    made = work.give_up(spec, lease, retry, lease.trouble.kills)
                else:
                    made = work.make(spec, lease, retry)
            seconds = time.monotonic() - began
            commit = made.model_copy(update={"worker": self._host.name, "seconds": round(seconds, 3)})
            if commit.split is None:
                device = self._fit.capabilities.device
                self._host.meter.add(kind.name, spec.model, device, commit.items, seconds)
            ours = commit
            traces.note(images=commit.ok, errors=commit.errors)
            if not store.put_if_absent(JobKeys(job).commit(shard, retry), commit.to_json()):
                # Another worker was first, or our own write was answered late: what stands there counts.
                commit = read_commit(store, job, shard, retry)
            if commit == ours:
                _count(kind.name, spec.model or "", commit)
            else:
                lease.outcome = "overtaken"
                outputs.discard(store, ours, commit)
        with traces.step("commit"):
            return self._backend.ledger.commit(
                job, shard, commit.ok, commit.errors, commit.split, seconds=commit.seconds
            )

    def _condemned(self, work: ShardWork[Any], lease: Lease) -> bool:
        kills = lease.trouble.kills
        return kills > 0 and kills >= lease.trouble.kills_needed(work.divisible(lease), self._host.max_attempts)

    def _needs(self, kind: JobKind, job: str) -> Needs | None:
        """Return what the shards of a job need; None if that cannot be read, which recurs and is reported later."""
        try:
            return self._spec(kind, job)[1]
        except ImagemillError as error:
            log.info("Cannot read what %s requires of a worker: %s", job, error)
            return None

    def _loads(self, kind: JobKind, job: str) -> bool:
        """Return whether this worker may load the job's models."""
        return self._spec(kind, job)[2]

    def _spec(self, kind: JobKind, job: str) -> tuple[AnySpec, Needs, bool]:
        """Read the spec of a job, in the precision of its numerics class, and how it fits this worker, once."""
        with self._lock:
            found = self._specs.get(job)
        if found is None:
            spec = read_spec(self._backend.store, job)
            if spec.kind != kind.name:
                raise JobFailed(f"{job} was queued as {kind.name} and its spec says {spec.kind}; submit it again.")
            found = (*self._fit.pinned(spec), self._fit.loads(spec))
            with self._lock:
                self._specs[job] = found
                if len(self._specs) > _SPECS_AT_MOST:
                    self._specs.popitem(last=False)
        return found
