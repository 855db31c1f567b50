"""Matches shards with this worker: what it can do, and what a job turns out to need.

It knows no engine but what its hardware can do.
"""

from __future__ import annotations

from dataclasses import dataclass

from contract.jobs.kinds import JobKind
from contract.jobs.lifecycle import Backend
from contract.jobs.loads import models_of
from contract.jobs.numerics import (
    Capabilities,
    Needs,
    able,
    decide_class,
    in_precision,
    live_rules,
    needs_of,
    runs_in_one_class,
)
from contract.jobs.specs import AnySpec
from contract.models.rules import Rule, admitting, patterns
from contract.settings import Settings
from worker.confinement.confine import LAYERS
from worker.confinement.probe import probe
from worker.engine import select
from worker.execution.resources import Resources


def of_this_process(resources: Resources) -> Capabilities:
    """Return what the models of this process can run on; for `Resources.once`."""
    settings = resources.settings
    device, precisions = select.capabilities(settings.device, settings.runtime)
    memory = int(settings.device_memory) or select.device_memory(settings.device, settings.runtime)
    return Capabilities(
        device=device,
        precisions=precisions,
        memory=max(1, round(memory / 2**30)),  # a card of 8 GiB shows a little less
        runtimes=select.runtimes(settings.device, settings.runtime),
        rule=rule_of(settings),
    )


def rule_of(settings: Settings) -> Rule:
    """Return which models this worker loads by its settings and, if they ask for it, what confines programs here."""
    why = {"off": "IMAGEMILL_PROGRAMS is off", "on": ""}.get(settings.programs)
    if why is None:
        lacks = [layer for layer in LAYERS if layer not in probe()]
        why = f"this machine lacks {', '.join(lacks)}" if lacks else ""
    return Rule(
        models=patterns(settings.models),
        programs=not why,
        trusted=patterns(settings.trusted_models) if why else (),
        why=why,
    )


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

    def loads(self, spec: AnySpec) -> bool:
        """Return whether this worker may load the models of a job, whatever Redis says of it."""
        rule = self.capabilities.rule
        return not rule.id or rule.admits(models_of(self.backend.store, spec))

    def elsewhere(self, kind: JobKind, needs: Needs, failed: frozenset[str], spec: AnySpec | None = None) -> bool:
        """Return whether a live worker could run a shard of a job in a process that is none of `failed`."""
        others = [
            worker
            for worker in self.backend.ledger.workers()
            if not worker.fields.get("unfit") and worker.fields.get("process", worker.name) not in failed
        ]
        if spec is not None and (rules := live_rules(others)):
            admitted = admitting(rules.values(), models_of(self.backend.store, spec))
            needs = needs.model_copy(update={"rules": admitted})
        return bool(able(others, kind.queue, needs))
