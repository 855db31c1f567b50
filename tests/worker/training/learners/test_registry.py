"""Which learner a recipe is for, and what holds for every one of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contract.errors import InvalidSource
from contract.models.families import RECIPES, make_recipe
from contract.models.recipes import CnnRecipe
from tests.worker.training.toys import images, sequences
from worker import zoo
from worker.datasets.dataset import Dataset, split
from worker.training.data.batches import take
from worker.training.learners import registry
from worker.training.learners.protocol import At, Learner

CPU = torch.device("cpu")


def data_for(family: str) -> tuple[Dataset, Dataset]:
    return split(sequences(n=24) if family == "rnn" else images(n=24, size=28), 0.25, seed=0)


def make(family: str) -> Learner:
    recipe = make_recipe(family, ["precision=fp32", "batch_size=8"])
    return registry.make(recipe, *data_for(family), CPU)


@pytest.mark.parametrize("family", RECIPES)
def test_every_family_learns_goes_on_and_publishes(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "worker.training.learners.fidelity._STEPS", 2
    )  # no good judge of what generates, but a quick one

    # Given a learner after a step, and its state in another,
    train, _ = data_for(family)
    learner, other = make(family), make(family)
    learner.step(take(train, np.arange(8)), At(0, 4, 0))
    other.restore({name: tensor.clone() for name, tensor in learner.state().items()})

    # if both go on, I expect the same losses and weights, bit for bit,
    one, same = (each.step(take(train, np.arange(8, 16)), At(1, 4, 0)) for each in (learner, other))
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) and not one[name].requires_grad for name in one)
    exported, again = learner.export(), other.export()
    assert all(torch.equal(exported[name], again[name]) for name in exported)

    # which the zoo's module takes,
    zoo.create(family, **learner.config()).load_state_dict(exported)
    assert {tensor.dtype for tensor in exported.values()} <= {torch.float32, torch.int64}

    # and a metric to choose by.
    assert learner.best_by in learner.validate()
    assert learner.picture() is not None


def test_a_size_that_the_data_does_not_have_is_refused() -> None:
    train, held_out = data_for("cnn")
    with pytest.raises(InvalidSource, match="images of size 32, and the data has size 28"):
        registry.make(CnnRecipe(size=32), train, held_out, CPU)
    with pytest.raises(InvalidSource, match="images of channels 3, and the data has channels 1"):
        registry.make(CnnRecipe(channels=3), train, held_out, CPU)
    assert registry.make(CnnRecipe(size=28, channels=1), train, held_out, CPU).config()["size"] == 28
