"""Read IDX files as arrays; `worker.sources.idx` finds them and knows their format."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource
from contract.jobs.specs import Source
from worker.engine.budget import budget
from worker.sources.idx import GZIP, Kind, Pair, check_counts, find_pair, header_bytes, shape, unreadable
from worker.sources.lister import Part

_PIECE = 1 << 20
MAX_BYTES = 2**30
"""The most bytes of a file, packed or not: it is held in memory. EMNIST, the largest in use, has 550 MB."""


def read_source(store: ObjectStore, source: Source, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, uint8 [n, h, w, 1], and labels, int64 [n], of a source; `part` chooses among several pairs.

    Raises InvalidSource as `read_pair` does, or where the source holds no pair that fits.
    """
    bucket, pair = find_pair(store, source, part)
    names = (pair.images, pair.labels)
    # At once, for both: whoever held one and waited for the other could wait for itself.
    with budget().encoded.hold(sum(min(store.size(key, bucket=bucket), MAX_BYTES) for key in names)):
        images, labels = (io.BytesIO(store.get(key, bucket=bucket, limit=MAX_BYTES)) for key in names)
        return read_pair(images, labels, pair)


def read_pair(images: BinaryIO, labels: BinaryIO, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, uint8 [n, h, w, 1], and labels, int64 [n], of two open files; `pair` names them in errors.

    Raises InvalidSource where a file is not IDX, is truncated or too long, or the two counts differ.
    """
    pixels, numbers = _read(images, pair.images, "images"), _read(labels, pair.labels, "labels")
    check_counts(len(pixels), len(numbers), pair)
    return pixels[..., None], numbers.astype(np.int64)


def _read(file: BinaryIO, name: str, kind: Kind) -> NDArray[np.uint8]:
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    try:
        return _parse(gzip.GzipFile(fileobj=file) if packed else file, name, kind)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(name, error) from error


def _parse(stream: BinaryIO | gzip.GzipFile, name: str, kind: Kind) -> NDArray[np.uint8]:
    dimensions = shape(bytes(_up_to(stream, header_bytes(kind))), name, kind)
    wanted = math.prod(dimensions)
    if wanted > MAX_BYTES:
        raise InvalidSource(
            f"{name} declares {wanted:,} bytes, more than the {MAX_BYTES:,} that are read as a whole; cut it into "
            "smaller files, or store its images one by one."
        )
    data = _up_to(stream, wanted)
    if len(data) < wanted:
        raise InvalidSource(f"{name} is truncated: {len(data):,} of {wanted:,} bytes are there; get it again.")
    if stream.read(1):
        raise InvalidSource(f"{name} goes on after the {wanted:,} bytes that its header declares; get it again.")
    return np.frombuffer(data, np.uint8).reshape(dimensions)


def _up_to(stream: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    """Return the next `count` bytes, or all there are; what a header claims is not allocated before it is there."""
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(count - len(data), _PIECE))):
        data += piece
    return data
