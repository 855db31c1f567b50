"""A class-conditional variational autoencoder of images (Kingma & Welling 2014, arXiv:1312.6114; Sohn et al. 2015).

It knows no losses, and draws no noise.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.errors import ModelError
from worker.zoo import initial

_GRID = 8  # images are halved twice, and then on to this side or less, as long as the side is even
_WIDTHS = (64, 64, 32, 16)  # channels of the smallest map, of the one twice its side, and so on; then the last
_HIDDEN = 256


def _sides(size: int) -> tuple[int, ...]:
    """size, a half, a quarter, … Raises ModelError where 4 does not divide size."""
    if size < 4 or size % 4:
        raise ModelError(f"The family 'vae' makes images whose side is a multiple of 4 pixels, not {size}.")
    sides = [size, size // 2, size // 4]
    while sides[-1] > _GRID and sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    return tuple(sides)


class Vae(nn.Module):
    """At 28×28×1 with a latent of 32: 1.84 million parameters, 11 million multiply-adds a direction.

    The encoder: 3×3 at full size, 4×4 convolutions of stride 2 down to 7×7×64, a hidden layer of 256,
    ReLU; the decoder is its mirror, with tanh at the end. No batch norm, so no image knows its
    neighbours in training either. The class enters each hidden layer as a bias of its own, which is what a one-hot
    vector beside the input comes to. Weights begin after He et al. 2015, where no ReLU follows after
    LeCun et al. 1998; log-variances begin at 0, and the embeddings of classes at N(0, 1): from 0 the
    decoder ignores the class for the first epochs, and from N(0, 2²) its units can be dead for good; see docs/log.md.
    """

    def __init__(self, classes: int, channels: int = 1, size: int = 28, latent: int = 32) -> None:
        sides = _sides(size)
        super().__init__()
        self.latent = latent
        widths = [_WIDTHS[min(doublings, len(_WIDTHS) - 1)] for doublings in reversed(range(len(sides)))]
        grid = (widths[-1], sides[-1], sides[-1])
        flat = math.prod(grid)

        self.down = nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU(inplace=True))
        for inputs, outputs in pairwise(widths):
            self.down.extend([nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True)])
        self.down.append(nn.Flatten())
        self.into = nn.Linear(flat, _HIDDEN)
        self.into_class = nn.Embedding(classes, _HIDDEN)
        self.mean = nn.Linear(_HIDDEN, latent)
        self.log_variance = nn.Linear(_HIDDEN, latent)

        self.out_of = nn.Linear(latent, _HIDDEN)
        self.out_of_class = nn.Embedding(classes, _HIDDEN)
        self.up = nn.Sequential(nn.Linear(_HIDDEN, flat), nn.ReLU(inplace=True), nn.Unflatten(1, grid))
        for inputs, outputs in pairwise(widths[::-1]):
            self.up.extend([nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True)])
        self.pixels = nn.Conv2d(widths[0], channels, 3, padding=1)

        initial.he(self)
        initial.lecun(self.mean, self.pixels)
        nn.init.zeros_(self.log_variance.weight)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Images [n, c, size, size] in −1..1 and classes, int64 [n], to mean and log-variance, each [n, latent]."""
        hidden = functional.relu(self.into(self.down(x)) + self.into_class(y))
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Latents [n, latent] and classes, int64 [n], to images [n, c, size, size] in −1..1."""
        hidden = functional.relu(self.out_of(z) + self.out_of_class(y))
        return torch.tanh(self.pixels(self.up(hidden)))

    def forward(self, x: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, classes and standard normal [n, latent] to reconstruction, mean and log-variance.

        z = mean + exp(log-variance / 2) · noise: the reparameterisation of Kingma & Welling, section 2.4.
        """
        mean, log_variance = self.encode(x, y)
        return self.decode(mean + torch.exp(log_variance / 2) * noise, y), mean, log_variance
