"""Generates images by class and number.

It knows no family: a generator is a function of latents and labels.
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
"""Images decoded at once. On two cores groups of 64 make 3,800 images/s of 28 × 28; groups of 256, 4,200."""

Decode = Callable[[Tensor, Tensor], Tensor]
"""Latents [n, latent] and classes, int64 [n], to images [n, c, size, size] in −1..1: `decode` of a generator."""


@dataclass(frozen=True)
class Sampler:
    """A generator and everything that determines its images besides class and number."""

    decode: Decode
    width: int
    """Width of the latents."""
    seed: int
    device: torch.device
    precision: Precision
    truncation: float | None = None
    """Largest magnitude of a number in a latent; None: unlimited."""

    def images(self, labels: Tensor, index: Tensor) -> Tensor:
        """Generate the images of these classes and numbers, both int64 [n]: uint8 [n, c, size, size] on the CPU.

        They are decoded in groups of 64, the last one padded: results can differ in the last bit of a float between
        batch sizes, and with a single size an image depends only on its place in the group. Raises ModelError if a
        pixel is not a finite number, which rounding would hide.
        """
        return torch.cat(list(self.groups(labels, index)))

    @torch.inference_mode()
    def groups(self, labels: Tensor, index: Tensor) -> Iterator[Tensor]:
        """Yield the same images group by group."""
        for y, numbers in zip(labels.split(GROUP), index.split(GROUP), strict=True):
            missing = GROUP - len(y)
            filled = functional.pad(y, (0, missing))
            z = latents(self.seed, filled, functional.pad(numbers, (0, missing)), self.width, self.truncation)
            with autocast(self.device, self.precision):
                images = self.decode(z.to(self.device), filled.to(self.device))
            yield checked(images)[: len(y)].cpu()

    def rows(self, classes: int, columns: int) -> list[Tensor]:
        """Generate the first images of the first classes: for each class, uint8 [columns, c, size, size] on the CPU."""
        labels = torch.arange(classes).repeat_interleave(columns)
        return list(self.images(labels, torch.arange(columns).repeat(classes)).split(columns))


def checked(images: Tensor) -> Tensor:
    """Convert the output of a decoder to uint8; raise ModelError if a pixel is not a finite number."""
    if not images.isfinite().all():
        raise ModelError(
            "The images that its weights generate are not finite, so the training has diverged; train the model again "
            "with a lower learning rate."
        )
    return quantized(images)


def quantized(images: Tensor) -> Tensor:
    """Round images in −1..1 to the nearest of 256 levels, as uint8; the inverse of `batches.normalized`."""
    return (images.float() * 127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
