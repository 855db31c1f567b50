"""Encodes images to latents and decodes them, with a model that has both an encoder and a decoder.

It knows no family, and draws no noise: the latent of an image is the mean of its posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from contract.errors import ModelError
from worker.engine.arithmetic import queueing
from worker.engine.generators.sampler import GROUP, Decode, checked, sampling
from worker.engine.precision import autocast
from worker.engine.types import Precision

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images [n, c, size, size] in −1..1 and classes, int64 [n], to mean and log-variance, each [n, latent]."""


@dataclass(frozen=True)
class Autoencoder:
    """An encoder and a decoder. Both run in padded groups of 64, for the reason given in `Sampler.images`."""

    encode: Encode
    decode: Decode
    device: torch.device
    precision: Precision

    @torch.inference_mode()
    def means(self, images: Tensor, labels: Tensor) -> Tensor:
        """Encode up to 64 images, uint8 [n, c, size, size], of classes int64 [n], to float32 [n, latent] on the CPU.

        Raises ModelError if a number is not finite.
        """
        missing = GROUP - len(labels)
        with sampling(self.device):
            x = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)).to(self.device).float().div_(127.5).sub_(1)
            with queueing(self.device), autocast(self.device, self.precision):
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
        """Decode up to 64 latents [n, latent] of classes int64 [n] to uint8 [n, c, size, size] on the CPU.

        Raises ModelError if a pixel is not a finite number.
        """
        missing = GROUP - len(labels)
        with sampling(self.device):
            filled = functional.pad(z, (0, 0, 0, missing)).to(self.device)
            with queueing(self.device), autocast(self.device, self.precision):
                images = self.decode(filled, functional.pad(labels, (0, missing)).to(self.device))
            return checked(images)[: len(labels)].cpu()
