"""Lists the objects under a prefix: images, still images that are a sequence together, or what a producer uploaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from contract.backend.listing import Entry
from contract.data.items import Item, folder_label, is_image_name, parse_s3
from contract.data.sequences import Folder, by_folder
from contract.data.text import MAX_FRAMES_LINE, bounded_lines
from contract.errors import InvalidSource
from worker.sources.lister import Lister


class Prefix(Lister):
    """Every object whose name may be an image's; with `frames` the still images of a folder are one sequence."""

    def items(self) -> Iterator[Item]:
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
        """Yield the objects under a prefix whose names are those of images."""
        for entry in self.store.list(prefix, bucket=bucket):
            if is_image_name(entry.key):
                yield entry
            elif not entry.key.endswith("/"):
                self.skipped += 1

    def rest(self, done: int, last: Item | None) -> Iterator[Item]:
        # By key: objects may have come or gone since.
        return (item for item in self.items() if last is None or item.order > last.order)


class Uploaded(Lister):
    """The images that a producer packed before the job began, from the manifests beside its tars."""

    def items(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        for entry in self.store.list(prefix, bucket=bucket):
            if entry.key.endswith(".jsonl"):
                yield from self._packed(bucket, entry)

    def _packed(self, bucket: str, manifest: Entry) -> Iterator[Item]:
        where = f"s3://{bucket}/{manifest.key}"
        # A piece that is cut into lines takes several times its size.
        pieces = self.store.pieces(manifest.key, bucket=bucket, size=2**20)
        for line in bounded_lines(pieces, where, MAX_FRAMES_LINE):
            if line:
                try:
                    yield Item.from_line(line)
                except ValueError as error:
                    raise InvalidSource(f"{where} cannot be read: {error}; submit the folder again.") from error


def _item(bucket: str, entry: Entry) -> Item:
    return Item(key=entry.key, uri=f"s3://{bucket}/{entry.key}", size=entry.size)
