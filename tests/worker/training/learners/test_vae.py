"""The variational autoencoder: it learns, no interruption changes it, and its bound is one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import InvalidSource, ModelError
from contract.models.recipes import VaeRecipe
from tests.worker.training.generators import assert_images_differ, assert_killed_ends_the_same, changed, trained
from tests.worker.training.interruptions import CPU, learner, undisturbed
from tests.worker.training.shapes import shapes
from tests.worker.training.toys import sequences
from worker.datasets.dataset import Dataset
from worker.training.data.batches import take
from worker.training.learners.protocol import At
from worker.training.learners.vae import VaeLearner

RECIPE = VaeRecipe(latent=8, epochs=10, batch_size=16, ema=0.9, learning_rate=3e-3, precision="fp32")
TINY = RECIPE.model_copy(update={"epochs": 2, "batch_size": 8})
DATA = shapes(32)


def test_its_bound_rises_and_its_images_come_nearer_to_real_ones() -> None:
    # Given the bound and the distance of fresh weights,
    before, outcome = trained(RECIPE, shapes(256))

    # I expect better ones: the bound by more than a nat a pixel, and by the sum of its parts,
    best = outcome.best.metrics
    assert best["elbo"] > before["elbo"] + 256
    assert best["elbo"] == max(one.metrics["elbo"] for one in outcome.history)
    assert best["elbo"] == pytest.approx(-best["reconstruction"] - best["kl"])
    assert best["kl"] > 5, "the latents tell something"
    assert best["frechet_distance"] < 0.3 * before["frechet_distance"]

    # and the weights that are published to be those that were judged.
    assert_images_differ(RECIPE, outcome)


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "bf16", "weight_decay": 0.01, "ema": 0.0}], ids=["fp32", "bf16"]
)
def test_killed_again_and_again_it_ends_with_the_same_weights(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_killed_ends_the_same(changed(TINY, **settings), DATA, monkeypatch)


def test_the_bound_is_below_what_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.training.learners.fidelity._STEPS", 2)

    # Given pixels of which each of 256 levels is as likely as any other, no model can give an image more than
    # 256^−pixels; and one that knows nothing yet does not even reach that.
    draws = np.random.default_rng(0)
    noise = Dataset(draws.integers(0, 256, (64, 16, 16, 1), np.uint8), np.arange(64) % 2, ("a", "b"))
    limit = -256 * math.log(256)
    outcome = undisturbed(changed(RECIPE, epochs=2), noise)
    assert 1.2 * limit < outcome.best.metrics["elbo"] < limit

    # Given images that are all the same, there is nothing to tell, and 1 is the limit.
    black = Dataset(np.zeros((64, 16, 16, 1), np.uint8), np.arange(64) % 2, ("a", "b"))
    outcome = undisturbed(changed(RECIPE, learning_rate=0.01), black)
    assert 0.5 * limit < outcome.best.metrics["elbo"] < 0


def test_the_kl_term_is_weighed_in_step_by_step() -> None:
    fresh, shown = learner(changed(TINY, beta=4.0, kl_warmup=0.5), DATA)
    batch = take(shown, torch.arange(8).numpy())
    for step in range(10):
        losses = fresh.step(batch, At(step, 10, 0))
        weight = 4.0 * min(1.0, (step + 1) / 5)
        assert float(losses["loss"]) == pytest.approx(float(losses["reconstruction"] + weight * losses["kl"]), rel=1e-6)

    without, _ = learner(changed(TINY, beta=4.0, kl_warmup=0.0), DATA)
    losses = without.step(batch, At(0, 10, 0))
    assert float(losses["loss"]) == pytest.approx(float(losses["reconstruction"] + 4.0 * losses["kl"]), rel=1e-6)


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ModelError, match="multiple of 4"):
        learner(TINY, shapes(32, size=18))
    with pytest.raises(InvalidSource, match="sequences"):
        VaeLearner(TINY, sequences(), sequences(), CPU)
