"""Names on pictures. It knows no picture."""

from __future__ import annotations

from PIL import ImageFont


def shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """What of a name fits into `width` pixels on one line, with … where it was cut."""
    short = " ".join(name.split())
    while font.getlength(short) > width:
        short = short.removesuffix("…")[:-1] + "…"
    return short
