"""Decides whether this worker can run a shard; if not, another takes it, or the job ends when there is none.

Nothing counts against the shard meanwhile. It knows no engine but what its hardware can do.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from contract.jobs.kinds import JobKind
from contract.jobs.lifecycle import Backend, close
from contract.jobs.numerics import (
    Capabilities,
    Needs,
    able,
    asked_precision,
    decide_class,
    in_precision,
    runs_in_one_class,
    unmet,
)
from contract.jobs.specs import AnySpec
from contract.jobs.status import ENDED
from worker.engine import select
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.5
"""Before a shard goes back to the queue, so that workers that cannot run it do not pass it around in a hot loop."""


def of_this_process(resources: Resources) -> Capabilities:
    """Return what the models of this process can run on; for `Resources.once`."""
    device, precisions = select.capabilities(resources.settings.device, resources.settings.runtime)
    return Capabilities(device=device, precisions=precisions)


@dataclass(frozen=True)
class Fit:
    """Matches shards with this worker."""

    backend: Backend
    capabilities: Capabilities
    leaving: threading.Event
    wait_seconds: float

    def pinned(self, spec: AnySpec) -> tuple[AnySpec, Needs]:
        """Return the spec in the precision of its numerics class, if it runs in one, and what its shards need."""
        if runs_in_one_class(spec):
            needs = decide_class(self.backend.store, spec, self.capabilities)
            return spec if needs.precision is None else in_precision(spec, needs.precision), needs
        asked = asked_precision(spec)
        return spec, Needs(precision=None if asked == "auto" else asked)

    def elsewhere(self, kind: JobKind, needs: Needs, failed: frozenset[str]) -> bool:
        """Return whether a live worker could run a shard in a process that is none of `failed`."""
        others = [
            worker
            for worker in self.backend.ledger.workers()
            if not worker.fields.get("unfit") and worker.fields.get("process", worker.name) not in failed
        ]
        return bool(able(others, kind.queue, needs))

    def pass_on(self, kind: JobKind, job: str, shard: int, needs: Needs) -> None:
        """Leave a shard to a live worker that can run it, or end the job if there is none for too long."""
        ledger = self.backend.ledger
        workers = ledger.workers()
        if able(workers, kind.queue, needs):
            ledger.met(job)
            log.info("Shard %d of %s needs %s and is left to another worker", shard, job, needs)
            self.leaving.wait(_PAUSE_SECONDS)
            self.backend.queues.run(kind.name, job, [shard])
        elif ledger.unmet(job) < self.wait_seconds:
            # The shard stays queued: the reconciler sends its message again.
            log.warning("Shard %d of %s needs %s, which no live worker has", shard, job, needs)
        elif ledger.state(job) not in (None, *ENDED):
            close(self.backend, job, "failed", unmet(job, needs, workers, kind.queue))
