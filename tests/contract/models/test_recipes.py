"""A recipe is checked before a job is queued, and what is wrong with it is one sentence."""

from __future__ import annotations

import pytest

from contract.errors import InvalidInput
from contract.jobs.specs import Train, parse_spec
from contract.models.families import RECIPES, make_recipe


@pytest.mark.parametrize("family", RECIPES)
def test_every_family_has_a_recipe_without_any_setting(family: str) -> None:
    recipe = make_recipe(family, [])
    assert recipe.family == family
    assert all(field.description for name, field in type(recipe).model_fields.items() if name != "family")


def test_settings_take_the_place_of_defaults() -> None:
    recipe = make_recipe("cnn", ["epochs=3", "flip=false", "learning_rate=0.5", "variant=classic"])
    assert recipe.model_dump(include={"epochs", "flip", "learning_rate", "variant"}) == {
        "epochs": 3,
        "flip": False,
        "learning_rate": 0.5,
        "variant": "classic",
    }


@pytest.mark.parametrize(
    ("family", "setting", "said"),
    [
        ("cnm", "epochs=3", "There is no family 'cnm' to train; did you mean cnn?"),
        ("cnn", "epoch=3", "--set epoch=3: cnn has no 'epoch'; did you mean epochs?"),
        ("cnn", "family=gan", "--set family=gan: cnn has no 'family'"),
        ("cnn", "epochs", "--set epochs: write it as key=value."),
        ("cnn", "epochs=many", "--set epochs=many: Input should be a valid integer"),
        ("gan", "epochs=0", "--set epochs=0: Input should be greater than or equal to 1"),
        ("cnn", "channels=2", "--set channels=2: an image has 1 channel or 3."),
        ("vae", "precision=fp8", "--set precision=fp8: Input should be 'auto', 'fp32' or 'bf16'"),
    ],
)
def test_what_cannot_be_is_one_sentence(family: str, setting: str, said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        make_recipe(family, [setting])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_spec_finds_the_recipe_of_its_family_again() -> None:
    source = {"kind": "idx", "uri": "s3://mill/in/", "label": "fashion"}
    spec = Train.model_validate(
        {"id": "t", "source": source, "name": "m", "recipe": make_recipe("vae", ["beta=2"]), "output": "s3://mill/out/"}
    )
    again = parse_spec(spec.model_dump(mode="json"))
    assert again == spec
    assert isinstance(again, Train) and again.recipe.family == "vae"
