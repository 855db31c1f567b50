"""A training that begins with the weights of another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contract.errors import ModelError
from contract.models.families import make_recipe
from worker.datasets.dataset import Dataset, split
from worker.training.learners.protocol import Learner
from worker.training.learners.registry import make
from worker.training.optimization.transfer import begin_with


def learner(family: str, classes: int, seed: int) -> Learner:
    images = np.random.default_rng(0).integers(0, 256, (classes * 8, 28, 28, 1), np.uint8)
    labels = np.arange(len(images), dtype=np.int64) % classes
    data = Dataset(images, labels, tuple(f"class {n}" for n in range(classes)))
    recipe = make_recipe(family, [f"seed={seed}", "precision=fp32", "batch_size=8"])
    return make(recipe, *split(data, 0.5, 0), torch.device("cpu"))


@pytest.mark.parametrize("family", ["cnn", "vae"])
def test_what_is_published_is_what_is_begun_with(family: str) -> None:
    # Given the weights of one training, if another begins with them,
    weights = learner(family, 3, seed=1).export()
    other = learner(family, 3, seed=2)
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in other.export().items())

    taken = begin_with(other, weights)

    # I expect it to have all of them.
    assert taken == len(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in other.export().items())


def test_a_last_layer_of_other_classes_begins_at_random() -> None:
    weights = learner("cnn", 3, seed=1).export()
    other = learner("cnn", 4, seed=2)
    before = other.export()

    taken = begin_with(other, weights)

    now = other.export()
    assert taken == len(weights) - 2
    assert torch.equal(now["head.weight"], before["head.weight"])
    assert all(torch.equal(now[name], weights[name]) for name in weights if not name.startswith("head."))


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match="None of the weights"):
        begin_with(learner("cnn", 3, seed=1), {"elsewhere.weight": torch.zeros(3)})
