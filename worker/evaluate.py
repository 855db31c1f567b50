"""Runs an evaluate job: a model as it is served, over labelled images, to figures and a page.

    lease → data → plan → forward → figures, page → marker → ledger

It knows neither Celery nor how a figure is computed (`worker.evaluation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from contract.errors import JobConflict, ModelError
from contract.items import parse_s3
from contract.jobs import Marker, Plan
from contract.keys import JobKeys
from contract.ledger import Step
from contract.lifecycle import House, read_spec
from contract.models import Model
from contract.specs import Evaluate
from worker.datasets import DatasetReader, Wanted
from worker.engine.runtime import Runtime
from worker.evaluation import classification, page
from worker.leases import Keeper, Lease
from worker.models import Models
from worker.runner import Runner, commit_single
from worker.training.data import Dataset

FIGURES = "evaluation.json"


@dataclass(frozen=True)
class EvaluateRunner:
    """What a worker needs to judge models; it shares the models that it labels with."""

    name: str
    house: House
    keeper: Keeper
    reader: DatasetReader
    models: Models
    max_attempts: int

    def run(self, job: str, shard: int) -> None:
        """Judge the model of a job, if nobody does."""
        runner = Runner("evaluate", self.name, self.house, self.keeper, self.models.on_accelerator)
        runner.run(job, shard, self._commit)

    def _commit(self, lease: Lease, kills: int) -> Step:
        spec = read_spec(self.house.store, lease.job)
        if not isinstance(spec, Evaluate):
            raise JobConflict(f"{spec.id} is no evaluation but of kind {spec.kind}; cancel it and submit it again.")
        return commit_single(self.house, lease, lambda: self._evaluate(spec, lease, kills))

    def _evaluate(self, spec: Evaluate, lease: Lease, kills: int) -> Marker:
        if kills >= self.max_attempts:
            raise ModelError(f"The evaluation of {spec.model} ended {kills} workers; see their logs.")
        began = time.monotonic()
        model = self.models.model(spec.model)
        pre = model.preprocess
        wanted = Wanted(
            size=pre.size,
            channels=3,
            frames=model.frames,
            preprocess=pre,
            classes=model.labels,
            part="test",
            min_score=spec.min_score,
        )

        def seen(images: int) -> None:
            lease.progress(0, 0, {"read": images})
            lease.check()

        prepared = self.reader.read(spec.source, wanted, seen)
        data, left_out = prepared.data, prepared.left_out
        plan = Plan(shards=1, items=len(data), skipped=left_out.total())
        self.house.store.put(JobKeys(spec.id).plan, plan.to_json())
        limit = spec.error_limit(plan.items)
        self.house.ledger.complete(spec.id, shards=1, items=plan.items, error_limit=limit, skipped=plan.skipped)
        with self.models.use(spec.model, spec.precision) as loaded:
            logits = np.concatenate(list(forward(loaded.runtime, data, lease)))
            runtime, precision = loaded.runtime.name, loaded.runtime.precision
        figures = classification.measure(torch.from_numpy(logits), torch.from_numpy(data.labels), model.labels)
        lease.check()
        self._write(spec, model, data, logits, figures)
        return Marker(
            shard=lease.shard,
            items=len(data),
            ok=len(data),
            errors=0,
            error_codes=dict(left_out),
            output=f"{spec.output}{FIGURES}",
            model=model.ref,
            metrics=headline(figures),
            worker=self.name,
            runtime=runtime,
            precision=precision,
            seconds=round(time.monotonic() - began, 3),
        )

    def _write(
        self,
        spec: Evaluate,
        model: Model,
        data: Dataset,
        logits: NDArray[np.float32],
        figures: classification.Classification,
    ) -> None:
        """The figures as JSON, and the page."""
        scores, right = classification.top_scores(torch.from_numpy(logits), torch.from_numpy(data.labels))
        html = page.render(
            f"Evaluation of {model.ref}",
            model=f"{model.ref}, {model.family}",
            data=f"{spec.source.label}, {len(data):,} images",
            date=datetime.now(UTC),
            sections=page.classifier(figures, scores.numpy(), right.numpy()),
        )
        bucket, prefix = parse_s3(spec.output)
        self.house.store.put(f"{prefix}{FIGURES}", figures.to_json(), bucket=bucket)
        self.house.store.put(JobKeys(spec.id).report, html.encode())


def forward(runtime: Runtime, data: Dataset, lease: Lease) -> Iterator[NDArray[np.float32]]:
    """The logits [b, classes] of the images, batch by batch, as many at a time as keep the runtime busy."""
    starts = range(0, len(data), runtime.batch_size)

    def run(start: int) -> NDArray[np.float32]:
        rows = slice(start, start + runtime.batch_size)
        lengths = () if data.lengths is None else (data.lengths[rows],)
        return runtime.submit(data.images[rows], *lengths).result().logits

    done = 0
    with ThreadPoolExecutor(runtime.lanes) as pool:
        for logits in pool.map(run, starts):
            done += len(logits)
            lease.progress(done, 0)
            lease.check()
            yield logits


def headline(figures: classification.Classification) -> dict[str, float]:
    """What `show` prints of them."""
    return {
        "top1": figures.top1,
        f"top{figures.k}": figures.top_k,
        "precision": figures.precision,
        "recall": figures.recall,
        "f1": figures.f1,
        "calibration_error": figures.calibration_error,
    }
