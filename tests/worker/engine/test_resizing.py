"""An engine whose runtime resizes labels as one whose lanes do, on photos of all kinds, in threads and in processes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from contract.errors import InvalidSettings
from contract.models.registry import Preprocess
from worker.confinement.memory import Memory
from worker.engine.images import decoder, decoders, regions
from worker.engine.images.chunk import SLOTS
from worker.engine.images.decode import Decoded
from worker.engine.images.regions import Regions
from worker.engine.pipeline import Engine, Failed, Labelled
from worker.engine.runtimes import resize
from worker.engine.runtimes.batcher import Batcher
from worker.engine.runtimes.torch_runtime import CpuLaunch
from worker.engine.types import Output, Pixels, Precision

SIDE = 32
HOW = Preprocess(size=SIDE, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0)


def file(width: int, height: int, mode: str = "RGB", kind: str = "JPEG", orientation: int = 1) -> bytes:
    noise = np.random.default_rng(width + height).integers(0, 256, (height, width, 3), np.uint8)
    exif, target = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image = Image.fromarray(noise)
    image = image.convert("RGBA").convert(mode) if mode in ("RGBA", "LA") else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(noise[..., 0]))
    image.save(target, kind, exif=exif)
    return target.getvalue()


FILES = [
    *(file(100, 75, orientation=orientation) for orientation in range(1, 9)),
    *(file(*shape) for shape in ((31, 90), (90, 31), (20, 12), (1, 1), (32, 32), (40, 77), (420, 300))),
    *(file(60, 50, mode, "PNG") for mode in ("L", "RGB", "RGBA", "P", "LA", "1")),
    *(file(60, 50, "CMYK"), file(60, 50, "L"), file(1500, 1300, "RGB")),
    b"no image",
    file(100, 75)[:300],
]


class Sees:
    """A runtime on a CPU whose answers are the pixels that the model would see; with `resizes` it gets regions."""

    name, device, lanes = "fake", "cpu", 2
    precision: Precision = "fp32"

    def __init__(self, *, resizes: bool) -> None:
        self.resizes = resizes
        self.given: list[type] = []
        self.allocated = 0

        def model(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return pixels.flatten(1)[:, :4].float(), pixels.flatten(1).float()

        self._batcher = Batcher(CpuLaunch(model, 8, resize.resize_plain if resizes else None), batch_size=8, depth=1)
        self.batch_size = 8

    def allocate(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        self.allocated += 1
        return np.full(shape, 99, dtype)  # what was there before must not matter

    def submit(self, pixels: Pixels, lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        self.given.append(type(pixels))
        return self._batcher.submit(pixels)

    def close(self) -> None:
        self._batcher.close()


@pytest.fixture(params=["thread", "process"])
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    decoders.configure(children=request.param == "process", seconds=60, max_pixels=10**8)
    yield request.param
    decoders.configure(children=False, seconds=60, max_pixels=10**8)


def labelled(*, resizes: bool) -> tuple[list[Labelled | Failed], Sees]:
    with closing(Sees(resizes=resizes)) as runtime:
        engine = Engine(runtime, preprocess=HOW, max_pixels=10**8)
        found = engine.submit(FILES, features=True).result(120)
        engine.close()
    return found, runtime


def test_the_model_sees_the_same_pixels_wherever_they_are_resized(where: str) -> None:
    wanted, stacks = labelled(resizes=False)
    found, runtime = labelled(resizes=True)
    assert set(stacks.given) == {np.ndarray}
    assert set(runtime.given) == {Regions}
    assert min(stacks.allocated, runtime.allocated) > 0
    for n, (one, other) in enumerate(zip(wanted, found, strict=True)):
        if isinstance(one, Failed):
            assert isinstance(other, Failed), n
            assert (type(one.error), str(one.error), one.sha256) == (type(other.error), str(other.error), other.sha256)
            continue
        assert isinstance(other, Labelled), n
        assert one.features is not None
        assert other.features is not None
        assert (one.features == other.features).all(), n
        assert (one.width, one.height, one.sha256) == (other.width, other.height, other.sha256)


def test_images_that_a_decoder_has_no_room_for_are_asked_for_again() -> None:
    # Given images whose regions, of a megabyte each, do not fit into one answer together,
    how = HOW.model_copy(update={"size": 600})
    files = [file(700, 640 + n) for n in range(12)]
    decoders.configure(children=True, seconds=60, max_pixels=10**8)
    try:
        found = dict(decoders.open_each(files, how, max_pixels=10**8, frames=0, regions=True))
    finally:
        decoders.configure(children=False, seconds=60, max_pixels=10**8)
    # I expect each to arrive, in its own place.
    assert sorted(found) == list(range(12))
    for n, one in found.items():
        assert isinstance(one, Decoded)
        assert one.region is not None
        assert (one.width, one.height) == (700, 640 + n)


@pytest.mark.parametrize(
    "about",
    [
        {"open": [0, 5], "orientation": 1},
        {"open": [-3, -5], "orientation": 1},
        {"open": [10**6, 10**6], "orientation": 1},
        {"open": [5000, 4000], "orientation": 1},  # too large to be left as it was
        {"open": [50, 40], "orientation": 9},
        {"open": [50, 40, 3], "orientation": 1},
        {"open": [50, 40]},
        {"open": "none", "orientation": 1},
        {"open": [500, 400], "orientation": 1},  # more pixels than the answer holds
    ],
)
def test_what_a_decoder_says_of_a_region_is_not_trusted(about: dict[str, Any]) -> None:
    memory = Memory.create(SLOTS, 2**16)
    head = {"size": SIDE, "crop": 1.0, "interpolation": "bicubic", "max_pixels": 10**8, "regions": True}
    with closing(memory), pytest.raises(decoder._BROKEN):
        decoder._each_decoded([{"width": 50, "height": 40, **about}], memory, head, 1)


def test_what_a_device_resizes_is_compared_with_pillow_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    # On a CPU images are resized as they are decoded, unless somebody asks for it.
    assert resize.resize_for(cpu, "auto") is None
    assert resize.resize_for(cpu, "cpu") is None
    assert resize.resize_for(cpu, "device") is resize.resize_plain
    # On a GPU without Triton too.
    monkeypatch.setattr(resize, "has_triton", lambda: False)
    assert resize.resize_for(gpu, "auto") is None

    # A device that makes other pixels, or fails, does not resize.
    def other(moved: resize.Moved, out: torch.Tensor) -> None:
        resize.resize_plain(moved, out)
        out[-1, -1, -1, -1] += 1

    monkeypatch.setattr(resize, "has_triton", lambda: True)
    monkeypatch.setattr(resize, "resize_on", lambda _: other)
    with pytest.raises(InvalidSettings, match=r"makes other pixels\); use IMAGEMILL_RESIZE=cpu"):
        resize.resize_for(cpu, "device")

    def broken(moved: resize.Moved, out: torch.Tensor) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(resize, "resize_on", lambda _: broken)
    monkeypatch.setattr(resize, "differs", lambda one, _: one(Any, Any))  # there is no GPU to make noise on
    assert resize.resize_for(gpu, "auto") is None
    assert "Failed to find C compiler" in caplog.text


def test_a_large_image_is_resized_where_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, large),) = decoders.open_each([file(420, 300)], HOW, max_pixels=10**8, frames=0, regions=True)
    assert not isinstance(large, Exception)
    assert large.region is not None
    monkeypatch.setattr(regions, "MOST_PIXELS", 1000)
    ((_, large),) = decoders.open_each([file(420, 300)], HOW, max_pixels=10**8, frames=0, regions=True)
    assert not isinstance(large, Exception)
    assert large.region is None
    assert large.pixels.shape == (SIDE, SIDE, 3)
