"""Says from a file's header how many bytes decoding it takes, Pillow's own copies and the decoder's buffers included.

The bytes per pixel were measured as peaks of the resident memory with Pillow 13.0, on images of 25 megapixels.
"""

from __future__ import annotations

import struct

from PIL import Image, TiffImagePlugin

from worker.engine.images.shrink import STRIP

_ROW = 8
"""Bytes of a row's pointer; they count in an image one pixel wide."""
_CONVERTING = 20
"""Bytes a pixel of a strip that is converted: from 16 bits by way of float32."""
_WEBP = 17
"""Two canvases in RGBA, the decoder's own pixels, the bytes that it returns, and Pillow's image."""
_AVIF = 20
"""Planes of up to 16 bits, RGBA, the bytes that are returned, and Pillow's image; 9 to 12 were measured at 8 bits."""
_GIF_FRAMES = 14
"""From the second frame on: the frame, what it is drawn on, and what the next one needs."""
_ICO = 12
"""An image and its mask, each with a copy."""
_IN_PYTHON = 8
"""Formats that Pillow decodes in Python, to a bytearray first."""
_PNG = b"\x89PNG\r\n\x1a\n"


def size_before_opening(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a file whose decoder takes memory when it is opened; None for all other formats."""
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] == b"\0\0\1\0":
            return _ico(data)
    except struct.error:  # it ends within its header, and the decoder says so
        return None
    return None


def on_opening(data: bytes, width: int, height: int) -> int:
    """Return the bytes of opening and decoding such a file."""
    return (_WEBP if data[:4] == b"RIFF" else _ICO) * width * height + _rest(width, height)


def of(image: Image.Image, data: bytes, full: tuple[int, int], *, frames: bool) -> int:
    """Return the bytes of decoding an open image to what a model takes.

    `full` is its size in the file, which is more than `image.size` if it is reduced at decoding; with `frames`, more
    than the first frame is decoded.
    """
    width, height = image.size
    pixels = width * height
    tiles = getattr(image, "tile", None)
    codec = tiles[0].codec_name if tiles else ""
    if image.format == "AVIF":
        most = _AVIF * pixels
    elif image.format == "GIF" and frames:
        most = _GIF_FRAMES * pixels
    else:
        most = _per_pixel(image.mode) * pixels
    if image.format in ("JPEG", "MPO"):
        most += _coefficients(image, data, full)
    elif image.format == "TIFF" and codec == "libtiff":
        most += _block(image)
    elif codec in ("bmp_rle", "ppm", "ppm_plain"):
        most += _IN_PYTHON * pixels
    return most + _rest(width, height)


def _rest(width: int, height: int) -> int:
    return _ROW * height + _CONVERTING * min(width * height, STRIP)


def _per_pixel(mode: str) -> int:
    """Return the bytes in which Pillow keeps a pixel."""
    if mode in ("1", "L", "P"):
        return 1
    return 2 if mode.startswith("I;16") else 4


def _coefficients(image: Image.Image, data: bytes, full: tuple[int, int]) -> int:
    """Return the bytes of a JPEG's coefficients; libjpeg keeps all, at full size, if there are several scans."""
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    progressive = "progressive" in image.info or "progression" in image.info
    if not layers or not (progressive or _of_first_scan(image, data) < len(layers)):
        return 0
    widest, highest = max(layer[1] for layer in layers), max(layer[2] for layer in layers)
    shares = sum(across * down for _, across, down, _ in layers) / max(1, widest * highest)
    return int(2 * shares * (full[0] + 8 * widest) * (full[1] + 8 * highest))


def _of_first_scan(image: Image.Image, data: bytes) -> int:
    """Return how many components the first scan of a JPEG has; Pillow stops reading behind the scan's header."""
    at = image.fp.tell() if getattr(image, "fp", None) else 0  # type: ignore[attr-defined]
    for count in range(1, 5):
        start = at - (8 + 2 * count)
        if start >= 0 and data[start : start + 5] == b"\xff\xda" + struct.pack(">HB", 6 + 2 * count, count):
            return count
    return 0  # not found: the worst is assumed


def _block(image: Image.Image) -> int:
    """Return the bytes of a strip or tile of a compressed TIFF, which libtiff decodes as a whole."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        value = max(value, default=default) if isinstance(value, tuple) else value
        return value if isinstance(value, int) and value > 0 else default

    width, height = image.size
    bits = number(TiffImagePlugin.BITSPERSAMPLE, 8) * number(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    across = min(number(_TILE_WIDTH, width), 2 * width + 64)
    down = number(_TILE_LENGTH, number(TiffImagePlugin.ROWSPERSTRIP, height))
    return across * min(down, height + 64) * max(4, (bits + 7) // 8)


_TILE_WIDTH, _TILE_LENGTH = 322, 323


def _webp(data: bytes) -> tuple[int, int] | None:
    """Read the canvas of a WebP: RFC 9649, sections 2.5 to 2.7."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        wide, high = data[24:27], data[27:30]
        return int.from_bytes(wide, "little") + 1, int.from_bytes(high, "little") + 1
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _ico(data: bytes) -> tuple[int, int] | None:
    """Read the largest image of an icon; what its directory says may be wrong, and Pillow believes the image."""
    (count,) = struct.unpack_from("<H", data, 4)
    found: tuple[int, int] | None = None
    for number in range(min(count, (len(data) - 6) // 16)):
        (start,) = struct.unpack_from("<I", data, 6 + 16 * number + 12)
        if data[start : start + 8] == _PNG:
            size = struct.unpack_from(">II", data, start + 16)
        else:
            wide, high = struct.unpack_from("<ii", data, start + 4)  # the height is that of image and mask together
            size = abs(wide), (abs(high) + 1) // 2
        if found is None or size[0] * size[1] > found[0] * found[1]:
            found = int(size[0]), int(size[1])
    return found
