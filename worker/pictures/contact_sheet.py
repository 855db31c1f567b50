"""A contact sheet: images of one class, side by side in rows, as a picture file. It knows no page."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = 12
_GAP = 4  # pixels
_TILE = 128  # with its gap twice what one of twelve has of 800 pixels on a page


def draw(images: NDArray[np.uint8]) -> bytes:
    """Images uint8 [n, h, w, c], c 1 or 3 and n at least 1, in rows of twelve, on white.

    Small ones are enlarged by a whole number and come as PNG, pixel by pixel; large ones are made smaller and come as
    JPEG, a tenth of the bytes.
    """
    n, height, width, channels = images.shape
    side = max(height, width)
    exact = side <= _TILE
    scale = float(_TILE // side) if exact else _TILE / side
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = size[0] + _GAP, size[1] + _GAP
    mode = "L" if channels == 1 else "RGB"
    sheet = Image.new(mode, (COLUMNS * step[0] - _GAP, math.ceil(n / COLUMNS) * step[1] - _GAP), "white")
    for at, pixels in enumerate(images):
        tile = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
        tile = tile.resize(size, Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS)
        sheet.paste(tile, (at % COLUMNS * step[0], at // COLUMNS * step[1]))
    sink = io.BytesIO()
    if exact:
        sheet.save(sink, "PNG")
    else:
        sheet.save(sink, "JPEG", quality=90)
    return sink.getvalue()
