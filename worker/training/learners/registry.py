"""Makes the learner of a recipe, importing it only then."""

from __future__ import annotations

import torch

from contract.errors import InvalidSource
from contract.import_paths import load
from contract.models.families import FAMILIES, TrainingRecipe
from worker.datasets.dataset import Dataset
from worker.engine.arithmetic import settle
from worker.training.learners.protocol import Learner


def make(recipe: TrainingRecipe, train: Dataset, held_out: Dataset, device: torch.device) -> Learner:
    """Return a learner with fresh weights on a device.

    Raises InvalidSource if the family cannot learn from the data, and InvalidSettings if the device does not compute in
    the precision of the recipe.
    """
    for name in ("size", "channels"):
        asked, found = getattr(recipe, name), getattr(train, name)
        if asked not in (0, found):
            raise InvalidSource(
                f"The recipe asks for images of {name} {asked}, and the data has {name} {found}; convert it."
            )
    settle(device)
    learner = FAMILIES[recipe.family].learner
    assert learner is not None, f"{recipe.family} has a recipe and no learner"
    made: Learner = load(learner)(recipe, train, held_out, device)
    return made
