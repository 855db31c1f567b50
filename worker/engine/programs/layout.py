"""Runs the convolutions of a program channels-last, the layout of tensor cores, where its answers stay the same.

An exported graph fixes the shape of each view, which a tensor in another layout may not be viewed as; `reshape` copies
where it must. It knows no archive. Imports torch.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

_CONVOLUTIONS = frozenset({"conv2d", "convolution"})
_PAYS_FROM = 2
"""Convolutions of a program from which the layout pays: the first one of a transformer, which cuts an image into
patches, is alone, and what follows it has no layout."""
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
_TOLERANCE = 1e-3
"""The allowed difference, relative to the largest number of an answer: fp32 sums are added in another order."""
_BATCH = 2
"""Images that are tried. One would not do: a dimension of 1 has any stride, and views of it always fit."""


def pays(body: fx.GraphModule) -> bool:
    """Return whether channels-last is faster for a graph on a GPU, by its count of convolutions.

    The rule looks at the graph alone. A measurement would choose anew at each load, and with the layout the last bits
    of an answer change.
    """
    return sum(_is_convolution(node) for node in body.graph.nodes) >= _PAYS_FROM


def channels_last(body: fx.GraphModule) -> fx.GraphModule:
    """Return a graph that takes channels-last images, with the same weights, those of convolutions laid out anew."""
    graph = copy.deepcopy(body.graph)
    weights = set()
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _VIEWS:
            node.target = torch.ops.aten.reshape.default
        elif _is_convolution(node) and isinstance(weight := node.args[1], fx.Node) and weight.op == "get_attr":
            weights.add(str(weight.target))
    found = fx.GraphModule(body, graph)
    for name in weights:
        weight = found.get_parameter(name)
        if weight.dim() == 4:
            laid = weight.detach().contiguous(memory_format=torch.channels_last)
            found.register_parameter(name, torch.nn.Parameter(laid, requires_grad=False))
    return found


@torch.inference_mode()
def agrees(body: fx.GraphModule, other: fx.GraphModule, *, channels: int, size: int, device: torch.device) -> bool:
    """Return whether two graphs of the same weights give the same answers to noise, the other one channels-last.

    A graph that depends on the layout of its tensors, such as by `as_strided` or by writing through a view, does not.
    """
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(_BATCH, channels, size, size, generator=draws).to(device)
    wanted = body(noise)
    try:
        found = other(noise.contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False  # a view that does not fit
    return all(_near(one, two) for one, two in zip(found, wanted, strict=True))


def _near(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    apart, most = (found - wanted).abs().max(), wanted.abs().max()
    return bool(apart <= _TOLERANCE * most)  # not for what is not a number


def _is_convolution(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._opname in _CONVOLUTIONS
