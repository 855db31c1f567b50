"""What the tests of the engine share: the real weights, and runtimes that are loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.models.registry import Preprocess
from tests.lite0 import lite0
from worker.engine import select as runtimes
from worker.engine.types import ModelSpec, Runtime

Load = Callable[[str, str], Runtime]


@pytest.fixture(scope="session")
def preprocess() -> Preprocess:
    return Preprocess(size=224, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0)


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """EfficientNet-Lite0 with its ImageNet weights, as a file."""
    return lite0(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled models are kept; shared, so that one conversion serves all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def loaded(spec: ModelSpec, cache: Path) -> Iterator[Load]:
    """`loaded("openvino", "fp32")` is that runtime on the CPU."""
    found: dict[tuple[str, str], Runtime] = {}

    def load(runtime: str, precision: str) -> Runtime:
        key = runtime, precision
        if key not in found:
            found[key] = runtimes.load(
                spec, device="cpu", runtime=runtime, precision=precision, threads=2, cache_dir=cache
            )
        return found[key]

    yield load
    for runtime in found.values():
        runtime.close()
