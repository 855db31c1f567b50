"""Evaluate a model for an evaluate job: run the judge of the model's task, then write figures and a page.

    judge → figures, page

It knows neither leases nor Celery (`worker.execution.job_runner`), nor how a model is judged
(`worker.evaluation.judges`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from contract.errors import ModelError
from contract.jobs.lifecycle import Backend
from contract.jobs.outputs import write
from contract.jobs.specs import Evaluate
from contract.jobs.status import Output, Plan, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import shard_stem
from contract.models.registry import Model
from worker.datasets.reader import DatasetReader
from worker.evaluation.judges import Case, Judgement, classifier
from worker.evaluation.judges.generator import GeneratorJudge
from worker.execution.job_runner import ShardWork
from worker.execution.leases import Lease
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.pages import page

FIGURES = "evaluation.json"


@dataclass(frozen=True)
class EvaluateWork(ShardWork[Evaluate]):
    """Evaluates models, with the loaded models of the process."""

    backend: Backend
    reader: DatasetReader
    models: Models
    judge_generator: Callable[[Case], Judgement]
    training: threading.Lock
    """Held while this process trains. Judging a generator trains classifiers, and only one training runs at a time."""

    def give_up(self, spec: Evaluate, lease: Lease, retry: int, kills: int) -> ShardCommit:
        raise ModelError(f"The evaluation of {spec.model} ended {kills} workers; see their logs.")

    def make(self, spec: Evaluate, lease: Lease, retry: int) -> ShardCommit:
        """Judge the model; write figures and page."""
        model = self.models.model(spec.model)
        left_out: Counter[str] = Counter()
        items = 0

        def plan(images: int, without: Counter[str]) -> None:
            nonlocal items
            items = images
            left_out.update(without)
            written = Plan(shards=1, items=images, skipped=without.total())
            self.backend.store.put(JobKeys(spec.id).plan, written.to_json())
            limit = spec.error_limit(images)
            self.backend.ledger.complete(spec.id, shards=1, items=images, error_limit=limit, skipped=written.skipped)

        judge = self.judge_generator if model.task == "generate" else classifier.judge
        found = judge(Case(spec, model, lease, self.reader, self.models, plan))
        lease.check()
        outputs = self._write(spec, lease, model, found)
        return ShardCommit(
            shard=lease.shard,
            items=items,
            ok=items,
            errors=0,
            error_codes=dict(left_out),
            output=f"{spec.output}{FIGURES}",
            outputs=outputs,
            model=model.ref,
            metrics=found.metrics,
            runtime=found.runtime,
            precision=found.precision,
        )

    def _write(self, spec: Evaluate, lease: Lease, model: Model, found: Judgement) -> tuple[Output, ...]:
        """Write the figures as JSON, and the page, where no other attempt does; the finalizer publishes them."""
        html = page.render(
            f"Evaluation of {model.ref}",
            model=f"{model.ref}, {model.family}",
            data=found.data,
            date=datetime.now(UTC),
            sections=found.sections,
        )
        store, keys = self.backend.store, JobKeys(spec.id)
        return write(
            store,
            f"s3://{store.bucket}/{keys.attempt_prefix}",
            shard_stem(lease.shard),
            {".json": found.figures, ".html": html.encode()},
            {".json": f"{spec.output}{FIGURES}", ".html": f"s3://{store.bucket}/{keys.report}"},
        )


def make_work(resources: Resources) -> EvaluateWork:
    """Return what evaluates models in this process."""
    return EvaluateWork(
        backend=resources.backend,
        reader=resources.reader,
        models=resources.models,
        judge_generator=GeneratorJudge(resources.device, resources.threads),
        training=resources.training,
    )
