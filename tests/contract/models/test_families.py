"""One record a family: its recipe, its architecture and its learner fit together."""

from __future__ import annotations

import pytest

from contract.import_paths import load
from contract.models.families import ENCODERS, FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_record_names_is_there_and_fits(name: str) -> None:
    family = FAMILIES[name]
    assert callable(load(family.build))
    # What can be trained has both a recipe and a learner, and the recipe says the same of it.
    assert (family.recipe is None) == (family.learner is None)
    if family.recipe is not None and family.learner is not None:
        assert callable(load(family.learner))
        assert (family.recipe.model_fields["family"].default, family.recipe.task) == (name, family.task)


def test_only_a_generator_encodes() -> None:
    assert ENCODERS == ("vae",)
    assert all(FAMILIES[name].task == "generate" for name in ENCODERS)
