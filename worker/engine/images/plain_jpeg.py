"""Tells JPEG files that Pillow is certain to decode, by their structure, without decoding them.

A decoder on a GPU may refuse a file that Pillow accepts, which Pillow decodes then. The reverse must not happen, or
what is an error would depend on the machine. So such a decoder is given only files of which every table and every
segment is as libjpeg demands, and whose one scan reaches the end of the image: there libjpeg warns and goes on, but
never fails. What Pillow reads before, such as EXIF, it has to read as well (`decode.plain_header`).

ITU-T T.81, annex B; the demands are those of libjpeg-turbo's jdmarker.c, jdhuff.c and jdinput.c, and of Pillow, which
fails where the data ends before the marker of the end.
"""

from __future__ import annotations

import re

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_SOF0, _DHT, _SOS, _DQT, _DRI, _COM = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_ADOBE = 0xEE
_YCC = 1
"""Adobe's transform of luma and chroma; 0 is RGB."""
_SAMPLING = {0x11, 0x21, 0x12, 0x22}
"""Sampling factors of the luma, horizontal and vertical: 4:4:4, 4:2:2, 4:4:0 and 4:2:0."""
_MARKER = re.compile(rb"\xff[^\x00]", re.DOTALL)
_MARKER_OR_RESTART = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)


def is_plain(data: bytes) -> bool:
    """Return whether these are the bytes of a baseline JPEG, gray or luma and chroma, in one whole scan."""
    try:
        return data.startswith(_SOI) and _is_plain(data)
    except IndexError:  # it ends before it should
        return False


def _is_plain(data: bytes) -> bool:
    quantizers: set[int] = set()
    coders: set[int] = set()
    frame, restarts, ycc = b"", False, True
    at = len(_SOI)
    while True:
        if data[at] != 0xFF:
            return False
        kind, length = data[at + 1], 256 * data[at + 2] + data[at + 3]
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            return False
        at += 2 + length
        if kind == _SOS:
            if not (frame and ycc and _is_whole_scan(body, frame, quantizers, coders)):
                return False
            found = (_MARKER_OR_RESTART if restarts else _MARKER).search(data, at)
            return found is not None and found[0] == _EOI
        if kind == _DQT:
            if not _read_quantizers(body, quantizers):
                return False
        elif kind == _DHT:
            if not _read_coders(body, coders):
                return False
        elif kind == _SOF0:
            if frame or not _is_frame(body):
                return False
            frame = body
        elif kind == _DRI:
            if len(body) != 2:
                return False
            restarts = body != b"\0\0"
        elif kind == _ADOBE and body.startswith(b"Adobe"):
            ycc = len(body) == 12 and body[11] == _YCC
        elif kind != _COM and kind not in _APPLICATION:
            return False


def _read_quantizers(body: bytes, known: set[int]) -> bool:
    """Note tables of 64 bytes; those of two bytes each are not baseline."""
    if not body or len(body) % 65:
        return False
    names = body[::65]
    known.update(names)
    return max(names) <= 3


def _read_coders(body: bytes, known: set[int]) -> bool:
    """Note Huffman tables: a byte of class and name, 16 counts of codes by length, and what each code means."""
    at = 0
    while at < len(body):
        name, counts = body[at], body[at + 1 : at + 17]
        total = sum(counts)
        symbols = body[at + 17 : at + 17 + total]
        if name not in (0x00, 0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13):
            return False
        if len(counts) != 16 or not 0 < total <= 256 or len(symbols) != total:
            return False
        if name < 0x10 and max(symbols) > 15:
            return False
        code = 0
        for length, count in enumerate(counts, 1):
            code += count
            if count and code > (1 << length) - 1:  # a code of ones alone is reserved
                return False
            code <<= 1
        known.add(name)
        at += 17 + total
    return at > 0


def _is_frame(body: bytes) -> bool:
    """Return whether a frame has eight bits, an extent, and the components of a gray or a JFIF image."""
    if len(body) < 9 or body[0] != 8 or not any(body[1:3]) or not any(body[3:5]):
        return False
    count, parts = body[5], body[6:]
    if count not in (1, 3) or len(parts) != 3 * count or max(parts[2::3]) > 3:
        return False
    if count == 1:
        return parts[1] == 0x11
    return parts[0::3] == b"\x01\x02\x03" and parts[1] in _SAMPLING and parts[4] == parts[7] == 0x11


def _is_whole_scan(body: bytes, frame: bytes, quantizers: set[int], coders: set[int]) -> bool:
    """Return whether a scan holds all components and all coefficients, by tables that are there."""
    count, parts = frame[5], frame[6:]
    if len(body) != 4 + 2 * count or body[0] != count or body[1 : 1 + 2 * count : 2] != parts[0::3]:
        return False
    if body[-3:] != b"\x00\x3f\x00" or not quantizers.issuperset(parts[2::3]):
        return False
    return all(coders.issuperset((table >> 4, 0x10 + (table & 15))) for table in body[2 : 2 + 2 * count : 2])
