"""Reads IDX files, the format of MNIST and Fashion-MNIST, plain or gzip; it knows no classes and no bucket.

The format: LeCun, Cortes & Burges, "The MNIST database". A magic number (two zeros, 8 for uint8, the number of
dimensions), each dimension as a big-endian uint32, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidSource

_NAME = re.compile(r"(?P<stem>.+)[-.](?P<kind>images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Pair:
    """The names of two files that belong together."""

    images: str
    labels: str


def pairs(names: Iterable[str]) -> dict[str, Pair]:
    """Which of these names are IDX files, by what comes before `-images-idx3-ubyte`: "train", "t10k".

    Names may have folders in front. Where a file is there plain and as gzip, the plain one is taken. Raises
    InvalidSource naming a file whose other half is missing.
    """
    found: dict[str, dict[str, str]] = {}
    for name in sorted(names):  # plain before .gz
        if match := _NAME.fullmatch(name):
            found.setdefault(match["stem"], {}).setdefault(match["kind"], name)
    for halves in found.values():
        if len(halves) == 1:
            (kind, name), other = *halves.items(), "labels" if "images" in halves else "images"
            raise InvalidSource(f"The {kind} {name} have no {other} beside them; IDX files come in pairs.")
    return {stem: Pair(**halves) for stem, halves in found.items()}


def read_pair(images: BinaryIO, labels: BinaryIO, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images, uint8 [n, h, w, 1], and labels, int64 [n], of two open files; `pair` names them in errors.

    Raises InvalidSource where a file is not IDX, is truncated or too long, or the two do not have the same count.
    """
    pixels, numbers = _read(images, pair.images, 3), _read(labels, pair.labels, 1)
    if len(pixels) != len(numbers):
        raise InvalidSource(
            f"{pair.images} has {len(pixels):,} images and {pair.labels} {len(numbers):,} labels; "
            "they do not belong together, so get both again."
        )
    return pixels[..., None], numbers.astype(np.int64)


def _read(file: BinaryIO, name: str, dimensions: int) -> NDArray[np.uint8]:
    packed = file.read(2) == _GZIP
    file.seek(0)
    try:
        return _parse(gzip.GzipFile(fileobj=file) if packed else file, name, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidSource(f"{name} cannot be read to its end ({error}); get it again.") from error


def _parse(stream: BinaryIO | gzip.GzipFile, name: str, dimensions: int) -> NDArray[np.uint8]:
    magic = bytes((0, 0, 8, dimensions))
    header = bytes(_up_to(stream, 4 + 4 * dimensions))
    if not header.startswith(magic):
        raise InvalidSource(
            f"{name} begins with {header[:4].hex() or 'nothing'}, IDX {'images' if dimensions == 3 else 'labels'} with "
            f"{magic.hex()}; it is another file, so get it again."
        )
    shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4))
    wanted = math.prod(shape)
    data = _up_to(stream, wanted)
    if len(header) < 4 + 4 * dimensions or len(data) < wanted:
        raise InvalidSource(f"{name} is truncated: {len(data):,} of {wanted:,} bytes are there; get it again.")
    if stream.read(1):
        raise InvalidSource(f"{name} goes on after the {wanted:,} bytes that its header tells; get it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _up_to(stream: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    """The next `count` bytes, or all that there are; what a header claims is not allocated before it is there."""
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(count - len(data), _PIECE))):
        data += piece
    return data
