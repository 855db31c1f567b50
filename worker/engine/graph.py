"""The torch module that every runtime starts from: uint8 pixels in, logits and features out.

It knows no device and no batch. Imports torch.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from contract.errors import ModelError
from worker import zoo
from worker.engine.runtime import ModelSpec


class Graph(nn.Module):
    """A zoo model behind its normalisation."""

    def __init__(self, model: nn.Module, *, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self._mean, self._std = mean, std

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, h, w, 3] to logits [n, classes] and features [n, d], float32.

        NHWC seen as NCHW is what torch calls channels-last: the layout that convolutions like, for free.
        """
        dtype = next(self.model.parameters()).dtype
        x = (pixels.permute(0, 3, 1, 2).float() - self._mean) / self._std
        logits, features = self.model(x.to(dtype))
        return logits.float(), features.float()


def build(spec: ModelSpec) -> Graph:
    """The model of `spec` with its weights, in float32, ready for inference.

    Raises ModelError for an unknown family and for weights or labels that do not fit it.
    """
    model = zoo.create(spec.family, **spec.config)
    try:
        model.load_state_dict(load_file(spec.weights))
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"The weights {spec.weights} do not fit the family {spec.family}: {error}.") from error
    graph = Graph(model, mean=spec.mean, std=spec.std).eval().requires_grad_(False)
    classes = graph(torch.zeros((1, spec.size, spec.size, 3), dtype=torch.uint8))[0].shape[1]
    if classes != spec.classes:
        raise ModelError(f"The model tells {classes} classes apart, its record names {spec.classes} labels.")
    return graph
