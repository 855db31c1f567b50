"""Interpolates between latents. It knows no model."""

from __future__ import annotations

import torch
from torch import Tensor

_PARALLEL = 1e-6  # sine of the angle below which the path is practically straight, or its direction undefined


def spherical(a: Tensor, b: Tensor, positions: Tensor) -> Tensor:
    """Return the latents at `positions` [n], where 0 is `a` and 1 is `b`, both [width]: float32 [n, width].

    Spherical linear interpolation (Shoemake 1985), which White 2016 (arXiv:1609.04468, section 2.1) brought to
    generative models: the norm of a Gaussian latent is close to the square root of its width, and the straight line
    between two of them passes through shorter ones, which a decoder has rarely seen. If the two are parallel, opposite
    or zero, the interpolation is linear. Positions are fractions of the angle; computing in float64 makes the ends
    equal the latents themselves.
    """
    first, second, t = a.double(), b.double(), positions.double()[:, None]
    lengths = first.norm() * second.norm()
    cosine = (first @ second / lengths).clamp(-1, 1) if lengths > 0 else torch.ones((), dtype=torch.float64)
    angle = torch.arccos(cosine)
    if angle.sin() < _PARALLEL:
        return ((1 - t) * first + t * second).float()
    return ((((1 - t) * angle).sin() * first + (t * angle).sin() * second) / angle.sin()).float()
