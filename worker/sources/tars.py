"""Lists the images in tars, WebDataset or not, without reading what is between their headers."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from contract.backend.listing import Entry
from contract.data.items import Item, folder_label, is_image_name, label_of, parse_s3
from contract.data.tars import Tar
from contract.data.text import parse_object
from contract.errors import InvalidSource
from worker.sources.lister import Lister
from worker.sources.window import Window

log = logging.getLogger(__name__)

MAX_LABEL_FILE = 2**20
"""The most bytes of a `.cls` or `.json` beside an image."""
MAX_SAMPLE = 1000
"""The most files of one sample; all of them are held until its label is known."""


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
        tar = Tar(cast("BinaryIO", Window(self.store, bucket, archive.key, archive.size)), archive.size)
        try:
            for sample in _samples(tar, uri) if self.labels else ([member] for member in tar):
                label = _label_of(tar, sample, uri) if self.labels else None
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
        except tarfile.ReadError as error:
            log.info("%s is damaged: %s", uri, error)
        if not tar.whole:
            # One error row for what cannot be told: the archive itself, which no decoder takes for an image.
            yield Item(key=name, uri=uri, size=archive.size)


def _samples(tar: Tar, uri: str) -> Iterator[list[tarfile.TarInfo]]:
    """Yield the files of a WebDataset by sample: adjacent members whose names agree up to the first dot."""
    for stem, members in groupby(tar, lambda member: _stem(member.name)):
        sample = list(islice(members, MAX_SAMPLE + 1))
        if len(sample) > MAX_SAMPLE:
            raise InvalidSource(
                f"The sample {stem!r} in {uri} has more than {MAX_SAMPLE:,} files; give each image a name of its own "
                "before the first dot."
            )
        yield sample


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _label_of(tar: Tar, sample: list[tarfile.TarInfo], uri: str) -> str | None:
    """Return the label of a sample: its `.cls`, else `label` in its `.json`, else its folder."""
    for member in sample:
        suffix = PurePosixPath(member.name).suffix
        if suffix not in (".cls", ".json"):
            continue
        where = f"{member.name} in {uri}"
        text = tar.read(member, MAX_LABEL_FILE)
        if text is None:
            raise InvalidSource(
                f"{where} has {member.size:,} bytes, more than the {MAX_LABEL_FILE:,} of a file that holds a label; "
                "leave it out, or make it smaller."
            )
        try:
            value = text.decode().strip() if suffix == ".cls" else parse_object(text).get("label")
        except ValueError as error:
            raise InvalidSource(
                f"{where} cannot be read as a label: {error}; write it again, or leave it out."
            ) from error
        if value not in (None, ""):
            return label_of(value, where)
    return folder_label(sample[0].name)
