"""The options of the command line are the fields of the option models."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from contract.errors import InvalidInput
from contract.jobs.options import (
    COMMANDS,
    SCHEDULABLE,
    GenerateOptions,
    SynthesizeOptions,
    TrainOptions,
    parse_options,
    spelling,
)
from producer.cli import cli
from producer.cli.options import given


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_is_an_option(name: str) -> None:
    model = COMMANDS[name]
    params = {param.name: param for param in command(name).params}

    for field in model.model_fields:
        param = params[field]
        flag = spelling(model, field)
        assert isinstance(param, click.Argument) or param.opts == [flag]
        assert param.required == model.model_fields[field].is_required()


def test_only_what_is_typed_is_given(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("koala\n\n espresso \n")
    words = ["cnn", "--data", "flowers", "--name", "pets", "--set", "size=32", "--set", "flip=false"]

    with command("train").make_context("train", [*words, "--labels", str(names), "--half"]) as ctx:
        found = given(ctx, TrainOptions)

    assert found == {
        "family": "cnn",
        "source": ("flowers",),
        "name": "pets",
        "settings": ("size=32", "flip=false"),
        "labels": ["koala", "espresso"],
        "half": True,
    }


def test_values_of_other_shapes() -> None:
    words = ["--model", "vae", "--interpolate", "a.png", "b.png", "--class", "koala"]
    with command("generate").make_context("generate", words) as ctx:
        found = given(ctx, GenerateOptions)
    assert found == {"model": "vae", "interpolate": ("a.png", "b.png"), "classes": ("koala",)}

    words = ["--model", "gan", "--gate", "cnn", "--per-class", "10", "--max-attempts", "30x"]
    with command("synthesize").make_context("synthesize", words) as ctx:
        assert given(ctx, SynthesizeOptions)["max_attempts"] == 30


@pytest.mark.parametrize(
    "words",
    [
        ["--count", "0"],
        ["--seed", "-1"],
        ["--seed", str(2**32)],
        ["--truncation", "0"],
        ["--image-format", "gif"],
        ["--interpolate", "a.png"],
        ["--size", "4097"],
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_command_line(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        command("generate").make_context("generate", ["--model", "gan", *words])


def test_the_help_of_schedule_add_names_every_command_that_can_be_scheduled() -> None:
    group = command("schedule")
    assert isinstance(group, click.Group)
    text = str(group.commands["add"].help)

    assert set(SCHEDULABLE) == {"classify", "train", "evaluate", "generate", "synthesize"}
    for name in SCHEDULABLE:
        assert name in text.partition("Examples")[0]


@pytest.mark.parametrize("name", ["models", "schedule"])
def test_the_help_of_a_group_cuts_no_line_short(name: str) -> None:
    text = CliRunner().invoke(cli, [name, "--help"], prog_name="imagemill").output

    assert "..." not in text.partition("Commands:")[2]


def test_a_seed_is_a_number_or_the_tick_of_a_schedule() -> None:
    words = ["--model", "gan", "--count", "10", "--seed"]
    for typed, meant in (("7", 7), ("tick", "tick")):
        with command("generate").make_context("generate", [*words, typed]) as ctx:
            assert given(ctx, GenerateOptions)["seed"] == meant
    with pytest.raises(click.BadParameter, match="neither a whole number nor tick"):
        command("generate").make_context("generate", [*words, "tock"])
    with pytest.raises(InvalidInput, match="--seed: -1 is not a seed"):
        parse_options(GenerateOptions, {"model": "gan", "seed": -1})
