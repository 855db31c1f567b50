"""How many images of each class a job makes, by what a watch has labelled and what a dataset holds."""

from __future__ import annotations

from typing import Any

import pytest

from contract.datasets import balance, extending
from contract.datasets.records import Extend
from contract.errors import InvalidInput, InvalidSource, NothingMissing
from contract.jobs.lifecycle import Backend, close, reopen, submit
from contract.jobs.status import State
from contract.models.registry import File, Model, Preprocess
from contract.watches.segments import count_labels
from tests.contract.datasets.test_datasets import spec_of, version_of
from tests.contract.watches import chain
from tests.synthetic import LABELS

GENERATOR = Model(
    name="digits-gan",
    version=3,
    family="gan",
    task="generate",
    labels=LABELS,
    preprocess=Preprocess(size=8, mean=0.0, std=1.0),
    weights=File(name="weights.safetensors", sha256="0" * 64, bytes=0),
)
FIRST: dict[str, Any] = {"per_class": None, "classes": (0, 1, 4)}


def segment(backend: Backend, number: int, labels: dict[str, int] | None, state: State = "succeeded") -> str:
    """The job of a segment that has ended so, or of an open one without labels."""
    return chain.segment(backend, number, None if labels is None else state, labels=labels)


def counts(backend: Backend, **fields: Any) -> dict[str, int]:
    """How many images of each class would be made."""
    found = balance.pin(backend.store, "camera", GENERATOR, {**FIRST, **fields})
    assert found["per_class"] == max(found["counts"])
    return {LABELS[label]: count for label, count in zip(found["classes"], found["counts"], strict=True)}


def test_each_class_is_filled_up_to_the_largest(backend: Backend) -> None:
    # Given two segments that have succeeded, and others whose labels do not count,
    segment(backend, 0, {"zero": 30, "four": 1})
    segment(backend, 1, {"zero": 10, "T-shirt/top": 25, "a stranger": 99})
    segment(backend, 2, {"four": 50}, "canceled")
    segment(backend, 3, None)

    # I expect what each class lacks to the largest of the generator's, and a class that nobody saw to be filled too.
    assert count_labels(backend.store, "camera")[0] == 2
    assert counts(backend) == {"T-shirt/top": 15, "four": 39}
    assert counts(backend, classes=(0, 3)) == {"never asked for": 40}
    assert counts(backend, per_class=50) == {"zero": 10, "T-shirt/top": 25, "four": 49}


def test_what_a_dataset_holds_counts_too(backend: Backend) -> None:
    segment(backend, 0, {"zero": 30, "four": 1})
    spec = spec_of(backend.store, "night", 1)
    submit(backend, spec, "ann")
    extending.publish(backend.store, version_of(spec, accepted={"zero": 5, "four": 20}))

    def version(number: int) -> Extend:
        return Extend(dataset="garments", number=number, at="2026-11-26T02:00:00.000Z")

    assert counts(backend, classes=(4,), extend=version(1)) == {"four": 29}
    assert counts(backend, classes=(4,), extend=version(2)) == {"four": 35 - 21}
    pinned = balance.pin(backend.store, "camera", GENERATOR, {**FIRST, "extend": version(2)})["balance"]
    assert (pinned.aim, pinned.segments, pinned.made) == (35, 1, {"zero": 5, "four": 20})


def test_a_segment_that_runs_again_counts_as_it_ends(backend: Backend) -> None:
    segment(backend, 0, {"zero": 8})
    job = segment(backend, 1, {"zero": 2})
    reopen(backend, job)
    assert counts(backend, classes=(4,)) == {"four": 8}

    close(backend, job, "succeeded", labels={"zero": 3})
    assert counts(backend, classes=(4,)) == {"four": 11}


def test_why_nothing_can_be_counted_is_one_sentence(backend: Backend) -> None:
    with pytest.raises(InvalidSource, match="No segment of the watch 'camera' has succeeded with a label yet"):
        counts(backend)
    segment(backend, 0, {"koala": 3, "espresso": 1})
    with pytest.raises(InvalidInput, match="labels other classes than those of digits-gan@3, 'koala' most often"):
        counts(backend)
    segment(backend, 1, dict.fromkeys(LABELS, 7))
    with pytest.raises(NothingMissing, match="Every class has 7 images or more, seen by the watch 'camera'"):
        counts(backend)
