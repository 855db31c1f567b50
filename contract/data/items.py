"""Defines an item, the image or sequence that a manifest lists on a line, and which file names count as images.

Listing items is left to `producer.sources.images` and `worker.sources.lister`, reading their bytes to
`worker.sources.fetch`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from json.encoder import encode_basestring as _quoted
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from contract.data.sequences import spread
from contract.data.text import parse_object
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

MAX_URI = 8192
"""The longest address in characters; web servers refuse longer ones (RFC 9110 asks them to take 8,000)."""
MAX_LABEL = 1000
"""The longest label in characters."""

_LATEST = 253_402_300_799.0
"""The last second of the year 9999, beyond which Python has no date."""

SHARD_FRAMES = 2**16
"""The most frames in a shard of sequences; they bound its memory, and the work that is lost with a worker."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image, or one sequence of images.

    `key` names it for people, and `uri` is its address. An item packed in a tar also has `tar`, the `s3://` address of
    the archive, and `offset`, the position of its data there in bytes. `label` is the class that the source gives it,
    if the job uses labels.

    A sequence of several files has `length`, the number of its frames, and `frames`, those that the model sees; none if
    there are too many. Its `uri` is its folder, with a slash at the end, or the row that lists it, and its `size` is
    the sum over `frames`.

    An item that a watch found also has `modified`, when the object was last modified, and `planned_at`, when it was
    put into a shard, both in seconds since the epoch. If overwritten objects are labelled again, `etag` names the
    version that is meant. If the watch has an archive, `archive` is the address that this version is moved to once it
    is labelled.

    `sha256` is the hash that the image must have if its label was given to one version alone.
    """

    key: str
    uri: str
    size: int | None = None
    tar: str | None = None
    offset: int | None = None
    label: str | None = None
    length: int | None = None
    frames: tuple[Item, ...] = ()
    etag: str | None = None
    modified: float | None = None
    planned_at: float | None = None
    archive: str | None = None
    sha256: str | None = None

    @staticmethod
    def of_frames(key: str, uri: str, frames: Iterable[Item], *, length: int, label: str | None = None) -> Item:
        """Return a sequence of `length` frames of which the model sees `frames`. Packed frames lie in one tar."""
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
        """Return the same sequence with at most `most` of its `frames`, evenly spread."""
        if self.length is None or len(self.frames) <= most:
            return self
        frames = [self.frames[n] for n in spread(len(self.frames), most)]
        return Item.of_frames(self.key, self.uri, frames, length=self.length, label=self.label)

    @property
    def order(self) -> bytes:
        """The sort key that gives the order of a listing, with a folder after everything in it."""
        return self.uri.encode() + (b"\xff" if self.uri.endswith("/") else b"")

    @property
    def _plain(self) -> bool:
        """Whether this is one image that is a file by itself."""
        more = (self.etag, self.modified, self.planned_at, self.archive, self.sha256) != (None,) * 5
        return self.tar is None and self.offset is None and self.length is None and not self.frames and not more

    def to_line(self, *, label: bool = False) -> str:
        """Return the manifest line without its line feed; with `label`, include the label.

        A frame is a list: its address relative to `base`, the common prefix of all frames, then its size and, if it is
        packed, its offset.
        """
        if self.size is not None and self._plain and not (label and self.label is not None):
            # As below, byte for byte, and five times faster: a line a key of a prefix.
            return f'{{"key": {_quoted(self.key)}, "uri": {_quoted(self.uri)}, "size": {self.size}}}'
        fields: dict[str, Any] = {
            "key": self.key,
            "uri": self.uri,
            "size": self.size,
            "tar": self.tar,
            "offset": self.offset,
            "label": self.label if label else None,
            "length": self.length,
            "etag": self.etag,
            "modified": self.modified,
            "planned_at": self.planned_at,
            "archive": self.archive,
            "sha256": self.sha256,
        }
        if self.frames:
            # By character, then back to a slash: `commonpath` would take s3:// for a path and drop one of its slashes.
            base = os.path.commonprefix([frame.uri for frame in self.frames])  # noqa: RUF071
            base = base[: base.rfind("/") + 1]
            fields["base"] = base
            fields["frames"] = [_short(frame, base) for frame in self.frames]
        return json.dumps({k: v for k, v in fields.items() if v is not None}, ensure_ascii=False)

    @staticmethod
    def from_line(line: bytes) -> Item:
        """Parse a manifest line; raises ValueError if it is not an item."""
        fields = parse_object(line)
        try:
            base = fields.pop("base", "")
            if "frames" in fields:
                fields["frames"] = tuple(_long(frame, base, fields.get("tar")) for frame in fields["frames"])
            item = Item(**fields)
        except (TypeError, LookupError, ValueError) as error:
            raise ValueError(f"it is not an item: {error}") from None
        if not all(map(_is_file, (item, *item.frames))):
            raise ValueError(f"it is not an item: {line[:80]!r}")
        return item


def _is_file(item: Item) -> bool:
    """Return whether the fields of an item have their types; numbers and times are not negative."""
    texts = isinstance(item.key, str) and isinstance(item.uri, str)
    optional = all(
        text is None or isinstance(text, str) for text in (item.tar, item.label, item.etag, item.archive, item.sha256)
    )
    numbers = all(n is None or (type(n) is int and n >= 0) for n in (item.size, item.offset, item.length))
    times = all(t is None or (type(t) in (int, float) and 0 <= t <= _LATEST) for t in (item.modified, item.planned_at))
    return texts and optional and numbers and times


def _short(frame: Item, base: str) -> list[str | int]:
    found = (frame.uri.removeprefix(base), frame.size, frame.offset)
    return [value for value in found if value is not None]


def _long(frame: list[Any], base: str, tar: str | None) -> Item:
    name, size, offset = [*frame, None, None][:3]
    return replace(item_of(base + name), size=size, tar=None if offset is None else tar, offset=offset)


def write_manifest(items: Iterable[Item], *, labels: bool = False) -> bytes:
    """Return a shard manifest as JSON Lines, UTF-8."""
    return "".join(f"{item.to_line(label=labels)}\n" for item in items).encode()


def read_manifest(data: bytes) -> list[Item]:
    """Parse a shard manifest."""
    return [Item.from_line(line) for line in data.split(b"\n") if line]


def is_image_name(name: str) -> bool:
    """Return whether a file name counts as an image: a known suffix, or none at all.

    Keys without a suffix are common in object stores, so they count; hidden files do not.
    """
    # By hand, since a path object costs 10 us, and there may be 10^8 names.
    file = name[name.rfind("/") + 1 :]
    if file.startswith(".") or not file:  # an empty one marks a folder
        return False
    dot = file.rfind(".")
    return dot in (-1, len(file) - 1) or file[dot:].lower() in IMAGE_SUFFIXES


def parse_s3(uri: str) -> tuple[str, str]:
    """Split an `s3://bucket/key` address into bucket and key; `%` and `#` in the key are literal.

    Raises InvalidSource if there is no bucket, or a part of the key is `.` or `..`: HTTP clients and stores resolve
    those like folders, so that the key of one bucket would name an object of another.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise InvalidSource(f"{uri!r} is not an object store address; write it as s3://bucket/prefix.")
    dotted = "." in (bucket[:1], key[:1]) or "/." in key
    if dotted and not {".", ".."}.isdisjoint((bucket, *key.split("/"))):
        raise InvalidSource(f"{uri!r} has a part that is . or .., which no key may have; write the whole address.")
    return bucket, key


def row_uri(row: dict[str, object], where: str) -> str:
    """Return the address in the column `uri` or `source-ref` of a manifest row.

    `where` names the row in the InvalidSource that is raised if it has neither.
    """
    for column in URI_COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and value:
            return value
    raise InvalidSource(f"{where} has neither `uri` nor `source-ref`; every row of a manifest needs one of them.")


def row_frames(row: dict[str, object], where: str) -> list[str] | None:
    """Return the addresses that a manifest row lists in `frames` (in CSV, as JSON), or None if the row has an address.

    Raises InvalidSource, which names the row as `where`, if it has neither or both, or if `frames` is not a list of
    addresses.
    """
    addressed = any(isinstance(row.get(column), str) and row[column] for column in URI_COLUMNS)
    frames = row.get(FRAMES_COLUMN)
    if isinstance(frames, str) and frames.startswith("["):
        try:
            frames = json.loads(frames)
        except ValueError as error:
            raise InvalidSource(f"{where} has `frames` that are not a JSON list: {error}; correct the row.") from error
    if not isinstance(frames, list):  # beside an address the column may hold anything, such as a count
        if addressed:
            return None
        raise InvalidSource(
            f"{where} has neither `uri`, `source-ref` nor a list of `frames`; every row of a manifest needs one of "
            "them."
        )
    if addressed:
        raise InvalidSource(f"{where} has both an address and a list of `frames`; remove one of them.")
    if not frames or not all(isinstance(frame, str) and frame for frame in frames):
        raise InvalidSource(
            f"{where} has `frames` that are not a list of addresses; list one or more, each as a string."
        )
    return frames


def label_of(value: object, where: str) -> str:
    """Return a label as text; raises InvalidSource, which names its place as `where`, if it is not a label."""
    text = str(value) if isinstance(value, str | int | float) else ""
    if not text or len(text) > MAX_LABEL:
        raise InvalidSource(f"{where} has a label that is no text of 1 to {MAX_LABEL:,} characters; correct it.")
    return text


def folder_label(path: str) -> str | None:
    """Return the class that a path implies: the name of the folder that holds it, or None at the top."""
    return PurePosixPath(path.lstrip("/")).parent.name or None


def item_of(uri: str) -> Item:
    """Return the item at an `s3://`, `http(s)://` or `file://` address; raises InvalidSource if it cannot be one."""
    if len(uri) > MAX_URI:
        raise InvalidSource(f"{uri[:80]}… has {len(uri):,} characters, more than the {MAX_URI:,} of an address.")
    if uri.startswith("s3://"):
        return Item(key=parse_s3(uri)[1], uri=uri)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidSource(f"{uri!r} is not an address: {error}; correct it.") from error
    return Item(key=f"{parts.netloc}{unquote(parts.path)}", uri=uri)


def sharded(items: Iterable[Item], sizes: Iterator[int], *, max_frames: int = SHARD_FRAMES) -> Iterator[list[Item]]:
    """Yield lists of as many items as `sizes` says; the last may be shorter.

    A shard also ends early if the next sequence would take it beyond `max_frames`.
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
