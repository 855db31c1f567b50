"""A worker's models: records that are read once a minute, weights that are fetched once and verified."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import DeviceOutOfMemory, ModelError, UnknownModel
from contract.keys.models import model_file, model_record
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.settings import Settings
from worker.execution import model_cache
from worker.execution.model_cache import Loaded, Models, fetch_weights

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
    assert reads == [model_record("birds", 1)]


def test_weights_are_fetched_once_and_keep_their_suffix(store: ObjectStore, model: Model, tmp_path: Path) -> None:
    path = fetch_weights(store, model, tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert path == tmp_path / "weights" / f"{model.weights.sha256}.pt2"

    store.delete(model_file("birds", 1, "weights.pt2"))
    assert fetch_weights(store, model, tmp_path) == path
    assert list(path.parent.iterdir()) == [path], "nothing half-written is left"


def test_weights_that_are_gone_or_damaged_are_told(store: ObjectStore, model: Model, tmp_path: Path) -> None:
    store.put(model_file("birds", 1, "weights.pt2"), b"wights")
    with pytest.raises(ModelError, match=r"weights\.pt2 of birds@1 hashes to"):
        fetch_weights(store, model, tmp_path)
    store.delete(model_file("birds", 1, "weights.pt2"))
    with pytest.raises(ModelError, match="is not in the bucket; publish the model again"):
        fetch_weights(store, model, tmp_path)
    assert not list(tmp_path.iterdir())


class Device:
    """A device with room for so many models; each that is loaded takes a place until it is closed."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.loaded: list[str] = []
        self.loading, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def load(self, ref: str, _: str) -> Loaded:
        self.loading.set()
        assert self.gate.wait(60)
        if len(self.loaded) >= self.room:
            raise DeviceOutOfMemory(f"no room for {ref}")
        self.loaded.append(ref)
        part: Any = SimpleNamespace(close=lambda: None, device="cuda:0")
        rest: Any = SimpleNamespace(close=lambda: self.loaded.remove(ref))
        return Loaded(part, rest)


def on(device: Device, store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Models:
    models = Models(store, settings)
    monkeypatch.setattr(models, "_load", device.load)
    return models


def test_what_is_loaded_can_be_listed_while_a_model_is_loaded(
    store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that takes long to load a second model,
    device = Device(room=2)
    models = on(device, store, settings, monkeypatch)
    with models.use("a@1", "fp32"):
        pass
    device.loading.clear()
    device.gate.clear()

    def use() -> None:
        with models.use("b@1", "fp32"):
            pass

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    assert device.loading.wait(60)
    # I expect a heartbeat to find the first one at once, and others to use it,
    listed: list[list[str]] = []
    beat = threading.Thread(target=lambda: listed.append(list(models.runtimes())))
    beat.start()
    beat.join(60)
    assert listed == [["a@1"]]
    with models.use("a@1", "fp32"):
        pass
    # and the second one to be loaded once, whoever waits for it.
    device.gate.set()
    for user in users:
        user.join(60)
    assert device.loaded == ["a@1", "b@1"]


def test_a_model_that_does_not_fit_takes_the_place_of_those_that_nobody_uses(
    store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(room=1)
    models = on(device, store, settings, monkeypatch)
    with models.use("a@1", "fp32"):
        # While somebody uses the first one, it stays, and the error is told.
        with pytest.raises(DeviceOutOfMemory, match="no room for b@1"), models.use("b@1", "fp32"):
            pass
        assert device.loaded == ["a@1"]
    given_back: list[list[str]] = []
    monkeypatch.setattr(model_cache, "give_back", lambda: given_back.append(list(device.loaded)))
    with models.use("b@1", "fp32"):
        assert device.loaded == ["b@1"]
        assert given_back == [[]], "a child of a pushed program takes memory from the device alone"
        assert models.evict() == 0
    assert models.evict() == 1
    assert device.loaded == []
    assert models.evict() == 0


def test_a_model_that_fits_nowhere_is_told_and_leaves_nothing_behind(
    store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(room=1)
    models = on(device, store, settings, monkeypatch)
    with models.use("a@1", "fp32"):
        pass
    device.room = 0
    for _ in range(2):
        with pytest.raises(DeviceOutOfMemory, match="no room"), models.use("b@1", "fp32"):
            pass
    assert list(models.runtimes()) == []
