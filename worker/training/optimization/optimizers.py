"""Helpers for optimisers: which weights decay, and their state as tensors by flat names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def decaying(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters that weight decay applies to, and the others: biases, and the scales and shifts of norms.

    The others are those with one dimension, as in "Bag of Tricks" (He et al. 2019, arXiv:1812.01187).
    """
    parameters = list(module.parameters())
    return [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Let the next step of all groups learn with this rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state of each parameter as `<number>.<name>`, numbered over the groups; the tensors are the live ones.

    Settings such as the learning rate are left out: they follow from the recipe and the step.
    """
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Go on from what `optimizer_state` returned for an optimiser of the same parameters.

    What has the shape of its parameter is laid out in memory as that is; counters stay on the CPU.
    """
    parameters = _parameters(optimizer)
    for parameter in parameters:
        optimizer.state[parameter].clear()
    for key, tensor in state.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        like = torch.empty_like(parameter) if tensor.shape == parameter.shape else torch.empty_like(tensor)
        optimizer.state[parameter][name] = like.detach().copy_(tensor)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
