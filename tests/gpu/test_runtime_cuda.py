"""The CUDA runtime, on machines that have such a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.lite0 import lite0
from worker.engine import select as runtimes
from worker.engine.images.regions import Square, packed
from worker.engine.images.shrink import shrunk
from worker.engine.programs.graph import build
from worker.engine.runtimes.batcher import Batcher
from worker.engine.runtimes.torch_runtime import CudaLaunch, TorchRuntime
from worker.engine.types import ModelSpec, Runtime

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return lite0(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", params=["fp32", "auto"])
def runtime(
    spec: ModelSpec, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    loaded = runtimes.load(
        spec,
        device="cuda",
        precision=request.param,
        threads=4,
        batch_size=32,
        cache_dir=tmp_path_factory.mktemp("c"),
    )
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Smooth noise, uint8 [50, 224, 224, 3]: every image another one."""
    coarse = np.random.default_rng(1).integers(0, 256, (50, 7, 7, 3), np.uint8)
    return coarse.repeat(32, axis=1).repeat(32, axis=2)


def test_it_agrees_with_plain_torch(runtime: Runtime, spec: ModelSpec, pixels: NDArray[np.uint8]) -> None:
    # Given many small submissions at once, so that batches are coalesced, padded and in flight together,
    futures = [runtime.submit(pixels[i : i + 7]) for i in range(0, len(pixels), 7)]
    logits = np.concatenate([future.result(60).logits for future in futures])
    with torch.inference_mode():
        expected = build(spec)(torch.from_numpy(pixels))[0].numpy()
    # I expect every image to have its own answer.
    tolerance = 0.05 if runtime.precision == "fp32" else 1.5
    assert np.abs(logits - expected).max() < tolerance


def test_a_recorded_model_gives_what_it_gave_before(spec: ModelSpec, pixels: NDArray[np.uint8]) -> None:
    # Given a size of which the first batch runs as it is, and the second is recorded,
    launch = CudaLaunch(build(spec).to("cuda"), torch.device("cuda"), (32, 224, 224, 3))
    first, _, third = (launch([pixels[:32]])() for _ in range(3))
    # I expect other batches to have answers of their own, and the same batch its first ones.
    other = launch([pixels[18:50]])()
    assert (first.logits == third.logits).all()
    assert (other.logits[:14] == first.logits[18:32]).all()


def test_a_model_that_cannot_be_recorded_runs_as_it_is(spec: ModelSpec, pixels: NDArray[np.uint8]) -> None:
    graph = build(spec).to("cuda")

    def looks(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch.max().item() >= 0  # which no recording allows
        return graph(batch)

    launch = CudaLaunch(looks, torch.device("cuda"), (8, 224, 224, 3))
    outputs = [launch([pixels[:8]])() for _ in range(4)]
    assert all((output.logits == outputs[0].logits).all() for output in outputs)


def test_memory_that_ends_halves_the_batch(spec: ModelSpec, pixels: NDArray[np.uint8]) -> None:
    graph = build(spec).to("cuda")

    def small_device(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(batch) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return graph(batch)

    launch = CudaLaunch(small_device, torch.device("cuda"), (32, 224, 224, 3))
    batcher = Batcher(launch, batch_size=32, depth=2)
    outputs = [batcher.submit(pixels[i : i + 25]) for i in (0, 25)]
    logits = np.concatenate([output.result(60).logits for output in outputs])
    assert batcher.batch_size == 8
    with torch.inference_mode():
        expected = build(spec)(torch.from_numpy(pixels))[0].numpy()
    assert np.abs(logits - expected).max() < 0.05
    batcher.close()


def test_it_says_where_it_runs(runtime: Runtime, tmp_path: Path) -> None:
    assert (runtime.name, runtime.device, runtime.batch_size, runtime.lanes) == ("torch", "cuda", 32, 4)


def test_images_are_resized_on_the_device_from_pinned_memory(spec: ModelSpec, tmp_path: Path) -> None:
    # Given regions of photos in memory of the runtime,
    runtime = runtimes.load(
        spec, device="cuda", precision="fp32", threads=4, batch_size=32, resize="device", cache_dir=tmp_path
    )
    assert isinstance(runtime, TorchRuntime)
    assert runtime.resizes
    draws = np.random.default_rng(2)
    images = [Image.fromarray(draws.integers(0, 256, (300 + n, 400, 3), np.uint8)) for n in range(40)]
    squares = [Square.of(*image.size, 224, 0.875, "bicubic") for image in images]
    cut = [one.region(np.asarray(image.crop(one.box)), 1) for one, image in zip(squares, images, strict=True)]
    futures = [runtime.submit(packed(cut[at : at + 8], runtime.allocate)) for at in range(0, 40, 8)]
    found = np.concatenate([future.result(60).logits for future in futures])
    # I expect the answers that squares of Pillow get, which travel as they are.
    by_pillow = np.stack([np.asarray(shrunk(image, 224, 0.875, Image.Resampling.BICUBIC)) for image in images])
    pinned = runtime.allocate(by_pillow.shape, np.uint8)
    pinned[...] = by_pillow
    for rows in (by_pillow, pinned):
        plain = [runtime.submit(rows[at : at + 8]) for at in range(0, 40, 8)]
        assert (found == np.concatenate([future.result(60).logits for future in plain])).all()
    runtime.close()
