"""What the tests of gan and vae share: a generator is trained, killed and looked at in the same way."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from contract.models.recipes import GanRecipe, VaeRecipe
from tests.worker.training.interruptions import CPU, Notes, assert_same, killed, learner, undisturbed
from worker import zoo
from worker.datasets.dataset import Dataset
from worker.engine import precision
from worker.engine.generators.sampler import Sampler
from worker.training.loop import Outcome, train

R = TypeVar("R", GanRecipe, VaeRecipe)


def changed(recipe: R, **settings: Any) -> R:
    """The recipe with other settings, checked as a user's are."""
    return type(recipe).model_validate({**recipe.model_dump(), **settings})


def trained(recipe: GanRecipe | VaeRecipe, data: Dataset) -> tuple[dict[str, float], Outcome]:
    """The metrics of fresh weights, and what comes of a training; each of its epochs has a picture."""
    fresh, shown = learner(recipe, data)
    before = fresh.validate()
    notes = Notes()
    outcome = train(fresh, shown, recipe, notes, start=None)
    assert len(notes.pictures) == recipe.epochs and all(notes.pictures)
    return before, outcome


def assert_images_differ(recipe: GanRecipe | VaeRecipe, outcome: Outcome) -> None:
    """The weights that are published generate both classes, and no two images the same."""
    module = zoo.create(recipe.family, **outcome.config).eval()
    module.load_state_dict(outcome.weights)
    rows = Sampler(module.decode, recipe.latent, recipe.seed, CPU, "fp32").rows(2, 4)  # type: ignore[arg-type]
    assert all(len(row.unique(dim=0)) == 4 for row in rows)


def assert_killed_ends_the_same(recipe: GanRecipe | VaeRecipe, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a training of three steps an epoch after its first step, after the validation, and in the second epoch."""
    monkeypatch.setattr("worker.training.learners.fidelity._STEPS", 20)
    monkeypatch.setattr(precision, "native_bf16", lambda device: True)  # every CPU computes in it, if slowly
    assert_same(killed(recipe, data, (1, 3, 1)), undisturbed(recipe, data))
