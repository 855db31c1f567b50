"""Builds the torch module that every runtime starts from: uint8 pixels in, logits and features out.

It knows no batching. Imports torch.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from contract.errors import ModelError
from contract.models.registry import PROGRAM
from worker import zoo
from worker.engine.programs.fold import fold_norms
from worker.engine.programs.program import Program, load_program
from worker.engine.types import ModelSpec, Precision

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in the luma of ITU-R BT.601, which Pillow uses to convert to gray."""


class Graph(nn.Module):
    """A model of the zoo or a program, preceded by its normalisation."""

    def __init__(self, model: nn.Module, *, mean: float, std: float, channels: int = 3) -> None:
        super().__init__()
        self.model = model
        self._mean, self._std, self._gray = mean, std, channels == 1

    def on(self, device: torch.device, precision: Precision) -> Graph:
        """Move to a device and precision, with weights in the fastest layout, and return itself."""
        if isinstance(self.model, Program):
            self.model.on(device, precision)
            return self
        fold_norms(self.model)
        self.to(device, _DTYPES[precision])
        for weight in self.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, h, w, 3] to logits [n, classes] and features [n, d], float32."""
        logits, features = self.model(self.prepared(pixels))
        return logits.float(), features.float()

    def prepared(self, pixels: Tensor) -> Tensor:
        """Convert uint8 [n, h, w, 3] to the input of the model, [n, channels, h, w], in its precision.

        NHWC viewed as NCHW is torch's channels-last, the fastest layout for convolutions, at no cost.
        """
        x = pixels.permute(0, 3, 1, 2).float()
        if self._gray:
            # The weights are not in a buffer, because a cast to bf16 would round them.
            x = x[:, 0:1] * _LUMA[0] + x[:, 1:2] * _LUMA[1] + x[:, 2:3] * _LUMA[2]
        x = (x - self._mean) / self._std
        return x.to(next(self.model.parameters(), x).dtype)


class SequenceGraph(Graph):
    """A sequence model, preceded by the same normalisation."""

    def forward(self, pixels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """uint8 [n, t, h, w, 3] and int64 [n] to logits [n, classes] and features [n, d], float32."""
        frames = self.prepared(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        logits, features = self.model(frames, lengths)
        return logits.float(), features.float()


def build(spec: ModelSpec) -> Graph:
    """Build the model of `spec` for inference, with its weights converted to float32.

    Raises ModelError for an unknown family and for weights or labels that do not fit it.
    """
    if spec.family == PROGRAM:
        model: nn.Module = load_program(spec.weights, channels=spec.channels, size=spec.size)
    else:
        model = load_family(spec)
    graph = Graph(model, mean=spec.mean, std=spec.std, channels=spec.channels).eval().requires_grad_(False)
    classes = graph(torch.zeros((1, spec.size, spec.size, 3), dtype=torch.uint8))[0].shape[1]
    if classes != spec.classes:
        raise ModelError(f"The model tells {classes} classes apart, its record names {spec.classes} labels.")
    return graph


def load_family(spec: ModelSpec) -> nn.Module:
    """Build the module of a family of the zoo, with the weights of `spec` converted to float32.

    Raises ModelError for an unknown family and for weights that do not fit it.
    """
    model = zoo.create(spec.family, **spec.config)
    try:
        # Copying into float32 parameters converts half-precision weights.
        model.load_state_dict(load_file(spec.weights))
    except (SafetensorError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise ModelError(f"The weights {spec.weights} do not fit the family {spec.family}: {said}.") from error
    return model
