"""Resizes regions of images where a model computes, to the same pixels that Pillow would have made of them.

The two passes add integers, so that no order of sums and no device can change a pixel. A kernel of Triton does them
where Triton is installed, as it is beside a CUDA build of torch; operators of torch do elsewhere. Imports torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import PIL
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from contract.errors import InvalidSettings
from worker.engine.images.regions import Regions, Square, packed
from worker.engine.images.resample import PRECISION_BITS
from worker.engine.images.shrink import shrunk

log = logging.getLogger(__name__)

_HALF = 1 << (PRECISION_BITS - 1)


@dataclass(frozen=True)
class Moved:
    """`Regions` on a device, under the same names; `rows` and `highest` are known without asking it."""

    pixels: Tensor
    first: Tensor
    table: Tensor
    places: Tensor
    turns: Tensor
    rows: int
    highest: int

    @classmethod
    def to(cls, device: torch.device, regions: Regions) -> Moved:
        """Queue copies to a device; the arrays must stay as they are until those are done."""
        arrays = (regions.pixels, regions.first, regions.table, regions.places, regions.turns)
        pixels, first, table, places, turns = (
            torch.from_numpy(array).to(device, non_blocking=True) for array in arrays
        )
        return cls(pixels, first, table, places, turns, regions.rows, regions.highest)

    @property
    def size(self) -> int:
        """Width and height of the results."""
        return self.first.shape[2]


Resize = Callable[[Moved, Tensor], None]
"""Writes the squares of n regions to a tensor, uint8 [n, size, size, 3], contiguous."""


def has_triton() -> bool:
    """Return whether the kernel can be compiled here, without importing it."""
    return find_spec("triton") is not None


def resize_on(device: torch.device) -> Resize:
    """Return what resizes on a device: the kernel on CUDA where Triton is installed, else operators of torch."""
    if device.type == "cuda" and has_triton():
        from worker.engine.runtimes.resize_kernel import resize

        return resize
    return resize_plain


def resize_for(device: torch.device, where: str) -> Resize | None:
    """Return what resizes images on a device, or None where they are resized as they are decoded.

    `where` is `device`, `cpu` or `auto`, which is the device if that is a GPU and Triton is installed. What is returned
    gives Pillow's pixels: it is tried first. Raises InvalidSettings if it does not and `where` is `device`.
    """
    if where == "cpu" or (where == "auto" and not (device.type == "cuda" and has_triton())):
        return None
    why = ""
    try:
        found = resize_on(device)
        # Triton starts kernels on the current device, wherever the tensors are; `cuda` alone is the current one.
        with torch.cuda.device(device) if device.type == "cuda" and device.index is not None else nullcontext():
            apart = differs(found, device)
        if apart:
            why = f"Pillow {PIL.__version__} makes other pixels"
    except Exception as error:  # a compiler that is missing or fails raises anything
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not why:
        return found
    if where == "device":
        raise InvalidSettings(f"Images cannot be resized on the device {device} ({why}); use IMAGEMILL_RESIZE=cpu.")
    log.warning("Images are resized as they are decoded, not on the device %s: %s", device, why)
    return None


_TRIED = ((37, 23), (23, 37), (64, 20), (20, 64), (9, 9), (150, 120))


def differs(resize: Resize, device: torch.device) -> bool:
    """Return whether some noise of several shapes, resized up and down, has other pixels than Pillow makes."""
    draws = np.random.default_rng(0)
    for interpolation, resampling in (("bicubic", Resampling.BICUBIC), ("bilinear", Resampling.BILINEAR)):
        images = [Image.fromarray(draws.integers(0, 256, (high, wide, 3), np.uint8)) for wide, high in _TRIED]
        squares = [Square.of(*image.size, _SIZE, 0.875, interpolation) for image in images]  # type: ignore[arg-type]
        regions = packed(
            [one.region(np.asarray(image.crop(one.box)), 1) for one, image in zip(squares, images, strict=True)]
        )
        out = torch.empty((len(images), _SIZE, _SIZE, 3), dtype=torch.uint8, device=device)
        resize(Moved.to(device, regions), out)
        wanted = [np.asarray(shrunk(image, _SIZE, 0.875, resampling)) for image in images]
        if not (out.cpu().numpy() == np.stack(wanted)).all():
            return True
    return False


_SIZE = 32


def resize_plain(moved: Moved, out: Tensor) -> None:
    """Resize by torch's own operators, a tap of all rows at a time."""
    start, width, height, above = moved.places[:, :4].unbind(1)
    n, size, device = len(moved.places), moved.size, out.device
    image = torch.repeat_interleave(torch.arange(n, device=device), height, output_size=moved.rows)
    row = torch.arange(moved.rows, device=device) - above[image]
    line = (start[image] + 3 * row * width[image])[:, None, None] + torch.arange(3, device=device)
    sums = torch.full((moved.rows, size, 3), _HALF, dtype=torch.int32, device=device)
    for tap, weight in enumerate(moved.table[:, 0].unbind(1)):
        x = torch.minimum(moved.first[image, 0].long() + tap, width[image, None] - 1)
        sums += moved.pixels[line + 3 * x[:, :, None]].int() * weight[image, :, None]
    narrow = _bytes(sums)
    sums = torch.full((n, size, size, 3), _HALF, dtype=torch.int32, device=device)
    for tap, weight in enumerate(moved.table[:, 1].unbind(1)):
        y = torch.minimum(moved.first[:, 1].long() + tap, height[:, None] - 1) + above[:, None]
        sums += narrow[y].int() * weight[:, :, None, None]
    base, down, right = moved.turns.long()[:, :, None, None].unbind(1)
    steps = torch.arange(size, device=device)
    where = base + down * steps[:, None] + right * steps
    out.view(n, size * size, 3)[torch.arange(n, device=device)[:, None], where.flatten(1)] = _bytes(sums).flatten(1, 2)


def _bytes(sums: Tensor) -> Tensor:
    return (sums >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)
