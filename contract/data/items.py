"""One image or sequence to be labelled, as a line of a manifest, and which names count as images.

It knows nothing of where items come from (`producer.sources.images`, `worker.sources.lister`) nor how
their bytes are read (`worker.sources.fetch`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from contract.data.sequences import spread
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
FRAMES_COLUMN = "frames"

SHARD_FRAMES = 2**16
"""Frames in a shard of sequences, at most: it is they that fill memory, and that a lost worker has read in vain."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image, or one sequence of images.

    `key` names it for people, `uri` says where it lives. An item packed in a tar has `tar`, the
    `s3://` address of the archive, and the `offset` in bytes of its data there. `label` is the class that
    the source says it has, where somebody wants to know.

    A sequence of several files has `length`, how many frames there are, and of these in `frames` the ones that are
    looked at, none where there are too many. It has the address of its folder, with a slash at the end, or of the row
    that lists it; its `size` is that of `frames` together.
    """

    key: str
    uri: str
    size: int | None = None
    tar: str | None = None
    offset: int | None = None
    label: str | None = None
    length: int | None = None
    frames: tuple[Item, ...] = ()

    @staticmethod
    def of_frames(key: str, uri: str, frames: Iterable[Item], *, length: int, label: str | None = None) -> Item:
        """The sequence of `length` frames of which these are looked at. Those that are packed are in one tar."""
        found = tuple(frames)
        sizes = [frame.size for frame in found if frame.size is not None]
        return Item(
            key,
            uri,
            size=sum(sizes) if found and len(sizes) == len(found) else None,
            tar=next((frame.tar for frame in found if frame.tar is not None), None),
            label=label,
            length=length,
            frames=found,
        )

    def thinned(self, most: int) -> Item:
        """The same, looking at no more than so many frames."""
        if self.length is None or len(self.frames) <= most:
            return self
        frames = [self.frames[n] for n in spread(len(self.frames), most)]
        return Item.of_frames(self.key, self.uri, frames, length=self.length, label=self.label)

    @property
    def order(self) -> bytes:
        """What sorts the items of a prefix as they are listed: a folder comes behind everything that is in it."""
        return self.uri.encode() + (b"\xff" if self.uri.endswith("/") else b"")

    def to_line(self, *, label: bool = False) -> str:
        """The manifest line, without its line feed, and without the label unless it is wanted.

        A frame is its address behind `base`, which is what the addresses have in common, with its size, and with its
        offset where it is packed.
        """
        fields: dict[str, Any] = {
            "key": self.key,
            "uri": self.uri,
            "size": self.size,
            "tar": self.tar,
            "offset": self.offset,
            "label": self.label if label else None,
            "length": self.length,
        }
        if self.frames:
            # By character, then back to a slash: to `commonpath` s3:// is a path, and loses one of its slashes.
            base = os.path.commonprefix([frame.uri for frame in self.frames])  # noqa: RUF071
            base = base[: base.rfind("/") + 1]
            fields["base"] = base
            fields["frames"] = [_short(frame, base) for frame in self.frames]
        return json.dumps({k: v for k, v in fields.items() if v is not None}, ensure_ascii=False)

    @staticmethod
    def from_line(line: bytes) -> Item:
        """The item of a manifest line."""
        fields = json.loads(line)
        base = fields.pop("base", "")
        if "frames" in fields:
            fields["frames"] = tuple(_long(frame, base, fields.get("tar")) for frame in fields["frames"])
        return Item(**fields)


def _short(frame: Item, base: str) -> list[str | int]:
    found = (frame.uri.removeprefix(base), frame.size, frame.offset)
    return [value for value in found if value is not None]


def _long(frame: list[Any], base: str, tar: str | None) -> Item:
    name, size, offset = [*frame, None, None][:3]
    return replace(item_of(base + name), size=size, tar=None if offset is None else tar, offset=offset)


def write_manifest(items: Iterable[Item], *, labels: bool = False) -> bytes:
    """A shard manifest: JSON lines, UTF-8."""
    return "".join(f"{item.to_line(label=labels)}\n" for item in items).encode()


def read_manifest(data: bytes) -> list[Item]:
    """The items of a shard manifest."""
    return [Item.from_line(line) for line in data.split(b"\n") if line]


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


def row_frames(row: dict[str, object], where: str) -> list[str] | None:
    """The addresses that a manifest row lists under `frames`, in CSV as JSON; None where it has one of its own.

    Raises InvalidSource naming the row where it has neither, or both, or frames that are no list of addresses.
    """
    addressed = any(isinstance(row.get(column), str) and row[column] for column in URI_COLUMNS)
    frames = row.get(FRAMES_COLUMN)
    if isinstance(frames, str) and frames.startswith("["):
        try:
            frames = json.loads(frames)
        except ValueError as error:
            raise InvalidSource(f"{where} has `frames` that are no JSON list: {error}; correct the row.") from error
    if not isinstance(frames, list):  # with an address, it may be anything: how many there are, say
        if addressed:
            return None
        raise InvalidSource(
            f"{where} has neither `uri`, `source-ref` nor a list of `frames`; every row of a manifest needs one of "
            "them."
        )
    if addressed:
        raise InvalidSource(f"{where} has an address and a list of `frames`; a row is one or the other.")
    if not frames or not all(isinstance(frame, str) and frame for frame in frames):
        raise InvalidSource(f"{where} has `frames` that are no list of addresses; list one or more, each as a text.")
    return frames


def folder_label(path: str) -> str | None:
    """The class that the path of an image or of a folder of frames says: the folder it is in; None where in none."""
    return PurePosixPath(path.lstrip("/")).parent.name or None


def item_of(uri: str) -> Item:
    """The item behind an `s3://`, `http(s)://` or `file://` address."""
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


def sharded(items: Iterable[Item], sizes: Iterator[int], *, max_frames: int = SHARD_FRAMES) -> Iterator[list[Item]]:
    """Lists of as many items as `sizes` says, the last one shorter.

    One is shorter too where another sequence would make more than `max_frames`.
    """
    shard: list[Item] = []
    frames, size = 0, next(sizes)
    for item in items:
        if shard and frames + len(item.frames) > max_frames:
            yield shard
            shard, frames, size = [], 0, next(sizes)
        shard.append(item)
        frames += len(item.frames)
        if len(shard) == size:
            yield shard
            shard, frames, size = [], 0, next(sizes)
    if shard:
        yield shard
