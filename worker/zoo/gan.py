"""A class-conditional generator of images, the classic transposed-convolution one, and its discriminator.

It knows no losses. DCGAN (Radford et al. 2016, arXiv:1511.06434) on a 7×7 grid; the class enters the
generator by conditional batch norm (de Vries et al. 2017, arXiv:1707.00683) and the discriminator by a
projection (Miyato & Koyama 2018, arXiv:1802.05637).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm as spectral

from contract.errors import ModelError

_GRID = 7
_STD = 0.02
_LEAST_VARIANCE = 1e-4
"""Under the root, whose slope at 0 has no bound."""
_WIDTHS = {7: 256, 14: 64, 28: 64}  # channels by the side of a map; half as many at each doubling after, 16 at least


def _sides(size: int) -> tuple[int, ...]:
    """7, 14, 28, … size. Raises ModelError where no doubling of 7 gives size."""
    sides = [_GRID]
    while sides[-1] < size:
        sides.append(2 * sides[-1])
    if sides[-1] != size or size == _GRID:
        raise ModelError(f"The family 'gan' makes images of 14, 28, 56, 112, … pixels a side (7 · 2^k), not {size}.")
    return tuple(sides)


def _width(side: int) -> int:
    return _WIDTHS.get(side) or max(_width(side // 2) // 2, 16)


def _begin(model: nn.Module) -> None:
    """Weights of convolutions and linear layers from N(0, 0.02²), biases 0 (Radford et al. 2016, section 3)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, std=_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class _ConditionalNorm(nn.Module):
    """Batch norm with a gain, kept as its distance from 1, and a shift for each class, then ReLU.

    Both begin at N(0, 1): the classes differ from the first step on. From N(0, 0.02²), 14 × 14 pixels, 892 steps,
    the judge takes 28 % of the images for their class; see docs/log.md.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.classes = nn.Embedding(classes, 2 * channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.norm(x)
        # In the dtype of x: under autocast a gain in fp32 would widen the whole map.
        gain, shift = self.classes(y)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return functional.relu(torch.addcmul(shift, x, 1 + gain), inplace=True)


class Generator(nn.Module):
    """At 28×28×1 from a latent of 100: 1.78 million parameters, 43 million multiply-adds.

    A linear layer to 7×7×256, a transposed 5×5 convolution of stride 2 a doubling (64 channels at 14 and
    28), each behind conditional batch norm and ReLU, and one of stride 1 and tanh to the pixels: a last
    layer of stride 2 would leave its checkerboard on the image (Odena et al. 2016).
    """

    def __init__(self, classes: int, channels: int = 1, size: int = 28, latent: int = 100) -> None:
        sides = _sides(size)
        super().__init__()
        self.latent = latent
        self.project = nn.Linear(latent, _GRID * _GRID * _width(_GRID), bias=False)
        self.norms = nn.ModuleList(_ConditionalNorm(_width(side), classes) for side in sides)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(_width(low), _width(high), 5, stride=2, padding=2, output_padding=1, bias=False)
            for low, high in pairwise(sides)
        )
        self.pixels = nn.ConvTranspose2d(_width(size), channels, 5, padding=2)
        _begin(self)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Standard normal [n, latent] and classes, int64 [n], to images [n, c, size, size] in −1..1."""
        return self.decode(z, y)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """As `forward`."""
        # NHWC seen as NCHW, so that all maps after it are channels-last.
        x = self.project(z).view(-1, _GRID, _GRID, _width(_GRID)).permute(0, 3, 1, 2)
        x = self.norms[0](x, y)
        for up, norm in zip(self.ups, self.norms[1:], strict=True):
            x = norm(up(x), y)
        return torch.tanh(self.pixels(x))


class _MinibatchStddev(nn.Module):
    """Shows a discriminator how much the images of a class differ: what no image tells of itself.

    Minibatch standard deviation (Karras et al. 2018, arXiv:1710.10196, section 3), but of each feature and each class:
    of many classes one number for all would tell how they differ. A 1×1 convolution takes both, and leaky ReLU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, y: Tensor, sets: int) -> Tensor:
        spread = torch.cat([_spread(*part) for part in zip(x.chunk(sets), y.chunk(sets), strict=True)])
        return functional.leaky_relu(self.mix(torch.cat([x, spread.to(x.dtype)], dim=1)), 0.2, inplace=True)


def _spread(x: Tensor, y: Tensor) -> Tensor:
    """For each image the standard deviation of all features [n, c, h, w] over the images of its class, float32."""
    _, of, images = y.unique(return_inverse=True, return_counts=True)
    flat, count = x.float().flatten(1), images[:, None].float()
    zeros = flat.new_zeros(len(images), flat.shape[1])
    # In two passes: the difference of two means of squares is noise where features hardly differ.
    apart = flat - (zeros.index_add(0, of, flat) / count)[of]
    spread = (zeros.index_add(0, of, apart.square()) / count + _LEAST_VARIANCE).sqrt()
    found: Tensor = spread[of].view_as(x)
    return found


class Discriminator(nn.Module):
    """Made by `discriminator`; at 28×28×1: 0.46 million parameters, 32 million multiply-adds, and 0.33 and 26 without
    `minibatch_stddev`.
    """

    def __init__(self, classes: int, channels: int, size: int, spectral_norm: bool, minibatch_stddev: bool) -> None:
        sides = _sides(size)[::-1]
        super().__init__()
        layers = [nn.Conv2d(channels, _width(size), 3, padding=1)]
        layers += [nn.Conv2d(_width(high), _width(low), 4, stride=2, padding=1) for high, low in pairwise(sides)]
        width = _width(_GRID)
        self.layers = nn.ModuleList(layers)
        self.stddev = _MinibatchStddev(width) if minibatch_stddev else None
        self.score = nn.Linear(width, 1)
        self.classes = nn.Embedding(classes, width)
        _begin(self)
        nn.init.normal_(self.classes.weight, std=_STD)
        if spectral_norm:
            for layer in (*self.layers, *([self.stddev.mix] if self.stddev else ()), self.score, self.classes):
                spectral(layer)

    def forward(self, x: Tensor, y: Tensor, sets: int = 1) -> Tensor:
        """Images [n, c, size, size] in −1..1 and their classes, int64 [n], to scores [n]; real is above 0.

        Of several `sets` of n / sets images, one after the other, each is scored as if it were alone.
        """
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2, inplace=True)
        if self.stddev is not None:
            x = self.stddev(x, y, sets)
        features = x.sum(dim=(2, 3))
        any_class: Tensor = self.score(features).squeeze(1)
        its_class: Tensor = (self.classes(y) * features).sum(dim=1)
        return any_class + its_class


def discriminator(
    classes: int, channels: int = 1, size: int = 28, spectral_norm: bool = True, minibatch_stddev: bool = True
) -> Discriminator:
    """The discriminator that the generator of the same config is trained against; never published.

    The generator's mirror: 3×3 at full size, then 4×4 convolutions of stride 2 (taps that the stride
    divides weigh all pixels alike) down to 7×7, leaky ReLU of 0.2, the sum over the grid, and for the
    class the inner product with an embedding. No batch norm: real and generated images would be told
    apart by it. `minibatch_stddev` shows it how much the images of a class differ; `spectral_norm` holds each
    layer's largest singular value at 1 (Miyato et al. 2018, arXiv:1802.05957), by one power iteration
    a forward pass in training.
    """
    return Discriminator(classes, channels, size, spectral_norm, minibatch_stddev)
