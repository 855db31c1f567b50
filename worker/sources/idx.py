"""Find pairs of IDX files, the format of MNIST and Fashion-MNIST, and count their images from the headers.

The controller plans with it, so it needs no numpy; `worker.datasets.idx` reads the arrays.

The format: LeCun, Cortes & Burges, "The MNIST database". A magic number (two zeros, 8 for uint8, the number of
dimensions), each dimension as a big-endian uint32, then the bytes. Files may be compressed with gzip.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.errors import InvalidSource
from contract.jobs.specs import Source
from worker.sources.lister import Lister, Part

Kind = Literal["images", "labels"]
GZIP = b"\x1f\x8b"
HEAD_BYTES = 64 * 2**10
"""Bytes of a file that hold its header, even behind the name and comment that a gzip header may carry."""

_MOST_PACKED = 1032
"""Deflate packs at most so many bytes into one: https://zlib.net/zlib_tech.html."""

_DIMENSIONS: dict[Kind, int] = {"images": 3, "labels": 1}
_NAME = re.compile(r"(?P<stem>.+)[-.](?P<kind>images|labels)[-.]idx[13]-ubyte(?:\.gz)?")


@dataclass(frozen=True)
class Pair:
    """The names of an images file and of its labels file."""

    images: str
    labels: str


class Idx(Lister):
    """IDX files, which are read as a whole and never listed."""

    def items(self) -> Iterator[Item]:
        raise InvalidSource(f"{self.source.label} is data to train with; it has no images one by one.")

    def count(self, part: Part) -> int:
        """Return how many images there are, reading no more than the headers.

        Raises InvalidSource where no pair of files fits, or a file is not IDX.
        """
        bucket, pair = find_pair(self.store, self.source, part)
        images, labels = (self.store.get(key, bucket=bucket, limit=HEAD_BYTES) for key in (pair.images, pair.labels))
        found = count(images, labels, pair)
        declared = shape(_start(images, pair.images), pair.images, "images")
        check_promise(declared, self.store.size(pair.images, bucket=bucket), pair.images)
        return found

    def has_test_part(self) -> bool:
        """Return whether there are several pairs of files."""
        return len(_pairs(self.store, self.source)) > 1


def find_pair(store: ObjectStore, source: Source, part: Part) -> tuple[str, Pair]:
    """Return the bucket and the keys of a source's files; `part` chooses among several pairs.

    Raises InvalidSource where no pair fits, or several do.
    """
    found = _pairs(store, source)
    if not found:
        raise InvalidSource(f"{source.label} holds no IDX files; they end in -images-idx3-ubyte, perhaps with .gz.")
    bucket, _ = parse_s3(source.uri)
    if len(found) == 1:
        return bucket, next(iter(found.values()))
    starts = ("train",) if part == "train" else ("t10k", "test")
    fitting = [pair for stem, pair in found.items() if PurePosixPath(stem).name.startswith(starts)]
    if len(fitting) != 1:
        names = ", ".join(PurePosixPath(stem).name for stem in found)
        raise InvalidSource(f"{source.label} holds several pairs of IDX files ({names}); name one of them.")
    return bucket, fitting[0]


def pairs(names: Iterable[str]) -> dict[str, Pair]:
    """Return the pairs of IDX files among `names`, by the text before `-images-idx3-ubyte`: "train", "t10k".

    Names may contain folders. A plain file is preferred to its gzip. Raises InvalidSource naming a file whose other
    half is missing.
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


def count(images: bytes, labels: bytes, pair: Pair) -> int:
    """Return how many images a pair holds, from the first `HEAD_BYTES` of each file; `pair` names them in errors.

    Raises InvalidSource where a file is not IDX or the two counts differ. A file that is truncated further on is
    found by whoever reads it.
    """
    many, *_ = shape(_start(images, pair.images), pair.images, "images")
    (labelled,) = shape(_start(labels, pair.labels), pair.labels, "labels")
    check_counts(many, labelled, pair)
    return many


def check_counts(images: int, labels: int, pair: Pair) -> None:
    """Raises InvalidSource unless there are as many labels as images."""
    if images != labels:
        raise InvalidSource(
            f"{pair.images} has {images:,} images and {pair.labels} {labels:,} labels; "
            "they do not belong together, so get both again."
        )


def check_promise(dimensions: tuple[int, ...], size: int, name: str) -> None:
    """Raises InvalidSource if a header declares more than a file of `size` bytes can hold, packed or not."""
    declared = math.prod(dimensions)
    if declared > size * _MOST_PACKED:
        raise InvalidSource(
            f"The header of {name} declares {declared:,} bytes, and the file has {size:,}; it is damaged, so get it "
            "again."
        )


def header_bytes(kind: Kind) -> int:
    """Return the length of the header: the magic number and the dimensions."""
    return 4 + 4 * _DIMENSIONS[kind]


def shape(header: bytes, name: str, kind: Kind) -> tuple[int, ...]:
    """Return the dimensions that a header declares; `name` stands for the file in errors.

    Raises InvalidSource where it is the header of another format, or breaks off.
    """
    dimensions = _DIMENSIONS[kind]
    magic = bytes((0, 0, 8, dimensions))
    if not header.startswith(magic):
        raise InvalidSource(
            f"{name} begins with {header[:4].hex() or 'nothing'}, but IDX {kind} begin with {magic.hex()}; "
            "it is another file, so get it again."
        )
    if len(header) < header_bytes(kind):
        raise InvalidSource(f"{name} is truncated: its header breaks off; get it again.")
    return struct.unpack_from(f">{dimensions}I", header, 4)


def unreadable(name: str, error: Exception) -> InvalidSource:
    """Return the error of a file whose compressed bytes are damaged."""
    return InvalidSource(f"{name} cannot be read to its end ({error}); get it again.")


def _pairs(store: ObjectStore, source: Source) -> dict[str, Pair]:
    bucket, prefix = parse_s3(source.uri)
    # Matched here, since a prefix may hold millions of other objects.
    return pairs(entry.key for entry in store.list(prefix, bucket=bucket) if _NAME.fullmatch(entry.key))


def _start(head: bytes, name: str) -> bytes:
    """Return the first bytes of a file's content, unpacked if it is a gzip."""
    if not head.startswith(GZIP):
        return head
    try:
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(head, header_bytes("images"))
    except zlib.error as error:
        raise unreadable(name, error) from error
