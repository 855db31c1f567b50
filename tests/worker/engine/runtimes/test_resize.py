"""Resizing where a model computes gives Pillow's pixels: by torch everywhere, by the kernel where Triton is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from worker.engine.images import decode, shrink
from worker.engine.images.regions import Region, Regions, Square, finished, packed
from worker.engine.images.resample import Interpolation
from worker.engine.runtimes import resize
from worker.engine.runtimes.resize import Moved, Resize

CPU = torch.device("cpu")
SHAPES = [
    *((1, 1), (2, 1), (1, 2), (3, 2), (7, 13), (32, 32), (33, 32), (31, 33), (100, 75), (75, 100), (67, 113)),
    *((100, 17), (17, 33), (52, 50)),
]
"""Width and height."""


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Noise with black and white in it, whose sums pass both ends of a byte."""
    draws = np.random.default_rng(seed)
    pixels = draws.integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(np.where(draws.random((height, width, 1)) < 0.3, np.uint8(255) * (pixels > 127), pixels))


def by_pillow(image: Image.Image, size: int, crop: float, how: Interpolation) -> NDArray[np.uint8]:
    return np.asarray(shrink.shrunk(image, size, crop, decode._RESAMPLING[how]))


def region(image: Image.Image, size: int, crop: float, how: Interpolation, orientation: int = 1) -> Region:
    square = Square.of(image.width, image.height, size, crop, how)
    return square.region(np.asarray(image.crop(square.box)), orientation)


def run(regions: Regions, by: Resize) -> NDArray[np.uint8]:
    out = torch.full((len(regions), regions.size, regions.size, 3), 77, dtype=torch.uint8)
    by(Moved.to(CPU, regions), out)
    return out.numpy()


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.3])
@pytest.mark.parametrize("size", [1, 5, 32])
def test_it_gives_the_pixels_of_pillow(size: int, crop: float, how: Interpolation) -> None:
    # Given images of all shapes, larger and smaller than the result, together,
    images = [photo(width, height, seed) for seed, (width, height) in enumerate(SHAPES)]
    found = run(packed([region(image, size, crop, how) for image in images]), resize.resize_plain)
    # I expect the pixels that Pillow makes of each, all of them.
    for image, one in zip(images, found, strict=True):
        assert (one == by_pillow(image, size, crop, how)).all(), image.size


def test_any_shape_and_crop_will_do() -> None:
    draws = np.random.default_rng(4)
    for seed in range(12):
        size = int(draws.integers(2, 70))
        how: Interpolation = "bicubic" if seed % 2 else "bilinear"
        images = [photo(int(draws.integers(20, 41)), int(draws.integers(20, 41)), seed) for _ in range(8)]
        images += [photo(int(width), int(width * draws.uniform(0.1, 1.9)) + 1, seed) for width in (50, 90)]
        crop = float(draws.uniform(0.2, 1.0))
        found = run(packed([region(image, size, crop, how) for image in images]), resize.resize_plain)
        for image, one in zip(images, found, strict=True):
            assert (one == by_pillow(image, size, crop, how)).all(), (image.size, size, crop, how)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_turns_images_upright(orientation: int) -> None:
    image = photo(90, 70, 1)
    wanted = Image.fromarray(by_pillow(image, 16, 0.9, "bicubic"))
    if orientation in decode._UPRIGHT:
        wanted = wanted.transpose(decode._UPRIGHT[orientation])
    found = run(packed([region(image, 16, 0.9, "bicubic", orientation)]), resize.resize_plain)
    assert (found[0] == np.asarray(wanted)).all()


def test_what_is_finished_stays_as_it_is_and_parts_of_a_batch_are_batches() -> None:
    images = [photo(width, height, seed) for seed, (width, height) in enumerate(SHAPES)]
    parts = [region(image, 32, 1.0, "bicubic") for image in images]
    done = by_pillow(images[8], 32, 0.5, "bicubic")
    regions = packed([*parts, done, finished(done)])
    whole = run(regions, resize.resize_plain)
    assert (whole[-1] == done).all()
    assert (whole[-2] == done).all()
    for start, end in ((0, 1), (3, 9), (9, len(regions)), (5, 100)):
        assert (run(regions[start:end], resize.resize_plain) == whole[start:end]).all()
    assert (run(regions[3:9][1:4], resize.resize_plain) == whole[4:7]).all()


def test_cuda_takes_the_kernel_where_triton_is_and_torch_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resize.resize_on(CPU) is resize.resize_plain
    monkeypatch.setattr(resize, "find_spec", lambda _: None)
    assert resize.resize_on(torch.device("cuda")) is resize.resize_plain


_KERNEL = """
from tests.worker.engine.runtimes.test_resize import by_pillow, packed, photo, region, run
from worker.engine.runtimes import resize_kernel
from worker.engine.runtimes.resize import resize_plain
resize_kernel._BLOCK = 32  # a row of 12 pixels takes two of them
for size, crop, how in ((4, 1.0, "bicubic"), (12, 0.875, "bilinear"), (11, 0.9, "bicubic")):
    images = [photo(*shape, seed) for seed, shape in enumerate([(1, 1), (13, 7), (8, 17), (12, 12)])]
    found = run(packed([region(image, size, crop, how) for image in images]), resize_kernel.resize)
    for image, one in zip(images, found, strict=True):
        assert (one == by_pillow(image, size, crop, how)).all(), (image.size, size, crop, how)
turned = packed([region(photo(9, 7, n), 5, 1.0, "bicubic", n) for n in range(1, 9)])
assert (run(turned, resize_kernel.resize) == run(turned, resize_plain)).all()
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed; pip install triton")
def test_the_kernel_gives_the_pixels_of_pillow_too() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when Triton is imported, so in a process of its own
    done = subprocess.run([sys.executable, "-c", _KERNEL], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout == "equal\n", done.stderr[-3000:]


def test_the_kernel_is_tried_on_the_device_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton starts a kernel on the current device; with the memory of another one it would break both."""
    current: list[str] = []

    @contextmanager
    def device(one: torch.device) -> Iterator[None]:
        current.append(str(one))
        yield
        current.pop()

    tried: list[str] = []
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(resize, "resize_on", lambda _: resize.resize_plain)
    monkeypatch.setattr(resize, "differs", lambda by, where: tried.extend(current))
    assert resize.resize_for(torch.device("cuda:1"), "device") is resize.resize_plain
    assert tried == ["cuda:1"]
