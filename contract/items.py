"""One image to be labelled, as a line of a manifest, and which names count as images.

It knows nothing of where items come from (`producer.sources`, `worker.control.sources`) nor how
their bytes are read (`worker.fetch`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from contract.errors import InvalidSource

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".ico",
        ".mpo",
    ]
)
URI_COLUMNS = ("uri", "source-ref")


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    `key` names it for people, `uri` says where it lives. An item packed in a tar has `tar`, the
    `s3://` address of the archive, and the `offset` in bytes of its data there. `label` is the class that
    the source says it has, where somebody wants to know.
    """

    key: str
    uri: str
    size: int | None = None
    tar: str | None = None
    offset: int | None = None
    label: str | None = None

    def to_line(self) -> str:
        """The manifest line, without its line feed."""
        fields = {"key": self.key, "uri": self.uri, "size": self.size, "tar": self.tar, "offset": self.offset}
        return json.dumps({k: v for k, v in fields.items() if v is not None}, ensure_ascii=False)


def write_manifest(items: Iterable[Item]) -> bytes:
    """A shard manifest: JSON lines, UTF-8."""
    return "".join(f"{item.to_line()}\n" for item in items).encode()


def read_manifest(data: bytes) -> list[Item]:
    """The items of a shard manifest."""
    return [Item(**json.loads(line)) for line in data.split(b"\n") if line]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: a known suffix, or none at all.

    Object stores are full of keys without a suffix, so those are tried; hidden files are not.
    """
    path = PurePosixPath(name)
    if path.name.startswith(".") or not path.name or name.endswith("/"):  # the last marks an empty folder
        return False
    return path.suffix == "" or path.suffix.lower() in IMAGE_SUFFIXES


def parse_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://bucket/key` address; the key is taken as it stands, `%` and `#` too.

    Raises InvalidSource where there is no bucket.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise InvalidSource(f"{uri!r} is no address in an object store; write it as s3://bucket/prefix.")
    return bucket, key


def row_uri(row: dict[str, object], where: str) -> str:
    """The address that a manifest row carries under `uri` or `source-ref`.

    Raises InvalidSource naming the row where it has neither.
    """
    for column in URI_COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and value:
            return value
    raise InvalidSource(f"{where} has neither `uri` nor `source-ref`; every row of a manifest needs one of them.")


def item_of(uri: str) -> Item:
    """The item behind an `s3://` or `http(s)://` address of a manifest row."""
    if uri.startswith("s3://"):
        return Item(key=parse_s3(uri)[1], uri=uri)
    parts = urlsplit(uri)
    return Item(key=f"{parts.netloc}{unquote(parts.path)}", uri=uri)


def shard_sizes(size: int) -> Iterator[int]:
    """Items of the first shard, the second and so on: up to `size`, and small ones first.

    Labelling begins when the first shard is planned: 64 items take 30 ms to list or to pack, 512 take
    250 ms, which is 3 % of a job of 2,000 photos.
    """
    first = 64
    while first < size:
        yield first
        first *= 2
    yield from repeat(size)


def sharded(items: Iterable[Item], sizes: Iterator[int]) -> Iterator[list[Item]]:
    """Lists of as many items as `sizes` says, the last one shorter."""
    rest = iter(items)
    while shard := list(islice(rest, next(sizes))):
        yield shard
