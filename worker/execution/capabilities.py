"""Matches shards with this worker: what it can do, and what a job turns out to need.

It knows no engine but what its hardware can do.
"""

from __future__ import annotations

from dataclasses import dataclass

from contract.jobs.kinds import JobKind
from contract.jobs.lifecycle import Backend
from contract.jobs.numerics import (
    Capabilities,
    Needs,
    able,
    decide_class,
    in_precision,
    needs_of,
    runs_in_one_class,
)
from contract.jobs.specs import AnySpec
from worker.engine import select
from worker.execution.resources import Resources


def of_this_process(resources: Resources) -> Capabilities:
    """Return what the models of this process can run on; for `Resources.once`."""
    device, precisions = select.capabilities(resources.settings.device, resources.settings.runtime)
    return Capabilities(device=device, precisions=precisions)


@dataclass(frozen=True)
class Fit:
    """Matches shards with this worker."""

    backend: Backend
    capabilities: Capabilities

    def pinned(self, spec: AnySpec) -> tuple[AnySpec, Needs]:
        """Return the spec in the precision of its numerics class, if it runs in one, and what its shards need."""
        needs = needs_of(self.backend.store, spec)
        if not runs_in_one_class(spec):
            return spec, needs
        decided = decide_class(self.backend.store, spec, self.capabilities)
        needs = needs.model_copy(update={"device": decided.device, "precision": decided.precision})
        return spec if needs.precision is None else in_precision(spec, needs.precision), needs

    def elsewhere(self, kind: JobKind, needs: Needs, failed: frozenset[str]) -> bool:
        """Return whether a live worker could run a shard in a process that is none of `failed`."""
        others = [
            worker
            for worker in self.backend.ledger.workers()
            if not worker.fields.get("unfit") and worker.fields.get("process", worker.name) not in failed
        ]
        return bool(able(others, kind.queue, needs))
