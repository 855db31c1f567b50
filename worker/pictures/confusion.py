"""Draw a confusion matrix with Pillow alone. Knows no model and no page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.pictures.lettering import shortened

_INK, _PAPER, _FRAME = (32, 32, 32), (255, 255, 255), (192, 192, 192)
_FULL = (8, 69, 148)  # a cell that holds all examples of its class
_FONT, _LINE, _SMALL, _GAP = 13, 16, 11, 8  # pixels
_NAME = 150  # the most pixels that a class name may take
_MATRIX, _CELL = 640, 56  # side of the matrix unless its cells need more or less, and of the largest cell
_TRUE = "true class"
_KEY = (0.0, 0.01, 0.05, 0.25, 0.5, 1.0)  # shares that the key names

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(counts: NDArray[np.int64], classes: Sequence[str], *, scale: int = 1) -> Image.Image:
    """Draw `counts` int64 [k, k], rows the true classes and columns the predicted ones, as RGB.

    A cell is the darker the larger its share of its row, and shows its count where there is room; a key below tells
    the shares. With many classes only every second, third, … name is shown. `scale` multiplies every length, for
    screens with more pixels.
    """
    k = len(classes)
    cell = min(max(_MATRIX * scale // k, 1), _CELL * scale)
    side, gap, line = k * cell, _GAP * scale, _LINE * scale
    font = ImageFont.load_default(_FONT * scale)
    shown = {place: shortened(classes[place], font, _NAME * scale) for place in range(0, k, -(-line // cell))}
    names = round(max(font.getlength(name) for name in shown.values()))
    left = top = gap + line + gap + names + gap
    image = Image.new("RGB", (left + max(side, 20 * line) + gap, top + side + gap + 3 * line + gap), _PAPER)
    image.paste(_shades(counts).resize((side, side), Image.Resampling.NEAREST), (left, top))
    pen = ImageDraw.Draw(image)

    pen.rectangle((left - 1, top - 1, left + side, top + side), outline=_FRAME)
    pen.text((left + side / 2, gap), "predicted class", _INK, font, anchor="ma")
    _upright(image, _TRUE, font, x=gap, bottom=top + (side + round(font.getlength(_TRUE))) // 2, line=line)
    for place, name in shown.items():
        middle = place * cell + cell // 2
        pen.text((left - gap, top + middle), name, _INK, font, anchor="rm")
        _upright(image, name, font, x=left + middle - line // 2, bottom=top - gap, line=line)
    small = ImageFont.load_default(_SMALL * scale)
    if small.getlength(f"{counts.max():,}") + 4 * scale <= cell:
        for row, column in np.argwhere(counts):
            count = counts[row, column]
            # White on what is dark by the root of its share.
            ink = _PAPER if 4 * count > counts[row].sum() else _INK
            pen.text((left + (column + 0.5) * cell, top + (row + 0.5) * cell), f"{count:,}", ink, small, anchor="mm")
    _key(image, small, left=left, top=top + side + gap, width=3 * line, height=line)
    return image


def _key(image: Image.Image, font: _Font, *, left: int, top: int, width: int, height: int) -> None:
    """Boxes in the colours of some shares, with the share below each."""
    pen = ImageDraw.Draw(image)
    for at, share in enumerate(_KEY):
        x = left + at * width
        pen.rectangle((x, top, x + width - 1, top + height), fill=_colour(share), outline=_FRAME)
        pen.text((x + width / 2, top + height + height // 4), f"{100 * share:g} %", _INK, font, anchor="ma")
    pen.text((left, top + 3 * height), "share of the true class", _INK, font, anchor="ls")


def _shades(counts: NDArray[np.int64]) -> Image.Image:
    """A pixel for each cell, coloured by its share of the row."""
    ramp = np.array([_colour((at / 255) ** 2) for at in range(256)], np.uint8)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return Image.fromarray(ramp[np.rint(255.0 * np.sqrt(shares)).astype(np.uint8)])


def _colour(share: float) -> tuple[int, int, int]:
    """From paper to full by the root of the share, so that one mistake in a hundred still shows."""
    strength = float(np.sqrt(share))
    red, green, blue = (
        round(paper * (1 - strength) + full * strength) for paper, full in zip(_PAPER, _FULL, strict=True)
    )
    return red, green, blue


def _upright(image: Image.Image, text: str, font: _Font, *, x: int, bottom: int, line: int) -> None:
    """Write text that reads upwards from `bottom`, in a line of this height whose left edge is `x`."""
    strip = Image.new("RGB", (round(font.getlength(text)) + 2, line), _PAPER)
    ImageDraw.Draw(strip).text((0, line // 2), text, _INK, font, anchor="lm")
    image.paste(strip.transpose(Image.Transpose.ROTATE_90), (x, bottom - strip.width))
