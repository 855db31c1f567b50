"""A worker's models: records that are read once a minute, weights that are fetched once and verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import keys
from contract.backend.objects import ObjectStore
from contract.errors import ModelError, UnknownModel
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.settings import Settings
from worker.execution.model_cache import Models, fetch_weights

WEIGHTS = b"weights"


@pytest.fixture
def model(store: ObjectStore) -> Model:
    """A published model."""
    model = Model(
        name="birds",
        version=1,
        family="program",
        labels=("jay", "tit"),
        preprocess=Preprocess(size=8, mean=127.5, std=127.5),
        weights=make_file("weights.pt2", WEIGHTS),
    )
    Registry(store).publish(model, {"weights.pt2": WEIGHTS})
    return model


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_removed_version_is_served_for_a_minute_at_most(store: ObjectStore, settings: Settings, model: Model) -> None:
    # Given a worker that has read a record,
    clock = Clock()
    models = Models(store, settings, clock=clock)
    assert models.model("birds@1") == model

    # if the version is removed, I expect the worker to know it within a minute,
    Registry(store).remove("birds@1")
    clock.now += 59.0
    assert models.model("birds@1") == model
    clock.now += 1.0
    with pytest.raises(UnknownModel, match="birds@1"):
        models.model("birds@1")


def test_a_record_is_read_once_a_minute(
    store: ObjectStore, settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    models = Models(store, settings, clock=clock)
    models.model("birds@1")
    reads: list[str] = []
    get = store.get

    def counted(key: str) -> bytes:
        reads.append(key)
        return get(key)

    monkeypatch.setattr(store, "get", counted)

    models.model("birds@1")
    assert reads == []
    clock.now += 61.0
    models.model("birds@1")
    assert reads == [keys.model_record("birds", 1)]


def test_weights_are_fetched_once_and_keep_their_suffix(store: ObjectStore, model: Model, tmp_path: Path) -> None:
    path = fetch_weights(store, model, tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert path == tmp_path / "weights" / f"{model.weights.sha256}.pt2"

    store.delete(keys.model_file("birds", 1, "weights.pt2"))
    assert fetch_weights(store, model, tmp_path) == path
    assert list(path.parent.iterdir()) == [path], "nothing half-written is left"


def test_weights_that_are_gone_or_damaged_are_told(store: ObjectStore, model: Model, tmp_path: Path) -> None:
    store.put(keys.model_file("birds", 1, "weights.pt2"), b"wights")
    with pytest.raises(ModelError, match=r"weights\.pt2 of birds@1 hashes to"):
        fetch_weights(store, model, tmp_path)
    store.delete(keys.model_file("birds", 1, "weights.pt2"))
    with pytest.raises(ModelError, match="is not in the bucket; publish the model again"):
        fetch_weights(store, model, tmp_path)
    assert not list(tmp_path.iterdir())
