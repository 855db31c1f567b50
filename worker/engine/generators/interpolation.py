"""Points on the way from one latent to another. It knows no model."""

from __future__ import annotations

import torch
from torch import Tensor

_PARALLEL = 1e-6  # of the sine of the angle: below it the way is as good as straight, or has no one direction


def spherical(a: Tensor, b: Tensor, positions: Tensor) -> Tensor:
    """The latents at `positions` [n], 0 at `a` and 1 at `b`, both [width]: float32 [n, width].

    Spherical linear interpolation (Shoemake 1985), which White 2016 (arXiv:1609.04468, section 2.1) brought to
    generative models: the length of Gaussian latents is close to the root of their width, and the straight way
    between two of them leads through shorter ones, which a decoder has rarely seen. Where the two point the same
    way, or opposite ways, or one is 0, the straight way is taken. Positions are in the angle between the two; in
    float64, so that the ends are the latents themselves.
    """
    first, second, t = a.double(), b.double(), positions.double()[:, None]
    lengths = first.norm() * second.norm()
    cosine = (first @ second / lengths).clamp(-1, 1) if lengths > 0 else torch.ones((), dtype=torch.float64)
    angle = torch.arccos(cosine)
    if angle.sin() < _PARALLEL:
        return ((1 - t) * first + t * second).float()
    return ((((1 - t) * angle).sin() * first + (t * angle).sin() * second) / angle.sin()).float()
