"""Generates the images of several seeds in one group, for those who wait at the same time. It knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.arithmetic import queueing
from worker.engine.generators.latents import latents
from worker.engine.generators.sampler import GROUP, Decode, checked, sampling
from worker.engine.precision import autocast
from worker.engine.types import Precision


@dataclass(frozen=True)
class Draw:
    """Images by class and number under one seed: `labels` and `index` are int64 [n]."""

    seed: int
    labels: Tensor
    index: Tensor
    truncation: float | None = None


@dataclass(frozen=True)
class DrawnSampler:
    """A generator on its device. Its images are those of a `Sampler` with the same seed, class and number."""

    decode: Decode
    width: int
    """Width of the latents."""
    device: torch.device
    precision: Precision

    def images(self, draws: Sequence[Draw]) -> Tensor:
        """Generate the images of all draws, one draw after the other: uint8 [n, c, size, size] on the CPU.

        They are decoded in groups of 64, the last one padded, as a `Sampler` does. Raises ModelError if a pixel is not
        a finite number.
        """
        z = torch.cat([latents(one.seed, one.labels, one.index, self.width, one.truncation) for one in draws])
        labels = torch.cat([one.labels for one in draws])
        groups = zip(z.split(GROUP), labels.split(GROUP), strict=True)
        return torch.cat([self._group(part, classes) for part, classes in groups])

    @torch.inference_mode()
    def _group(self, z: Tensor, labels: Tensor) -> Tensor:
        count = len(labels)
        filled = torch.cat([z, z[:1].expand(GROUP - count, -1)])
        classes = functional.pad(labels, (0, GROUP - count), value=int(labels[0]))
        with sampling(self.device):
            with queueing(self.device), autocast(self.device, self.precision):
                images = self.decode(filled.to(self.device), classes.to(self.device))
            return checked(images)[:count].cpu()
