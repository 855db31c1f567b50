"""Runs an evaluate job: from its lease, through the judge of the model's task, to figures and a page.

    lease → judge → figures, page → commit → ledger

It knows neither Celery nor how a model is judged (`worker.evaluation.judges`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from contract.backend.ledger import Step
from contract.data.items import parse_s3
from contract.errors import ImagemillError, JobConflict, ModelError
from contract.jobs.lifecycle import Backend, read_spec
from contract.jobs.specs import Evaluate
from contract.jobs.status import Plan, ShardCommit
from contract.keys import JobKeys
from contract.models.registry import Model
from worker.datasets.reader import DatasetReader
from worker.evaluation.judges import Case, Judgement, classifier
from worker.execution.leases import Lease, LeaseRenewer
from worker.execution.model_cache import Models
from worker.execution.runner import Runner, commit_single
from worker.pages import page

FIGURES = "evaluation.json"


@dataclass(frozen=True)
class EvaluateRunner:
    """What a worker needs to judge models; it shares the models that it labels with."""

    name: str
    backend: Backend
    renewer: LeaseRenewer
    reader: DatasetReader
    models: Models
    judge_generator: Callable[[Case], Judgement]
    alone: threading.Lock
    """Held by what trains: a generator is judged by training classifiers, and a process trains one thing at a time."""
    max_attempts: int

    def run(self, job: str, shard: int) -> None:
        """Judge the model of a job, if nobody does."""
        runner = Runner("evaluate", self.name, self.backend, self.renewer, self.models.on_accelerator)
        if not self._trains(job):
            runner.run(job, shard, self._commit)
        elif self.alone.acquire(blocking=False):
            try:
                runner.run(job, shard, self._commit)
            finally:
                self.alone.release()
        # Else the message goes and the job stays queued: the reconciler sends it again, perhaps to an idle worker.

    def _trains(self, job: str) -> bool:
        try:
            spec = read_spec(self.backend.store, job)
            return isinstance(spec, Evaluate) and self.models.model(spec.model).task == "generate"
        except ImagemillError:
            return False  # it is met again under the lease, where it is reported

    def _commit(self, lease: Lease, kills: int) -> Step:
        spec = read_spec(self.backend.store, lease.job)
        if not isinstance(spec, Evaluate):
            raise JobConflict(f"{spec.id} is no evaluation but of kind {spec.kind}; cancel it and submit it again.")
        return commit_single(self.backend, lease, lambda: self._evaluate(spec, lease, kills))

    def _evaluate(self, spec: Evaluate, lease: Lease, kills: int) -> ShardCommit:
        if kills >= self.max_attempts:
            raise ModelError(f"The evaluation of {spec.model} ended {kills} workers; see their logs.")
        began = time.monotonic()
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
        self._write(spec, model, found)
        return ShardCommit(
            shard=lease.shard,
            items=items,
            ok=items,
            errors=0,
            error_codes=dict(left_out),
            output=f"{spec.output}{FIGURES}",
            model=model.ref,
            metrics=found.metrics,
            worker=self.name,
            runtime=found.runtime,
            precision=found.precision,
            seconds=round(time.monotonic() - began, 3),
        )

    def _write(self, spec: Evaluate, model: Model, found: Judgement) -> None:
        """The figures as JSON, and the page."""
        html = page.render(
            f"Evaluation of {model.ref}",
            model=f"{model.ref}, {model.family}",
            data=found.data,
            date=datetime.now(UTC),
            sections=found.sections,
        )
        bucket, prefix = parse_s3(spec.output)
        self.backend.store.put(f"{prefix}{FIGURES}", found.figures, bucket=bucket)
        self.backend.store.put(JobKeys(spec.id).report, html.encode())
