"""Tells by its first bytes what image a file is and how large it claims to be, without decoding anything."""

from __future__ import annotations

import re
import struct

_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
"""Markers of a JPEG that are followed by its size (ITU T.81, table B.1)."""
_MOST_SEGMENTS = 1000
_FILL = re.compile(rb"\xff+")
"""What a marker of a JPEG begins with: any number of fill bytes, of which the last is its own (T.81, B.1.1.2)."""


def kind_of(data: bytes) -> str:
    """Return the media type of an image that browsers decode, by its first bytes; empty for anything else.

    SVG is not among them: it is a page that can hold scripts.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    for start, kind in (
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"BM", "image/bmp"),
        (b"\x00\x00\x01\x00", "image/x-icon"),
    ):
        if data.startswith(start):
            return kind
    return ""


def pixels_of(data: bytes) -> int:
    """Return how many pixels the header of an image claims; 0 if it does not say."""
    try:
        width, height = _size(data, kind_of(data))
    except (struct.error, IndexError):
        return 0
    return abs(width * height)


def _size(data: bytes, kind: str) -> tuple[int, int]:
    if kind == "image/png":
        return struct.unpack_from(">II", data, 16)
    if kind == "image/gif":
        return struct.unpack_from("<HH", data, 6)
    if kind == "image/bmp":
        old = struct.unpack_from("<I", data, 14)[0] == 12
        return struct.unpack_from("<HH" if old else "<ii", data, 18)
    if kind == "image/webp":
        return _webp(data)
    if kind == "image/jpeg":
        return _jpeg(data)
    if kind == "image/avif" and (at := data.find(b"ispe", 0, 2**16)) >= 0:
        return struct.unpack_from(">II", data, at + 8)
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        fill = _FILL.match(data, at)
        if fill is None:
            break
        at = fill.end() - 1
        if data[at + 1] in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0, 0
