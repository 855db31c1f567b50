"""Encodes pixels as a PNG of eight bits per channel, with one filter for all rows. It knows no marks and no jobs.

ISO/IEC 15948 (the W3C's PNG specification). Pillow tries five filters a row and lets zlib look for repeats, which
photos and noise do not have.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _COLOUR = 0, 2
_UP = 2
"""The filter that stores the difference between a pixel and the one above it."""
_WINDOW_BITS, _MEMORY_LEVEL = 15, 8
"""The defaults of zlib."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def text(facts: Mapping[str, str]) -> bytes:
    """Return text chunks with keywords and values in Latin-1 (section 11.3.3.2)."""
    return b"".join(chunk(b"tEXt", f"{key}\0{value}".encode("latin-1")) for key, value in facts.items())


_END = chunk(b"IEND", b"")


def png(pixels: NDArray[np.uint8], between: bytes = b"") -> bytes:
    """Encode an image, uint8 [h, w, c] with c 1 or 3; the chunks `between` precede its pixels.

    Differences to the row above are run-length and Huffman coded (`Z_RLE`, which zlib has for PNG). One core writes a
    gray image of 28 × 28 in 28 µs (Pillow at level 1: 54), and a colour image of 112 × 112 in 0.34 ms (1.0). Files are
    6 % larger at 28 × 28 (Fashion-MNIST), and as large at 112 × 112 (photos).
    """
    height, width, channels = pixels.shape
    rows = np.empty((height, 1 + width * channels), np.uint8)
    flat = pixels.reshape(height, -1)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_RLE)
    packed = packer.compress(rows.data) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _GRAY if channels == 1 else _COLOUR, 0, 0, 0)
    return b"".join((_SIGNATURE, chunk(b"IHDR", header), between, chunk(b"IDAT", packed), _END))
