"""Lists what a job is to label, lazily and in an order that is the same each time.

It reads the object store only; local folders are the producer's (`producer.sources`).
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from contract.errors import InvalidSource
from contract.items import URI_COLUMNS, Item, is_image_name, item_of, parse_s3, row_uri
from contract.jobs import Source
from contract.objects import Entry, ObjectStore
from contract.parquet import read_rows


@dataclass
class Listing:
    """The items of a source; `skipped` counts files that are no images by their name."""

    store: ObjectStore
    source: Source
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
            case "packed":
                raise InvalidSource(f"{self.source.label} is packed by the producer; run the same command again.")

    def _prefix(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        for entry in self.store.list(prefix, bucket=bucket):
            if is_image_name(entry.key):
                yield Item(key=entry.key, uri=f"s3://{bucket}/{entry.key}", size=entry.size)
            elif not entry.key.endswith("/"):
                self.skipped += 1

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
                for member in tar:
                    if not member.isfile():
                        continue
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
                yield item_of(row_uri(row, where))
        except (ValueError, csv.Error, pa.ArrowException) as error:  # no JSON, no UTF-8, no CSV, no Parquet
            raise InvalidSource(f"{self.source.label} cannot be read as a manifest: {error}.") from error

    def _rows(self, bucket: str, key: str) -> Iterator[object]:
        if key.endswith(".parquet"):
            with tempfile.TemporaryFile() as file:
                for piece in self.store.pieces(key, bucket=bucket):
                    file.write(piece)
                yield from read_rows(file, URI_COLUMNS)
        elif key.endswith(".csv"):
            # With its line feeds, for a quoted cell may hold some; a byte order mark is none of the data.
            lines = (f"{line.decode()}\n" for line in self.store.lines(key, bucket=bucket))
            yield from csv.DictReader(_without_mark(lines))
        else:
            for line in self.store.lines(key, bucket=bucket):
                if line.strip():
                    yield json.loads(line)


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
