"""Converts arrays of pixels from one shape to another. It knows no files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize images [n, h, w, c], c 1 or 3, to [n, size, size, c] with Pillow's bicubic filter, unless they fit."""
    if images.shape[1:3] == (size, size):
        return images
    found = [np.asarray(_image(one).resize((size, size), Image.Resampling.BICUBIC)) for one in images]
    return np.stack(found).reshape(len(images), size, size, images.shape[3])


def rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert images [n, h, w, c], c 1 or 3, to [n, h, w, 3]."""
    return images if images.shape[3] == 3 else np.repeat(images, 3, axis=3)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
