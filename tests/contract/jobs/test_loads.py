"""What the models of a job ask of a worker."""

from __future__ import annotations

import pytest

from contract.backend.heartbeats import Worker
from contract.jobs.loads import memory_of, names_of, rules_for
from contract.jobs.numerics import Capabilities, Needs, advertised, check_workers, lacking, live_rules
from contract.jobs.specs import Generate, Source, Synthesize, Train
from contract.models.recipes import CnnRecipe
from contract.models.registry import Model
from contract.models.rules import ANY, Rule
from tests.contract.models.test_rules import model

GIB = 2**30


def weighing(size: int) -> Model:
    record = model("large")
    return record.model_copy(update={"weights": record.weights.model_copy(update={"bytes": size})})


@pytest.mark.parametrize(
    ("size", "gib"),
    [
        (1, 0),
        (GIB - 1, 0),
        (GIB, 1),
        (GIB + 1, 2),
        (3 * GIB, 3),
        (4 * GIB, 4),
        (5 * GIB, 6),
        (7 * GIB, 8),
        (9 * GIB, 12),
        (13 * GIB, 16),
        (60 * GIB, 64),
    ],
)
def test_a_device_must_hold_the_weights(size: int, gib: int) -> None:
    assert memory_of([weighing(1), weighing(size)]) == gib


def test_no_model_no_memory() -> None:
    assert memory_of([]) == 0


def test_a_judge_is_loaded_too_and_a_training_loads_nothing() -> None:
    base = {"id": "g", "model": "m@1", "weights_sha256": "0" * 64, "output": "s3://b/g/", "classes": (0,)}
    assert names_of(Generate(**base, count=1)) == ("m@1",)
    gated = Synthesize(**base, per_class=1, gate="judge@2", gate_sha256="0" * 64)
    assert names_of(gated) == ("m@1", "judge@2")
    source = Source(kind="prefix", uri="s3://b/x/", label="x")
    assert names_of(Train(id="t", name="m", source=source, recipe=CnnRecipe(), output="s3://b/t/")) == ()


def test_a_job_knows_which_rules_admit_it_and_which_were_asked() -> None:
    cats, dogs = Rule(models=("cats",)), Rule(models=("dogs",))
    assert rules_for((model("cats"),), [cats, dogs, ANY]) == (cats.id, ",".join(sorted([cats.id, dogs.id])))
    assert rules_for((), []) == ("", "")


CPU = Capabilities(device="cpu", precisions=("fp32",), memory=8, runtimes=("openvino",))
CATS = CPU.model_copy(update={"rule": Rule(models=("cats",))})


@pytest.mark.parametrize(
    ("can", "needs", "met"),
    [
        (CPU, Needs(memory=8), True),
        (CPU, Needs(memory=12), False),
        (CPU.model_copy(update={"memory": None}), Needs(memory=12), True),
        (CPU, Needs(runtime="torch"), False),
        (CPU.model_copy(update={"runtimes": ("openvino", "torch")}), Needs(runtime="torch"), True),
        (CPU, Needs(rules=("other",)), True),
        (CATS, Needs(), False),
        (CATS, Needs(rules=("other",)), False),
        (CATS, Needs(rules=("other", CATS.rule.id)), True),
    ],
)
def test_memory_runtime_and_models_are_met(can: Capabilities, needs: Needs, met: bool) -> None:
    assert can.meet(needs) == met
    assert Needs.parse(needs.signature) == needs


def test_a_heartbeat_says_it_all() -> None:
    fields = CATS.heartbeat()
    assert advertised(fields) == CATS
    assert live_rules([Worker("w", fields), Worker("any", CPU.heartbeat())]) == {CATS.rule.id: CATS.rule}


def test_what_a_job_waits_for_names_what_is_lacking() -> None:
    workers = [Worker("w", {"queues": "classify", **CATS.heartbeat()})]
    assert lacking(Needs(memory=12), workers, "classify", ["dogs@1"]) == (
        "a worker with any device/any precision, 12 GiB of device memory, which may load dogs@1 "
        "(w: cpu fp32, 8 GiB, models cats)"
    )
    assert lacking(Needs(rules=(CATS.rule.id,), runtime="torch"), workers, "classify", ["cats@1"]) == (
        "a worker with any device/any precision, the runtime torch (w: cpu fp32, openvino, models cats)"
    )


def test_a_precision_that_a_worker_has_is_not_refused_for_the_models_that_it_loads() -> None:
    spec = Generate(
        id="g", model="m@1", weights_sha256="0" * 64, output="s3://b/g/", classes=(0,), count=1, precision="fp32"
    )
    check_workers(spec, [Worker("w", {"queues": "generate", **CATS.heartbeat()})])
