"""Measures a training in images/s: the whole loop against its steps alone.

It knows neither queue nor store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from contract.models.families import TrainingRecipe
from worker.datasets.dataset import Dataset, split
from worker.training.data.batches import batches, steps_an_epoch
from worker.training.learners.protocol import At
from worker.training.learners.registry import make
from worker.training.loop import EpochRecord, train

if TYPE_CHECKING:
    from PIL import Image


def bare(data: Dataset, recipe: TrainingRecipe, device: torch.device) -> float:
    """Run the steps of the recipe and nothing else: no losses are read, nothing is validated or saved."""
    learn, held_out = split(data, recipe.validation, recipe.seed)
    learner = make(recipe, learn, held_out, device)
    steps = steps_an_epoch(len(learn), recipe.batch_size)
    began = time.perf_counter()
    step = 0
    for epoch in range(recipe.epochs):
        for batch in batches(learn, batch_size=recipe.batch_size, seed=recipe.seed, epoch=epoch):
            learner.step(batch, At(step, steps * recipe.epochs, epoch))
            step += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return len(learn) * recipe.epochs / (time.perf_counter() - began)


def looped(data: Dataset, recipe: TrainingRecipe, device: torch.device) -> float:
    """Run the training as a worker does: batches ahead, losses, validation, checkpoints made and dropped."""
    learn, held_out = split(data, recipe.validation, recipe.seed)
    learner = make(recipe, learn, held_out, device)
    began = time.perf_counter()
    train(learner, learn, recipe, _Nobody(), start=None)
    return len(learn) * recipe.epochs / (time.perf_counter() - began)


class _Nobody:
    """Hooks of somebody who wants to know nothing."""

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        pass

    def checkpoint(self, images: int, data: bytes) -> None:
        pass

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        pass
