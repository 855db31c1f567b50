"""A dataset that grows: a worker killed while it does, features that are lost, near-duplicates of earlier versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from contract.datasets.contents import tables
from contract.datasets.versions import Datasets
from contract.keys.datasets import dataset_features
from tests.mill import Mill
from tests.waiting import wait_until

ASKED: dict[str, Any] = {
    "gate": "fashion-cnn",
    "min_score": 0.5,
    "shard_size": 64,
    "classes": ["Sneaker"],
    "per_class": 6,
}
DEDUP = 0.002


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    data = tmp_path_factory.mktemp("mill")
    with Mill(data, workers=1).running() as made:
        yield made


def extend(mill: Mill, dataset: str, number: int, *, kill: bool = False) -> list[dict[str, Any]]:
    """Add a version with a seed of its own; return its rows, rejected candidates included."""
    store, job = mill.client.backend.store, f"{dataset}-{number}"
    mill.client.synthesize("fashion-gan", job=job, extend=dataset, seed=number, dedup=DEDUP, **ASKED)
    if kill:
        wait_until(lambda: mill.client.status(job).state != "queued", 60, f"{job} to begin")
        mill.kill(mill.workers[0])
    end = mill.finished(job)
    assert (end.state, end.reason) == ("succeeded", None)
    grown = Datasets(store).grown(dataset)
    assert grown.newest.number == number
    return [row for _, table in tables(store, grown) for row in table.to_pylist() if row["seed"] == number]


def test_a_version_is_compared_with_those_before(mill: Mill) -> None:
    # Given a dataset of two versions, of which the second was made by a worker that is killed,
    first = [row for row in extend(mill, "garments", 1) if row["accepted"]]
    second = [row for row in extend(mill, "garments", 2, kill=True) if row["accepted"]]

    # I expect the very first image of the first to be compared with none, and every one of the second with the first,
    assert first[0]["duplicate_distance"] is None
    assert all(row["duplicate_distance"] >= DEDUP for row in second)
    assert not {row["key"] for row in first} & {row["key"] for row in second}

    # to the distance that the features say.
    store = mill.client.backend.store
    gate = Datasets(store).version("garments", 1).gate_sha256
    one, two = (
        load(store.get(dataset_features("garments", gate, f"garments-{number}")))["features"] for number in (1, 2)
    )
    assert one.shape == two.shape == (6, one.shape[1])
    assert second[0]["duplicate_distance"] == pytest.approx(1 - float((one @ two[0]).max()), abs=1e-4)


def test_features_that_are_not_there_are_computed_from_the_images(mill: Mill) -> None:
    # Given a version whose features are gone, as for a gate other than the one that made it,
    extend(mill, "bags", 1)
    store = mill.client.backend.store
    key = dataset_features("bags", Datasets(store).version("bags", 1).gate_sha256, "bags-1")
    before = load(store.get(key))
    store.delete(key)

    # if another version is added, I expect them to be computed again, and to be the same but for rounding.
    extend(mill, "bags", 2)
    after = load(store.get(key))
    assert np.array_equal(after["labels"], before["labels"])
    assert np.allclose(
        np.sort(after["features"] @ after["features"].T), np.sort(before["features"] @ before["features"].T), atol=1e-3
    )


@pytest.mark.parametrize(("ref", "images"), [("dataset:boots", 12), ("dataset:boots@1", 6)])
def test_a_model_is_judged_by_a_dataset(mill: Mill, ref: str, images: int) -> None:
    # Given a dataset of two versions, whose images the gate took for their class,
    if not any(one.name == "boots" for one in mill.client.datasets()):
        extend(mill, "boots", 1)
        extend(mill, "boots", 2)

    # if the gate is judged by all of them, or by one version, I expect it to agree with itself on each.
    job = mill.client.evaluate("fashion-cnn", ref)
    end = mill.finished(job.id)
    assert (end.state, end.reason) == ("succeeded", None)
    assert (end.total, end.ok) == (images, images)
    assert end.metrics is not None and end.metrics["top1"] == 1.0


def test_the_sample_of_a_verification_is_of_all_versions(mill: Mill) -> None:
    extend(mill, "shoes", 1)
    extend(mill, "shoes", 2)
    mill.client.verify("dataset:shoes", job="check")
    end = mill.finished("check")
    assert end.state == "succeeded" and end.metrics is not None
    assert end.metrics["compared"] == 12
