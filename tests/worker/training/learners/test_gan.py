"""The generator and its discriminator: they learn, no interruption changes them, and the recipe is what they follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contract.errors import InvalidSettings, InvalidSource, ModelError
from contract.models.recipes import GanRecipe
from tests.worker.training.generators import assert_images_differ, assert_killed_ends_the_same, changed, trained
from tests.worker.training.interruptions import CPU, learner
from tests.worker.training.shapes import shapes
from tests.worker.training.toys import sequences
from worker.training.data.batches import take
from worker.training.learners.gan import GanLearner
from worker.training.learners.protocol import At

RECIPE = GanRecipe(
    latent=16, epochs=6, batch_size=16, ema=0.9, learning_rate=1e-3, discriminator_learning_rate=1e-3, precision="fp32"
)
TINY = RECIPE.model_copy(update={"epochs": 2, "batch_size": 8})
DATA = shapes(32, size=14)


@pytest.mark.parametrize("loss", ["hinge", "bce"])
def test_its_images_come_nearer_to_real_ones(loss: str) -> None:
    # Given the distance of images by fresh weights,
    recipe = changed(RECIPE, loss=loss)
    before, outcome = trained(recipe, shapes(192, size=14))

    # I expect the best epoch to be far nearer,
    best = outcome.best.metrics["frechet_distance"]
    assert best < 0.4 * before["frechet_distance"]
    assert best == min(one.metrics["frechet_distance"] for one in outcome.history)
    assert outcome.history[0].losses.keys() == {"discriminator", "generator"}

    # and the weights that are published to be those that were judged.
    assert_images_differ(recipe, outcome)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "bce", "discriminator_steps": 2, "augment": "color,translation,cutout", "spectral_norm": False},
        {"precision": "bf16", "weight_decay": 0.01, "ema": 0.0},
    ],
    ids=["hinge", "bce, two steps", "bf16"],
)
def test_killed_again_and_again_it_ends_with_the_same_weights(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_killed_ends_the_same(changed(TINY, **settings), DATA, monkeypatch)


def test_learning_rates_rise_stay_and_fall() -> None:
    fresh, _ = learner(changed(TINY, learning_rate=0.5, warmup=0.2), DATA)
    rates = [fresh.learning_rate(At(step, 20, 0)) for step in range(20)]
    assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5]), "over a fifth of the steps"
    assert rates[3:11] == [0.5] * 8
    assert rates[11:] == pytest.approx([0.05 * left for left in range(9, 0, -1)]), "and no step is wasted at 0"

    without, _ = learner(changed(TINY, learning_rate=0.5, warmup=0.0), DATA)
    assert without.learning_rate(At(0, 20, 0)) == 0.5


def test_each_side_learns_from_its_own_loss_at_its_own_rate() -> None:
    # Given a learner whose discriminator hardly learns, and one whose generator hardly does,
    for slow, fast in (("discriminator", "generator"), ("generator", "discriminator")):
        rates = {"generator": "learning_rate", "discriminator": "discriminator_learning_rate"}
        fresh, shown = learner(changed(TINY, **{rates[slow]: 1e-12, rates[fast]: 1e-2, "warmup": 0.0}), DATA)
        before = {name: tensor.clone() for name, tensor in fresh.state().items()}

        # if they take a step, I expect weights of the fast one alone to have moved.
        fresh.step(take(shown, torch.arange(8).numpy()), At(0, 10, 0))
        after = fresh.state()
        for side, moved in ((slow, False), (fast, True)):
            weights = [name for name in before if name.startswith(f"{side}.") and name.endswith(("weight", "original"))]
            assert weights
            for name in weights:
                apart = float((after[name] - before[name]).abs().max())
                assert (apart > 1e-3) if moved else (apart < 1e-6), name


def test_more_steps_of_the_discriminator_are_more_updates_of_it_alone() -> None:
    fresh, shown = learner(changed(TINY, discriminator_steps=3), DATA)
    fresh.step(take(shown, torch.arange(8).numpy()), At(0, 10, 0))
    state = fresh.state()
    assert float(state["discriminator_optimizer.0.step"]) == 3
    assert float(state["generator_optimizer.0.step"]) == 1
    assert int(state["average.updates"]) == 1


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="no 'rotation'"):
        learner(changed(TINY, augment="rotation"), DATA)
    with pytest.raises(ModelError, match="14, 28, 56, 112"):
        learner(TINY, shapes(32, size=16))
    with pytest.raises(InvalidSource, match="sequences"):
        GanLearner(TINY, sequences(), sequences(), CPU)
