"""Draws images side by side with Pillow alone: a row a class, panels next to each other. It knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worker.pictures.lettering import shortened

_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_FONT = 13  # pixels
_GAP, _LINE = 8, 1
_NAME = 150  # pixels that a class name may take
_TILE = 56  # pixels; smaller images are enlarged by a whole number

ROWS, COLUMNS = 32, 8
"""Classes that a grid shows at most, and how many images of each a panel is best given."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Images under one title; a row may have fewer than another."""

    title: str
    rows: Sequence[Tensor]
    """Of each class uint8 [columns, c, size, size], c 1 or 3, on the CPU."""


def draw(panels: Sequence[Panel], classes: Sequence[str]) -> Image.Image:
    """The panels from left to right, RGB, with the class names before them; all but the first 32 classes left out."""
    classes = classes[:ROWS]
    size = panels[0].rows[0].shape[-1]
    tile = size * max(1, _TILE // size)
    font = ImageFont.load_default(_FONT)
    names = [shortened(name, font, _NAME) for name in classes]
    left = _GAP + round(max(font.getlength(name) for name in names)) + _GAP
    top = _GAP + _FONT + _GAP
    columns = [max(len(row) for row in panel.rows[:ROWS]) for panel in panels]
    wide = [count * (tile + _LINE) + _GAP for count in columns]
    image = Image.new("RGB", (left + sum(wide), top + len(names) * (tile + _LINE) + _GAP), _PAPER)
    pen = ImageDraw.Draw(image)
    for place, name in enumerate(names):
        pen.text((left - _GAP, top + place * (tile + _LINE) + tile // 2), name, _INK, font, anchor="rm")
    for panel, width in zip(panels, wide, strict=True):
        pen.text((left, _GAP), panel.title, _INK, font)
        for place, row in enumerate(panel.rows[:ROWS]):
            for column, pixels in enumerate(row):
                at = (left + column * (tile + _LINE), top + place * (tile + _LINE))
                image.paste(_image(pixels).resize((tile, tile), Image.Resampling.NEAREST), at)
        left += width
    return image


def _image(pixels: Tensor) -> Image.Image:
    """uint8 [c, size, size] as an image."""
    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.movedim(0, -1).contiguous().numpy())
