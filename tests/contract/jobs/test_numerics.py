"""What a shard needs of a worker, what a worker says it can do, and whether the two meet."""

from __future__ import annotations

import re

import pytest

from contract.backend.heartbeats import Worker
from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from contract.jobs.kinds import kind_of
from contract.jobs.numerics import (
    Capabilities,
    Needs,
    able,
    advertised,
    asked_precision,
    check_workers,
    decide_class,
    in_precision,
    read_class,
    runs_in_one_class,
    unmet,
)
from contract.jobs.specs import AnySpec, Generate, Source, Train
from contract.models.recipes import CnnRecipe
from contract.records import Computed, Precision

OLD, NEW = Capabilities(device="cpu", precisions=("fp32",)), Capabilities(device="cpu", precisions=("fp32", "bf16"))
GPU = Capabilities(device="cuda", precisions=("fp32", "bf16"))


def generate(precision: Precision = "auto") -> Generate:
    return Generate(
        id="g", model="m@1", weights_sha256="0" * 64, output="s3://b/g/", classes=(0,), count=1, precision=precision
    )


def train(precision: Precision = "auto") -> Train:
    source = Source(kind="prefix", uri="s3://b/x/", label="x")
    return Train(id="t", name="m", source=source, recipe=CnnRecipe(precision=precision), output="s3://b/t/")


def worker(name: str, can: Capabilities | None, spec: AnySpec) -> Worker:
    """A live worker on the queue of the spec; None: of a version that does not say what it can."""
    return Worker(name, {"queues": f"other,{kind_of(spec).queue}"} | (can.heartbeat() if can else {}))


@pytest.mark.parametrize(
    ("can", "needs", "met"),
    [
        (OLD, Needs(), True),
        (OLD, Needs(device="cpu"), True),
        (OLD, Needs(device="cuda"), False),
        (OLD, Needs(precision="bf16"), False),
        (NEW, Needs(precision="bf16"), True),
        (NEW, Needs(device="cuda", precision="bf16"), False),
        (GPU, Needs(device="cuda", precision="bf16"), True),
    ],
)
def test_a_worker_meets_needs_with_its_device_and_its_precisions(can: Capabilities, needs: Needs, met: bool) -> None:
    assert can.meet(needs) is met


@pytest.mark.parametrize(
    ("can", "asked", "best"),
    [(OLD, "auto", "cpu/fp32"), (NEW, "auto", "cpu/bf16"), (NEW, "fp32", "cpu/fp32"), (GPU, "auto", "cuda/bf16")],
)
def test_the_best_class_is_bf16_where_nothing_else_is_asked(can: Capabilities, asked: Precision, best: str) -> None:
    assert str(can.best(asked)) == best


def test_a_class_that_a_worker_lacks_is_not_met_by_it() -> None:
    # Given a job that asks for bf16 and a worker without it, I expect the class to be what was asked for,
    decided = OLD.best("bf16")
    assert str(decided) == "cpu/bf16"
    # so that another worker takes the shard.
    needs = Needs(device=decided.device, precision=decided.precision)
    assert not OLD.meet(needs)
    assert NEW.meet(needs)


@pytest.mark.parametrize("can", [OLD, NEW, GPU])
def test_a_heartbeat_carries_what_a_worker_can(can: Capabilities) -> None:
    assert advertised(can.heartbeat()) == can


@pytest.mark.parametrize("missing", ["device_kind", "precisions"])
def test_a_heartbeat_of_an_earlier_version_says_nothing(missing: str) -> None:
    fields = NEW.heartbeat()
    assert advertised({name: value for name, value in fields.items() if name != missing}) is None
    assert advertised(fields | {missing: ""}) is None


def test_only_workers_on_the_queue_that_say_so_are_able() -> None:
    spec = generate()
    queue = kind_of(spec).queue
    elsewhere = Worker("elsewhere", {"queues": "other"} | NEW.heartbeat())
    workers = [worker("old", OLD, spec), worker("new", NEW, spec), worker("silent", None, spec), elsewhere]
    assert able(workers, queue, Needs(precision="bf16")) == ["new"]
    assert able(workers, queue, Needs()) == ["old", "new"]
    assert able([Worker("idle", NEW.heartbeat())], queue, Needs()) == []


def test_a_precision_that_no_live_worker_has_is_refused() -> None:
    says = "--precision: no live worker computes in bf16 (a: cpu fp32, b: cpu fp32); use auto or fp32"
    spec = generate("bf16")
    with pytest.raises(InvalidInput, match=re.escape(says)):
        check_workers(spec, [worker("a", OLD, spec), worker("b", OLD, spec)])
    spec_of_training = train("bf16")
    with pytest.raises(InvalidInput, match=r"--set precision: no live worker computes in bf16 \(a: cpu fp32\)"):
        check_workers(spec_of_training, [worker("a", OLD, spec_of_training)])


def test_a_worker_on_another_queue_does_not_count() -> None:
    spec = generate("bf16")
    with pytest.raises(InvalidInput, match=r"\(a: cpu fp32\)"):
        check_workers(spec, [worker("a", OLD, spec), Worker("b", {"queues": "other"} | NEW.heartbeat())])


@pytest.mark.parametrize(
    ("precision", "workers"),
    [
        ("bf16", []),
        ("bf16", [OLD, NEW]),
        ("bf16", [OLD, None]),
        ("fp32", [OLD]),
        ("auto", [OLD]),
    ],
    ids=["no worker", "one that can", "one that does not say", "fp32", "auto"],
)
def test_a_job_that_may_still_find_a_worker_is_accepted(
    precision: Precision, workers: list[Capabilities | None]
) -> None:
    spec = generate(precision)
    check_workers(spec, [worker(f"w{n}", can, spec) for n, can in enumerate(workers)])


def test_a_job_that_no_worker_can_run_says_what_to_do() -> None:
    spec = generate()
    queue = kind_of(spec).queue
    workers = [worker("a", OLD, spec), worker("b", None, spec), Worker("c", {"queues": "other"})]
    # Given a job in one class, I expect the class, who is there, and how to let it mix;
    assert unmet("g", Needs(device="cpu", precision="bf16"), workers, queue) == (
        "No live worker can run g, which needs cpu/bf16 (a: cpu fp32, b: unknown); start one that can and use "
        "`imagemill resume g`, or submit it again with --precision auto --numerics any."
    )
    # given one that asks for a precision, another remedy.
    assert unmet("g", Needs(precision="bf16"), [], queue) == (
        "No live worker can run g, which needs any device/bf16 (there is none); start one that can and use "
        "`imagemill resume g`, or submit it again with --precision auto."
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_spec_takes_the_precision_of_its_class(precision: Computed) -> None:
    made = in_precision(generate(), precision)
    assert asked_precision(made) == precision
    assert made == generate(precision)


def test_a_training_takes_it_in_its_recipe() -> None:
    # If a training runs in a class, I expect its recipe to ask for it, and nothing else to change.
    assert asked_precision(train()) == "auto"
    assert in_precision(train(), "bf16") == train("bf16")
    assert asked_precision(in_precision(train(), "bf16")) == "bf16"


def test_a_mix_can_be_asked_for() -> None:
    assert runs_in_one_class(generate())
    assert not runs_in_one_class(generate().model_copy(update={"numerics": "any"}))
    assert runs_in_one_class(train())


def test_a_worker_decides_the_class_only_of_what_it_can_run(store: ObjectStore) -> None:
    # Given a job that asks for bf16, if a worker without it sees the job first, I expect it to decide nothing,
    job = generate("bf16")
    assert decide_class(store, job, OLD) == Needs(precision="bf16")
    assert read_class(store, job.id) is None

    # so that a worker on another kind of device can; then its class holds for all.
    decided = Needs(device="cuda", precision="bf16")
    assert decide_class(store, job, GPU) == decided
    assert decide_class(store, job, OLD) == decide_class(store, job, NEW) == decided
    assert not NEW.meet(decided)
