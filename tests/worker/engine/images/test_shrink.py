"""Large images are converted strip by strip, and the pixels are those of converting them whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from worker.engine.images import shrink

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (301, 403, 4), np.uint8)


def made(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(RANDOM.integers(0, 65536, (301, 403), np.uint16))
    if mode == "I":
        return Image.fromarray(RANDOM.integers(-9, 10**6, (301, 403), np.int32))
    if mode in ("F", "F of 1"):
        values = RANDOM.random((301, 403), np.float32)
        values[0, 0] = np.nan
        return Image.fromarray(values if mode == "F of 1" else 1000 * values - 3)
    if mode == "P, transparent":
        image = Image.fromarray(NOISE[..., :3]).quantize(64)
        image.info["transparency"] = 3
        return image
    if mode == "RGB, transparent":
        image = Image.fromarray(NOISE[..., :3])
        image.info["transparency"] = (1, 2, 3)
        return image
    return Image.fromarray(NOISE).convert("RGB" if mode in ("P", "1", "YCbCr") else "RGBA").convert(mode)


MODES = (
    *("I;16", "I", "F", "F of 1", "P", "P, transparent", "RGB, transparent"),
    *("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("crop", [0.875, 1.0])
@pytest.mark.parametrize("shape", [(403, 301), (1209, 40), (303, 1209)])
def test_strips_change_no_pixel(
    mode: str, crop: float, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = made(mode)
    if shape != image.size:  # very wide and very tall
        width, height = shape
        tiled = Image.new(image.mode, shape)
        for left in range(0, width, image.width):
            for top in range(0, height, image.height):
                tiled.paste(image, (left, top))
        tiled.info = image.info
        if image.mode == "P":
            tiled.putpalette(image.getpalette() or ())
        image = tiled
    whole = np.asarray(shrink.shrunk(image, 64, crop, Image.Resampling.BICUBIC))
    monkeypatch.setattr(shrink, "STRIP", 7 * image.width)
    in_strips = np.asarray(shrink.shrunk(image, 64, crop, Image.Resampling.BICUBIC))
    apart = np.abs(in_strips.astype(int) - whole)
    assert apart.mean() < 0.5 if image.height > 2 * image.width else not apart.any()


def test_sixteen_bits_become_eight() -> None:
    image = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    assert np.asarray(shrink.shrunk(image, 4, 1.0, Image.Resampling.BICUBIC)).tolist() == [[255] * 4] * 4
