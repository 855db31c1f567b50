"""Classifiers of small images: a residual network, and the classic three convolutions.

It knows no files. Residual: He et al. 2016 (arXiv:1512.03385), cut down as ResNet-9 is (Page 2018, "How
to train your ResNet"): a handful of wide units, each a 3×3 convolution, batch norm and ReLU.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from contract.errors import ModelError
from worker.zoo import initial

_RESIDUAL_WIDTHS = (32, 48, 96, 192)
_CLASSIC_WIDTHS = (32, 64, 128)
_CLASSIC_HIDDEN = 1024


class _Unit(nn.Sequential):
    """3×3 convolution, batch norm, ReLU; in inference the norm folds into the convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class _Block(nn.Module):
    """Two units beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.units = nn.Sequential(_Unit(width, width), _Unit(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.units(x)
        return x + y


class Residual(nn.Module):
    """At 28×28×1: 1.10 million parameters, 29 million multiply-adds. Any `size` from 16; features [n, 192].

    A unit of 32 at full size; then three times 2×2 max pooling, a unit that widens, to 48, 96 and 192, and
    a residual block; the mean over the grid, dropout, a linear layer. Only the first unit works at full
    size, where a channel costs most. Weights begin after He et al. 2015, the last layer's after LeCun et al.
    1998. Four epochs of Fashion-MNIST, one run each (±0.3 %): 91.5 % of 10,000 held-out images; strides for
    pooling and 160 for 192, 91.4 %; those strides without the last block, 90.9 %; blocks at 28, 14 and 7 of
    16, 48 and 96, 90.4 %.
    """

    def __init__(self, classes: int, channels: int, size: int, dropout: float) -> None:
        if size < 16:
            raise ModelError(f"The residual 'cnn' reads images of 16×16 pixels and more, not {size}×{size}.")
        super().__init__()
        self.body = nn.Sequential(_Unit(channels, _RESIDUAL_WIDTHS[0]))
        for inputs, outputs in pairwise(_RESIDUAL_WIDTHS):
            self.body.extend([nn.MaxPool2d(2), _Unit(inputs, outputs), _Block(outputs)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_RESIDUAL_WIDTHS[-1], classes)
        initial.he(self)
        initial.lecun(self.head)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float [n, c, size, size] to logits [n, classes] and features [n, 192]."""
        features = self.body(x).mean(dim=(2, 3))
        return self.head(self.dropout(features)), features


class Classic(nn.Module):
    """At 28×28×1: 1.28 million parameters, 8.6 million multiply-adds. Any `size` from 8; features [n, 1024].

    Three 3×3 convolutions of 32, 64 and 128, each followed by ReLU and 2×2 max pooling, a hidden layer of
    1,024, dropout, a linear layer. Weights begin after He et al. 2015, the last layer's after LeCun et al. 1998.
    """

    def __init__(self, classes: int, channels: int, size: int, dropout: float) -> None:
        if size < 8:
            raise ModelError(f"The classic 'cnn' reads images of 8×8 pixels and more, not {size}×{size}.")
        super().__init__()
        self.body = nn.Sequential()
        inputs = channels
        for outputs in _CLASSIC_WIDTHS:
            self.body.extend([nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)])
            inputs = outputs
        self.hidden = nn.Linear(inputs * (size // 2 ** len(_CLASSIC_WIDTHS)) ** 2, _CLASSIC_HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_CLASSIC_HIDDEN, classes)
        initial.he(self)
        initial.lecun(self.head)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float [n, c, size, size] to logits [n, classes] and features [n, 1024]."""
        features = functional.relu(self.hidden(self.body(x).flatten(1)))
        return self.head(self.dropout(features)), features


_VARIANTS: dict[str, type[Residual] | type[Classic]] = {"residual": Residual, "classic": Classic}


def cnn(
    classes: int, channels: int = 1, size: int = 28, variant: str = "residual", dropout: float = 0.3
) -> Residual | Classic:
    """The `variant` of a small classifier: residual, the accurate one, or classic."""
    if variant not in _VARIANTS:
        raise ModelError(f"The family 'cnn' has no variant {variant!r}; there are {' and '.join(_VARIANTS)}.")
    return _VARIANTS[variant](classes, channels, size, dropout)
