"""Trainings of a learner through the loop: to the end in one go, or killed on the way and taken up by another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from PIL import Image

from contract.models.families import TrainingRecipe
from worker.datasets.dataset import Dataset, split
from worker.training.learners import registry
from worker.training.learners.protocol import Learner
from worker.training.loop import EpochRecord, Outcome, train

T = TypeVar("T")
CPU = torch.device("cpu")


class Killed(Exception): ...


class AtOnce(Executor):
    """Does what it is given on the spot, so that a checkpoint is written before the next step."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass
class Notes:
    """Hooks that keep the last checkpoint and all pictures, and raise after so many checkpoints."""

    stop: int | None = None
    kept: bytes | None = None
    checkpoints: int = 0
    pictures: list[Image.Image | None] = field(default_factory=list)

    def progress(self, images: int, losses: Mapping[str, float]) -> None: ...

    def checkpoint(self, images: int, data: bytes) -> None:
        self.kept, self.checkpoints = data, self.checkpoints + 1
        if self.checkpoints == self.stop:
            raise Killed

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        self.pictures.append(picture)


def learner(recipe: TrainingRecipe, data: Dataset) -> tuple[Learner, Dataset]:
    """A fresh learner, and the three quarters of the data that it is to be shown."""
    shown, held_out = split(data, 0.25, recipe.seed)
    return registry.make(recipe, shown, held_out, CPU), shown


def undisturbed(recipe: TrainingRecipe, data: Dataset) -> Outcome:
    fresh, shown = learner(recipe, data)
    return train(fresh, shown, recipe, Notes(), start=None)


def killed(recipe: TrainingRecipe, data: Dataset, stops: Sequence[int]) -> Outcome:
    """The same, but killed after so many checkpoints, of which there is one after each step and each epoch, again and
    again; each time a fresh learner goes on from the last checkpoint, whatever torch's global generator holds.
    """
    kept: bytes | None = None
    for stop in (*stops, None):
        notes, (fresh, shown) = Notes(stop), learner(recipe, data)
        torch.manual_seed(stop or 0)
        often: dict[str, Any] = {"checkpoint_seconds": 0.0, "clock": itertools.count(0.0).__next__, "beside": AtOnce()}
        try:
            return train(fresh, shown, recipe, notes, start=kept, **often)
        except Killed:
            kept = notes.kept
    raise AssertionError("the last one is not killed")


def assert_same(one: Outcome, other: Outcome) -> None:
    """Weights bit for bit, losses and metrics to the last digit, and the same best epoch."""
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], tensor) for name, tensor in other.weights.items())
    first, second = ([record.model_dump(exclude={"seconds"}) for record in each.history] for each in (one, other))
    assert first == second
    assert one.best.epoch == other.best.epoch and one.config == other.config
