"""An HTTP API for each test, on the session's Redis and S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.backend.objects import ObjectStore
from contract.keys.models import model_record
from contract.models.registry import File, Model, Preprocess
from contract.settings import Settings
from tests.serving import Api, serving


@pytest.fixture
def api(settings: Settings, store: ObjectStore) -> Iterator[Api]:
    with serving(settings, store) as made:
        yield made


@pytest.fixture
def model(store: ObjectStore) -> str:
    """The name of a model in the registry, which no worker has to load."""
    made = Model(
        name="shapes",
        version=1,
        family="cnn",
        labels=("disc", "square"),
        preprocess=Preprocess(size=32, crop=1.0, interpolation="bicubic", mean=127.5, std=127.5, channels=3),
        weights=File(name="weights.safetensors", sha256="0" * 64, bytes=1),
    )
    store.put(model_record("shapes", 1), made.to_json())
    store.put("photos/one.jpg", b"no image")
    return "shapes"
