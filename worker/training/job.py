"""Train a model for a train job, and publish it.

    data → plan → steps ‖ checkpoints → publish

A worker that dies loses the steps since its last checkpoint; another continues there, and ends with the same weights.
It knows nothing of Celery, nor of what a family learns (`worker.training.learners`).
"""

from __future__ import annotations

import gc
import io
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from safetensors.torch import load

from contract.errors import (
    DeviceOutOfMemory,
    InvalidSource,
    ModelError,
    ObjectDamaged,
    ObjectNotFound,
    WorkerLeaving,
)
from contract.jobs.lifecycle import Backend, read_history, read_plan
from contract.jobs.specs import Train
from contract.jobs.status import Plan, ShardCommit
from contract.keys.jobs import JobKeys
from contract.models.recipes import RnnRecipe
from contract.models.registry import Registry
from worker.datasets.dataset import Dataset, split
from worker.datasets.reader import DatasetReader, Prepared, Wanted
from worker.engine.memory import calm_openmp, tune_allocator
from worker.engine.runtimes.out_of_memory import free, out_of_memory
from worker.execution.job_runner import ShardWork
from worker.execution.leases import Lease
from worker.execution.resources import Resources
from worker.training.learners.registry import make
from worker.training.loop import EpochRecord, Outcome, train
from worker.training.optimization.transfer import begin_with
from worker.training.publish import Trained, publish, training_losses

log = logging.getLogger(__name__)

_KEPT = 2
"""Number of checkpoints kept: if the newest is damaged, the one before it is used."""


@dataclass(frozen=True)
class TrainWork(ShardWork[Train]):
    """Trains models, one at a time, so that a training has the device to itself."""

    backend: Backend
    reader: DatasetReader
    device: torch.device
    threads: int
    checkpoint_seconds: float
    leaving: threading.Event
    training: threading.Lock
    """Held while this process trains."""
    evict: Callable[[], int] = lambda: 0
    """Lets go of the models that nobody uses, and returns how many there were."""

    def give_up(self, spec: Train, lease: Lease, retry: int, kills: int) -> ShardCommit:
        raise ModelError(
            f"The training ended {kills} workers without a checkpoint in between; see their logs, and try a smaller "
            "--set batch_size."
        )

    def make(self, spec: Train, lease: Lease, retry: int) -> ShardCommit:
        """Train, from the newest checkpoint if there is one, and publish the model."""
        prepared = self._data(spec, lease)
        learn, held_out = split(prepared.data, spec.recipe.validation, spec.recipe.seed)
        total = len(learn) * spec.recipe.epochs
        self._plan(spec, Plan(shards=1, items=total, skipped=prepared.left_out.total()))
        torch.set_num_threads(self.threads)
        hooks = _Hooks(self.backend, spec, lease, self.leaving, len(learn))
        outcome = self._with_room(lambda: self._outcome(spec, learn, held_out, hooks))
        lease.check()
        trained = Trained(spec, prepared, len(learn), len(held_out), outcome, hooks.picture_of(outcome.best.epoch))
        model = publish(Registry(self.backend.store), trained)
        log.info("%s is published as %s", spec.id, model.ref)
        return ShardCommit(
            shard=lease.shard,
            items=total,
            ok=total,
            errors=0,
            error_codes=dict(prepared.left_out),
            model=model.ref,
            metrics=model.metrics,
            runtime="torch",
            precision=spec.recipe.precision,
        )

    def _data(self, spec: Train, lease: Lease) -> Prepared:
        recipe = spec.recipe
        wanted = Wanted(
            size=recipe.size,
            channels=recipe.channels,
            frames=recipe.frames if isinstance(recipe, RnnRecipe) else 0,
            classes=spec.labels,
            min_score=spec.min_score,
        )

        def seen(images: int) -> None:
            lease.progress(0, 0, {"read": images})
            lease.check()
            _leave(self.leaving, spec.id)

        return self.reader.read(spec.source, wanted, seen)

    def _plan(self, spec: Train, plan: Plan) -> None:
        """Write the plan once; raise InvalidSource if a later attempt finds other data."""
        store = self.backend.store
        if not store.put_if_absent(JobKeys(spec.id).plan, plan.to_json()) and read_plan(store, spec.id) != plan:
            raise InvalidSource(
                f"{spec.source.label} has changed since {spec.id} started; restore it, or submit a new job."
            )
        limit = spec.error_limit(plan.items)
        self.backend.ledger.complete(
            spec.id, shards=plan.shards, items=plan.items, error_limit=limit, skipped=plan.skipped
        )

    def _with_room(self, training: Callable[[], Outcome]) -> Outcome:
        """Return what a training returns; if memory runs out, it goes on once without the models that nobody uses."""
        try:
            return training()
        except DeviceOutOfMemory as error:
            full = str(error)
        # Outside of `except`, where the error would keep the tensors of the training.
        count = self.evict()
        if not count:
            raise DeviceOutOfMemory(full)
        log.warning("A training does not fit beside %d models that nobody uses, which are let go of: %s", count, full)
        gc.collect()
        free()
        return training()

    def _outcome(self, spec: Train, learn: Dataset, held_out: Dataset, hooks: _Hooks) -> Outcome:
        """Train from the newest intact checkpoint, or from the beginning if there is none.

        Raises ObjectDamaged if there are checkpoints and all are damaged.
        """
        damaged: ObjectDamaged | None = None
        for key in [*reversed(_checkpoint_keys(self.backend, spec.id)), None]:
            if key is None and damaged is not None:
                raise damaged
            start = None if key is None else self.backend.store.get(key)
            if key is not None:
                log.info("%s goes on from %s", spec.id, key)
            try:
                with out_of_memory():
                    learner = make(spec.recipe, learn, held_out, self.device)
                    if start is None and spec.start is not None:
                        registry = Registry(self.backend.store)
                        model = registry.get(spec.start)
                        begin_with(learner, load(registry.read(model, model.weights)))
                    return train(
                        learner,
                        learn,
                        spec.recipe,
                        hooks,
                        start=start,
                        checkpoint_seconds=self.checkpoint_seconds,
                        device=str(self.device),
                    )
            except ObjectDamaged as error:
                log.warning("A checkpoint of %s is skipped: %s", spec.id, error)
                damaged = error
        raise AssertionError("the last iteration returns or raises")


def _checkpoint_keys(backend: Backend, job: str) -> list[str]:
    """Return the keys of the checkpoints, oldest first."""
    return sorted(entry.key for entry in backend.store.list(JobKeys(job).checkpoint_prefix))


class _Hooks:
    """Reports a training's progress to ledger and bucket, and tells the training when to stop."""

    def __init__(self, backend: Backend, spec: Train, lease: Lease, leaving: threading.Event, an_epoch: int) -> None:
        self._backend, self._spec, self._lease, self._leaving = backend, spec, lease, leaving
        self._an_epoch = an_epoch
        self._keys = JobKeys(spec.id)
        self._metrics: dict[str, float] = {}

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        epoch = min(images // self._an_epoch, self._spec.recipe.epochs - 1) + 1
        where = {"epoch": epoch, "epochs": self._spec.recipe.epochs}
        self._lease.progress(images, 0, {**where, **training_losses(losses), **self._metrics})
        self._lease.check()
        _leave(self._leaving, self._spec.id)

    def checkpoint(self, images: int, data: bytes) -> None:
        self._lease.check()  # after losing the lease the bucket belongs to the next worker
        self._backend.store.put(self._keys.checkpoint(images), data)
        for key in _checkpoint_keys(self._backend, self._spec.id)[:-_KEPT]:
            self._backend.store.delete(key)
        # If the worker dies after this point, the steps before it are not blamed.
        self._lease.absolve()
        self._backend.ledger.absolve(self._spec.id, self._lease.shard, self._lease.token, self._lease.mode)

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        self._metrics = record.metrics
        self._lease.check()
        if picture is not None:
            target = io.BytesIO()
            picture.save(target, "PNG")
            self._backend.store.put(self._keys.picture(record.epoch), target.getvalue())
        # Later epochs stay: they are those of an attempt that came further, until this one gets there.
        known = {entry["epoch"]: entry for entry in read_history(self._backend.store, self._spec.id)}
        known[record.epoch] = record.model_dump()
        history = json.dumps([known[epoch] for epoch in sorted(known)], indent=1).encode()
        self._backend.store.put(self._keys.history, history)

    def picture_of(self, epoch: int) -> bytes | None:
        """Return the picture of an epoch as PNG, or None."""
        try:
            return self._backend.store.get(self._keys.picture(epoch))
        except ObjectNotFound:
            return None


def _leave(leaving: threading.Event, job: str) -> None:
    if leaving.is_set():
        raise WorkerLeaving(f"This worker is leaving; another continues {job} from its last checkpoint.")


def make_work(resources: Resources) -> TrainWork:
    """Return what trains in this process."""
    tune_allocator()
    calm_openmp()
    return TrainWork(
        backend=resources.backend,
        reader=resources.reader,
        device=resources.device,
        threads=resources.threads,
        checkpoint_seconds=resources.settings.checkpoint_seconds,
        leaving=resources.leaving,
        training=resources.training,
        evict=lambda: 0 if (models := resources.models_made()) is None else models.evict(),
    )
