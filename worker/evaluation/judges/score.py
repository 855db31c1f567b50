"""The classification accuracy score: how well a classifier does on real images that has seen none but generated ones.

It knows no generator: what is learnt from is a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from contract.models.recipes import CnnRecipe
from contract.records import Record
from worker.datasets.dataset import Dataset
from worker.training.learners.registry import make
from worker.training.loop import EpochRecord, train

if TYPE_CHECKING:
    from PIL import Image


class Score(Record):
    """Accuracies on the same real images that nothing learnt from, of the same classifier trained twice.

    Ravuri & Vinyals 2019, arXiv:1905.10887. `gap` is what training on generated images costs, in shares of 1.
    """

    generated: float
    """Trained on generated images alone: the classification accuracy score."""
    real: float
    """Trained on as many real images, of the same classes."""
    images: int
    """Learnt from, each time."""
    tested: int
    recipe: CnnRecipe

    @property
    def gap(self) -> float:
        return self.real - self.generated


def recipe(epochs: int, seed: int) -> CnnRecipe:
    """What both classifiers are trained by: the classic one, which is quick, with the defaults of its family."""
    return CnnRecipe.model_validate({"variant": "classic", "epochs": epochs, "seed": seed})


def accuracy(
    learn: Dataset, test: Dataset, how: CnnRecipe, device: torch.device, advance: Callable[[int], None]
) -> float:
    """The share of `test` that a classifier has right which was trained on `learn`.

    After the last epoch: to take the best by `test` would choose by what it is tested on. `advance` is told as images
    are learnt from.
    """
    outcome = train(make(how, learn, test, device), learn, how, _Progress(advance), start=None)
    return outcome.history[-1].metrics["accuracy"]


class _Progress:
    """Hooks that tell how many images came since the last time."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._told = 0

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self._advance(images - self._told)
        self._told = images

    def checkpoint(self, images: int, data: bytes) -> None:
        """An evaluation that is cut off begins anew: it takes minutes."""

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        self._advance(0)
