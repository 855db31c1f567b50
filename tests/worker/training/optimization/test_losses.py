"""Losses: left where they are until they are read, and summed in the order in which they came."""

from __future__ import annotations

import math

import pytest
import torch

from contract.errors import TrainingDiverged
from worker.training.learners.protocol import At
from worker.training.optimization.losses import Losses


def at(step: int) -> At:
    return At(step, steps=1000, epoch=step // 100)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


def test_means_are_over_examples_and_not_over_steps() -> None:
    losses = Losses()
    losses.add(at(0), 3, {"loss": scalar(1.0)})
    losses.add(at(1), 1, {"loss": scalar(5.0)})
    assert losses.means() == {}, "nothing was waited for"
    assert losses.read(0.1) == {"loss": 2.0}
    losses.add(at(2), 4, {"loss": scalar(4.0)})
    assert losses.read(0.1) == {"loss": 4.0}, "a read tells of what is new"
    assert losses.means() == {"loss": 3.0}, "and the means of all since the start"
    assert losses.read(0.1) == {}
    losses.start()
    assert losses.means() == {}


def test_a_loss_that_not_every_step_has_is_a_mean_of_its_own() -> None:
    losses = Losses()
    losses.add(at(0), 2, {"discriminator": scalar(1.0)})
    losses.add(at(1), 2, {"discriminator": scalar(3.0), "generator": scalar(7.0)})
    assert losses.read(0.1) == {"discriminator": 2.0, "generator": 7.0}


def test_the_sums_do_not_depend_on_when_they_are_read() -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))

    def mean(every: int) -> float:
        losses = Losses()
        for step, value in enumerate(values):
            losses.add(at(step), 7, {"loss": value})
            if step % every == 0:
                losses.read(0.1)
                again = Losses()
                again.restore(losses.state())
                losses = again
        losses.read(0.1)
        return losses.means()["loss"]

    assert mean(1) == mean(7) == mean(1000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_step_that_diverged_is_named_with_what_to_do(value: float) -> None:
    losses = Losses()
    for step, loss in enumerate([1.0, 2.0, value, math.nan]):
        losses.add(at(210 + step), 8, {"kl": scalar(0.0), "loss": scalar(loss)})
    with pytest.raises(TrainingDiverged) as caught:
        losses.read(0.3)
    assert str(caught.value) == (
        f"The training diverged at step 213 of 1,000, in epoch 3: loss is {value}; nothing is published, so train "
        "again with a lower learning rate, such as --set learning_rate=0.1."
    )
