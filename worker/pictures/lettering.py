"""Fit names into pictures. Knows no picture."""

from __future__ import annotations

from PIL import ImageFont


def shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Truncate `name` to `width` pixels on one line, with an ellipsis."""
    short = " ".join(name.split())
    while font.getlength(short) > width:
        short = short.removesuffix("…")[:-1] + "…"
    return short
