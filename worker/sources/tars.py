"""Lists the images in tars, WebDataset or not, without reading what is between their headers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePosixPath

from contract.backend.objects import Entry, ObjectStore
from contract.data.items import Item, folder_label, is_image_name, parse_s3
from worker.sources.lister import Lister


class Tars(Lister):
    """Every member whose name may be an image's, tar by tar."""

    def items(self) -> Iterator[Item]:
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
                            # A truncated member keeps the bytes it has; the decoder reports it.
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


def _samples(tar: tarfile.TarFile) -> Iterator[list[tarfile.TarInfo]]:
    """Yield the files of a WebDataset by sample: adjacent members whose names agree up to the first dot."""
    for _, members in groupby((m for m in tar if m.isfile()), lambda member: _stem(member.name)):
        yield list(members)


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _label_of(tar: tarfile.TarFile, sample: list[tarfile.TarInfo]) -> str | None:
    """Return the label of a sample: its `.cls`, else `label` in its `.json`, else its folder."""
    for member in sample:
        suffix = PurePosixPath(member.name).suffix
        if suffix in (".cls", ".json") and (file := tar.extractfile(member)) is not None:
            text = file.read()
            value = text.decode().strip() if suffix == ".cls" else json.loads(text).get("label")
            if value not in (None, ""):
                return str(value)
    return folder_label(sample[0].name)


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
