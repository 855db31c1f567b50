"""Initialises weights: normal, with the variance that preserves the variance of a layer's input.

It knows no architecture. He et al. 2015 (arXiv:1502.01852) for layers with a ReLU behind them, LeCun et
al. 1998 (Efficient BackProp, section 4.6) for those without.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


def he(model: nn.Module) -> None:
    """Weights of each convolution and linear layer in `model` from N(0, 2 / fan-in), biases 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _normal(layer, gain=2.0)


def lecun(*layers: nn.Linear | nn.Conv2d) -> None:
    """Weights of each of the layers, which have no ReLU behind them, from N(0, 1 / fan-in), biases 0."""
    for layer in layers:
        _normal(layer, gain=1.0)


def _normal(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, *, gain: float) -> None:
    nn.init.normal_(layer.weight, std=math.sqrt(gain / _fan_in(layer)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _fan_in(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    """Return the number of inputs that add up to one output."""
    weight: Tensor = layer.weight
    if isinstance(layer, nn.ConvTranspose2d):
        # [in, out, k, k]: torch's own fan-in takes `out` for `in`. A stride spreads the k² taps over that many outputs.
        return weight.shape[0] * weight[0, 0].numel() / math.prod(layer.stride)
    return weight[0].numel()
