"""Which models a worker may load."""

from __future__ import annotations

import pytest

from contract.models.registry import PROGRAM, File, Model, Preprocess
from contract.models.rules import ANY, Rule, admitting, patterns


def model(name: str, version: int = 1, family: str = "cnn") -> Model:
    weights = File(name="weights.safetensors", sha256="0" * 64, bytes=1)
    preprocess = Preprocess(size=8, mean=0.0, std=1.0)
    return Model(name=name, version=version, family=family, labels=("a", "b"), preprocess=preprocess, weights=weights)


@pytest.mark.parametrize(
    ("rule", "name", "family", "admitted"),
    [
        (ANY, "dogs", PROGRAM, True),
        (Rule(models=("cats*",)), "cats-large", "cnn", True),
        (Rule(models=("cats*",)), "dogs", "cnn", False),
        (Rule(models=("dogs@1",)), "dogs", "cnn", True),
        (Rule(models=("dogs@2",)), "dogs", "cnn", False),
        (Rule(programs=False), "dogs", "cnn", True),
        (Rule(programs=False), "dogs", PROGRAM, False),
        (Rule(programs=False, trusted=("dog*",)), "dogs", PROGRAM, True),
        (Rule(models=("cats",), programs=False, trusted=("dogs",)), "dogs", PROGRAM, False),
    ],
)
def test_a_rule_admits_names_that_match_and_programs_if_it_takes_them(
    rule: Rule, name: str, family: str, admitted: bool
) -> None:
    assert rule.admits([model(name, family=family)]) == admitted


def test_a_job_must_find_all_of_its_models_and_one_that_loads_none_runs_anywhere() -> None:
    rule = Rule(models=("a", "b"))
    assert rule.admits([model("a"), model("b")])
    assert not rule.admits([model("a"), model("c")])
    assert rule.admits([])


def test_workers_of_one_pool_have_one_rule_whatever_their_machines_say() -> None:
    # Given the same setting in another order, and machines that lack different layers, I expect one id,
    one = Rule(models=patterns("b*, a"), programs=False, why="this machine lacks landlock")
    two = Rule(models=patterns("a,b*,"), programs=False, why="this machine lacks seccomp")
    assert one.id == two.id != ""
    # none for what admits everything, and another one for another setting.
    assert ANY.id == Rule(trusted=("a",)).id == ""
    assert Rule(models=("a",)).id != one.id


def test_only_rules_that_admit_a_model_are_named() -> None:
    cats, dogs = Rule(models=("cats",)), Rule(models=("dogs",))
    assert admitting([cats, dogs, ANY], [model("cats")]) == (cats.id,)
