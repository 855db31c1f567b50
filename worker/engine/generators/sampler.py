"""The images of a generator by class and number.

It knows no family: what generates is a function of latents and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contract.errors import ModelError
from worker.engine.generators.latents import latents
from worker.engine.precision import autocast
from worker.engine.types import Precision

GROUP = 64
"""Images that are decoded at once. On two cores a group of 64 makes 3,800 images/s of 28 × 28, one of 256 4,200."""

Decode = Callable[[Tensor, Tensor], Tensor]
"""Latents [n, latent] and classes, int64 [n], to images [n, c, size, size] in −1..1: `decode` of a generator."""


@dataclass(frozen=True)
class Sampler:
    """A generator, and all that its images follow from beside their class and number."""

    decode: Decode
    width: int
    """Of the latents."""
    seed: int
    device: torch.device
    precision: Precision
    truncation: float | None = None
    """Beyond it no number of a latent lies; None: anywhere."""

    def images(self, labels: Tensor, index: Tensor) -> Tensor:
        """Those of these classes and numbers, both int64 [n]: uint8 [n, c, size, size] on the CPU.

        They are decoded in groups of 64, the last one filled up: what a device computes can differ in the last bit of
        a float from one size of batch to another, and with one size alone an image depends on nothing but its place
        in the group. Raises ModelError where a pixel is not a finite number, which rounding would hide.
        """
        return torch.cat(list(self.groups(labels, index)))

    @torch.inference_mode()
    def groups(self, labels: Tensor, index: Tensor) -> Iterator[Tensor]:
        """The same, group by group, as they are made."""
        for y, numbers in zip(labels.split(GROUP), index.split(GROUP), strict=True):
            missing = GROUP - len(y)
            filled = functional.pad(y, (0, missing))
            z = latents(self.seed, filled, functional.pad(numbers, (0, missing)), self.width, self.truncation)
            with autocast(self.device, self.precision):
                images = self.decode(z.to(self.device), filled.to(self.device))
            yield checked(images)[: len(y)].cpu()

    def rows(self, classes: int, columns: int) -> list[Tensor]:
        """The first images of the first classes: of each, uint8 [columns, c, size, size] on the CPU."""
        labels = torch.arange(classes).repeat_interleave(columns)
        return list(self.images(labels, torch.arange(columns).repeat(classes)).split(columns))


def checked(images: Tensor) -> Tensor:
    """Images of a decoder as uint8; raises ModelError where a pixel is not a finite number."""
    if not images.isfinite().all():
        raise ModelError(
            "The images that its weights generate are not finite, so the training has diverged; train the model again "
            "with a lower learning rate."
        )
    return quantized(images)


def quantized(images: Tensor) -> Tensor:
    """Images in −1..1 as uint8, rounded to the nearest level: what `batches.normalized` takes back."""
    return (images.float() * 127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
