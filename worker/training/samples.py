"""The images of a generator by number: image `index` of a class has a latent of its own, whatever is drawn beside it.

It knows no family: what generates is a function of latents and labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.errors import TrainingDiverged
from worker.engine.precision import autocast
from worker.engine.runtime import Precision
from worker.training.randomness import derived

Decode = Callable[[Tensor, Tensor], Tensor]
"""Latents [n, latent] and classes, int64 [n], to images [n, c, size, size] in −1..1: `decode` of a generator."""

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)

_AT_ONCE = 256  # images that are decoded


def latent(seed: int, label: int, index: int, width: int) -> Tensor:
    """The latent of image `index` of class `label`: standard normal, float32 [width], on the CPU.

    It follows from the first three alone, 0 ≤ index < 2⁶⁴; a smaller width is the beginning of a larger one.
    """
    return latents(seed, torch.tensor([label]), torch.tensor([index]), width)[0]


def latents(seed: int, labels: Tensor, index: Tensor, width: int) -> Tensor:
    """Those of many images, float32 [n, width], the same numbers as one by one; labels and index int64 [n].

    Philox-4x32-10, keyed by seed and class, counts images and, four numbers at a time, the places in a latent. Its
    words become normal by Box & Muller 1958 in float64, so that nothing but the last rounding to float32 is left to
    the library of the machine. torch's own generators draw other numbers for other shapes and devices.
    """
    found, which = np.unique(labels.numpy(), return_inverse=True)
    keys = np.array([derived(seed, "latent", label) for label in found.tolist()], np.uint64)[which]
    places = np.arange(-(-width // 4), dtype=np.uint64)
    images = index.numpy().astype(np.uint64)[:, None]
    zero = np.zeros((len(images), len(places)), np.uint64)
    words = philox((zero + places, zero, zero + (images & _LOW), zero + (images >> _HALF)), keys[:, None])
    radii = np.sqrt(-2.0 * np.log((np.stack(words[::2]) + 0.5) / 2**32))
    angles = np.stack(words[1::2]) * (2.0 * math.pi / 2**32)
    normal = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)  # [2, n, places, 2]
    return torch.from_numpy(normal.transpose(1, 2, 0, 3).reshape(len(images), -1)[:, :width].astype(np.float32))


def philox(
    counter: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]],
    key: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], ...]:
    """Four random words for each counter of four words and key of 64 bits; words are 32 bits held in 64.

    Philox-4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    a, b, c, d = counter
    low, high = key & _LOW, key >> _HALF
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (right >> _HALF) ^ b ^ low, right & _LOW, (left >> _HALF) ^ d ^ high, left & _LOW
        low, high = (low + _WEYL[0]) & _LOW, (high + _WEYL[1]) & _LOW
    return a, b, c, d


@dataclass(frozen=True)
class Sampler:
    """A generator, and all that its images follow from beside their class and number."""

    decode: Decode
    width: int
    """Of the latents."""
    seed: int
    device: torch.device
    precision: Precision

    @torch.inference_mode()
    def images(self, labels: Tensor, index: Tensor) -> Tensor:
        """Those of these classes and numbers, both int64 [n]: uint8 [n, c, size, size] on the CPU.

        What a device computes can differ in the last bit of a float from batch size to batch size; rounded to 256
        levels, hardly a pixel does. Raises TrainingDiverged where a pixel is not a finite number, which rounding
        would hide.
        """
        drawn = latents(self.seed, labels, index, self.width)
        found = []
        for z, y in zip(drawn.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True):
            with autocast(self.device, self.precision):
                images = self.decode(z.to(self.device), y.to(self.device))
            if not images.isfinite().all():
                raise TrainingDiverged(
                    "The training diverged: the images that its weights generate are not finite; nothing is "
                    "published, so train again with a lower learning rate."
                )
            found.append(quantized(images).cpu())
        return torch.cat(found)

    def rows(self, classes: int, columns: int) -> list[Tensor]:
        """The first images of the first classes: of each, uint8 [columns, c, size, size] on the CPU."""
        labels = torch.arange(classes).repeat_interleave(columns)
        return list(self.images(labels, torch.arange(columns).repeat(classes)).split(columns))


def quantized(images: Tensor) -> Tensor:
    """Images in −1..1 as uint8, rounded to the nearest level: what `batches.normalized` takes back."""
    return (images.float() * 127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
