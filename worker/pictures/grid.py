"""Draw images side by side with Pillow alone: samples by class, contact sheets, pairs. Knows no model and no page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worker.pictures.lettering import shortened

_INK, _PAPER = (32, 32, 32), (255, 255, 255)

ROWS, COLUMNS = 32, 8
"""The most classes that a grid of samples shows, and how many samples of each class a panel should be given."""
SHEET_COLUMNS = 12
PAIR_COLUMNS = 4

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Panel:
    """Samples under one title; a row may be shorter than the others."""

    title: str
    rows: Sequence[Tensor]
    """For each class uint8 [columns, c, size, size], c 1 or 3, on the CPU."""


@dataclass(frozen=True)
class _Style:
    """Lengths in pixels."""

    tile: int
    """The longest side of an image: smaller images are enlarged by a whole number, larger ones are reduced."""
    gap: int
    line: int = 1
    """Between the images of a row."""
    font: int = 13
    name: int = 150
    """The most that a name may take."""

    def times(self, scale: int) -> _Style:
        return _Style(*(scale * length for length in astuple(self)))


_SAMPLES = _Style(tile=56, gap=8)
_SHEET = _Style(tile=128, gap=4, line=4)  # with its gap twice the twelfth part of 800 pixels, the width of a page
_PAIR = _Style(tile=364, gap=16, line=16, font=24, name=364)


def draw(panels: Sequence[Panel], classes: Sequence[str], *, scale: int = 1) -> Image.Image:
    """Draw the panels from left to right, with a row for each of the first 32 classes and its name on the left, RGB.

    `scale` multiplies every length, for screens with more pixels.
    """
    names = classes[:ROWS]
    columns = [max(len(row) for row in panel.rows[:ROWS]) for panel in panels]
    rows = [
        [
            _channels_last(panel.rows[place][at]) if at < len(panel.rows[place]) else None
            for panel, count in zip(panels, columns, strict=True)
            for at in range(count)
        ]
        for place in range(len(names))
    ]
    starts = np.cumsum([0, *columns[:-1]]).tolist()
    titles = {start: panel.title for start, panel in zip(starts, panels, strict=True)}
    return _compose(rows, _SAMPLES.times(scale), names=names, titles=titles)


def contact_sheet(images: Pixels) -> bytes:
    """Draw images uint8 [n, h, w, c], c 1 or 3 and n at least 1, in rows of twelve on white.

    Images of up to 128 pixels come as PNG, pixel by pixel; larger ones are reduced and come as JPEG, which takes a
    tenth of the bytes.
    """
    sheet = _compose(_in_rows(images, SHEET_COLUMNS), _SHEET)
    if images.shape[3] == 1:
        sheet = sheet.convert("L")
    return to_png(sheet) if max(images.shape[1:3]) <= _SHEET.tile else _to_jpeg(sheet)


def pairs(left: Pixels, right: Pixels, captions: Sequence[str]) -> bytes:
    """Draw images uint8 [n, h, w, c], each left of one of the same shape and above its caption, four pairs a row."""
    gap = np.full((len(left), left.shape[1], 1, left.shape[3]), 255, np.uint8)
    joined = np.concatenate([left, gap, right], axis=2)
    lines = [captions[at : at + PAIR_COLUMNS] for at in range(0, len(captions), PAIR_COLUMNS)]
    sheet = _compose(_in_rows(joined, PAIR_COLUMNS), _PAIR, captions=lines)
    return to_png(sheet) if max(joined.shape[1:3]) <= _PAIR.tile else _to_jpeg(sheet)


def to_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def _to_jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def _compose(
    rows: Sequence[Sequence[Pixels | None]],
    style: _Style,
    *,
    names: Sequence[str] = (),
    titles: dict[int, str] | None = None,
    captions: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Lay out rows of images [h, w, c] of one shape, where None leaves a gap, as one RGB image.

    `names` stand left of the rows, `captions` below the images. A column with a title begins a panel, set apart from
    the one before it.
    """
    height, width = next(one for row in rows for one in row if one is not None).shape[:2]
    side = max(height, width)
    scale = float(style.tile // side) if side <= style.tile else style.tile / side
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resampling = Image.Resampling.NEAREST if side <= style.tile else Image.Resampling.LANCZOS
    font = ImageFont.load_default(style.font)
    shown = [shortened(name, font, style.name) for name in names]
    left = 2 * style.gap + round(max(font.getlength(name) for name in shown)) if shown else 0
    top = 2 * style.gap + style.font if any((titles or {}).values()) else 0
    below = style.font + style.gap if captions else 0
    titles = titles or {}

    lefts, x = [], left
    for column in range(max(len(row) for row in rows)):
        x += style.gap if column and column in titles else 0
        lefts.append(x)
        x += size[0] + style.line
    step = size[1] + below + style.line
    margin = style.gap if shown or titles else 0
    image = Image.new("RGB", (x - style.line + margin, top + len(rows) * step - style.line + margin), _PAPER)
    pen = ImageDraw.Draw(image)
    for column, title in titles.items():
        pen.text((lefts[column], style.gap), title, _INK, font)
    for place, row in enumerate(rows):
        y = top + place * step
        if shown:
            pen.text((left - style.gap, y + size[1] // 2), shown[place], _INK, font, anchor="rm")
        for column, pixels in enumerate(row):
            if pixels is not None:
                image.paste(_image(pixels).resize(size, resampling), (lefts[column], y))
        if captions:
            for column, text in enumerate(captions[place]):
                middle = lefts[column] + size[0] // 2
                pen.text((middle, y + size[1] + 4), shortened(text, font, style.name), _INK, font, anchor="ma")
    return image


def _in_rows(images: Pixels, columns: int) -> list[list[Pixels | None]]:
    """The images in rows, the last one filled up, so that a single image does not make a narrow picture."""
    padded = [*images, *[None] * (-len(images) % columns)]
    return [padded[at : at + columns] for at in range(0, len(padded), columns)]


def _channels_last(pixels: Tensor) -> Pixels:
    found: Pixels = pixels.movedim(0, -1).contiguous().numpy()
    return found


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
