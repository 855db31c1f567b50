"""Augmentation of whole batches at once: mirror, shift, erase; each image draws its own from a given generator.

Pixels are [b, c, h, w] of any dtype, on the device of the generator, and keep their layout in memory. It knows no
labels and no recipe.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

_AREA = (0.02, 1 / 3)  # of an erased rectangle, as a share of the image
_ASPECT = 1 / 0.3  # of the longest one; the flattest is its inverse


def flip(pixels: Tensor, generator: Generator) -> Tensor:
    """Half of the images mirrored, left to right."""
    mirrored = _uniform(len(pixels), generator) < 0.5
    return torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)


def crop(pixels: Tensor, margin: int, generator: Generator) -> Tensor:
    """Each image shifted by up to `margin` pixels, both ways and along both axes; what comes in is reflected.

    The same as a crop at a random place of the image padded by reflection, without the padded copy.
    """
    b, _, height, width = pixels.shape
    shifts = torch.randint(-margin, margin + 1, (2, b, 1), generator=generator, device=pixels.device)
    rows, columns = _reflected(shifts[0], height), _reflected(shifts[1], width)
    image = torch.arange(b, device=pixels.device)[:, None, None]
    return pixels.movedim(1, 3)[image, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def erase(pixels: Tensor, share: float, generator: Generator, *, value: float) -> Tensor:
    """Set a random rectangle in `share` of the images to `value` (Zhong et al. 2017, arXiv:1708.04896).

    Its area is 2 to 33 % of the image and its aspect 0.3 to 3.3, as in the paper; where it would reach beyond an
    edge, it ends there.
    """
    b, _, height, width = pixels.shape
    draws = _uniform(5 * b, generator).view(5, b, 1)
    area = (_AREA[0] + draws[1] * (_AREA[1] - _AREA[0])) * (height * width)
    aspect = torch.exp((2 * draws[2] - 1) * math.log(_ASPECT))
    rows = _within(height, (area * aspect).sqrt(), draws[3])
    columns = _within(width, (area / aspect).sqrt(), draws[4])
    erased = (draws[0] < share)[:, :, None] & rows[:, :, None] & columns[:, None, :]
    return torch.where(erased[:, None], torch.as_tensor(value, dtype=pixels.dtype, device=pixels.device), pixels)


def _uniform(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device)


def _reflected(shifts: Tensor, length: int) -> Tensor:
    """Where the pixels of an axis come from, int64 [b, length], for shifts [b, 1] of any width."""
    period = max(2 * (length - 1), 1)
    places = (torch.arange(length, device=shifts.device) + shifts) % period
    return torch.minimum(places, period - places) if length > 1 else torch.zeros_like(places)


def _within(length: int, extent: Tensor, start: Tensor) -> Tensor:
    """Return the pixels of an axis that a stretch covers, bool [b, length]; `start` 0 to 1 is the share before it."""
    extent = extent.round().clamp(1, length)
    first = (start * (length - extent + 1)).floor()
    places = torch.arange(length, device=extent.device)
    return (places >= first) & (places < first + extent)
