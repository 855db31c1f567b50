"""Draws the latent of a generated image from its class and number alone. It knows no model."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.seeds import derived

_WORD = 0xFFFFFFFF
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def latent(seed: int, label: int, index: int, width: int) -> Tensor:
    """Return the latent of image `index` of class `label`: standard normal, float32 [width], on the CPU.

    It depends on seed, label and 0 ≤ index < 2⁶⁴ alone; a narrower latent is a prefix of a wider one.
    """
    return latents(seed, torch.tensor([label]), torch.tensor([index]), width)[0]


def latents(seed: int, labels: Tensor, index: Tensor, width: int, truncation: float | None = None) -> Tensor:
    """Return the latents of many images, float32 [n, width], equal to `latent` of each; labels and index int64 [n].

    With `truncation`, numbers follow the normal distribution truncated to ±truncation, which trades variety for
    quality: the truncation trick of Brock et al. 2019 (arXiv:1809.11096, section 3.1), without its resampling.

    Philox-4x32-10 is keyed by seed and class; its counter is the image and the position in the latent, in steps of
    four. Its words become normal by Box & Muller 1958 (truncated ones by the inverse of the distribution function) in
    float64, so that only the last rounding to float32 can depend on the machine's math library. torch's own generators
    draw different numbers for different shapes and devices.
    """
    found, which = np.unique(labels.numpy(), return_inverse=True)
    keys = np.array([derived(seed, "latent", label) for label in found.tolist()], np.uint64)[which]
    places = np.arange(-(-width // 4), dtype=np.uint64)
    images = index.numpy().astype(np.uint64)[:, None]
    zero = np.zeros((len(images), len(places)), np.uint64)
    words = philox((zero + places, zero, zero + (images & _LOW), zero + (images >> _HALF)), keys[:, None])
    if truncation is not None:
        uniform = torch.from_numpy((np.stack(words, axis=-1) + 0.5) / 2**32)
        tail = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
        drawn: Tensor = torch.special.ndtri(tail + uniform * (1 - 2 * tail))
        return drawn.reshape(len(images), -1)[:, :width].float()
    radii = np.sqrt(-2.0 * np.log((np.stack(words[::2]) + 0.5) / 2**32))
    angles = np.stack(words[1::2]) * (2.0 * math.pi / 2**32)
    normal = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)  # [2, n, places, 2]
    return torch.from_numpy(normal.transpose(1, 2, 0, 3).reshape(len(images), -1)[:, :width].astype(np.float32))


class DeviceLatents:
    """Draws the same latents on a device, where a group waits for no copy: `latents` with the seed of a generator.

    The random words are those of the CPU, bit for bit, since they are integers. The numbers made of them are rounded
    from float64, so that they hardly ever show what the logarithms and cosines of two libraries differ in.
    """

    def __init__(self, seed: int, width: int, truncation: float | None, device: torch.device) -> None:
        self._seed, self._width, self._truncation, self._device = seed, width, truncation, device
        self._keys: dict[int, int] = {}

    def __call__(self, labels: Tensor, index: Tensor) -> Tensor:
        """Queue the latents of int64 [n] classes and numbers, both on the CPU; return float32 [n, width]."""
        for label in set(labels.tolist()) - self._keys.keys():
            self._keys[label] = derived(self._seed, "latent", label)
        numbers = torch.tensor([[self._keys[label] for label in labels.tolist()], index.tolist()])
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):  # pinning opens a context on the current device
                numbers = numbers.pin_memory()
        key, image = numbers.to(self._device, non_blocking=True)[:, :, None].unbind(0)
        places = torch.arange(-(-self._width // 4), device=self._device)
        zero = torch.zeros((len(labels), len(places)), dtype=torch.int64, device=self._device)
        words = _philox((zero + places, zero, zero + (image & _WORD), zero + ((image >> 32) & _WORD)), key)
        if self._truncation is not None:
            uniform = (torch.stack(words, dim=-1).double() + 0.5) / 2**32
            tail = float(torch.special.ndtr(torch.tensor(-self._truncation, dtype=torch.float64)))
            drawn: Tensor = torch.special.ndtri(tail + uniform * (1 - 2 * tail))
            return drawn.flatten(1)[:, : self._width].float()
        radii = torch.sqrt(-2.0 * torch.log((torch.stack(words[::2]).double() + 0.5) / 2**32))
        angles = torch.stack(words[1::2]).double() * (2.0 * math.pi / 2**32)
        normal = torch.stack([radii * torch.cos(angles), radii * torch.sin(angles)], dim=-1)  # [2, n, places, 2]
        return normal.permute(1, 2, 0, 3).reshape(len(labels), -1)[:, : self._width].float()


def _philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: Tensor) -> tuple[Tensor, ...]:
    """Do what `philox` does, in int64, whose products of two words overflow into its sign and keep their bits."""
    a, b, c, d = counter
    low, high = key & _WORD, (key >> 32) & _WORD
    first, second = (int(one) for one in _MULTIPLIERS)
    for _ in range(_ROUNDS):
        left, right = a * first, c * second
        a, b, c, d = (
            ((right >> 32) & _WORD) ^ b ^ low,
            right & _WORD,
            ((left >> 32) & _WORD) ^ d ^ high,
            left & _WORD,
        )
        low, high = (low + int(_WEYL[0])) & _WORD, (high + int(_WEYL[1])) & _WORD
    return a, b, c, d


def philox(
    counter: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]],
    key: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], ...]:
    """Return four random words for each counter of four words and 64-bit key; words are 32 bits stored in 64.

    Philox-4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    a, b, c, d = counter
    low, high = key & _LOW, key >> _HALF
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (right >> _HALF) ^ b ^ low, right & _LOW, (left >> _HALF) ^ d ^ high, left & _LOW
        low, high = (low + _WEYL[0]) & _LOW, (high + _WEYL[1]) & _LOW
    return a, b, c, d
