"""The classification accuracy score: how well a classifier trained only on generated images labels real ones.

It knows no generator, only the datasets to learn from.
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
    """The accuracies of one classifier trained twice, on the same real images, which neither training saw.

    Ravuri & Vinyals 2019, arXiv:1905.10887. `gap` is the accuracy lost by training on generated images, from 0 to 1.
    """

    generated: float
    """The accuracy after training only on generated images: the classification accuracy score."""
    real: float
    """The accuracy after training on the same number of real images of each class."""
    images: int
    """Images in either training."""
    tested: int
    recipe: CnnRecipe

    @property
    def gap(self) -> float:
        return self.real - self.generated


def recipe(epochs: int, seed: int) -> CnnRecipe:
    """Return the recipe of both classifiers: the classic variant, which trains fast, with its family's defaults."""
    return CnnRecipe.model_validate({"variant": "classic", "epochs": epochs, "seed": seed})


def accuracy(
    learn: Dataset, test: Dataset, how: CnnRecipe, device: torch.device, advance: Callable[[int], None]
) -> float:
    """Train a classifier on `learn`, and return its accuracy on `test` after the last epoch.

    Taking the best epoch instead would select on the test images. `advance` is called with the number of images learnt
    from since the last call.
    """
    outcome = train(make(how, learn, test, device), learn, how, _Progress(advance), start=None, device=str(device))
    return outcome.history[-1].metrics["accuracy"]


class _Progress:
    """Hooks that report how many images were learnt from since the last call."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._told = 0

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self._advance(images - self._told)
        self._told = images

    def checkpoint(self, images: int, data: bytes) -> None:
        """Keep nothing: an interrupted evaluation takes minutes, and starts again."""

    def epoch(self, record: EpochRecord, picture: Image.Image | None) -> None:
        self._advance(0)
