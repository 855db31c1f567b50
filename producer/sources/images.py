"""Resolve what the user typed to a source that can be labelled, before a job is queued.

Lists, reads manifests and checks that there is an image; writes nothing. `producer.sources.pack` and
`producer.client` upload what the resolved source says has to be uploaded.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.data.items import is_image_name, parse_s3
from contract.data.tars import Tar
from contract.errors import InvalidSource, ObjectNotFound
from contract.import_paths import load
from contract.jobs.sources import SOURCES, SourceName
from contract.jobs.specs import Original, Source
from contract.keys.jobs import JobKeys
from producer.sources import manifests
from producer.sources.folders import Local, images, walk

LOOK = 1000
"""Keys of a prefix that decide what it holds: one page of a listing."""


@dataclass(frozen=True)
class Remote:
    """Images that workers reach themselves."""

    kind: SourceName
    uri: str
    label: str
    parts: tuple[Remote, ...] = ()
    """What it stands for, if it is several sources."""

    @property
    def as_source(self) -> Source:
        """The source for the spec of any job."""
        parts = tuple(part.as_source for part in self.parts)
        return Source(kind=self.kind, uri=self.uri, label=self.label, parts=parts)

    def source(self, keys: JobKeys, bucket: str) -> Source:
        """Return the source for the spec of a job."""
        return self.as_source


@dataclass(frozen=True)
class Upload:
    """Local files that go to the bucket as they are: tars, IDX files, or a manifest of remote addresses."""

    kind: SourceName
    label: str
    files: tuple[Path, ...]

    @property
    def renamed(self) -> bool:
        """Whether keys omit the file name, so that an object of the same size may be another file."""
        return self.kind == "manifest"

    def key(self, file: Path, keys: JobKeys) -> str:
        """Return the key of a file."""
        suffix = file.suffix.lower()
        return keys.source(suffix) if self.renamed else f"{keys.input_prefix}{file.stem}{suffix}"

    def source(self, keys: JobKeys, bucket: str) -> Source:
        """Return the source for the spec of a job."""
        key = self.key(self.files[0], keys) if self.renamed else keys.input_prefix
        return Source(kind=self.kind, uri=f"s3://{bucket}/{key}", label=self.label)


@dataclass(frozen=True)
class Packed:
    """Local images or sequences, to be packed into one tar a shard.

    `files` lists them anew at each call, so that a million of them need no memory.
    """

    uri: str
    label: str
    total: int
    skipped: int
    files: Callable[[], Iterator[Local]]

    def source(self, keys: JobKeys, bucket: str) -> Source:
        """Return the source for the spec of a job."""
        return Source(kind="packed", uri=self.uri, label=self.label)


@dataclass(frozen=True)
class Pair:
    """Two images, the ends of an interpolation: each an address in the store, or a local file that goes there."""

    images: tuple[str | Path, str | Path]
    labels: tuple[str, str]

    kind: Literal["pair"] = "pair"
    renamed: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return " and ".join(self.labels)

    @property
    def files(self) -> tuple[Path, ...]:
        """The images that are on this machine."""
        return tuple(image for image in self.images if isinstance(image, Path))

    def key(self, file: Path, keys: JobKeys) -> str:
        """Return the key of a file, by its place in the pair: both files may have the same name."""
        return f"{keys.input_prefix}image-{self.images.index(file)}{file.suffix.lower()}"

    def source(self, keys: JobKeys, bucket: str) -> tuple[Original, Original]:
        """Return the two ends for the spec of a job."""
        a, b = (
            Original(uri=f"s3://{bucket}/{self.key(one, keys)}" if isinstance(one, Path) else one, label=label)
            for one, label in zip(self.images, self.labels, strict=True)
        )
        return a, b


Resolved = Remote | Upload | Packed | Pair


def resolve(text: str, store: ObjectStore, frames: int = 0, *, labelled: bool = False) -> Resolved:
    """Resolve `text`: a local folder, manifest or tar, or an `s3://` prefix, manifest or tar.

    Try each kind of source in `contract.jobs.sources` in turn; kinds that only serve jobs that need labels are tried
    with `labelled`. `frames` is the most frames that a model of sequences reads of each, 0 for a model of images.
    Raises InvalidSource if the source does not exist, cannot be read, or holds no images.
    """
    for kind in SOURCES.values():
        if kind.resolve is not None and (labelled or not kind.labelled_only):
            found: Resolved | None = load(kind.resolve)(text, store, frames)
            if found is not None:
                return found
    raise InvalidSource(
        f"{text} is not a source; name a folder, or a file that ends in .jsonl, .csv, .parquet or .tar."
    )


def resolve_pair(texts: Sequence[str], store: ObjectStore, max_bytes: int) -> Pair:
    """Resolve two images by address or path; raises InvalidSource if one is missing, empty or too large."""
    a, b = (_one_image(text, store, max_bytes) for text in texts)
    return Pair((a, b), (texts[0], texts[1]))


def _one_image(text: str, store: ObjectStore, max_bytes: int) -> str | Path:
    found: str | Path = text
    if text.startswith("s3://"):
        bucket, key = parse_s3(text)
        try:
            size = store.size(key, bucket=bucket)
        except ObjectNotFound:
            raise InvalidSource(f"There is no object {text}; correct the address.") from None
    elif text.startswith(("http://", "https://")):
        raise InvalidSource(f"{text} is a web address; save the image, and name the file or its s3:// address.")
    else:
        found = Path(os.path.abspath(Path(text).expanduser()))
        if not found.is_file():
            raise InvalidSource(f"There is no file {text} here; name an image, or its s3:// address.")
        size = found.stat().st_size
    if not size:
        raise InvalidSource(f"{text} is empty; name an image.")
    if size > max_bytes:
        raise InvalidSource(
            f"{text} has {size:,} bytes, more than the {max_bytes:,} allowed; raise IMAGEMILL_MAX_IMAGE_BYTES to read "
            "it."
        )
    return found


def from_file_uri(uri: str) -> Path:
    """Return the local path of a packed source, to resume packing it."""
    return Path(url2pathname(urlsplit(uri).path))


# In the store


def resolve_remote(uri: str, store: ObjectStore, frames: int) -> Remote | None:
    """Return the prefix, manifest or tars at an `s3://` address."""
    if not uri.startswith("s3://"):
        return None
    bucket, key = parse_s3(uri)
    if not store.bucket_exists(bucket):
        raise InvalidSource(f"There is no bucket {bucket!r} at {store.endpoint}; create it, or correct {uri}.")
    if key.endswith((".tar", *manifests.SUFFIXES)):
        try:
            size = store.size(key, bucket=bucket)
        except ObjectNotFound:
            raise InvalidSource(f"There is no object {uri}; correct the address.") from None
        if not size:
            raise InvalidSource(f"{uri} is empty; there is nothing to label.")
        return Remote("tars" if key.endswith(".tar") else "manifest", uri, uri)
    return Remote(_kind_of_prefix(uri, store.list(key, bucket=bucket)), uri, uri)


def _kind_of_prefix(uri: str, entries: Iterator[Entry]) -> Literal["prefix", "tars"]:
    """Tars only where no image is beside them; where the first page has neither, the rest is searched."""
    first = [entry.key for entry in islice(entries, LOOK)]
    tars = any(key.endswith(".tar") for key in first)
    # A key without a suffix may be anything: beside tars it is no image.
    if any(_is_image(key) and not (tars and "." not in key.rpartition("/")[2]) for key in first):
        return "prefix"
    if tars:
        return "tars"
    if any(_is_image(entry.key) for entry in entries):
        return "prefix"
    if not first:
        raise InvalidSource(f"There is nothing under {uri}; correct the address.")
    raise InvalidSource(f"{uri} holds no images, by the names of its objects; correct the address.")


def _is_image(key: str) -> bool:
    return not key.endswith("/") and is_image_name(key)


# On this machine


def resolve_local(text: str, store: ObjectStore, frames: int) -> Upload | Packed:
    """Return the folder, manifest or tar at a path on this machine."""
    if text.startswith(("http://", "https://")):
        raise InvalidSource(f'{text} is one web address; list addresses in a .jsonl file, as {{"uri": "…"}} a line.')
    # Not `resolve`: a folder has the name that the user gives it, link or not.
    path = Path(os.path.abspath(Path(text).expanduser()))
    label = os.path.normpath(text)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder(path, label, frames)
    if not path.exists():
        raise InvalidSource(f"There is no {text!r} here; name a folder, a manifest, a .tar, or s3://bucket/prefix.")
    if suffix == ".tar":
        return _tars((path,), label)
    if suffix in manifests.SUFFIXES:
        return _manifest(path, label, frames)
    if is_image_name(path.name) and suffix:
        raise InvalidSource(f"{text} is one image; name the folder that it is in, or a manifest that lists it.")
    raise InvalidSource(
        f"{text} is not a source; name a folder, or a file that ends in .jsonl, .csv, .parquet or .tar."
    )


def _folder(folder: Path, label: str, frames: int) -> Upload | Packed:
    total = skipped = others = 0
    tars: list[Path] = []
    for file in walk(folder):
        if is_image_name(file.key):
            total += 1
            continue
        skipped += 1
        if file.key.lower().endswith(".tar") and "/" not in file.key:
            tars.append(Path(file.path))
        elif not Path(file.path).name.startswith("."):
            others += 1
    if tars and not total and not others:
        return _tars(tuple(tars), label)
    if not total:
        what = f", only {skipped:,} other files" if skipped else ""
        raise InvalidSource(f"{label} holds no images{what}; name a folder with .jpg, .png, .webp … files.")

    def files() -> Iterator[Local]:
        return images(folder, frames)

    if frames:
        total = sum(1 for _ in files())
    return Packed(folder.as_uri(), label, total, skipped, files)


def _tars(paths: tuple[Path, ...], label: str) -> Upload:
    found = False
    for path in paths:
        try:
            with path.open("rb") as file:
                found = found or any(is_image_name(member.name) for member in Tar(file, path.stat().st_size))
        except (OSError, tarfile.TarError) as error:
            raise InvalidSource(f"{path} cannot be read as a tar: {error}; write it again.") from error
    if not found:
        raise InvalidSource(f"{label} holds no images, by the names in the archive; check it with `tar -tf`.")
    return Upload("tars", label, paths)


def _manifest(path: Path, label: str, frames: int) -> Upload | Packed:
    def rows() -> Iterator[manifests.Row]:
        return manifests.rows(path, sequences=frames > 0)

    total, remote, first = 0, False, ""
    for row in rows():
        for uri in row.addresses:
            found = manifests.is_remote(uri, row.where)
            if first and found != remote:
                raise InvalidSource(
                    f"{row.where} is {'an address' if found else 'a local path'} but {first} is not; put local "
                    "paths and remote addresses into two manifests."
                )
            first, remote = first or row.where, found
        total += 1
    if not total:
        raise InvalidSource(f"{label} has no rows; there is nothing to label.")
    if remote:
        return Upload("manifest", label, (path,))

    def files() -> Iterator[Local]:
        return (manifests.row_item(path, row, frames) for row in rows())

    return Packed(path.as_uri(), label, total, 0, files)
