"""Lists what a job is to label, lazily and in an order that is the same each time.

It reads the object store only; local folders are the producer's (`producer.sources.images`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePosixPath

import pyarrow as pa

from contract.backend.objects import Entry, ObjectStore
from contract.data.items import (
    FRAMES_COLUMN,
    URI_COLUMNS,
    Item,
    folder_label,
    is_image_name,
    item_of,
    parse_s3,
    read_manifest,
    row_frames,
    row_uri,
)
from contract.data.parquet import read_rows
from contract.data.sequences import MAX_FRAMES, Folder, by_folder, spread
from contract.errors import InvalidSource
from contract.jobs.specs import Source


@dataclass
class Listing:
    """The items of a source; `skipped` counts files that are no images by their name.

    With `frames` an item is a sequence, of which at most so many are looked at: the still images of a folder of a
    prefix, an animation, or the row of a manifest.
    """

    store: ObjectStore
    source: Source
    frames: int = 0
    labels: bool = False
    """Whether each item is to say its class: the folder that it is in, the `.cls` or `.json` beside it in a tar, or
    the column `label` of a manifest; None where there is no such thing."""
    skipped: int = field(default=0, init=False)

    def items(self) -> Iterator[Item]:
        """Every item. Raises InvalidSource where a manifest cannot be read."""
        match self.source.kind:
            case "prefix":
                return self._prefix()
            case "tars":
                return self._tars()
            case "manifest":
                return self._manifest()
            case "uploaded":
                return self._uploaded()
            case "packed":
                raise InvalidSource(f"{self.source.label} is packed by the producer; run the same command again.")
            case "idx" | "job" | "seed" | "pair":
                raise InvalidSource(f"{self.source.label} is data to train with; it has no images one by one.")

    def _prefix(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        images = self._images(bucket, prefix)
        for found in by_folder(images, lambda entry: entry.key) if self.frames else images:
            path = found.path if isinstance(found, Folder) else found.key
            label = folder_label(path[len(prefix) :]) if self.labels else None
            if isinstance(found, Folder):
                frames = (_item(bucket, entry) for entry in found.frames(self.frames))
                uri = f"s3://{bucket}/{path}"
                yield Item.of_frames(path or "./", uri, frames, length=found.length, label=label)
            else:
                item = _item(bucket, found)
                yield item if label is None else dataclasses.replace(item, label=label)

    def _images(self, bucket: str, prefix: str) -> Iterator[Entry]:
        """The objects under a prefix that are images by their name."""
        for entry in self.store.list(prefix, bucket=bucket):
            if is_image_name(entry.key):
                yield entry
            elif not entry.key.endswith("/"):
                self.skipped += 1

    def _uploaded(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        for entry in self.store.list(prefix, bucket=bucket):
            if entry.key.endswith(".jsonl"):
                yield from read_manifest(self.store.get(entry.key, bucket=bucket))

    def _tars(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        folder = prefix.rpartition("/")[0]
        for entry in self.store.list(prefix, bucket=bucket):
            if not entry.key.endswith(".tar"):
                self.skipped += not entry.key.endswith("/")
                continue
            yield from self._members(bucket, entry, entry.key.removeprefix(folder).lstrip("/"))

    def _members(self, bucket: str, archive: Entry, name: str) -> Iterator[Item]:
        uri = f"s3://{bucket}/{archive.key}"
        try:
            with tarfile.open(fileobj=_reader(self.store, bucket, archive.key, archive.size), mode="r:") as tar:
                for sample in _samples(tar):
                    label = _label_of(tar, sample) if self.labels else None
                    for member in sample:
                        if not is_image_name(member.name):
                            self.skipped += 1
                            continue
                        yield Item(
                            key=f"{name}/{member.name}",
                            uri=f"{uri}#{member.name}",
                            # Of a member that breaks off what there is, for the decoder to say so.
                            size=max(0, min(member.size, archive.size - member.offset_data)),
                            tar=uri,
                            offset=member.offset_data,
                            label=label,
                        )
                # A whole tar ends with a block of zeros. Without it tarfile stops as if all were well.
                broken = tar.offset + tarfile.BLOCKSIZE > archive.size
        except tarfile.TarError:
            broken = True
        if broken:
            # One error row for what cannot be told: the archive itself, which no decoder takes for an image.
            yield Item(key=name, uri=uri, size=archive.size)

    def _manifest(self) -> Iterator[Item]:
        bucket, key = parse_s3(self.source.uri)
        try:
            for number, row in enumerate(self._rows(bucket, key), 1):
                where = f"Row {number} of {self.source.label}"
                if not isinstance(row, dict):
                    raise InvalidSource(f'{where} is no JSON object; write {{"uri": "…"}} there.')
                listed = row_frames(row, where) if self.frames else None
                item = item_of(row_uri(row, where)) if listed is None else self._row(number, listed)
                label = row.get("label") if self.labels else None
                yield item if label is None else dataclasses.replace(item, label=str(label))
        except (ValueError, csv.Error, pa.ArrowException) as error:  # no JSON, no UTF-8, no CSV, no Parquet
            raise InvalidSource(f"{self.source.label} cannot be read as a manifest: {error}.") from error

    def _row(self, number: int, listed: list[str]) -> Item:
        """The sequence that a row lists, as they stand there."""
        chosen = spread(len(listed), self.frames) if len(listed) <= MAX_FRAMES else ()
        frames = (item_of(listed[n]) for n in chosen)
        key = f"{PurePosixPath(self.source.label).name}#{number}"
        return Item.of_frames(key, f"{self.source.uri}#{number}", frames, length=len(listed))

    def _rows(self, bucket: str, key: str) -> Iterator[object]:
        if key.endswith(".parquet"):
            with tempfile.TemporaryFile() as file:
                for piece in self.store.pieces(key, bucket=bucket):
                    file.write(piece)
                yield from read_rows(file, (*URI_COLUMNS, FRAMES_COLUMN, "label"))
        elif key.endswith(".csv"):
            # With its line feeds, for a quoted cell may hold some; a byte order mark is none of the data.
            lines = (f"{line.decode()}\n" for line in self.store.lines(key, bucket=bucket))
            yield from csv.DictReader(_without_mark(lines))
        else:
            for line in self.store.lines(key, bucket=bucket):
                if line.strip():
                    yield json.loads(line)


def _item(bucket: str, entry: Entry) -> Item:
    return Item(key=entry.key, uri=f"s3://{bucket}/{entry.key}", size=entry.size)


def _samples(tar: tarfile.TarFile) -> Iterator[list[tarfile.TarInfo]]:
    """The files of a WebDataset, sample by sample: neighbours of one name up to its first dot."""
    for _, members in groupby((m for m in tar if m.isfile()), lambda member: _stem(member.name)):
        yield list(members)


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _label_of(tar: tarfile.TarFile, sample: list[tarfile.TarInfo]) -> str | None:
    """What the `.cls` of a sample says, or `label` in its `.json`, or the folder that it is in."""
    for member in sample:
        suffix = PurePosixPath(member.name).suffix
        if suffix in (".cls", ".json") and (file := tar.extractfile(member)) is not None:
            text = file.read()
            value = text.decode().strip() if suffix == ".cls" else json.loads(text).get("label")
            if value not in (None, ""):
                return str(value)
    return folder_label(sample[0].name)


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix("\ufeff")


class _Range(io.RawIOBase):
    """An object of the store as a seekable file: reading costs a request, seeking nothing."""

    def __init__(self, store: ObjectStore, bucket: str, key: str, size: int) -> None:
        self._store, self._bucket, self._key, self._size = store, bucket, key, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        wanted = min(len(view), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._store.get(self._key, bucket=self._bucket, offset=self._at, length=wanted)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _reader(store: ObjectStore, bucket: str, key: str, size: int) -> io.BufferedReader:
    # 1 MiB: small members are read over, large ones are jumped.
    return io.BufferedReader(_Range(store, bucket, key, size), buffer_size=2**20)
