"""Draws a confusion matrix, with Pillow alone; it knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.pictures.lettering import shortened

_INK, _PAPER, _FRAME = (32, 32, 32), (255, 255, 255), (192, 192, 192)
_FULL = (8, 69, 148)  # of a cell that holds all examples of its class
_FONT, _LINE, _SMALL, _GAP = 13, 16, 11, 8  # pixels
_NAME = 150  # that a class name may take
_MATRIX, _CELL = 640, 56  # side of the matrix where its cells need no more or less, and of the largest cell

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(counts: NDArray[np.int64], classes: Sequence[str]) -> Image.Image:
    """The picture of `counts` int64 [k, k], rows the true classes, columns the predicted ones, RGB.

    A cell is the darker the larger its share of its row, and tells its count where there is room. With many classes
    every second, third, … name is left out.
    """
    k = len(classes)
    cell = min(max(_MATRIX // k, 1), _CELL)
    side = k * cell
    font = ImageFont.load_default(_FONT)
    shown = {place: shortened(classes[place], font, _NAME) for place in range(0, k, -(-_LINE // cell))}
    names = round(max(font.getlength(name) for name in shown.values()))
    left = top = _GAP + _LINE + _GAP + names + _GAP
    image = Image.new("RGB", (left + side + _GAP, top + side + _GAP), _PAPER)
    image.paste(_shades(counts).resize((side, side), Image.Resampling.NEAREST), (left, top))
    pen = ImageDraw.Draw(image)

    pen.rectangle((left - 1, top - 1, left + side, top + side), outline=_FRAME)
    pen.text((left + side / 2, _GAP), "predicted", _INK, font, anchor="ma")
    _upright(image, "true", font, x=_GAP, bottom=top + (side + round(font.getlength("true"))) // 2)
    for place, name in shown.items():
        middle = place * cell + cell // 2
        pen.text((left - _GAP, top + middle), name, _INK, font, anchor="rm")
        _upright(image, name, font, x=left + middle - _LINE // 2, bottom=top - _GAP)
    small = ImageFont.load_default(_SMALL)
    if small.getlength(str(counts.max())) + 4 <= cell:
        for row, column in np.argwhere(counts):
            count, ink = counts[row, column], _PAPER if 2 * counts[row, column] > counts[row].sum() else _INK
            pen.text((left + (column + 0.5) * cell, top + (row + 0.5) * cell), str(count), ink, small, anchor="mm")
    return image


def _shades(counts: NDArray[np.int64]) -> Image.Image:
    """A pixel a cell, from paper to full by the root of its share, so that one mistake in a hundred still shows."""
    ramp = np.linspace(0.0, 1.0, 256)[:, None]
    colours = np.rint(np.array(_PAPER) * (1.0 - ramp) + np.array(_FULL) * ramp).astype(np.uint8)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return Image.fromarray(colours[np.rint(255.0 * np.sqrt(shares)).astype(np.uint8)])


def _upright(image: Image.Image, text: str, font: _Font, *, x: int, bottom: int) -> None:
    """Text that reads upwards from `bottom`, in a line whose left edge is `x`."""
    line = Image.new("RGB", (round(font.getlength(text)) + 2, _LINE), _PAPER)
    ImageDraw.Draw(line).text((0, _LINE // 2), text, _INK, font, anchor="lm")
    image.paste(line.transpose(Image.Transpose.ROTATE_90), (x, bottom - line.width))
