"""Generated images for an evaluation: as many of each class as there are real ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.datasets.dataset import Dataset
from worker.engine.generators.sampler import Sampler
from worker.evaluation.judges.images import make, numbered


def test_images_of_a_class_are_numbered_in_their_order() -> None:
    assert numbered(torch.tensor([2, 0, 2, 2, 0, 1])).tolist() == [0, 0, 1, 2, 1, 0]
    assert numbered(torch.tensor([3])).tolist() == [0]


def test_the_first_images_of_each_class_are_made_as_many_as_are_real() -> None:
    # Given real images of two classes in mixed order, more than one decoded batch,
    labels = np.arange(150) % 3 // 2
    real = Dataset(np.zeros((150, 4, 4, 1), np.uint8), labels, ("a", "b"))

    def decode(z: Tensor, y: Tensor) -> Tensor:
        return (z[:, :1, None, None] / 8 + y[:, None, None, None] - 0.5).expand(-1, 1, 4, 4)

    sampler = Sampler(decode, 4, 7, torch.device("cpu"), "fp32")
    told: list[int] = []

    # I expect a dataset with the same labels, made of the first images of each class.
    made = make(sampler, real, told.append)
    assert np.array_equal(made.labels, labels) and made.images.shape == (150, 4, 4, 1)
    assert sum(told) == 150
    for label in (0, 1):
        count = int((labels == label).sum())
        first = sampler.images(torch.full((count,), label), torch.arange(count)).movedim(1, -1).numpy()
        assert np.array_equal(np.asarray(made.images)[labels == label], first)
