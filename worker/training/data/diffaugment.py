"""DiffAugment: what the discriminator sees, real or generated, is changed at random, and gradients pass through.

Zhao et al. 2020, arXiv:2006.10738, with the ranges of the paper. It keeps a discriminator from learning its
data by heart. Images are float [b, c, h, w] in −1..1, on the device of the generator; each draws its own change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from contract.errors import InvalidSettings

_REACH = 8  # the side by this is how far an image moves, each way
_HOLE = 2  # the side by this is that of the square


def policies(text: str) -> tuple[str, ...]:
    """Return the names in `translation,cutout`; raises InvalidSettings for an unknown one."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in _POLICIES:
            raise InvalidSettings(f"augment={text}: there is no {name!r}; take any of {','.join(_POLICIES)}, or none.")
    return names


def augmented(images: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """Return the images after each policy, in the order of the names."""
    for name in names:
        images = _POLICIES[name](images, generator)
    return images


def color(images: Tensor, generator: Generator) -> Tensor:
    """Brightness ± 0.5, then saturation 0 to 2 times (of gray: none), then contrast 0.5 to 1.5 times that it was."""
    brightness, saturation, contrast = torch.rand(
        (3, len(images), 1, 1, 1), generator=generator, device=images.device, dtype=images.dtype
    )
    images = images + (brightness - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = torch.lerp(gray, images, 2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translation(images: Tensor, generator: Generator) -> Tensor:
    """Shifted by at most an eighth of the side along both axes; what comes in is 0."""
    b, c, height, width = images.shape
    rows, inside_rows = _shifted(height, b, generator)
    columns, inside_columns = _shifted(width, b, generator)
    # One gather for both axes, whose backward adds what comes back to each pixel.
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    moved = images.flatten(2).gather(2, places[:, None].expand(b, c, -1)).view_as(images)
    return moved * (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]


def cutout(images: Tensor, generator: Generator) -> Tensor:
    """Set a square of half the side to 0, its middle anywhere in the image, clipped at the edges."""
    b, _, height, width = images.shape
    rows, columns = _stretch(height, b, generator), _stretch(width, b, generator)
    return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]


def _shifted(length: int, b: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Where the pixels of an axis come from, int64 [b, length], kept inside, and whether it was inside, bool."""
    reach = length // _REACH
    shifts = torch.randint(-reach, reach + 1, (b, 1), generator=generator, device=generator.device)
    places = torch.arange(length, device=generator.device) + shifts
    return places.clamp(0, length - 1), (places >= 0) & (places < length)


def _stretch(length: int, b: int, generator: Generator) -> Tensor:
    """Return the pixels of an axis that the hole covers, bool [b, length]."""
    extent = length // _HOLE
    middle = torch.randint(0, length + 1 - extent % 2, (b, 1), generator=generator, device=generator.device)
    place = torch.arange(length, device=generator.device) - (middle - extent // 2)
    return (place >= 0) & (place < extent)


_POLICIES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}
