"""Images to latents and back, through the encoder and the decoder of a model that has both.

It knows no family, and draws no noise: the latent of an image is the mean of its posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contract.errors import ModelError
from worker.engine.generators.sampler import GROUP, Decode, checked
from worker.engine.precision import autocast
from worker.engine.types import Precision

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images [n, c, size, size] in −1..1 and classes, int64 [n], to mean and log-variance, each [n, latent]."""


@dataclass(frozen=True)
class Autoencoder:
    """An encoder and a decoder. Both work in groups of 64, filled up, for the reason that `Sampler.images` has."""

    encode: Encode
    decode: Decode
    device: torch.device
    precision: Precision

    @torch.inference_mode()
    def means(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images uint8 [n, c, size, size], n at most 64, and classes, int64 [n], to float32 [n, latent] on the CPU.

        Raises ModelError where a number is not finite.
        """
        missing = GROUP - len(labels)
        x = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)).to(self.device).float().div_(127.5).sub_(1)
        with autocast(self.device, self.precision):
            mean, _ = self.encode(x, functional.pad(labels, (0, missing)).to(self.device))
        mean = mean[: len(labels)].float().cpu()
        if not mean.isfinite().all():
            raise ModelError(
                "The latents that its weights encode images to are not finite, so the training has diverged; train the "
                "model again with a lower learning rate."
            )
        return mean

    @torch.inference_mode()
    def images(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [n, latent], n at most 64, and classes, int64 [n], to uint8 [n, c, size, size] on the CPU.

        Raises ModelError where a pixel is not a finite number.
        """
        missing = GROUP - len(labels)
        filled = functional.pad(z, (0, 0, 0, missing)).to(self.device)
        with autocast(self.device, self.precision):
            images = self.decode(filled, functional.pad(labels, (0, missing)).to(self.device))
        return checked(images)[: len(labels)].cpu()
