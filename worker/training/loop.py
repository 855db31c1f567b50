"""The training loop: steps, epochs, checkpoints, and the choice of the best epoch. It knows no family.

All that it is told comes from the learner and all that it tells goes to the hooks. Killed anywhere and started again
from its last checkpoint, it ends with the weights that it would have had undisturbed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from contract.errors import DeviceOutOfMemory, ObjectDamaged
from contract.instruments import STAGE_SECONDS, TRAINED_IMAGES
from contract.models.recipes import Recipe
from contract.records import Record
from worker.datasets.dataset import Dataset
from worker.engine.arithmetic import queueing
from worker.engine.busy import busy_on
from worker.training.checkpoint import unpack
from worker.training.data.batches import Batch, ahead, batches, cut, steps_an_epoch
from worker.training.learners.protocol import At, Learner
from worker.training.optimization.losses import Losses, diverged
from worker.training.parts import joined, part
from worker.training.writer import Writer

if TYPE_CHECKING:
    from PIL import Image

_READ_SECONDS = 0.25  # between two looks at the losses; each lets a GPU run dry for about a millisecond


class EpochRecord(Record):
    """The figures of one epoch."""

    epoch: int
    """1-based."""
    step: int
    """Steps since the start of the training."""
    losses: dict[str, float]
    """Means over the examples of the epoch."""
    metrics: dict[str, float]
    """Metrics of the averaged weights on the held-out part."""
    learning_rate: float
    """Learning rate of the last step."""
    seconds: float
    """Time spent on the epoch, validation included; work lost to an interruption is not counted."""


class Hooks(Protocol):
    """Callbacks of a training. Each may raise to stop the training; `train` raises the same error."""

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        """Report images trained on since the start, and mean losses since the last call, a few times a second."""
        ...

    def checkpoint(self, images: int, data: bytes) -> None:
        """Store a checkpoint, made after `images` images, in place of the one before.

        Called on a thread of its own while the steps continue; an error stops the training at its next step.
        """
        ...

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        """Report the end of an epoch. It precedes the checkpoint that contains the epoch, so it may be repeated."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The result of a training."""

    weights: dict[str, Tensor]
    """Weights of the best epoch: averaged, float32, on the CPU."""
    config: dict[str, int | float | str | bool]
    """Arguments of `zoo.create` for their module."""
    history: tuple[EpochRecord, ...]
    best: EpochRecord


def train(
    learner: Learner,
    data: Dataset,
    recipe: Recipe,
    hooks: Hooks,
    *,
    start: bytes | None,
    checkpoint_seconds: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    beside: Executor | None = None,
    device: str = "cpu",
) -> Outcome:
    """Train for all epochs of the recipe, from the start or from the checkpoint `start`.

    `data` is the part to train on; the learner has the held-out part. A checkpoint is made at the end and at most
    `checkpoint_seconds` after the last one, unless a step, a validation or a write takes longer. Checkpoints are
    written on `beside`, by default a thread of its own, and all are written when this returns or raises. The
    seconds that `device` computes count as those in which it is busy. Raises
    TrainingDiverged if a loss or metric is not finite, ObjectDamaged if `start` is not a checkpoint of this training,
    and DeviceOutOfMemory if a batch is too large.
    """
    with beside or ThreadPoolExecutor(1, "checkpoints") as thread:
        writer = Writer(hooks.checkpoint, thread)
        training = _Training(learner, data, recipe, hooks, writer, checkpoint_seconds, clock, device)
        if start is not None:
            training.restore(start)
        return training.run()


class _Training:
    """The state of a training. The length of its history is the number of finished epochs."""

    def __init__(
        self,
        learner: Learner,
        data: Dataset,
        recipe: Recipe,
        hooks: Hooks,
        writer: Writer,
        checkpoint_seconds: float,
        clock: Callable[[], float],
        device: str,
    ) -> None:
        self._learner = learner
        self._busy, self._device = busy_on(device), torch.device(device)
        self._data = data
        self._recipe = recipe
        self._hooks = hooks
        self._writer = writer
        self._checkpoint_seconds = checkpoint_seconds
        self._clock = clock
        # A checkpoint can be continued only if all of this is the same.
        self._identity = {"recipe": recipe.model_dump(mode="json"), "data": data.fingerprint}
        self._an_epoch = steps_an_epoch(len(data), recipe.batch_size)
        self._steps = self._an_epoch * recipe.epochs
        self._step = 0
        self._losses = Losses()
        self._history: list[EpochRecord] = []
        self._best: EpochRecord | None = None
        self._weights: dict[str, Tensor] = {}
        self._seconds = 0.0  # of the running epoch
        self._began = self._saved = self._read = clock()

    def restore(self, data: bytes) -> None:
        tensors, meta = unpack(data)
        for key, value in self._identity.items():
            if not self._agrees(key, meta.get(key), value):
                raise ObjectDamaged(f"The checkpoint is of another {key} than this training; delete it to start anew.")
        try:
            self._learner.restore(part(tensors, "learner"))
            self._losses.restore(meta["losses"])
            self._history = [EpochRecord.model_validate(record) for record in meta["history"]]
            self._best = self._history[meta["best"] - 1] if meta["best"] else None
            self._step, self._seconds = meta["step"], meta["seconds"]
        except (LookupError, RuntimeError, ValueError) as error:
            raise ObjectDamaged(
                "The checkpoint does not fit this version of Imagemill, and an earlier one can finish it; delete it to "
                "start anew."
            ) from error
        self._weights = part(tensors, "best")

    def _agrees(self, key: str, found: object, value: object) -> bool:
        """Return whether a checkpoint is of this training, by one key; fields that came to a recipe have defaults."""
        if key != "recipe":
            return found == value
        try:
            return type(self._recipe).model_validate(found) == self._recipe
        except ValueError:
            return False

    def run(self) -> Outcome:
        while len(self._history) < self._recipe.epochs:
            self._learn()
            self._validate()
        self._writer.wait()
        assert self._best is not None
        return Outcome(self._weights, self._learner.config(), tuple(self._history), self._best)

    def _learn(self) -> None:
        """Run the remaining steps of the current epoch; there are none if only its validation is left."""
        epoch = len(self._history)
        order = batches(
            self._data,
            batch_size=self._recipe.batch_size,
            seed=self._recipe.seed,
            epoch=epoch,
            first=self._step - epoch * self._an_epoch,
        )
        last = self._clock()
        with closing(ahead(order)) as ordered:
            for batch in ordered:
                at = At(self._step, self._steps, epoch)
                with self._computing("step"):
                    self._losses.add(at, len(batch), self._try_step(batch, at))
                TRAINED_IMAGES.add(len(batch), self._recipe.task)
                self._step += 1
                self._writer.check()
                now = self._clock()
                # The next step will take about as long as this one, and would end too late for the checkpoint.
                due = self._due(now + (now - last))
                if due or now - self._read >= _READ_SECONDS:
                    with self._computing("step"):  # where a GPU is waited for
                        losses = self._losses.read(self._recipe.learning_rate)
                    self._hooks.progress(self._images(), losses)
                    self._read = now
                if due:
                    self._checkpoint()
                last = self._clock()
        self._losses.read(self._recipe.learning_rate)

    @contextmanager
    def _computing(self, stage: str) -> Iterator[None]:
        with STAGE_SECONDS.seconds(stage), self._busy.computing():
            yield

    def _try_step(self, batch: Batch, at: At) -> dict[str, Tensor]:
        try:
            with queueing(self._device, loose=not self._recipe.deterministic):
                return self._learner.step(batch, at)
        except torch.OutOfMemoryError as error:
            raise DeviceOutOfMemory(
                f"A step of {len(batch)} examples does not fit into the memory of the device; train with a smaller "
                f"batch, such as --set batch_size={max(2, len(batch) // 2)}."
            ) from error

    def _validate(self) -> None:
        """End the epoch: compute its metrics, record it, and keep its weights if it is the best so far."""
        last = At(self._step - 1, self._steps, len(self._history))
        with self._computing("validate"):
            metrics = self._learner.validate()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise diverged(f"{name} is {value}", last, self._recipe.learning_rate)
        record = EpochRecord(
            epoch=len(self._history) + 1,
            step=self._step,
            losses=self._losses.means(),
            metrics=metrics,
            learning_rate=self._learner.learning_rate(last),
            seconds=self._elapsed(),
        )
        self._history.append(record)
        if self._best is None or self._is_better(record, self._best):
            self._best, self._weights = record, self._learner.export()
        self._losses.start()
        self._seconds, self._began = 0.0, self._clock()
        self._hooks.epoch(record, self._learner.picture())
        # Not after each short epoch; but publishing follows the last one, and its failure must not cost a training.
        if len(self._history) == self._recipe.epochs or self._due(self._clock()):
            self._checkpoint()

    def _is_better(self, record: EpochRecord, best: EpochRecord) -> bool:
        """Return whether `record` is better than `best`; of two equals the earlier is kept."""
        one, other = (found.metrics[self._learner.best_by] for found in (record, best))
        return one > other if self._learner.higher_is_better else one < other

    def _images(self) -> int:
        epochs, step = divmod(self._step, self._an_epoch)
        return epochs * len(self._data) + cut(len(self._data), self._an_epoch, step)

    def _elapsed(self) -> float:
        return self._seconds + self._clock() - self._began

    def _due(self, now: float) -> bool:
        """Return whether a checkpoint is due; never while another is being written."""
        return now - self._saved > self._checkpoint_seconds and not self._writer.busy

    def _checkpoint(self) -> None:
        """Hand the whole state to the writer. The losses so far have been read, and are finite."""
        self._saved = self._clock()  # the age of a checkpoint is that of its weights
        tensors = joined({"learner": self._learner.state(), "best": self._weights})
        meta = {
            **self._identity,
            "step": self._step,
            "losses": self._losses.state(),
            "history": [record.model_dump() for record in self._history],
            "best": self._best.epoch if self._best else None,
            "seconds": self._elapsed(),
        }
        self._writer.write(self._images(), tensors, meta)
