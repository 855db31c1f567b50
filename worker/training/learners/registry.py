"""Which learner a recipe is for; imports what it takes when it is asked for."""

from __future__ import annotations

import torch

from contract.errors import InvalidSource
from contract.import_paths import load
from contract.models.families import FAMILIES, TrainingRecipe
from contract.models.recipes import RnnRecipe
from worker.datasets.dataset import Dataset
from worker.training.learners.protocol import Learner


def make(recipe: TrainingRecipe, train: Dataset, held_out: Dataset, device: torch.device) -> Learner:
    """A learner with fresh weights on a device.

    Raises InvalidSource where the data is not what the family learns from, and InvalidSettings where the device does
    not compute in the precision of the recipe.
    """
    for name in ("size", "channels"):
        asked, found = getattr(recipe, name), getattr(train, name)
        if asked not in (0, found):
            raise InvalidSource(
                f"The recipe asks for images of {name} {asked}, and the data has {name} {found}; convert it."
            )
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; bf16 is there for who wants speed
        # Each shape is tuned once: batches of images have two, those of sequences one for each length.
        torch.backends.cudnn.benchmark = not isinstance(recipe, RnnRecipe)
    learner = FAMILIES[recipe.family].learner
    assert learner is not None, f"{recipe.family} has a recipe and no learner"
    made: Learner = load(learner)(recipe, train, held_out, device)
    return made
