"""The registry of model families: one record says everything that differs from family to family.

To add a family, write its recipe in `contract.models.recipes`, its architecture in `worker.zoo`, its learner in
`worker.training.learners`, and a record here. Architecture and learner are import paths, because producers
have no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from contract.errors import InvalidInput
from contract.import_paths import ImportPath
from contract.models.recipes import CnnRecipe, GanRecipe, RnnRecipe, VaeRecipe
from contract.models.registry import Task
from contract.suggest import did_you_mean

TrainingRecipe = CnnRecipe | RnnRecipe | GanRecipe | VaeRecipe


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything that the product needs to know about one family of models."""

    task: Task
    """What its models do; `worker.zoo` says how each task is called."""
    build: ImportPath
    """`(**config) -> torch.nn.Module`: the architecture, with random weights."""
    recipe: type[TrainingRecipe] | None = None
    """How it is trained; None: it is not trained here."""
    learner: ImportPath | None = None
    """`(recipe, train, held_out, device) -> Learner`: what learns by its recipe."""
    encodes: bool = False
    """Whether a generator also maps images to latents."""


_CLASSIFIER = "worker.training.learners.classifier:ClassifierLearner"

FAMILIES: dict[str, Family] = {
    "cnn": Family(task="classify", build="worker.zoo.cnn:cnn", recipe=CnnRecipe, learner=_CLASSIFIER),
    "efficientnet-lite0": Family(task="classify", build="worker.zoo.efficientnet_lite:EfficientNetLite0"),
    "gan": Family(
        task="generate",
        build="worker.zoo.gan:Generator",
        recipe=GanRecipe,
        learner="worker.training.learners.gan:GanLearner",
    ),
    "rnn": Family(task="classify-sequence", build="worker.zoo.rnn:Rnn", recipe=RnnRecipe, learner=_CLASSIFIER),
    "vae": Family(
        task="generate",
        build="worker.zoo.vae:Vae",
        recipe=VaeRecipe,
        learner="worker.training.learners.vae:VaeLearner",
        encodes=True,
    ),
}
"""Every family by its name."""

ENCODERS = tuple(name for name, family in FAMILIES.items() if family.encodes)
"""The families of generators that have an encoder."""
RECIPES: dict[str, type[TrainingRecipe]] = {
    name: family.recipe for name, family in FAMILIES.items() if family.recipe is not None
}
"""The recipe of every family that can be trained."""


def make_recipe(family: str, settings: Sequence[str]) -> TrainingRecipe:
    """Return the recipe of a family, with `key=value` settings in place of its defaults.

    Raises InvalidInput naming the family or the setting, with the nearest names.
    """
    if family not in RECIPES:
        raise InvalidInput(f"There is no family {family!r} to train; {did_you_mean(family, RECIPES, cutoff=0.5)}")
    recipe = RECIPES[family]
    given: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InvalidInput(f"--set {setting}: write it as key=value.")
        if key not in recipe.model_fields or key == "family":
            names = [name for name in recipe.model_fields if name != "family"]
            hint = did_you_mean(key, names, cutoff=0.5, otherwise=f"there are: {', '.join(names)}.")
            raise InvalidInput(f"--set {setting}: {family} has no {key!r}; {hint}")
        given[key] = value
    try:
        return recipe.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        raise InvalidInput(f"--set {name}={given[str(name)]}: {first['msg'].removeprefix('Value error, ')}.") from None
