"""A PNG of ours holds, for whoever reads it, the pixels that went in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from worker.engine.images.png import png, text


@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 28, 1), (28, 28, 3), (5, 3, 1), (2, 7, 3), (300, 200, 3)])
@pytest.mark.parametrize("levels", [256, 2, 1])
def test_pillow_reads_the_pixels_back(shape: tuple[int, int, int], levels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, levels, shape, np.uint8) * (255 // max(levels - 1, 1))
    with Image.open(io.BytesIO(png(pixels.astype(np.uint8)))) as image:
        image.verify()  # every checksum
    with Image.open(io.BytesIO(png(pixels.astype(np.uint8)))) as image:
        assert image.mode == ("L" if shape[2] == 1 else "RGB")
        assert np.array_equal(np.asarray(image).reshape(shape), pixels)


def test_rows_and_columns_in_any_layout_of_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 14, 28), np.uint8).transpose(1, 2, 0)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_text_is_read_back() -> None:
    facts = {"Software": "Imagemill", "Comment": "a naïve one"}
    with Image.open(io.BytesIO(png(np.zeros((2, 2, 1), np.uint8), text(facts)))) as image:
        assert image.info == facts
